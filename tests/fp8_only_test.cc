// Fine-tuning a Llama whose matrices exist in FP8 alone, from a checkpoint and back. On the device
// that TE_TEST_DEVICE names ("cpu" without it); there the CPU's run is what a GPU's is compared to.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "models/llama/pretrained.h"
#include "models/llama/training_step.h"
#include "te_core/quantization/fp8_only_weight.h"
#include "te_core/quantization/module_recipes.h"
#include "te_kernels/testing/checked.h"

namespace te {
namespace {

using test::Ok;
using test::TestDevice;
using test::Value;

constexpr const char* kCheckpoint = "tests/golden/llama3-gqa/checkpoint";

// lm_head stays in BF16, as on the command line.
std::unique_ptr<Recipe> WithoutHead(StatusOr<std::unique_ptr<Recipe>> recipe) {
  return MakeModuleRecipes({{.pattern = "lm_head", .training = nullptr, .evaluation = nullptr}},
                           Value(std::move(recipe)));
}

std::vector<char> BytesOf(Context* context, ConstTensorView view) {
  std::vector<char> out(view.bytes());
  Ok(context->CopyToHost(view, out.data()));
  return out;
}

// Codes and scale_inv of what exists in FP8 alone, values of the rest.
std::vector<std::vector<char>> Contents(LlamaModel* model) {
  std::vector<std::vector<char>> out;
  for (const Parameter* p : model->parameters()) {
    if (!p->fp8_only()) {
      out.push_back(BytesOf(model->context(), p->value));
      continue;
    }
    const QuantSpec& spec = p->quantized.spec;
    out.push_back(BytesOf(model->context(), spec.rowwise_data));
    const auto scale =
        BytesOf(model->context(), ConstTensorView(spec.scale_inv, DType::kFloat32, {1}));
    out.back().insert(out.back().end(), scale.begin(), scale.end());
  }
  return out;
}

struct Settings {
  std::string device = TestDevice();
  bool fp8_only = true;
  int steps = 8;
  int copies = 1;  // micro-batches of the same tokens
  DType moments = DType::kBFloat16;
  float max_grad_norm = 0;
  LlamaTrainingStepOptions step;
};

// A model with its training; members go in reverse order.
struct Trained {
  std::unique_ptr<Context> context;
  PretrainedLlama llama;
  std::unique_ptr<AdamWOptimizer> optimizer;
  std::unique_ptr<LlamaTrainingStep> step;
  size_t loading_peak = 0;
  std::vector<double> losses;

  LlamaModel* model() const { return llama.model.get(); }
};

std::vector<int32_t> Tokens() {
  std::vector<int32_t> ids;
  for (int i = 0; i < 4 * 32; ++i) ids.push_back(3 + i * i * 7 % 500);
  return ids;
}

LlamaBatch BatchOf(const std::vector<int32_t>& ids) {
  return {.batch = 4, .sequence = 32, .input_ids = ids, .labels = ids};
}

Trained Load(const Settings& settings, const std::string& directory = kCheckpoint,
             std::vector<DelayedScalingState::Saved> state = {}) {
  Trained run;
  run.context = Value(Context::Create({.device = settings.device, .num_threads = 2, .seed = 3}));
  Ok(run.context->delayed_scaling().Import(run.context->exec(), std::move(state)));
  PretrainedOptions options;
  options.model.params_dtype = DType::kBFloat16;
  if (settings.fp8_only) {
    options.before_model = [&](const std::string&, const LlamaConfig&) -> StatusOr<const Recipe*> {
      return settings.step.recipe;
    };
  }
  run.llama = Value(LoadPretrainedLlama(run.context.get(), directory, options));
  run.loading_peak = run.context->memory_statistics().peak_bytes;
  run.optimizer = Value(
      AdamWOptimizer::Create(run.context.get(), run.model()->parameters(),
                             {.moments = settings.moments, .rounding = Rounding::kStochastic}));
  run.step = Value(LlamaTrainingStep::Create(run.model(), run.optimizer.get(), settings.step));
  return run;
}

Trained Train(const Settings& settings) {
  Trained run = Load(settings);
  const std::vector<int32_t> ids = Tokens();
  const std::vector<LlamaBatch> batches(static_cast<size_t>(settings.copies), BatchOf(ids));
  for (int k = 0; k < settings.steps; ++k) {
    Ok(run.step->Run(batches, {.learning_rate = 2e-3f, .max_grad_norm = settings.max_grad_norm}));
    const StepScalars scalars = Value(run.step->Result(0));
    run.losses.push_back(scalars.loss_sum / static_cast<double>(scalars.token_count));
  }
  return run;
}

class Fp8Only : public testing::TestWithParam<bool> {
 protected:
  static const Recipe* RecipeOf(bool delayed) {
    static const auto a = WithoutHead(MakeRecipe(DelayedScalingRecipe{.amax_history_len = 16}));
    static const auto b = WithoutHead(MakeRecipe(Float8CurrentScalingRecipe()));
    return delayed ? a.get() : b.get();
  }
  void SetUp() override { settings_.step.recipe = RecipeOf(GetParam()); }

  Settings settings_;
};

TEST_P(Fp8Only, TheLossFallsAsWithBf16WeightsAndEveryParameterChanges) {
  settings_.steps = 16;
  const auto before = Contents(Load(settings_).model());
  const Trained run = Train(settings_);
  int fp8_only = 0;
  for (const Parameter* p : run.model()->parameters()) fp8_only += p->fp8_only() ? 1 : 0;
  EXPECT_EQ(fp8_only, 3 * 4);  // of three layers: QKV, proj, fc1, fc2
  EXPECT_LT(run.losses.back(), 0.7 * run.losses.front());
  const auto after = Contents(run.model());
  for (size_t i = 0; i < after.size(); ++i)
    EXPECT_FALSE(after[i] == before[i]) << run.model()->parameter_names()[i];
  // Against BF16 weights of the same recipe. A cast moves a logit by some percent of itself, and
  // weights rounded to E4M3, one part in 16 off, walk along a path of their own: 10%.
  settings_.fp8_only = false;
  const Trained bf16 = Train(settings_);
  for (size_t k = 0; k < run.losses.size(); ++k)
    EXPECT_NEAR(run.losses[k], bf16.losses[k], 0.1 * bf16.losses.front()) << "step " << k;
  EXPECT_FALSE(run.losses == bf16.losses);
}

TEST_P(Fp8Only, RepeatsBitForBitLaunchedOrNotAndWithUpdatesInTheBackwardPass) {
  const Trained run = Train(settings_);
  const auto want = Contents(run.model());
  const auto expect_same = [&] {
    const Trained other = Train(settings_);
    EXPECT_EQ(other.losses, run.losses);
    EXPECT_TRUE(Contents(other.model()) == want);
  };
  expect_same();
  settings_.step.record = false;
  expect_same();
  settings_.step.update_in_backward = true;
  expect_same();
  settings_.steps = 7;  // the twin: one step less
  EXPECT_FALSE(Contents(Train(settings_).model()) == want);
}

// The gradients of a micro-batch twice, divided by twice its tokens, are those of once: powers of
// two round nowhere. With delayed scaling only while it calibrates: afterwards the scales of the
// second micro-batch are others.
TEST_P(Fp8Only, GradientsAccumulateOverMicroBatches) {
  if (GetParam()) settings_.step.calibration_steps = settings_.steps;
  settings_.step.lend_gradients = false;
  const Trained once = Train(settings_);
  settings_.copies = 2;
  const Trained twice = Train(settings_);
  EXPECT_EQ(twice.losses, once.losses);
  EXPECT_TRUE(Contents(twice.model()) == Contents(once.model()));
}

// After one step m = (1 - beta1) g: with clipping its norm is (1 - beta1) * max_grad_norm, up to
// the float32 roundings of g's norm and of m (a few 2^-24 each, of the same sign at worst).
TEST_P(Fp8Only, TheGradientsNormIsClipped) {
  const float max_norm = 0.125f;
  settings_.steps = 1;
  settings_.moments = DType::kFloat32;
  const auto norm = [&] {
    const Trained run = Train(settings_);
    double sum = 0;
    for (const AdamWOptimizer::State& state : run.optimizer->states()) {
      std::vector<char> bytes = BytesOf(run.context.get(), state.m);
      std::vector<float> m(bytes.size() / sizeof(float));
      std::memcpy(m.data(), bytes.data(), bytes.size());
      for (const float x : m) sum += static_cast<double>(x) * x;
    }
    return std::sqrt(sum);
  };
  settings_.max_grad_norm = max_norm;
  EXPECT_NEAR(norm(), 0.1 * max_norm, 0.1 * max_norm * 0x1p-20);
  settings_.max_grad_norm = 0;
  EXPECT_GT(norm(), 0.1 * max_norm * 1.01) << "there was nothing to clip";
}

TEST_P(Fp8Only, EvaluationChangesNothing) {
  const Trained run = Train(settings_);
  const auto before = Contents(run.model());
  const std::vector<int32_t> ids = Tokens();
  double losses[2];
  for (double& loss : losses) {
    run.context->BeginQuantization(settings_.step.recipe, {.training = false});
    Ok(run.context->BeginStep());
    LlamaModel::Pass pass = Value(run.model()->Forward(BatchOf(ids)));
    Ok(run.model()->EvaluateLoss(&pass));
    Ok(run.context->EndQuantization());
    const StepScalars scalars = Value(run.context->ReadScalars());
    loss = scalars.loss_sum / static_cast<double>(scalars.token_count);
  }
  EXPECT_EQ(losses[0], losses[1]);
  EXPECT_LT(losses[0], run.losses.back());
  EXPECT_TRUE(Contents(run.model()) == before);
}

// One byte of a weight remains instead of two. While a checkpoint is read one layer's matrices are
// dense at most, two bytes each.
TEST_P(Fp8Only, HoldsHalfTheBytesAndNeverAModelInBf16) {
  const Trained only = Load(settings_);
  settings_.fp8_only = false;
  const Trained bf16 = Load(settings_);
  int64_t matrices = 0;
  for (const Parameter* p : only.model()->parameters()) {
    if (p->fp8_only()) matrices += p->shape().elements();
  }
  EXPECT_EQ(matrices, 3 * 128 * (192 + 128 + 704 + 352));
  const auto saved =
      static_cast<int64_t>(bf16.loading_peak) - static_cast<int64_t>(only.loading_peak);
  // Scales and histories of 512 tensors, 16 long, and numbers at 256-byte boundaries.
  constexpr int64_t kScales = 64 << 10;
  EXPECT_GT(saved, matrices - 2 * matrices / 3 - kScales);
  settings_.fp8_only = true;
  const auto peak = [&] { return Train(settings_).context->memory_statistics().peak_bytes; };
  const size_t only_peak = peak();
  settings_.fp8_only = false;
  EXPECT_LT(only_peak, peak());
}

TEST_P(Fp8Only, ASavedModelComesBack) {
  const Trained run = Train(settings_);
  const std::string directory =
      std::string(testing::TempDir()) + "/fp8_only_" + (GetParam() ? "delayed" : "current");
  std::filesystem::remove_all(directory);
  Ok(SavePretrainedLlama(run.llama, directory, {}));
  // With the state that belongs to it, the codes are the same; current scaling has none.
  const auto state = Value(run.context->delayed_scaling().Export(run.context->exec()));
  EXPECT_EQ(state.empty(), !GetParam());
  if (GetParam()) {
    EXPECT_TRUE(Contents(Load(settings_, directory, state).model()) == Contents(run.model()));
  }
  // Without it a value is off by half a step of E4M3 at most: 2^-4 of it, or 2^-10 over the scale.
  const Trained again = Load(settings_, directory);
  int64_t compared = 0;
  for (size_t i = 0; i < run.model()->parameters().size(); ++i) {
    const Parameter& p = *run.model()->parameters()[i];
    const Parameter& q = *again.model()->parameters()[i];
    if (!p.fp8_only()) continue;
    const auto values = [](const Trained& from, const Parameter& parameter) {
      const Tensor rows = Value(
          DequantizedRows(from.context.get(), parameter, 0, parameter.shape()[0], DType::kFloat32));
      const std::vector<char> bytes = BytesOf(from.context.get(), rows);
      std::vector<float> out(bytes.size() / sizeof(float));
      std::memcpy(out.data(), bytes.data(), bytes.size());
      return out;
    };
    float scale_inv = 0;
    const auto bytes = BytesOf(again.context.get(),
                               ConstTensorView(q.quantized.spec.scale_inv, DType::kFloat32, {1}));
    std::memcpy(&scale_inv, bytes.data(), sizeof(scale_inv));
    const std::vector<float> want = values(run, p), got = values(again, q);
    int64_t wrong = 0, twins = 0;
    for (size_t k = 0; k < want.size(); ++k) {
      const float step = std::max(0x1p-4f * std::fabs(want[k]), 0x1p-10f * scale_inv) +
                         0x1p-8f * std::fabs(want[k]);
      wrong += !(std::fabs(got[k] - want[k]) <= step);
      twins += !(std::fabs(got[k] - want[k] - 3 * step) <= step);
    }
    EXPECT_EQ(wrong, 0);
    EXPECT_EQ(twins, static_cast<int64_t>(want.size()));
    compared += static_cast<int64_t>(want.size());
  }
  EXPECT_GT(compared, 500'000);
  std::filesystem::remove_all(directory);
}

// Losses of five steps on a CPU, by the instructions of its products: they round other partial
// sums, and stochastic rounding takes each step on from where they are, so that two kinds of CPU
// are up to 2% apart at the end. Each kind keeps to its own.
struct CpuLosses {
  std::vector<double> delayed, current;
};
const CpuLosses kAmxLosses = {{6.54307, 4.42506, 2.97252, 1.86493, 1.12541},
                              {6.56399, 4.47991, 2.99218, 1.91208, 1.14646}};
const CpuLosses kAvx512Bf16Losses = {{6.54283, 4.42810, 2.94534, 1.86765, 1.11368},
                                     {6.56399, 4.47611, 2.98788, 1.92670, 1.14162}};
// Without instructions for bfloat16, in float32.
const CpuLosses kAvx512Losses = {{6.54377, 4.42713, 2.94058, 1.87477, 1.13035},
                                 {6.56513, 4.46740, 3.01873, 1.93456, 1.16259}};
const CpuLosses kAvx2Losses = {{6.54376, 4.42730, 2.95380, 1.85848, 1.11749},
                               {6.56513, 4.46740, 3.01873, 1.93238, 1.16448}};

const CpuLosses& LossesOfThisCpu() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("amx-bf16")) return kAmxLosses;
  if (__builtin_cpu_supports("avx512bf16")) return kAvx512Bf16Losses;
  if (__builtin_cpu_supports("avx512f")) return kAvx512Losses;
#endif
  return kAvx2Losses;
}

// A CPU's losses are those of its kind. A GPU's are near, as products that add in another order and
// with 14 bits are. (The GPU's pack has no CPU backend: hence numbers.)
TEST_P(Fp8Only, TheLossesAreTheCpus) {
  const bool cpu = std::string(TestDevice()) == "cpu";
  const CpuLosses& losses = cpu ? LossesOfThisCpu() : kAmxLosses;
  const std::vector<double>& want = GetParam() ? losses.delayed : losses.current;
  settings_.steps = static_cast<int>(want.size());
  const Trained run = Train(settings_);
  ASSERT_EQ(run.losses.size(), want.size());
  // Within a kind: other threads, vectors. Without AVX-512 oneDNN's float32 products add in blocks
  // that follow the CPU's caches: two such CPUs are as far apart as two kinds (1.7% seen).
  const bool one_kind = &losses != &kAvx2Losses;
  const double tolerance = !cpu ? 0.05 : one_kind ? 0.005 : 0.025;
  for (size_t k = 0; k < want.size(); ++k)
    EXPECT_NEAR(run.losses[k], want[k], tolerance * want[k]) << "step " << k;
  EXPECT_GT(std::fabs(run.losses.front() - want.back()), 0.05 * want.back());
}

INSTANTIATE_TEST_SUITE_P(All, Fp8Only, testing::Bool(),
                         [](const auto& info) { return info.param ? "delayed" : "current"; });

TEST(Fp8OnlyLlama, TheHfPathIsRefused) {
  const auto context = Value(Context::Create({.device = TestDevice(), .num_threads = 1}));
  const auto recipe = Value(MakeRecipe(DelayedScalingRecipe()));
  const QuantizedInit init(context.get(), recipe.get());
  const auto model = LlamaModel::Create(context.get(), LlamaConfig(), {.path = LlamaPath::kHf});
  ASSERT_FALSE(model.ok());
  EXPECT_EQ(model.status().code(), StatusCode::kUnsupported);
  EXPECT_NE(model.status().message().find("the hf path with weights in FP8 alone"),
            std::string::npos)
      << model.status().message();
}

}  // namespace
}  // namespace te
