// The padding token's row of the embedding in training: no gradient, whatever computes the step
// (recipes, paths, micro-batches, recorded steps); the optimizer goes on with it as PyTorch's does.
// tests/golden_test.cc compares the gradients with Hugging Face's. On the device that
// TE_TEST_DEVICE names ("cpu" without it).
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "models/llama/training_step.h"
#include "te_core/quantization/module_recipes.h"
#include "te_kernels/testing/checked.h"

namespace te {
namespace {

using test::Ok;
using test::TestDevice;
using test::Value;

constexpr int64_t kPadding = 7;

struct Settings {
  DType dtype = DType::kFloat32;
  LlamaPath path = LlamaPath::kTe;
  const Recipe* recipe = nullptr;
  bool fp8_only = false;
  size_t micro_batches = 1;
  double weight_decay = 0;
  std::optional<int64_t> pad_token_id = kPadding;
};

constexpr float kLearningRate = 1e-3f;
constexpr int kSteps = 5;  // on a GPU the later ones are recorded

// The embedding before and after kSteps, where the padding token stands in the text that counts.
struct Outcome {
  std::vector<float> before, after;
};

std::vector<float> FloatsOf(Context* context, const TensorView& view) {
  std::vector<float> out(static_cast<size_t>(view.elements()));
  if (view.dtype() == DType::kFloat32) {
    Ok(context->CopyToHost(view, out.data()));
    return out;
  }
  std::vector<bfloat16> raw(out.size());
  Ok(context->CopyToHost(view, raw.data()));
  for (size_t i = 0; i < raw.size(); ++i) out[i] = static_cast<float>(raw[i]);
  return out;
}

Outcome Train(const Settings& settings) {
  LlamaConfig config;
  config.vocab_size = 61;
  config.hidden_size = 48;
  config.intermediate_size = 32;
  config.num_hidden_layers = 1;
  config.num_attention_heads = 3;
  config.num_key_value_heads = 1;
  config.head_dim = 16;
  config.max_position_embeddings = 64;
  const auto context =
      Value(Context::Create({.device = TestDevice(), .num_threads = 1, .seed = 3}));
  const QuantizedInit init(context.get(), settings.fp8_only ? settings.recipe : nullptr);
  config.pad_token_id = settings.pad_token_id;
  const auto model = Value(LlamaModel::Create(
      context.get(), config, {.params_dtype = settings.dtype, .path = settings.path}));
  Ok(model->InitializeAll());
  // Initialization leaves a padding row of zeros, of which weight decay would show nothing.
  const TensorView table = model->FindTensor(kLlamaEmbeddingName)->value();
  std::vector<float> values(static_cast<size_t>(table.elements()));
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 13 + 1) * 0.125f;
  if (settings.dtype == DType::kFloat32) {
    Ok(context->CopyFromHost(values.data(), table));
  } else {
    const std::vector<bfloat16> rounded(values.begin(), values.end());
    Ok(context->CopyFromHost(rounded.data(), table));
  }
  const auto optimizer = Value(AdamWOptimizer::Create(
      context.get(), model->parameters(),
      {.weight_decay = settings.weight_decay,
       .moments = settings.dtype,
       .rounding = settings.fp8_only ? Rounding::kStochastic : Rounding::kNearest}));
  const auto step =
      Value(LlamaTrainingStep::Create(model.get(), optimizer.get(), {.recipe = settings.recipe}));
  Outcome out;
  out.before = FloatsOf(context.get(), table);
  std::mt19937 engine(11);
  for (int k = 0; k < kSteps; ++k) {
    std::vector<std::vector<int32_t>> ids(settings.micro_batches);
    std::vector<LlamaBatch> batches;
    for (std::vector<int32_t>& of_one : ids) {
      for (int t = 0; t < 64; ++t) {
        of_one.push_back(t % 4 == 1 ? kPadding : static_cast<int32_t>(engine() % 61));
      }
      batches.push_back({.batch = 2, .sequence = 32, .input_ids = of_one, .labels = of_one});
    }
    Ok(step->Run(batches, {.learning_rate = kLearningRate, .max_grad_norm = 1}));
    Ok(step->Result(0).status());
  }
  out.after = FloatsOf(context.get(), table);
  return out;
}

std::vector<float> Row(const std::vector<float>& table, int64_t row) {
  return {table.begin() + row * 48, table.begin() + (row + 1) * 48};
}

void ExpectTheRowStays(const Settings& settings, const std::string& what) {
  SCOPED_TRACE(what);
  const Outcome outcome = Train(settings);
  EXPECT_EQ(Row(outcome.after, kPadding), Row(outcome.before, kPadding));
  // Twins: another token's row, and this one where it is no padding.
  EXPECT_NE(Row(outcome.after, 8), Row(outcome.before, 8));
  Settings without = settings;
  without.pad_token_id.reset();
  const Outcome plain = Train(without);
  EXPECT_NE(Row(plain.after, kPadding), Row(plain.before, kPadding));
}

TEST(PaddingIndexTest, TheRowHasNoGradientInAnyDtypePathOrNumberOfMicroBatches) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    for (const LlamaPath path : {LlamaPath::kTe, LlamaPath::kHf}) {
      for (const size_t micro_batches : {1, 3}) {
        ExpectTheRowStays(
            {.dtype = dtype, .path = path, .micro_batches = micro_batches},
            std::string(Name(dtype)) + " " + Name(path) + " " + std::to_string(micro_batches));
      }
    }
  }
}

TEST(PaddingIndexTest, TheRowHasNoGradientInFp8) {
  // lm_head has 61 rows, which no FP8 product of a GPU takes.
  const auto without_head = [](StatusOr<std::unique_ptr<Recipe>> recipe) {
    return MakeModuleRecipes({{.pattern = "lm_head"}}, Value(std::move(recipe)));
  };
  std::vector<std::unique_ptr<Recipe>> recipes;
  recipes.push_back(without_head(MakeRecipe(DelayedScalingRecipe{.amax_history_len = 16})));
  recipes.push_back(without_head(MakeRecipe(Float8CurrentScalingRecipe())));
  for (size_t i = 0; i < recipes.size(); ++i) {
    const Recipe* recipe = recipes[i].get();
    for (const size_t micro_batches : {1, 2}) {
      ExpectTheRowStays(
          {.dtype = DType::kBFloat16, .recipe = recipe, .micro_batches = micro_batches},
          std::to_string(i) + " " + std::to_string(micro_batches));
    }
    ExpectTheRowStays({.dtype = DType::kBFloat16, .recipe = recipe, .fp8_only = true},
                      std::to_string(i) + " weights in FP8 alone");
  }
}

// torch.optim.AdamW decays every row, with or without a gradient.
TEST(PaddingIndexTest, WeightDecayGoesOn) {
  const Outcome outcome = Train({.weight_decay = 0.5});
  const double factor = std::pow(1 - static_cast<double>(kLearningRate) * 0.5, kSteps);
  const std::vector<float> before = Row(outcome.before, kPadding),
                           after = Row(outcome.after, kPadding);
  for (size_t i = 0; i < before.size(); ++i) {
    const double want = before[i] * factor;
    // A product rounds to 2^-24 of it, five times; the twin has one decay less.
    EXPECT_NEAR(after[i], want, 8 * kSteps * 0x1p-24 * want);
    EXPECT_GT(std::abs(after[i] - want / (1 - kLearningRate * 0.5)), 8 * kSteps * 0x1p-24 * want);
  }
}

}  // namespace
}  // namespace te
