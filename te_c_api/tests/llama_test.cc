// Llama through the C ABI: a golden checkpoint trains as Hugging Face trains it, and comes back
// from disk. On TE_TEST_DEVICE, the CPU unless given.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "te/te.h"

namespace {

constexpr char kGolden[] = "tests/golden/llama2-mha";

// The numbers of a flat array of a JSON file that we know: "losses": [ ... ].
std::vector<double> JsonNumbers(const std::string& path, const std::string& key) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  const std::string all = text.str();
  const size_t begin = all.find('[', all.find("\"" + key + "\""));
  const size_t end = all.find(']', begin);
  std::stringstream list(all.substr(begin + 1, end - begin - 1));
  std::vector<double> out;
  for (std::string item; std::getline(list, item, ',');) out.push_back(std::stod(item));
  return out;
}

class LlamaAbiTest : public testing::Test {
 protected:
  void SetUp() override {
    NewContext();
    ASSERT_EQ(te_llama_options_init(&options_), TE_STATUS_OK);
    options_.params_dtype = TE_DTYPE_FLOAT32;
    ASSERT_EQ(te_llama_batch_init(&batch_), TE_STATUS_OK);
    const std::vector<double> prompt =
        JsonNumbers(std::string(kGolden) + "/expected.json", "prompt");
    ids_.assign(prompt.begin(), prompt.end());
    batch_.batch_size = 1;
    batch_.sequence_length = static_cast<int64_t>(ids_.size());
    batch_.input_ids = ids_.data();
  }
  void TearDown() override {
    te_llama_destroy(llama_);
    te_context_destroy(context_);
  }
  // As in another process: nothing of the old one is left.
  void NewContext(uint64_t seed = 0) {
    te_llama_destroy(llama_);
    te_context_destroy(context_);
    llama_ = nullptr;
    context_ = nullptr;
    te_context_options context_options;
    ASSERT_EQ(te_context_options_init(&context_options), TE_STATUS_OK);
    if (const char* device = std::getenv("TE_TEST_DEVICE")) context_options.device = device;
    context_options.seed = seed;
    ASSERT_EQ(te_context_create(&context_options, &context_), TE_STATUS_OK)
        << te_last_error_message();
  }
  te_fp8_recipe* Recipe(int32_t kind) {
    te_fp8_recipe_options recipe_options;
    EXPECT_EQ(te_fp8_recipe_options_init(&recipe_options), TE_STATUS_OK);
    recipe_options.kind = kind;
    te_fp8_recipe* out = nullptr;
    EXPECT_EQ(te_fp8_recipe_create(context_, &recipe_options, &out), TE_STATUS_OK)
        << te_last_error_message();
    return out;
  }
  void Load(const std::string& directory) {
    ASSERT_EQ(te_llama_load(context_, directory.c_str(), &options_, &llama_), TE_STATUS_OK)
        << te_last_error_message();
  }
  // The golden checkpoint, lm_head in its own dtype.
  void LoadWithDelayedScaling() {
    options_.recipe = Recipe(TE_FP8_RECIPE_DELAYED);
    ASSERT_EQ(te_fp8_recipe_add_rule(options_.recipe, "lm_head", nullptr, nullptr), TE_STATUS_OK);
    Load(std::string(kGolden) + "/checkpoint");
    te_fp8_recipe_destroy(options_.recipe);  // the model has its share
    options_.recipe = nullptr;
  }
  // The prompt twice: 16 tokens, a multiple that every GPU's FP8 GEMM takes.
  std::vector<int32_t> PromptTwice() const {
    std::vector<int32_t> out = ids_;
    out.insert(out.end(), ids_.begin(), ids_.end());
    return out;
  }
  double Loss() {
    double loss = -1;
    EXPECT_EQ(te_llama_loss(llama_, &batch_, &loss), TE_STATUS_OK) << te_last_error_message();
    return loss;
  }
  static void ExpectError(te_status got, te_status expected, const std::string& part) {
    EXPECT_EQ(got, expected) << te_last_error_message();
    EXPECT_NE(std::string(te_last_error_message()).find(part), std::string::npos)
        << te_last_error_message();
  }

  te_context* context_ = nullptr;
  te_llama* llama_ = nullptr;
  te_llama_options options_;
  te_llama_batch batch_;
  std::vector<int32_t> ids_;
};

TEST_F(LlamaAbiTest, StepsLowerTheLossAndTheResultLoadsBack) {
  Load(std::string(kGolden) + "/checkpoint");
  const double before = Loss();
  te_llama_step_result result;
  ASSERT_EQ(te_llama_step_result_init(&result), TE_STATUS_OK);
  for (int i = 0; i < 5; ++i) {
    ASSERT_EQ(te_llama_step(llama_, &batch_, 1, 1e-3, 1.0, &result), TE_STATUS_OK)
        << te_last_error_message();
    if (i == 0) {
      EXPECT_NEAR(result.loss, before, 1e-5 * before);
    }
    EXPECT_GT(result.grad_norm, 0);
    EXPECT_EQ(result.token_count, static_cast<int64_t>(ids_.size()) - 1);
  }
  const double after = Loss();
  EXPECT_LT(after, 0.9 * before);
  const std::string out = testing::TempDir() + "/saved";
  ASSERT_EQ(te_llama_save(llama_, out.c_str(), nullptr), TE_STATUS_OK) << te_last_error_message();
  te_llama_destroy(llama_);
  llama_ = nullptr;
  Load(out);
  EXPECT_EQ(Loss(), after) << "float32 parameters saved as float32: the same bits";
}

TEST_F(LlamaAbiTest, BothPathsAgree) {
  Load(std::string(kGolden) + "/checkpoint");
  const double te = Loss();
  te_llama_destroy(llama_);
  llama_ = nullptr;
  options_.path = TE_LLAMA_PATH_HF;
  Load(std::string(kGolden) + "/checkpoint");
  EXPECT_NEAR(Loss(), te, 1e-5 * te);
}

// Two micro-batches are one batch of twice the size: the count divides once.
TEST_F(LlamaAbiTest, MicroBatchesOfAStepAreOneBatch) {
  std::vector<int32_t> both = ids_;
  for (auto it = ids_.rbegin(); it != ids_.rend(); ++it) both.push_back(*it);
  te_llama_batch halves[2] = {batch_, batch_}, whole = batch_;
  halves[1].input_ids = both.data() + ids_.size();
  whole.batch_size = 2;
  whole.input_ids = both.data();
  te_llama_step_result one, two;
  ASSERT_EQ(te_llama_step_result_init(&one), TE_STATUS_OK);
  ASSERT_EQ(te_llama_step_result_init(&two), TE_STATUS_OK);
  Load(std::string(kGolden) + "/checkpoint");
  ASSERT_EQ(te_llama_step(llama_, &whole, 1, 1e-3, 0, &one), TE_STATUS_OK)
      << te_last_error_message();
  const double loss_one = Loss();
  te_llama_destroy(llama_);
  llama_ = nullptr;
  Load(std::string(kGolden) + "/checkpoint");
  ASSERT_EQ(te_llama_step(llama_, halves, 2, 1e-3, 0, &two), TE_STATUS_OK)
      << te_last_error_message();
  EXPECT_NEAR(two.loss, one.loss, 1e-5 * one.loss);
  EXPECT_NEAR(two.grad_norm, one.grad_norm, 1e-4 * one.grad_norm);
  EXPECT_EQ(two.token_count, one.token_count);
  EXPECT_NEAR(Loss(), loss_one, 1e-3 * loss_one);
}

TEST_F(LlamaAbiTest, RecomputationChangesNoBitAndFreesMemory) {
  const std::vector<int32_t> ids(2048, 3);
  batch_.input_ids = ids.data();
  batch_.sequence_length = static_cast<int64_t>(ids.size()) / 4;
  batch_.batch_size = 4;
  std::vector<double> losses[3];
  uint64_t bytes[3] = {};
  for (int layers = 0; layers < 3; ++layers) {  // none, one, all
    NewContext(5);
    options_.recompute_granularity = layers == 0 ? TE_RECOMPUTE_NONE : TE_RECOMPUTE_FULL;
    options_.recompute_num_layers = layers == 1 ? 1 : 0;
    LoadWithDelayedScaling();
    for (int i = 0; i < 4; ++i) {
      te_llama_step_result result;
      ASSERT_EQ(te_llama_step_result_init(&result), TE_STATUS_OK);
      const te_llama_batch batches[2] = {batch_, batch_};
      ASSERT_EQ(te_llama_step(llama_, batches, 2, 1e-3, 1.0, &result), TE_STATUS_OK)
          << te_last_error_message();
      losses[layers].insert(losses[layers].end(), {result.loss, result.grad_norm});
    }
    ASSERT_EQ(te_context_memory(context_, &bytes[layers], nullptr, nullptr), TE_STATUS_OK);
  }
  EXPECT_EQ(losses[0], losses[1]);
  EXPECT_EQ(losses[0], losses[2]);
  EXPECT_NE(losses[0][0], losses[0][2]);
  // Of two layers one's activations are there in any case: they are kept, or it runs again.
  EXPECT_GT(bytes[0], bytes[1]);
  EXPECT_GT(bytes[0], bytes[2]);
}

// Steps under a recipe, the first one calibrating: its loss is the unquantized one, those after it
// are near and not the same.
TEST_F(LlamaAbiTest, StepsUnderAnFp8Recipe) {
  const std::vector<int32_t> twice = PromptTwice();
  batch_.input_ids = twice.data();
  batch_.sequence_length = static_cast<int64_t>(twice.size());
  constexpr int kSteps = 4;
  const auto losses = [this](te_fp8_recipe* recipe) {
    options_.recipe = recipe;
    Load(std::string(kGolden) + "/checkpoint");
    te_fp8_recipe_destroy(recipe);  // the model has its share
    options_.recipe = nullptr;
    std::vector<double> out;
    for (int i = 0; i < kSteps; ++i) {
      te_llama_step_result result;
      EXPECT_EQ(te_llama_step_result_init(&result), TE_STATUS_OK);
      const te_llama_batch batches[2] = {batch_, batch_};
      EXPECT_EQ(te_llama_step(llama_, batches, 2, 1e-3, 1.0, &result), TE_STATUS_OK)
          << te_last_error_message();
      out.push_back(result.loss);
    }
    te_llama_destroy(llama_);
    llama_ = nullptr;
    return out;
  };
  const auto recipe = [this](int32_t kind) { return Recipe(kind); };
  const std::vector<double> plain = losses(nullptr);
  EXPECT_EQ(losses(recipe(TE_FP8_RECIPE_NONE)), plain);
  for (const int32_t kind : {TE_FP8_RECIPE_DELAYED, TE_FP8_RECIPE_CURRENT}) {
    for (const int64_t calibration_steps : {0, 1, 2}) {
      SCOPED_TRACE(kind);
      SCOPED_TRACE(calibration_steps);
      options_.calibration_steps = calibration_steps;
      te_fp8_recipe* under = recipe(kind);
      EXPECT_EQ(te_fp8_recipe_add_rule(under, "lm_head", nullptr, nullptr), TE_STATUS_OK);
      const std::vector<double> got = losses(under);
      // Relative errors of products (some 0.04) reach the logits, whose spread makes up a part of
      // the loss.
      for (int i = 0; i < kSteps; ++i) {
        const bool quantized = kind == TE_FP8_RECIPE_CURRENT || i >= calibration_steps;
        EXPECT_NEAR(got[i], plain[i], (quantized ? 0.04 : 1e-6) * plain[i]) << i;
        if (quantized) {
          EXPECT_GT(std::abs(got[i] - plain[i]), 1e-6 * plain[i]) << i;
        }
      }
    }
  }
  options_.calibration_steps = -1;
  ExpectError(te_llama_load(context_, kGolden, &options_, &llama_), TE_STATUS_INVALID_ARGUMENT,
              "options->calibration_steps is -1");
  options_.calibration_steps = 1;
  options_.path = TE_LLAMA_PATH_HF;
  options_.recipe = recipe(TE_FP8_RECIPE_DELAYED);
  ExpectError(te_llama_load(context_, kGolden, &options_, &llama_), TE_STATUS_INVALID_ARGUMENT,
              "options->recipe is DelayedScaling");
  te_fp8_recipe_destroy(options_.recipe);
  options_.recipe = reinterpret_cast<te_fp8_recipe*>(context_);
  ExpectError(te_llama_load(context_, kGolden, &options_, &llama_), TE_STATUS_INVALID_ARGUMENT,
              "options->recipe is no te_fp8_recipe");
  EXPECT_EQ(llama_, nullptr);
}

// Saves after some steps and goes on; and goes on from there in a context of its own: the same
// bits.
TEST_F(LlamaAbiTest, ResumesBitForBit) {
  const std::vector<int32_t> twice = PromptTwice();
  batch_.input_ids = twice.data();
  batch_.sequence_length = static_cast<int64_t>(twice.size());
  constexpr int kStop = 3, kSteps = 5;
  const std::string part = testing::TempDir() + "/resume_part";
  bool fp8_only = false;
  const auto load = [this, &fp8_only](const std::string& directory, int32_t kind, bool resume) {
    NewContext(5);
    te_fp8_recipe* recipe = Recipe(kind);
    EXPECT_EQ(te_fp8_recipe_add_rule(recipe, "lm_head", nullptr, nullptr), TE_STATUS_OK);
    options_.recipe = recipe;
    options_.resume = resume;
    if (fp8_only) {
      EXPECT_EQ(te_fp8_model_init_begin(context_, recipe), TE_STATUS_OK);
    }
    Load(directory);
    if (fp8_only) {
      EXPECT_EQ(te_fp8_model_init_end(context_), TE_STATUS_OK);
    }
    te_fp8_recipe_destroy(recipe);
    options_.recipe = nullptr;
    options_.resume = 0;
  };
  // Losses and gradient norms of steps `begin` to `end`, and the loss after them.
  const auto run = [this](int begin, int end) {
    std::vector<double> out;
    for (int i = begin; i < end; ++i) {
      te_llama_step_result result;
      EXPECT_EQ(te_llama_step_result_init(&result), TE_STATUS_OK);
      const te_llama_batch batches[2] = {batch_, batch_};
      EXPECT_EQ(te_llama_step(llama_, batches, 2, 1e-3 * (1 + i), 1.0, &result), TE_STATUS_OK)
          << te_last_error_message();
      out.push_back(result.loss);
      out.push_back(result.grad_norm);
    }
    out.push_back(Loss());
    return out;
  };
  te_llama_save_options save;
  ASSERT_EQ(te_llama_save_options_init(&save), TE_STATUS_OK);
  save.save_training_state = 1;
  for (const te_dtype dtype : {TE_DTYPE_BFLOAT16, TE_DTYPE_FLOAT32}) {
    for (const int32_t kind : {TE_FP8_RECIPE_NONE, TE_FP8_RECIPE_DELAYED, TE_FP8_RECIPE_CURRENT}) {
      if (dtype == TE_DTYPE_FLOAT32 && kind != TE_FP8_RECIPE_NONE) continue;
      SCOPED_TRACE(dtype);
      SCOPED_TRACE(kind);
      options_.params_dtype = dtype;
      options_.calibration_steps = 1;
      load(std::string(kGolden) + "/checkpoint", kind, false);
      ASSERT_EQ(te_llama_save_options_init(&save), TE_STATUS_OK);
      save.save_training_state = 1;
      ExpectError(te_llama_save(llama_, part.c_str(), &save), TE_STATUS_FAILED_PRECONDITION,
                  "no te_llama_step has been made");
      run(0, kStop);
      // A 16-bit save rounds float32: the state keeps what the weights do not.
      if (dtype == TE_DTYPE_FLOAT32) save.save_dtype = TE_DTYPE_BFLOAT16;
      ASSERT_EQ(te_llama_save(llama_, part.c_str(), &save), TE_STATUS_OK)
          << te_last_error_message();
      const std::vector<double> want = run(kStop, kSteps);  // a save changes nothing
      load(part, kind, true);
      // Once more, before a step: what was loaded is saved.
      ASSERT_EQ(te_llama_save(llama_, part.c_str(), &save), TE_STATUS_OK)
          << te_last_error_message();
      load(part, kind, true);
      EXPECT_EQ(run(kStop, kSteps), want);
      // Twin: the weights alone.
      options_.calibration_steps = 0;
      load(part, kind, false);
      EXPECT_NE(run(kStop, kSteps), want);
    }
  }
  fp8_only = true;
  options_.params_dtype = TE_DTYPE_BFLOAT16;
  for (const int32_t kind : {TE_FP8_RECIPE_DELAYED, TE_FP8_RECIPE_CURRENT}) {
    SCOPED_TRACE(kind);
    options_.calibration_steps = 1;
    load(std::string(kGolden) + "/checkpoint", kind, false);
    run(0, kStop);
    ASSERT_EQ(te_llama_save_options_init(&save), TE_STATUS_OK);
    save.save_training_state = 1;
    ASSERT_EQ(te_llama_save(llama_, part.c_str(), &save), TE_STATUS_OK) << te_last_error_message();
    const std::vector<double> want = run(kStop, kSteps);
    load(part, kind, true);
    EXPECT_EQ(run(kStop, kSteps), want);
  }
  // Another seed, another recipe than the state's, a save without the state.
  NewContext(6);
  options_.resume = 1;
  ExpectError(te_llama_load(context_, part.c_str(), &options_, &llama_), TE_STATUS_INVALID_ARGUMENT,
              "written with seed 5, the context's is 6");
  EXPECT_EQ(llama_, nullptr);
  NewContext(5);
  options_.variant = "x";
  ExpectError(te_llama_load(context_, part.c_str(), &options_, &llama_), TE_STATUS_INVALID_ARGUMENT,
              "options->variant is 'x'");
  options_.variant = nullptr;
  options_.resume = 2;
  ExpectError(te_llama_load(context_, part.c_str(), &options_, &llama_), TE_STATUS_INVALID_ARGUMENT,
              "options->resume is 2");
  options_.resume = 0;
  Load(part);
  save.save_training_state = 2;
  ExpectError(te_llama_save(llama_, part.c_str(), &save), TE_STATUS_INVALID_ARGUMENT,
              "options->save_training_state is 2");
  ASSERT_EQ(te_llama_save(llama_, part.c_str(), nullptr), TE_STATUS_OK) << te_last_error_message();
  NewContext(5);
  options_.resume = 1;
  ExpectError(te_llama_load(context_, part.c_str(), &options_, &llama_), TE_STATUS_NOT_FOUND,
              "te_optimizer_state.safetensors");
}

// A step that is refused leaves no trace: those after it are what they would have been.
TEST_F(LlamaAbiTest, ARefusedStepChangesNothing) {
  const std::vector<int32_t> twice = PromptTwice();
  const std::vector<int32_t> uncounted(twice.size(), -100);
  std::vector<int32_t> first_alone = uncounted, outside = twice;
  first_alone[0] = 3;  // nobody's successor
  outside[5] = 100000;
  batch_.input_ids = twice.data();
  batch_.sequence_length = static_cast<int64_t>(twice.size());
  te_llama_batch bad[2] = {batch_, batch_};
  bad[1].input_ids = outside.data();
  te_llama_batch none = batch_, none_shifted = batch_;
  none.labels = uncounted.data();
  none_shifted.labels = first_alone.data();
  std::vector<double> runs[2];
  for (const bool refused : {false, true}) {
    NewContext(5);
    LoadWithDelayedScaling();
    for (int i = 0; i < 4; ++i) {
      te_llama_step_result result;
      ASSERT_EQ(te_llama_step_result_init(&result), TE_STATUS_OK);
      if (refused) {
        const auto step = [&](const te_llama_batch* batches, int64_t count, double learning_rate,
                              double max_grad_norm) {
          return te_llama_step(llama_, batches, count, learning_rate, max_grad_norm, &result);
        };
        ExpectError(step(bad, 2, 1e-3, 0), TE_STATUS_INVALID_ARGUMENT, "input_ids[0, 5] is 100000");
        ExpectError(step(&none, 1, 1e-3, 0), TE_STATUS_INVALID_ARGUMENT, "no label is counted");
        ExpectError(step(&none_shifted, 1, 1e-3, 0), TE_STATUS_INVALID_ARGUMENT,
                    "no label is counted");
        ExpectError(step(&batch_, 1, -1, 0), TE_STATUS_INVALID_ARGUMENT, "learning_rate is -1");
        ExpectError(step(&batch_, 1, 1e300, 0), TE_STATUS_INVALID_ARGUMENT,
                    "learning_rate is 1e+300");
        ExpectError(step(&batch_, 1, 1e-3, -1), TE_STATUS_INVALID_ARGUMENT, "max_grad_norm is -1");
        ExpectError(step(&batch_, 0, 1e-3, 0), TE_STATUS_INVALID_ARGUMENT, "batch_count is 0");
        EXPECT_EQ(result.token_count, 0);
      }
      ASSERT_EQ(te_llama_step(llama_, &batch_, 1, 1e-3, 0, &result), TE_STATUS_OK)
          << te_last_error_message();
      runs[refused].insert(runs[refused].end(), {result.loss, result.grad_norm});
    }
  }
  EXPECT_EQ(runs[0], runs[1]);
  EXPECT_NE(runs[0][0], runs[0][2]);
}

// Steps that nobody waits for, one behind the other, and a model that goes while they run.
TEST_F(LlamaAbiTest, WithoutAResultAStepIsTheSame) {
  batch_.sequence_length = static_cast<int64_t>(ids_.size()) / 2;
  batch_.batch_size = 2;
  double after[2];
  for (const bool wanted : {false, true}) {
    NewContext(5);
    Load(std::string(kGolden) + "/checkpoint");
    for (int i = 0; i < 12; ++i) {
      te_llama_step_result result;
      ASSERT_EQ(te_llama_step_result_init(&result), TE_STATUS_OK);
      std::vector<int32_t> ids = ids_;  // gone when the call has ended
      ids[static_cast<size_t>(i) % ids.size()] = i + 1;
      batch_.input_ids = ids.data();
      ASSERT_EQ(
          te_llama_step(llama_, &batch_, 1, 1e-3, i < 6 ? 0 : 0.5, wanted ? &result : nullptr),
          TE_STATUS_OK)
          << te_last_error_message();
    }
    batch_.input_ids = ids_.data();
    after[wanted] = Loss();
    ASSERT_EQ(te_llama_step(llama_, &batch_, 1, 1e-3, 0, nullptr), TE_STATUS_OK);
  }
  EXPECT_EQ(after[0], after[1]);
}

// A program of version 1: its structs end before the recipe and the training state.
TEST_F(LlamaAbiTest, AnOldClientsStructsWork) {
  std::vector<char> exact(48);
  ASSERT_EQ((te_llama_options_init)(reinterpret_cast<te_llama_options*>(exact.data())),
            TE_STATUS_OK);
  const std::string directory = std::string(kGolden) + "/checkpoint";
  ASSERT_EQ(te_llama_load(context_, directory.c_str(),
                          reinterpret_cast<te_llama_options*>(exact.data()), &llama_),
            TE_STATUS_OK)
      << te_last_error_message();
  ASSERT_EQ(te_llama_step(llama_, &batch_, 1, 1e-3, 0, nullptr), TE_STATUS_OK)
      << te_last_error_message();
  std::vector<char> save(24);
  ASSERT_EQ((te_llama_save_options_init)(reinterpret_cast<te_llama_save_options*>(save.data())),
            TE_STATUS_OK);
  const std::string out = testing::TempDir() + "/old_client";
  ASSERT_EQ(
      te_llama_save(llama_, out.c_str(), reinterpret_cast<te_llama_save_options*>(save.data())),
      TE_STATUS_OK)
      << te_last_error_message();
}

// A step of an absurd learning rate leaves float32 weights that float16 cannot hold.
TEST_F(LlamaAbiTest, WeightsThatAreNoNumbersAreSavedOnRequestAlone) {
  Load(std::string(kGolden) + "/checkpoint");
  const std::string out = testing::TempDir() + "/nonfinite";
  te_llama_save_options save;
  ASSERT_EQ(te_llama_save_options_init(&save), TE_STATUS_OK);
  EXPECT_EQ(save.allow_nonfinite, 0);
  ASSERT_EQ(te_llama_save(llama_, out.c_str(), &save), TE_STATUS_OK) << te_last_error_message();
  const auto weights = [&out] {
    std::ifstream file(out + "/model.safetensors", std::ios::binary);
    std::stringstream text;
    text << file.rdbuf();
    return text.str();
  };
  const std::string before = weights();
  EXPECT_FALSE(before.empty());
  ASSERT_EQ(te_llama_step(llama_, &batch_, 1, 1e6, 0, nullptr), TE_STATUS_OK)
      << te_last_error_message();
  save.save_dtype = TE_DTYPE_FLOAT16;
  ExpectError(te_llama_save(llama_, out.c_str(), &save), TE_STATUS_FAILED_PRECONDITION,
              "beyond float16's largest, 65504");
  EXPECT_EQ(weights(), before);
  save.allow_nonfinite = 1;
  ASSERT_EQ(te_llama_save(llama_, out.c_str(), &save), TE_STATUS_OK) << te_last_error_message();
  EXPECT_NE(weights(), before);
  save.allow_nonfinite = 2;
  ExpectError(te_llama_save(llama_, out.c_str(), &save), TE_STATUS_INVALID_ARGUMENT,
              "options->allow_nonfinite is 2");
  save.allow_nonfinite = 0;
  save.reserved3 = 1;
  ExpectError(te_llama_save(llama_, out.c_str(), &save), TE_STATUS_INVALID_ARGUMENT,
              "options->reserved3 is 1");
  save.reserved3 = 0;
  save.save_dtype = -1;  // float32 holds them
  ASSERT_EQ(te_llama_save(llama_, out.c_str(), &save), TE_STATUS_OK) << te_last_error_message();
}

TEST_F(LlamaAbiTest, ErrorsNameWhatIsWrong) {
  ExpectError(te_llama_load(context_, "tests/golden", &options_, &llama_), TE_STATUS_NOT_FOUND,
              "config.json");
  EXPECT_EQ(llama_, nullptr);
  options_.path = 5;
  ExpectError(te_llama_load(context_, kGolden, &options_, &llama_), TE_STATUS_INVALID_ARGUMENT,
              "options->path is 5");
  options_.path = TE_LLAMA_PATH_TE;
  const std::string checkpoint = std::string(kGolden) + "/checkpoint";
  options_.recompute_granularity = 2;
  ExpectError(te_llama_load(context_, checkpoint.c_str(), &options_, &llama_),
              TE_STATUS_INVALID_ARGUMENT, "options->recompute_granularity is 2");
  options_.recompute_granularity = TE_RECOMPUTE_FULL;
  options_.recompute_num_layers = 1000;
  ExpectError(te_llama_load(context_, checkpoint.c_str(), &options_, &llama_),
              TE_STATUS_INVALID_ARGUMENT, "recompute_num_layers is 1000");
  options_.recompute_granularity = TE_RECOMPUTE_NONE;
  options_.recompute_num_layers = 1;
  ExpectError(te_llama_load(context_, checkpoint.c_str(), &options_, &llama_),
              TE_STATUS_INVALID_ARGUMENT, "recompute_num_layers is 1 without");
  options_.recompute_num_layers = 0;
  EXPECT_EQ(llama_, nullptr);
  Load(checkpoint);
  double loss = -3;
  ids_[2] = 100000;
  ExpectError(te_llama_loss(llama_, &batch_, &loss), TE_STATUS_INVALID_ARGUMENT, "100000");
  ids_[2] = 3;
  const std::vector<int32_t> none(ids_.size(), -100);
  batch_.labels = none.data();
  ExpectError(te_llama_loss(llama_, &batch_, &loss), TE_STATUS_INVALID_ARGUMENT,
              "no label is counted");
  batch_.labels = nullptr;
  const std::vector<int32_t> bad_mask(ids_.size(), 2);
  batch_.attention_mask = bad_mask.data();
  ExpectError(te_llama_loss(llama_, &batch_, &loss), TE_STATUS_INVALID_ARGUMENT,
              "attention_mask[0] is 2");
  EXPECT_EQ(loss, -3);
  te_llama_save_options save;
  ASSERT_EQ(te_llama_save_options_init(&save), TE_STATUS_OK);
  save.save_dtype = TE_DTYPE_INT32;
  ExpectError(te_llama_save(llama_, "/nonexistent/x", &save), TE_STATUS_INVALID_ARGUMENT,
              "save_dtype");
}

}  // namespace
