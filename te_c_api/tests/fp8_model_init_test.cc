// te_fp8_model_init_*: layers and Llamas whose weights exist in FP8 alone.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "te/te.h"
#include "te_c_api/tests/fp8_program.h"

namespace te_test {
namespace {

constexpr int64_t kOut = 32, kIn = 48;

class Fp8ModelInit : public testing::Test {
 protected:
  void SetUp() override {
    te_context_options options;
    Must(te_context_options_init(&options));
    options.num_threads = 1;
    Must(te_context_create(&options, &context_));
  }
  void TearDown() override {
    te_llama_destroy(llama_);
    te_layer_destroy(layer_);
    for (te_fp8_recipe* recipe : recipes_) te_fp8_recipe_destroy(recipe);
    te_context_destroy(context_);
  }
  te_fp8_recipe* Recipe(int32_t kind) {
    const te_fp8_recipe_options options = RecipeOptions(kind);
    te_fp8_recipe* recipe = nullptr;
    Must(te_fp8_recipe_create(context_, &options, &recipe));
    recipes_.push_back(recipe);
    return recipe;
  }
  te_status CreateLinear() {
    te_layer_options options;
    Must(te_layer_options_init(&options));
    options.kind = TE_LAYER_LINEAR;
    options.name = "model.fc1";
    options.in_features = kIn;
    options.out_features = kOut;
    options.bias = 0;
    return te_layer_create(context_, &options, &layer_);
  }
  Values Weight() {
    te_tensor* view = nullptr;
    Must(te_layer_parameter(layer_, 0, &view));
    Values out(kOut * kIn);
    Must(te_tensor_read(view, out.data(), out.size() * sizeof(float)));
    te_tensor_destroy(view);
    return out;
  }
  void SetWeight(const Values& values) {
    const int64_t shape[2] = {kOut, kIn};
    te_tensor* tensor = nullptr;
    Must(te_tensor_create(context_, TE_DTYPE_FLOAT32, 2, shape, &tensor));
    Must(te_tensor_write(tensor, values.data(), values.size() * sizeof(float)));
    Must(te_layer_set_parameter(layer_, 0, tensor));
    te_tensor_destroy(tensor);
  }

  te_context* context_ = nullptr;
  te_layer* layer_ = nullptr;
  te_llama* llama_ = nullptr;
  std::vector<te_fp8_recipe*> recipes_;
};

// E4M3 has 127 magnitudes; a value moves by 2^-4 of itself at most, or half the smallest step:
// 2^-10 of 448 of the largest one.
TEST_F(Fp8ModelInit, AWeightHasTheValuesOfItsCodes) {
  for (const int32_t kind : {TE_FP8_RECIPE_DELAYED, TE_FP8_RECIPE_CURRENT}) {
    SCOPED_TRACE(kKindNames[kind]);
    Must(te_fp8_model_init_begin(context_, Recipe(kind)));
    te_fp8_recipe_destroy(recipes_.back());  // the scope has its share
    recipes_.pop_back();
    Must(CreateLinear());
    Must(te_fp8_model_init_end(context_));
    const Values values = Uniform(kOut * kIn, 5, 0.1f);
    SetWeight(values);
    const Values got = Weight();
    std::set<float> magnitudes;
    int wrong = 0, exact = 0, twins = 0;
    for (size_t i = 0; i < got.size(); ++i) {
      magnitudes.insert(std::fabs(got[i]));
      const float step = std::max(0x1p-4f * std::fabs(values[i]), 0x1p-10f * 0.1f / 448) * 1.001f;
      wrong += !(std::fabs(got[i] - values[i]) <= step);
      twins += !(std::fabs(got[i] - values[i] + 3 * step) <= step);
      exact += got[i] == values[i];
    }
    EXPECT_EQ(wrong, 0);
    EXPECT_EQ(twins, kOut * kIn);
    EXPECT_LT(exact, kOut);
    EXPECT_LE(magnitudes.size(), 127u);
    te_layer_destroy(layer_);
    layer_ = nullptr;
  }
  Must(CreateLinear());  // outside
  const Values values = Uniform(kOut * kIn, 5, 0.1f);
  SetWeight(values);
  EXPECT_EQ(Weight(), values);
}

TEST_F(Fp8ModelInit, ALlamaTrainsAndComesBack) {
  std::vector<int32_t> ids;
  for (int32_t i = 0; i < 32; ++i) ids.push_back(3 + i * i * 7 % 300);
  te_llama_batch batch;
  Must(te_llama_batch_init(&batch));
  batch.batch_size = 1;
  batch.sequence_length = 32;
  batch.input_ids = ids.data();
  te_llama_options options;
  Must(te_llama_options_init(&options));
  options.recipe = Recipe(TE_FP8_RECIPE_DELAYED);
  Must(te_fp8_recipe_add_rule(options.recipe, "lm_head", nullptr, nullptr));
  const auto load = [&](const char* directory) {
    Must(te_fp8_model_init_begin(context_, options.recipe));
    Must(te_llama_load(context_, directory, &options, &llama_));
    Must(te_fp8_model_init_end(context_));
  };
  const auto loss = [&] {
    double out = -1;
    Must(te_llama_loss(llama_, &batch, &out));
    return out;
  };
  load("tests/golden/llama2-mha/checkpoint");
  const double before = loss();
  const te_llama_batch twice[2] = {batch, batch};
  for (int i = 0; i < 10; ++i) Must(te_llama_step(llama_, twice, 2, 2e-3, 1.0, nullptr));
  const double after = loss();
  EXPECT_LT(after, 0.9 * before);
  const std::string directory = testing::TempDir() + "/fp8_model_init";
  Must(te_llama_save(llama_, directory.c_str(), nullptr));
  te_llama_destroy(llama_);
  llama_ = nullptr;
  load(directory.c_str());
  // Each weight half a step of E4M3 off at most.
  EXPECT_NEAR(loss(), after, 0.05 * after);
}

TEST_F(Fp8ModelInit, WhatCannotBeIsRefused) {
  ExpectError(te_fp8_model_init_end(context_), TE_STATUS_FAILED_PRECONDITION,
              "te_fp8_model_init_end without a te_fp8_model_init_begin");
  ExpectError(te_fp8_model_init_begin(context_, nullptr), TE_STATUS_INVALID_ARGUMENT,
              "recipe is NULL");
  ExpectError(te_fp8_model_init_begin(nullptr, Recipe(TE_FP8_RECIPE_DELAYED)),
              TE_STATUS_INVALID_ARGUMENT, "context is NULL");
  ExpectError(te_fp8_model_init_begin(context_, Recipe(TE_FP8_RECIPE_NONE)), TE_STATUS_UNSUPPORTED,
              "TE_FP8_RECIPE_NONE");
  for (const int32_t kind : {TE_FP8_RECIPE_BLOCK, TE_FP8_RECIPE_MXFP8, TE_FP8_RECIPE_NVFP4}) {
    Must(te_fp8_model_init_begin(context_, Recipe(kind)));
    ExpectError(CreateLinear(), TE_STATUS_UNSUPPORTED, "model.fc1: a weight in FP8 alone");
    EXPECT_EQ(layer_, nullptr);
    Must(te_fp8_model_init_end(context_));
  }
  te_llama_options options;
  Must(te_llama_options_init(&options));
  options.path = TE_LLAMA_PATH_HF;
  Must(te_fp8_model_init_begin(context_, Recipe(TE_FP8_RECIPE_DELAYED)));
  ExpectError(te_llama_load(context_, "tests/golden/llama2-mha/checkpoint", &options, &llama_),
              TE_STATUS_UNSUPPORTED, "the hf path with weights in FP8 alone");
  Must(te_fp8_model_init_end(context_));
}

}  // namespace
}  // namespace te_test
