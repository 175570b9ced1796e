// Weights that exist in FP8 alone: the same bits as a weight with a copy beside it where the scales
// agree, an update that is AdamW's between a decoding and a cast, and scales that move when they
// should.
#include "te_core/quantization/fp8_only_weight.h"

#include <cmath>

#include "te_core/layers/linear.h"
#include "te_core/layers/testing/layer_harness.h"
#include "te_core/optimizer/adamw_optimizer.h"
#include "te_kernels/adamw/stochastic_float8.h"
#include "te_kernels/base/float8.h"
#include "te_kernels/testing/host_tensor.h"
#include "te_kernels/testing/near.h"

namespace te {
namespace {

using test::FailsWith;
using test::IsOk;
using test::Must;
using test::MustOk;

using Bytes = std::vector<uint8_t>;

class Fp8OnlyWeightTest : public ::testing::Test {
 protected:
  static constexpr int64_t kTokens = 32, kIn = 48, kOut = 64;
  static constexpr const char* kName = "model.linear";

  std::unique_ptr<Linear> MakeLinear(Context* context, const Recipe* fp8_only,
                                     std::vector<ParameterSplit> split = {}) {
    const QuantizedInit init(context, fp8_only);
    return Must(Linear::Create(context,
                               {.in_features = kIn,
                                .out_features = kOut,
                                .bias = false,
                                .parameters_split = std::move(split),
                                .params_dtype = DType::kBFloat16},
                               kName));
  }
  // Uniform in [-0.5, 0.5].
  static void Write(Context* context, Linear* layer, uint64_t seed = 1) {
    Parameter* weight = layer->Parameters()[0];
    std::vector<double> values = test::UniformDoubles(kOut * kIn, seed);
    for (double& value : values) value *= 0.5;
    MustOk(BeginWrite(context, weight));
    test::FromDoubles(values, weight->value.view());
    MustOk(EndWrite(context, weight));
  }
  Tensor Uniform(Context* context, const Shape& shape, uint64_t seed, double scale) {
    std::vector<double> values = test::UniformDoubles(shape.elements(), seed);
    for (double& value : values) value *= scale;
    return test::NewTensor(context, DType::kBFloat16, shape, values);
  }

  struct Pass {
    std::unique_ptr<Arena> arena;
    std::unique_ptr<Saved> saved;
    Tensor x, y;
  };
  Pass Forward(Context* context, Layer* layer, bool save = true) {
    Pass pass;
    pass.arena = std::make_unique<Arena>(context->memory());
    pass.saved = std::make_unique<Saved>(pass.arena.get());
    pass.y = Must(context->NewTensor(DType::kBFloat16, {kTokens, kOut}));
    pass.x = Uniform(context, {kTokens, kIn}, 2, 3.0);
    ForwardArgs args;
    args.input = pass.x;
    args.output = pass.y.view();
    MustOk(layer->Forward(args, save ? pass.saved.get() : nullptr));
    return pass;
  }
  std::vector<double> Backward(Context* context, Layer* layer, Pass* pass) {
    const Tensor dy = Uniform(context, {kTokens, kOut}, 3, 1e-3);
    Tensor dx = Must(context->NewTensor(DType::kBFloat16, {kTokens, kIn}));
    BackwardArgs args;
    args.doutput = dy;
    args.dinput = dx.view();
    MustOk(layer->Backward(args, pass->saved.get()));
    return test::ToDoubles(dx);
  }
  struct Results {
    std::vector<double> y, dx, dw;
    bool operator==(const Results&) const = default;
  };
  // Forward in a scope, backward after it.
  Results Step(Context* context, Layer* layer, const Recipe* recipe, bool calibrating = false) {
    context->BeginQuantization(recipe, {.calibrating = calibrating});
    Pass pass = Forward(context, layer);
    MustOk(context->EndQuantization());
    Results out;
    out.y = test::ToDoubles(pass.y);
    out.dx = Backward(context, layer, &pass);
    out.dw = test::ToDoubles(layer->Parameters()[0]->grad);
    return out;
  }
  static Bytes Codes(const Parameter& weight) {
    return test::BytesOf(weight.quantized.spec.rowwise_data);
  }
  static float ScaleInv(const Parameter& weight) { return *weight.quantized.spec.scale_inv; }
  static DelayedScalingState::Saved StateOf(Context* context, const std::string& role) {
    for (auto& state : Must(context->delayed_scaling().Export(context->exec()))) {
      if (state.name == std::string(kName) + "." + role) return state;
    }
    ADD_FAILURE() << "no FP8 state of " << role;
    return {};
  }

  std::unique_ptr<Context> context_ = test::NewContext();
  std::unique_ptr<Recipe> delayed_ =
      Must(MakeRecipe(DelayedScalingRecipe{.margin = 1, .amax_history_len = 4}));
  std::unique_ptr<Recipe> current_ = Must(MakeRecipe(Float8CurrentScalingRecipe()));
};

TEST_F(Fp8OnlyWeightTest, AWriteCastsByTheAmaxOfTheNewValuesAndDropsThem) {
  for (const Recipe* recipe : {delayed_.get(), current_.get()}) {
    SCOPED_TRACE(recipe->name());
    auto layer = MakeLinear(context_.get(), recipe);
    Parameter* weight = layer->Parameters()[0];
    ASSERT_TRUE(weight->fp8_only());
    EXPECT_EQ(weight->shape(), (Shape{kOut, kIn}));
    EXPECT_EQ(weight->dtype(), DType::kBFloat16);
    EXPECT_FALSE(layer->NamedParameters()[0].value().defined());
    const uint64_t version = weight->version;
    MustOk(BeginWrite(context_.get(), weight));
    const std::vector<double> values = test::NormalDoubles(kOut * kIn, 5, 0.02);
    test::FromDoubles(values, weight->value.view());
    const std::vector<double> rounded = test::ToDoubles(weight->value);
    MustOk(EndWrite(context_.get(), weight));
    EXPECT_FALSE(weight->value.defined());
    EXPECT_GT(weight->version, version);
    const auto amax = static_cast<float>(test::MaxAbs(rounded));
    const float scale = (recipe == delayed_.get() ? 224.0f : 448.0f) / amax;  // margin 1
    EXPECT_EQ(ScaleInv(*weight), 1 / scale);
    Bytes want;
    std::vector<double> dequantized;
    for (const double value : rounded) {
      want.push_back(FloatToFloat8E4M3Bits(static_cast<float>(value) * scale));
      dequantized.push_back(kFloat8E4M3Values[want.back()] * (1 / scale));
    }
    EXPECT_EQ(Codes(*weight), want);
    const Tensor part = Must(DequantizedRows(context_.get(), *weight, 3, 2, DType::kFloat32));
    EXPECT_EQ(test::ToDoubles(part),
              std::vector<double>(dequantized.begin() + 3 * kIn, dequantized.begin() + 5 * kIn));
    want[7] ^= 1;
    EXPECT_NE(Codes(*weight), want);
  }
}

// Once calibrated, an ordinary weight has the codes and scale of an FP8-only one of the same
// values: so have its products, bit for bit.
TEST_F(Fp8OnlyWeightTest, ProductsAreThoseOfAWeightWithItsCopyBitForBit) {
  for (const Recipe* recipe : {delayed_.get(), current_.get()}) {
    SCOPED_TRACE(recipe->name());
    const auto other = test::NewContext();
    auto only = MakeLinear(context_.get(), recipe), dense = MakeLinear(other.get(), nullptr);
    Write(context_.get(), only.get());
    Write(other.get(), dense.get());
    Step(context_.get(), only.get(), recipe, /*calibrating=*/true);
    Step(other.get(), dense.get(), recipe, /*calibrating=*/true);
    const Bytes codes = Codes(*only->Parameters()[0]);
    const Results got = Step(context_.get(), only.get(), recipe);
    EXPECT_TRUE(got == Step(other.get(), dense.get(), recipe));
    EXPECT_EQ(Codes(*only->Parameters()[0]), codes);
    EXPECT_EQ(Codes(*dense->Parameters()[0]), codes);
    Write(other.get(), dense.get(), 2);  // the twin: other values
    EXPECT_FALSE(got == Step(other.get(), dense.get(), recipe));
  }
}

TEST_F(Fp8OnlyWeightTest, WithoutQuantizationProductsAreThoseOfTheCodesValues) {
  auto only = MakeLinear(context_.get(), delayed_.get());
  Write(context_.get(), only.get());
  const auto other = test::NewContext();
  auto dense = MakeLinear(other.get(), nullptr);
  Parameter* weight = dense->Parameters()[0];
  const Tensor values =
      Must(DequantizedRows(context_.get(), *only->Parameters()[0], 0, kOut, DType::kBFloat16));
  test::FromDoubles(test::ToDoubles(values), weight->MutableValue());
  const auto step = [&](Context* context, Linear* layer, bool calibrating) {
    return Step(context, layer, calibrating ? delayed_.get() : nullptr, calibrating);
  };
  for (const bool calibrating : {false, true}) {
    EXPECT_TRUE(step(context_.get(), only.get(), calibrating) ==
                step(other.get(), dense.get(), calibrating));
  }
}

// One update, element by element: decoded with the old scale, AdamW in float32 (torch's order of
// operations), cast stochastically with the new scale.
TEST_F(Fp8OnlyWeightTest, AnUpdateReadsWithTheOldScaleAndWritesWithTheNewOne) {
  auto layer = MakeLinear(context_.get(), delayed_.get());
  Write(context_.get(), layer.get());
  Parameter* weight = layer->Parameters()[0];
  auto optimizer = Must(AdamWOptimizer::Create(
      context_.get(), {weight},
      {.weight_decay = 0.1, .moments = DType::kFloat32, .rounding = Rounding::kStochastic}));
  for (int k = 0; k < 3; ++k) {
    MustOk(optimizer->BeginStep());
    StepScalars scalars = Must(context_->ReadScalars());
    scalars.token_count = 4;
    MustOk(context_->WriteScalars(scalars));
    Step(context_.get(), layer.get(), delayed_.get(), k == 0);
    scalars = Must(context_->ReadScalars());
    const float read = ScaleInv(*weight), scale = *weight->quantized.spec.scale;
    const DelayedScalingState::Saved before = StateOf(context_.get(), "weight");
    // The same update of the float32 values, by the kernel that has its own reference.
    const AdamWOptimizer::State& state = optimizer->states()[0];
    std::vector<double> decoded;
    for (const uint8_t code : Codes(*weight)) decoded.push_back(kFloat8E4M3Values[code] * read);
    const Tensor w = test::NewTensor(context_.get(), DType::kFloat32, {kOut, kIn}, decoded);
    const Tensor m =
        test::NewTensor(context_.get(), DType::kFloat32, {kOut, kIn}, test::ToDoubles(state.m));
    const Tensor v =
        test::NewTensor(context_.get(), DType::kFloat32, {kOut, kIn}, test::ToDoubles(state.v));
    StepScalars step = scalars;
    step.step = k + 1;
    step.learning_rate = 0.01f;
    step.grad_scale = 0.25f;  // four tokens
    MustOk(context_->kernels().adamw(context_->exec(), {.param = w.view(),
                                                        .grad = weight->grad,
                                                        .m = m.view(),
                                                        .v = v.view(),
                                                        .weight_decay = 0.1,
                                                        .scalars = &step}));
    MustOk(optimizer->Step({.learning_rate = 0.01f}));
    const RandomState random = {.seed = context_->options().seed,
                                .stream = state.random_stream,
                                .offset = Must(context_->ReadScalars()).rng_offset};
    Bytes want;
    for (int64_t i = 0; i < kOut * kIn; ++i) {
      want.push_back(adamw::StochasticFloat8E4M3Bits(w.view().as<float>()[i] * scale,
                                                     Philox::At(random, i) & 0xffffu));
    }
    EXPECT_EQ(Codes(*weight), want) << "step " << k;
    want[11] ^= 1;
    EXPECT_NE(Codes(*weight), want);
    EXPECT_EQ(ScaleInv(*weight), 1 / scale);
    EXPECT_EQ(*weight->quantized.spec.scale, scale);
    // The amax of what was cast waits in row 0; the next scope's end turns it into a scale.
    const auto amax = static_cast<float>(test::MaxAbs(test::ToDoubles(w)));
    const DelayedScalingState::Saved after = StateOf(context_.get(), "weight");
    EXPECT_EQ(after.amax_history[0], amax);
    EXPECT_EQ(std::vector<float>(after.amax_history.begin() + 1, after.amax_history.end()),
              std::vector<float>(before.amax_history.begin() + 1, before.amax_history.end()));
    context_->BeginQuantization(delayed_.get(), {});
    Forward(context_.get(), layer.get());
    MustOk(context_->EndQuantization());
    const auto largest = *std::max_element(after.amax_history.begin(), after.amax_history.end());
    EXPECT_EQ(StateOf(context_.get(), "weight").scale, 224.0f / largest);
    EXPECT_EQ(ScaleInv(*weight), 1 / scale) << "codes are read as they were written";
  }
}

TEST_F(Fp8OnlyWeightTest, AStepWithoutTokensChangesNothing) {
  auto layer = MakeLinear(context_.get(), current_.get());
  Write(context_.get(), layer.get());
  Parameter* weight = layer->Parameters()[0];
  auto optimizer =
      Must(AdamWOptimizer::Create(context_.get(), {weight}, {.rounding = Rounding::kStochastic}));
  MustOk(optimizer->BeginStep());
  Step(context_.get(), layer.get(), current_.get());
  const Bytes codes = Codes(*weight);
  const float scale_inv = ScaleInv(*weight);
  MustOk(optimizer->Step({.learning_rate = 0.01f}));
  EXPECT_EQ(Codes(*weight), codes);
  EXPECT_EQ(ScaleInv(*weight), scale_inv);
}

TEST_F(Fp8OnlyWeightTest, EvaluationChangesNothing) {
  auto layer = MakeLinear(context_.get(), delayed_.get());
  Write(context_.get(), layer.get());
  Step(context_.get(), layer.get(), delayed_.get(), true);
  const Bytes codes = Codes(*layer->Parameters()[0]);
  const auto before = StateOf(context_.get(), "weight");
  for (int k = 0; k < 2; ++k) {
    context_->BeginQuantization(delayed_.get(), {.training = false});
    Forward(context_.get(), layer.get(), /*save=*/false);
    MustOk(context_->EndQuantization());
  }
  EXPECT_EQ(Codes(*layer->Parameters()[0]), codes);
  EXPECT_EQ(StateOf(context_.get(), "weight").scale, before.scale);
  EXPECT_EQ(StateOf(context_.get(), "weight").amax_history, before.amax_history);
}

// Values that were saved as bfloat16, written again: the codes themselves with the saved scale;
// without it half a step of E4M3 at most (2^-4 of a value, or 2^-10 over the new scale, and
// bfloat16's own 2^-9).
TEST_F(Fp8OnlyWeightTest, WhatWasSavedComesBack) {
  auto layer = MakeLinear(context_.get(), delayed_.get());
  Write(context_.get(), layer.get());
  Parameter* weight = layer->Parameters()[0];
  auto optimizer =
      Must(AdamWOptimizer::Create(context_.get(), {weight}, {.rounding = Rounding::kStochastic}));
  for (int k = 0; k < 2; ++k) {  // the scale has moved away from that of the amax
    MustOk(optimizer->BeginStep());
    StepScalars scalars = Must(context_->ReadScalars());
    scalars.token_count = 1;
    MustOk(context_->WriteScalars(scalars));
    Step(context_.get(), layer.get(), delayed_.get(), k == 0);
    MustOk(optimizer->Step({.learning_rate = 0.02f}));
  }
  const std::vector<double> saved =
      test::ToDoubles(Must(DequantizedRows(context_.get(), *weight, 0, kOut, DType::kBFloat16)));
  const auto states = Must(context_->delayed_scaling().Export(context_->exec()));
  for (const bool keep : {true, false}) {
    const auto other = test::NewContext();
    if (keep) MustOk(other->delayed_scaling().Import(other->exec(), states));
    const QuantizedInit init(other.get(), delayed_.get());
    Parameter loaded;
    GemmQuantizers quantizers;
    quantizers.Init(other.get(), "linear", kName);
    loaded = std::move(*Must(quantizers.NewFp8OnlyWeight("weight", DType::kBFloat16, kOut, kIn)));
    MustOk(BeginWrite(other.get(), &loaded));
    test::FromDoubles(saved, loaded.value.view());
    MustOk(EndWrite(other.get(), &loaded));
    if (keep) {
      EXPECT_EQ(Codes(loaded), Codes(*weight));
      EXPECT_EQ(ScaleInv(loaded), ScaleInv(*weight));
      EXPECT_EQ(StateOf(other.get(), "weight").amax_history,
                StateOf(context_.get(), "weight").amax_history);
      continue;
    }
    EXPECT_NE(ScaleInv(loaded), ScaleInv(*weight));
    std::vector<double> tolerance;
    for (const double value : saved)
      tolerance.push_back(std::max(0x1p-4 * std::fabs(value), 0x1p-10 * ScaleInv(loaded)) +
                          0x1p-9 * std::fabs(value));
    const std::vector<double> got =
        test::ToDoubles(Must(DequantizedRows(other.get(), loaded, 0, kOut, DType::kFloat32)));
    EXPECT_TRUE(test::Near(got, saved, tolerance));
    EXPECT_FALSE(test::Near(got, test::Disturbed(saved, 9, 3 * tolerance[9]), tolerance));
  }
}

// Of margin 1, the scale of values up to 0.5 is 448.
TEST_F(Fp8OnlyWeightTest, ASavedScaleThatDoesNotSuitTheValuesIsNotKept) {
  for (const auto& [scale, kept] : {std::pair(1e6f, false),
                                    {929.0f, false},
                                    {927.0f, true},
                                    {100.0f, true},
                                    {27.0f, false},
                                    {1e-3f, false}}) {
    SCOPED_TRACE(scale);
    const auto context = test::NewContext();
    MustOk(
        context->delayed_scaling().Import(context->exec(), {{.name = std::string(kName) + ".weight",
                                                             .format = QuantFormat::kFloat8E4M3,
                                                             .scale = scale,
                                                             .amax_history = {0, 1, 2, 3}}}));
    GemmQuantizers quantizers;
    quantizers.Init(context.get(), "linear", kName);
    const QuantizedInit init(context.get(), delayed_.get());
    const auto weight = Must(quantizers.NewFp8OnlyWeight("weight", DType::kBFloat16, kOut, kIn));
    for (const bool first : {true, false}) {
      MustOk(BeginWrite(context.get(), weight.get()));
      std::vector<double> values(kOut * kIn, 0.25);
      values[5] = -0.5;
      test::FromDoubles(values, weight->value.view());
      MustOk(EndWrite(context.get(), weight.get()));
      const bool saved = first && kept;
      EXPECT_EQ(ScaleInv(*weight), 1 / (saved ? scale : 448.0f));
      EXPECT_EQ(StateOf(context.get(), "weight").amax_history[0], saved ? 0.0f : 0.5f);
    }
  }
}

TEST_F(Fp8OnlyWeightTest, SlicesAreRowsOfOneWeight) {
  auto layer = MakeLinear(context_.get(), delayed_.get(), {{"query_", 40}, {"key_", 24}});
  const std::vector<NamedParameter> named = layer->NamedParameters();
  ASSERT_EQ(named.size(), 2u);
  EXPECT_EQ(named[1].name, "key_weight");
  EXPECT_EQ(named[1].shape(), (Shape{24, kIn}));
  EXPECT_NE(layer->Describe(0).find("key_weight=[24, 48]"), std::string::npos)
      << layer->Describe(0);
}

TEST_F(Fp8OnlyWeightTest, WhatCannotBeIsRefusedByName) {
  const std::unique_ptr<Recipe> refused[] = {
      Must(MakeRecipe(Float8BlockScalingRecipe())), Must(MakeRecipe(MXFP8BlockScalingRecipe())),
      Must(MakeRecipe(NVFP4BlockScalingRecipe())),
      Must(MakeRecipe(Float8CurrentScalingRecipe{.use_power_2_scales = true}))};
  for (const auto& recipe : refused) {
    const QuantizedInit init(context_.get(), recipe.get());
    const auto layer =
        Linear::Create(context_.get(), {.in_features = kIn, .out_features = kOut}, kName);
    EXPECT_TRUE(FailsWith(layer.status(), StatusCode::kUnsupported, "model.linear: a weight in"));
    EXPECT_TRUE(FailsWith(layer.status(), StatusCode::kUnsupported, recipe->name().c_str()));
  }
  auto layer = MakeLinear(context_.get(), delayed_.get());
  Parameter* weight = layer->Parameters()[0];
  EXPECT_TRUE(FailsWith(
      AdamWOptimizer::Create(context_.get(), {weight}, {.master_weights = MasterWeights::kFloat32})
          .status(),
      StatusCode::kInvalidArgument, "parameter 'weight' exists in FP8 alone"));
  EXPECT_TRUE(FailsWith(EndWrite(context_.get(), weight), StatusCode::kFailedPrecondition,
                        "was not begun"));
  // A scope by another recipe than the weight's.
  Tensor y = Must(context_->NewTensor(DType::kBFloat16, {kTokens, kOut}));
  const Tensor x = Uniform(context_.get(), {kTokens, kIn}, 2, 1);
  ForwardArgs args;
  args.input = x;
  args.output = y.view();
  context_->BeginQuantization(current_.get(), {});
  EXPECT_TRUE(FailsWith(layer->Forward(args, nullptr), StatusCode::kFailedPrecondition,
                        "model.linear: the weight exists in FP8 alone"));
  MustOk(context_->EndQuantization());
  // A dense parameter has no codes.
  auto dense = MakeLinear(context_.get(), nullptr);
  EXPECT_TRUE(FailsWith(
      DequantizedRows(context_.get(), *dense->Parameters()[0], 0, 1, DType::kFloat32).status(),
      StatusCode::kFailedPrecondition, "is dense"));
  // Nothing written yet.
  const auto other = test::NewContext();
  const QuantizedInit init(other.get(), delayed_.get());
  auto empty = Must(Linear::Create(other.get(),
                                   {.in_features = kIn,
                                    .out_features = kOut,
                                    .bias = false,
                                    .params_dtype = DType::kBFloat16,
                                    .perform_initialization = false},
                                   kName));
  EXPECT_TRUE(FailsWith(empty->Forward(args, nullptr), StatusCode::kFailedPrecondition,
                        "nothing has been written"));
}

}  // namespace
}  // namespace te
