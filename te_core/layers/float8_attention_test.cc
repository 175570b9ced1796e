// fp8_dpa: attention's products in FP8, alone and inside its layers.
#include "te_core/layers/float8_attention.h"

#include <algorithm>
#include <cmath>

#include "te_core/layers/dot_product_attention.h"
#include "te_core/layers/multihead_attention.h"
#include "te_core/layers/testing/layer_harness.h"
#include "te_core/layers/transformer_layer.h"
#include "te_core/quantization/module_recipes.h"
#include "te_kernels/testing/host_tensor.h"
#include "te_kernels/testing/near.h"

namespace te {
namespace {

using test::Must;
using test::MustOk;

constexpr int64_t kBatch = 2, kSequence = 48, kHeads = 4, kGroups = 2, kHeadDim = 16;
constexpr DelayedScalingRecipe kOptions = {.amax_history_len = 4, .fp8_dpa = true};

// The root mean square of the relative error of rounding to E4M3 (E5M2: twice that): with mantissas
// m spread evenly over [1, 2), 2^-4 / sqrt(3) * sqrt(E[1 / m^2] = 1/2).
const double kE4M3Error = 0x1p-4 / std::sqrt(6.0);
// Of results against those without FP8, doubled. Scores of deviation 1 err by the roundings of q
// and k; then those of p, v, and out or (twice as large) of dout, ds and the gradient; independent.
const double kOutLimit = 2 * kE4M3Error * std::sqrt(5.0);
const double kGradientLimit = 2 * kE4M3Error * std::sqrt(5.0 + 3 * 4);

double RelativeError(const std::vector<double>& a, const std::vector<double>& b) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference += (a[i] - b[i]) * (a[i] - b[i]);
    norm += b[i] * b[i];
  }
  return std::sqrt(difference / norm);
}

class Float8AttentionTest : public ::testing::Test {
 protected:
  // One DotProductAttention with its inputs, in a context of its own.
  struct Core {
    std::unique_ptr<Context> context = test::NewContext();
    std::unique_ptr<DotProductAttention> layer;
    Tensor q, k, v;
    test::LayerRun run;
    std::vector<double> weights;
  };
  static Core MakeCore(DotProductAttentionOptions options = {}) {
    Core core;
    options.num_attention_heads = kHeads;
    options.num_gqa_groups = kGroups;
    options.kv_channels = kHeadDim;
    core.layer = Must(DotProductAttention::Create(core.context.get(), options, "core"));
    const auto normal = [&](int64_t heads, uint64_t seed) {
      const Shape shape = options.qkv_format == AttentionFormat::kSbhd
                              ? Shape{kSequence, kBatch, heads, kHeadDim}
                              : Shape{kBatch, kSequence, heads, kHeadDim};
      return test::NewTensor(core.context.get(), DType::kFloat32, shape,
                             test::NormalDoubles(shape.elements(), seed));
    };
    core.q = normal(kHeads, 1);
    core.k = normal(kGroups, 2);
    core.v = normal(kGroups, 3);
    core.run.layer = core.layer.get();
    core.run.forward.input = core.q;
    core.run.forward.key = core.k;
    core.run.forward.value = core.v;
    core.run.output_shape = core.q.shape();
    core.weights = test::OutputWeights(core.run, 4);
    return core;
  }
  test::Results Step(const Core& core, const Recipe* recipe, bool calibrating) {
    core.context->BeginQuantization(recipe, {.calibrating = calibrating});
    test::Results out = test::Run(core.run, core.weights);
    MustOk(core.context->EndQuantization());
    return out;
  }
  static std::vector<DelayedScalingState::Saved> StateOf(const Core& core) {
    return Must(core.context->delayed_scaling().Export(core.context->exec()));
  }
  static void ExpectNear(const test::Results& got, const test::Results& plain) {
    for (const auto& [name, values] : plain) {
      const double limit = name == "output" ? kOutLimit : kGradientLimit;
      EXPECT_LT(RelativeError(got.at(name), values), limit) << name;
      // A quarter of a rounding: what is quantized is not the same.
      EXPECT_GT(RelativeError(got.at(name), values), kE4M3Error / 4) << name;
      std::vector<double> scaled = values;
      for (double& x : scaled) x *= 1 + 2 * limit;
      EXPECT_GT(RelativeError(got.at(name), scaled), limit / 2) << name;
    }
  }

  std::unique_ptr<Recipe> recipe_ = Must(MakeRecipe(kOptions));
};

TEST_F(Float8AttentionTest, ACalibratedStepIsNearTheDenseOneInEveryFormatAndMask) {
  for (const auto format : {AttentionFormat::kBshd, AttentionFormat::kSbhd}) {
    for (const auto type : {AttentionMaskType::kNoMask, AttentionMaskType::kCausal,
                            AttentionMaskType::kPadding, AttentionMaskType::kPaddingCausal}) {
      SCOPED_TRACE(Name(type));
      Core core = MakeCore({.qkv_format = format, .attn_mask_type = type});
      std::vector<uint8_t> padding(kBatch * kSequence);
      std::fill(padding.end() - 9, padding.end(), uint8_t{1});
      const Tensor mask = test::NewUInt8(core.context.get(), {kBatch, kSequence}, padding);
      if (UsesPadding(type)) core.run.forward.attention.padding_mask = mask;
      const test::Results plain = test::Run(core.run, core.weights);
      EXPECT_TRUE(test::ResultsEqual(Step(core, recipe_.get(), true), plain))
          << "a calibrating pass computes as it would without a recipe";
      ExpectNear(Step(core, recipe_.get(), false), plain);
    }
  }
}

TEST_F(Float8AttentionTest, CalibrationMeasuresEachTensor) {
  Core core = MakeCore({.qkv_format = AttentionFormat::kBshd});
  const test::Results got = Step(core, recipe_.get(), true);
  std::map<std::string, DelayedScalingState::Saved> state;
  for (DelayedScalingState::Saved& slot : StateOf(core)) state[slot.name] = std::move(slot);
  ASSERT_EQ(state.size(), size_t{kAttentionTensors});
  const auto expect = [&](const char* name, QuantFormat format, double amax, double tolerance) {
    const DelayedScalingState::Saved& slot = state.at(name);
    EXPECT_EQ(slot.format, format) << name;
    ASSERT_EQ(slot.amax_history.size(), 4u);
    EXPECT_NEAR(slot.amax_history.back(), amax, tolerance) << name;
    EXPECT_EQ(slot.scale, QuantMax(format) / slot.amax_history.back()) << name;
  };
  const auto largest = [](std::initializer_list<std::vector<double>> tensors) {
    double out = 0;
    for (const auto& t : tensors) out = std::max(out, test::MaxAbs(t));
    return out;
  };
  constexpr QuantFormat kForward = QuantFormat::kFloat8E4M3, kBackward = QuantFormat::kFloat8E5M2;
  expect("core.qkv", kForward,
         largest({test::ToDoubles(core.q), test::ToDoubles(core.k), test::ToDoubles(core.v)}), 0);
  expect("core.s", kForward, 1, 1e-5);  // causal: the first query sees one key
  expect("core.o", kForward, test::MaxAbs(got.at("output")), 0);
  expect("core.do", kBackward, static_cast<float>(test::MaxAbs(core.weights)), 0);
  expect("core.dqkv", kBackward, largest({got.at("input"), got.at("key"), got.at("value")}), 0);
  // ds = p (dp - D) / sqrt(d): at most |dout| max |v| (1/4 of twice that) / sqrt(d), and not much
  // smaller among so many.
  const double bound = kHeadDim * test::MaxAbs(core.weights) *
                       test::MaxAbs(test::ToDoubles(core.v)) /
                       (2 * std::sqrt(static_cast<double>(kHeadDim)));
  const float dp = state.at("core.dp").amax_history.back();
  EXPECT_LT(dp, bound);
  EXPECT_GT(dp, bound / 100);
}

TEST_F(Float8AttentionTest, AStateThatIsSavedAndReadGoesOnBitForBit) {
  Core core = MakeCore(), other = MakeCore();
  Step(core, recipe_.get(), true);
  const std::vector<DelayedScalingState::Saved> state = StateOf(core);
  MustOk(other.context->delayed_scaling().Import(other.context->exec(), state));
  for (int step = 0; step < 3; ++step) {
    EXPECT_TRUE(
        test::ResultsEqual(Step(other, recipe_.get(), false), Step(core, recipe_.get(), false)))
        << step;
  }
  // The twin: without the state it begins with scales of 1.
  Core fresh = MakeCore();
  EXPECT_FALSE(
      test::ResultsEqual(Step(fresh, recipe_.get(), false), Step(core, recipe_.get(), false)));
}

TEST_F(Float8AttentionTest, OnlyTrainingAndOnlyTheRecipesWithTheOptionQuantize) {
  Core core = MakeCore();
  const test::Results plain = test::Run(core.run, core.weights);
  const test::Results inferred = test::Infer(core.run);
  Step(core, recipe_.get(), true);
  for (const bool training : {true, false}) {
    core.context->BeginQuantization(recipe_.get(), {.training = training});
    EXPECT_TRUE(test::ResultsEqual(test::Infer(core.run), inferred));
    MustOk(core.context->EndQuantization());
  }
  const std::unique_ptr<Recipe> recipes[] = {
      Must(MakeRecipe(DelayedScalingRecipe())),
      Must(MakeRecipe(Float8CurrentScalingRecipe())),
      Must(MakeRecipe(Float8BlockScalingRecipe())),
      Must(MakeRecipe(MXFP8BlockScalingRecipe())),
      Must(MakeRecipe(NVFP4BlockScalingRecipe())),
      MakeModuleRecipes({{.pattern = "core", .training = nullptr, .evaluation = nullptr}},
                        Must(MakeRecipe(kOptions)))};
  for (const auto& recipe : recipes) {
    EXPECT_TRUE(test::ResultsEqual(Step(core, recipe.get(), false), plain)) << recipe->name();
  }
  EXPECT_FALSE(test::ResultsEqual(Step(core, recipe_.get(), false), plain));
}

TEST_F(Float8AttentionTest, WhatItDoesNotTakeIsNamed) {
  const auto refused = [&](const DotProductAttentionOptions& options, const char* part) {
    for (const bool calibrating : {true, false}) {
      Core core = MakeCore(options);
      Arena arena(core.context->memory());
      Saved saved(&arena);
      const Tensor out = Must(core.context->NewTensor(DType::kFloat32, core.q.shape()));
      core.run.forward.output = out.view();
      core.context->BeginQuantization(recipe_.get(), {.calibrating = calibrating});
      EXPECT_TRUE(test::FailsWith(core.layer->Forward(core.run.forward, &saved),
                                  StatusCode::kUnsupported, part));
      MustOk(core.context->EndQuantization());
    }
  };
  refused({.attention_dropout = 0.1f}, "core: fp8_dpa with attention_dropout 0.1; expected 0");
  refused({.window_size = {.left = 3}},
          "core: fp8_dpa: attention_fp8_forward: the window is (3, -1)");
  refused({.attn_mask_type = AttentionMaskType::kCausalBottomRight},
          "core: fp8_dpa: attention_fp8_forward: the mask type is causal_bottom_right");
}

// The packed buffer of an interleaved weight has neither queries nor keys of a single stride.
TEST_F(Float8AttentionTest, InsideItsLayersItIsNearTheDenseOneAndSavesMemory) {
  for (const bool interleaved : {false, true}) {
    for (const auto format : {AttentionFormat::kBshd, AttentionFormat::kSbhd}) {
      auto context = test::NewContext();
      const int64_t hidden = kHeads * kHeadDim;
      auto layer = Must(MultiheadAttention::Create(context.get(),
                                                   {.hidden_size = hidden,
                                                    .num_attention_heads = kHeads,
                                                    .num_gqa_groups = kGroups,
                                                    .attention_dropout = 0,
                                                    .bias = false,
                                                    .fuse_qkv_params = interleaved,
                                                    .qkv_format = format},
                                                   "attention"));
      test::Randomize(layer.get(), 1, 0.3);
      const Shape shape = format == AttentionFormat::kSbhd ? Shape{kSequence, kBatch, hidden}
                                                           : Shape{kBatch, kSequence, hidden};
      const Tensor x = test::NewTensor(context.get(), DType::kFloat32, shape,
                                       test::UniformDoubles(shape.elements(), 5));
      test::LayerRun run;
      run.layer = layer.get();
      run.forward.input = x;
      run.output_shape = shape;
      const auto weights = test::OutputWeights(run, 6);
      // Attention alone: the projections keep their dtype.
      const auto recipe = MakeModuleRecipes({{.pattern = "*core_attention",
                                              .training = Must(MakeRecipe(kOptions)),
                                              .evaluation = nullptr}},
                                            nullptr);
      const test::Results plain = test::Run(run, weights);
      test::Results quantized;
      for (const bool calibrating : {true, false}) {
        context->BeginQuantization(recipe.get(), {.calibrating = calibrating});
        quantized = test::Run(run, weights);
        MustOk(context->EndQuantization());
      }
      for (const auto& [name, values] : plain) {
        EXPECT_LT(RelativeError(quantized.at(name), values), kGradientLimit) << name;
        EXPECT_GT(RelativeError(quantized.at(name), values), kE4M3Error / 8) << name;
      }

      const auto saved_bytes = [&](const Recipe* of) {
        Arena arena(context->memory());
        Saved saved(&arena);
        const Tensor y = Must(context->NewTensor(DType::kFloat32, shape));
        ForwardArgs args = run.forward;
        args.output = y.view();
        context->BeginQuantization(of, {});
        MustOk(layer->Forward(args, &saved));
        MustOk(context->EndQuantization());
        return static_cast<int64_t>(arena.Here().used);
      };
      // Instead of q, k and v in float32, codes of q, k, v and out; numbers and gaps besides.
      const int64_t tokens = kBatch * kSequence, qkv = (kHeads + 2 * kGroups) * kHeadDim;
      const int64_t less = tokens * (4 * qkv - qkv - hidden);
      EXPECT_LT(saved_bytes(recipe.get()), saved_bytes(nullptr) - less + 4096);
    }
  }
}

TEST_F(Float8AttentionTest, AWholeLayerInFp8IsNearTheFloatOneAndRepeatsItsBits) {
  TransformerLayerOptions options;
  options.hidden_size = 64;
  options.ffn_hidden_size = 96;
  options.num_attention_heads = 4;
  options.num_gqa_groups = 2;
  options.normalization = NormalizationKind::kRmsNorm;
  options.activation = ActivationKind::kSwiglu;
  options.hidden_dropout = 0;
  options.attention_dropout = 0;
  options.fuse_qkv_params = false;
  options.bias = false;
  test::Results plain;
  const auto quantized = [&](const Recipe* recipe) {
    auto context = test::NewContext();
    auto layer = Must(TransformerLayer::Create(context.get(), options, "block"));
    test::Randomize(layer.get(), 1, 0.2);
    const Shape shape = {2, 16, 64};
    const Tensor x = test::NewTensor(context.get(), DType::kFloat32, shape,
                                     test::UniformDoubles(shape.elements(), 5));
    test::LayerRun run;
    run.layer = layer.get();
    run.forward.input = x;
    run.output_shape = shape;
    const auto weights = test::OutputWeights(run, 6);
    plain = test::Run(run, weights);
    test::Results out;
    for (int step = 0; step < 3; ++step) {
      context->BeginQuantization(recipe, {.calibrating = step == 0});
      out = test::Run(run, weights);
      MustOk(context->EndQuantization());
    }
    return out;
  };
  const test::Results first = quantized(recipe_.get());
  // As quantization_test's, through attention's products besides.
  EXPECT_TRUE(test::ResultsNear(first, plain, 0.3, 0.05));
  EXPECT_TRUE(test::ResultsEqual(first, quantized(recipe_.get())));
  const auto gemms = Must(MakeRecipe(DelayedScalingRecipe{.amax_history_len = 4}));
  EXPECT_FALSE(test::ResultsEqual(first, quantized(gemms.get()))) << "attention was not quantized";
}

}  // namespace
}  // namespace te
