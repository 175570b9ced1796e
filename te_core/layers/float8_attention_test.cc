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
    core.run.forward.attention.key = core.k;
    core.run.forward.attention.value = core.v;
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

// MultiheadAttention of the steps that it fuses: rotation in place, attention of dense tensors with
// the casts around it, a cast of its output.
class SeparateSteps : public Layer {
 public:
  SeparateSteps(Context* context, const MultiheadAttentionOptions& options, std::string name)
      : Layer(context, std::move(name)), o_(options) {
    qkv_ = Must(Linear::Create(
        context,
        {.in_features = o_.hidden_size,
         .out_features = (o_.num_attention_heads + 2 * o_.num_gqa_groups) * o_.kv_channels,
         .bias = o_.bias,
         .params_dtype = o_.params_dtype},
        name_ + ".qkv"));
    core_ = Must(DotProductAttention::Create(context,
                                             {.num_attention_heads = o_.num_attention_heads,
                                              .kv_channels = o_.kv_channels,
                                              .num_gqa_groups = o_.num_gqa_groups,
                                              .qkv_format = AttentionFormat::kBshd,
                                              .attn_mask_type = o_.attn_mask_type},
                                             name_ + ".core_attention"));
    proj_ = Must(Linear::Create(context,
                                {.in_features = o_.num_attention_heads * o_.kv_channels,
                                 .out_features = o_.hidden_size,
                                 .bias = o_.bias,
                                 .params_dtype = o_.params_dtype},
                                name_ + ".proj"));
  }

  Capabilities capabilities() const override { return {}; }
  Status Forward(const ForwardArgs& args, Saved* saved) override {
    attention_ = args.attention;
    qkv_shape_ = Shape{args.input.dense.dim(0), args.input.dense.dim(1), Features()};
    TE_ASSIGN_OR_RETURN(const TensorView qkv, saved->Allocate(o_.params_dtype, qkv_shape_));
    ForwardArgs step = {.input = args.input, .output = qkv};
    TE_RETURN_IF_ERROR(qkv_->Forward(step, saved->child(0)));
    TE_RETURN_IF_ERROR(Rotate(qkv, false));
    context_shape_ = Shape{qkv_shape_[0], qkv_shape_[1], o_.num_attention_heads * o_.kv_channels};
    TE_ASSIGN_OR_RETURN(const TensorView out, saved->Allocate(o_.params_dtype, context_shape_));
    step = {.input = Part(qkv, 0),
            .output = Heads(out, o_.num_attention_heads),
            .attention = {.key = Part(qkv, 1), .value = Part(qkv, 2)}};
    TE_RETURN_IF_ERROR(core_->Forward(step, saved->child(1)));
    step = {.input = out, .output = args.output};
    return proj_->Forward(step, saved->child(2));
  }
  Status BackwardInput(const BackwardArgs& args, Saved* saved) override {
    TE_ASSIGN_OR_RETURN(const TensorView dout, saved->Allocate(o_.params_dtype, context_shape_));
    TE_RETURN_IF_ERROR(
        proj_->BackwardInput({.doutput = args.doutput, .dinput = dout}, saved->child(2)));
    TE_ASSIGN_OR_RETURN(dqkv_, saved->Allocate(o_.params_dtype, qkv_shape_));
    TE_RETURN_IF_ERROR(
        core_->BackwardInput({.doutput = Heads(dout, o_.num_attention_heads),
                              .dinput = Part(dqkv_, 0),
                              .attention = {.dkey = Part(dqkv_, 1), .dvalue = Part(dqkv_, 2)}},
                             saved->child(1)));
    TE_RETURN_IF_ERROR(Rotate(dqkv_, true));
    return qkv_->BackwardInput({.doutput = dqkv_, .dinput = args.dinput}, saved->child(0));
  }
  Status BackwardWeight(const BackwardArgs& args, Saved* saved) override {
    TE_RETURN_IF_ERROR(proj_->BackwardWeight({.doutput = args.doutput}, saved->child(2)));
    TE_RETURN_IF_ERROR(core_->BackwardWeight({}, saved->child(1)));
    return qkv_->BackwardWeight({.doutput = dqkv_}, saved->child(0));
  }
  void VisitOwnParameters(const std::string& prefix, const ParameterVisitor& visit) override {
    qkv_->VisitParameters(JoinName(prefix, "qkv"), visit);
    proj_->VisitParameters(JoinName(prefix, "proj"), visit);
  }
  std::string Describe(int) const override { return name_; }

 private:
  int64_t Features() const {
    return (o_.num_attention_heads + 2 * o_.num_gqa_groups) * o_.kv_channels;
  }
  // Batch first.
  TensorView Heads(const TensorView& x, int64_t heads) const {
    return (o_.qkv_format == AttentionFormat::kSbhd ? x.Transpose(0, 1) : x)
        .Split(2, heads, o_.kv_channels);
  }
  TensorView Part(const TensorView& qkv, int part) const {
    const int64_t n = o_.num_attention_heads, g = o_.num_gqa_groups;
    const int64_t begin = part == 0 ? 0 : n + (part - 1) * g;
    return Heads(qkv, n + 2 * g).Slice(2, begin, begin + (part == 0 ? n : g));
  }
  Status Rotate(const TensorView& qkv, bool inverse) const {
    if (!attention_.rotary.cos.defined()) return OkStatus();
    const TensorView heads = Heads(qkv, o_.num_attention_heads + 2 * o_.num_gqa_groups)
                                 .Slice(2, 0, o_.num_attention_heads + o_.num_gqa_groups);
    return context_->kernels().rope(context_->exec(), {.x = heads,
                                                       .cos = attention_.rotary.cos,
                                                       .sin = attention_.rotary.sin,
                                                       .positions = attention_.positions,
                                                       .start_position = attention_.start_position,
                                                       .interleaved = attention_.rotary.interleaved,
                                                       .inverse = inverse,
                                                       .y = heads});
  }

  MultiheadAttentionOptions o_;
  std::unique_ptr<Linear> qkv_, proj_;
  std::unique_ptr<DotProductAttention> core_;
  AttentionArgs attention_;
  Shape qkv_shape_, context_shape_;
  TensorView dqkv_;
};

// Results and amax histories of three steps are those of the separate steps, bit for bit, whatever
// the projections' recipe and the sizes.
TEST_F(Float8AttentionTest, InsideItsLayerTheBitsAreThoseOfTheSeparateSteps) {
  struct {
    int64_t batch, sequence, heads, groups, head_dim, pairs;  // 0: no rotation
    AttentionFormat format;
    DType dtype;
    bool interleaved, bias, positions, projections;
  } const cases[] = {
      {2, 24, 4, 2, 16, 8, AttentionFormat::kBshd, DType::kBFloat16, false, false, false, true},
      {2, 24, 4, 2, 16, 8, AttentionFormat::kSbhd, DType::kBFloat16, true, true, true, true},
      {3, 7, 3, 1, 10, 5, AttentionFormat::kSbhd, DType::kFloat32, false, false, false, true},
      {1, 33, 2, 2, 20, 3, AttentionFormat::kBshd, DType::kFloat32, true, true, true, false},
      {2, 9, 4, 4, 16, 0, AttentionFormat::kBshd, DType::kBFloat16, false, true, false, true},
      {2, 9, 4, 1, 16, 0, AttentionFormat::kSbhd, DType::kFloat32, false, false, false, false},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(::testing::Message()
                 << c.batch << " x " << c.sequence << " heads " << c.heads << "/" << c.groups
                 << " of " << c.head_dim << " " << Name(c.format) << " " << Name(c.dtype));
    const MultiheadAttentionOptions options = {.hidden_size = 48,
                                               .num_attention_heads = c.heads,
                                               .kv_channels = c.head_dim,
                                               .num_gqa_groups = c.groups,
                                               .attention_dropout = 0,
                                               .bias = c.bias,
                                               .fuse_qkv_params = true,
                                               .qkv_weight_interleaved = false,
                                               .qkv_format = c.format,
                                               .params_dtype = c.dtype};
    const auto own_recipe = MakeModuleRecipes(
        {{.pattern = "*core_attention", .training = Must(MakeRecipe(kOptions))}}, nullptr);
    const Recipe* recipe = c.projections ? recipe_.get() : own_recipe.get();
    const Shape shape = c.format == AttentionFormat::kSbhd ? Shape{c.sequence, c.batch, 48}
                                                           : Shape{c.batch, c.sequence, 48};
    struct Trained {
      std::vector<test::Results> steps;
      std::vector<DelayedScalingState::Saved> state;
    };
    const auto train = [&](bool separate, double rotation) {
      auto context = test::NewContext();
      std::unique_ptr<Layer> layer;
      if (separate) {
        layer = std::make_unique<SeparateSteps>(context.get(), options, "attention");
      } else {
        layer = Must(MultiheadAttention::Create(context.get(), options, "attention"));
      }
      test::Randomize(layer.get(), 1, 0.3);
      const Tensor x =
          test::NewTensor(context.get(), c.dtype, shape, test::UniformDoubles(shape.elements(), 5));
      constexpr int64_t kRows = 40;
      std::vector<double> cosines, sines;
      for (const double a : test::UniformDoubles(kRows * c.pairs, 6, -3, 3)) {
        cosines.push_back(std::cos(rotation * a));
        sines.push_back(std::sin(rotation * a));
      }
      const Tensor cos = test::NewTensor(context.get(), DType::kFloat32, {kRows, c.pairs}, cosines);
      const Tensor sin = test::NewTensor(context.get(), DType::kFloat32, {kRows, c.pairs}, sines);
      std::vector<int32_t> places;
      for (int64_t i = 0; i < c.batch * c.sequence; ++i)
        places.push_back(static_cast<int32_t>(i * 7 % kRows));
      const Tensor positions = test::NewInt32(context.get(), {c.batch, c.sequence}, places);
      test::LayerRun run;
      run.layer = layer.get();
      run.forward.input = x;
      if (c.pairs != 0) run.forward.attention.rotary = {cos, sin, c.interleaved};
      if (c.positions) run.forward.attention.positions = positions;
      run.forward.attention.start_position = c.pairs == 0 || c.positions ? 0 : 5;
      run.output_shape = shape;
      run.output_dtype = c.dtype;
      const auto weights = test::OutputWeights(run, 7);
      Trained out;
      for (int step = 0; step < 3; ++step) {
        context->BeginQuantization(recipe, {.calibrating = step == 0});
        out.steps.push_back(test::Run(run, weights));
        MustOk(context->EndQuantization());
      }
      out.state = Must(context->delayed_scaling().Export(context->exec()));
      return out;
    };
    const Trained want = train(true, 1), got = train(false, 1);
    ASSERT_EQ(got.steps.size(), 3u);
    for (size_t step = 0; step < 3; ++step)
      EXPECT_TRUE(test::ResultsEqual(got.steps[step], want.steps[step])) << step;
    ASSERT_EQ(got.state.size(), want.state.size());
    EXPECT_EQ(got.state.size(), c.projections ? kAttentionTensors + 6u : kAttentionTensors + 0u);
    for (size_t i = 0; i < got.state.size(); ++i) {
      EXPECT_EQ(got.state[i].name, want.state[i].name);
      EXPECT_EQ(got.state[i].scale, want.state[i].scale) << got.state[i].name;
      EXPECT_EQ(got.state[i].amax_history, want.state[i].amax_history) << got.state[i].name;
    }
    if (c.pairs == 0) continue;
    // The twin: other angles.
    EXPECT_FALSE(test::ResultsEqual(train(false, 1.25).steps[2], want.steps[2]));
  }
}

TEST_F(Float8AttentionTest, CodesInTheWrongOrderOfCallsAreRefused) {
  Core core = MakeCore();
  Context* context = core.context.get();
  Arena arena(context->memory());
  Saved saved(&arena), dense(&arena);
  const TokenLayout tokens = {.batch = kBatch, .sequence = kSequence};
  constexpr StatusCode kPrecondition = StatusCode::kFailedPrecondition;
  constexpr StatusCode kArgument = StatusCode::kInvalidArgument;
  EXPECT_EQ(Must(core.layer->WantedInput(tokens, &saved)).format, QuantFormat::kNone);
  EXPECT_FALSE(core.layer->capabilities().wants_codes) << "no scope quantizes";
  EXPECT_TRUE(test::FailsWith(core.layer->WantedInput(tokens, nullptr).status(), kPrecondition,
                              "without saved state"));
  const Tensor y = Must(context->NewTensor(DType::kFloat32, core.q.shape()));
  core.run.forward.output = y.view();
  context->BeginQuantization(recipe_.get(), {});
  EXPECT_TRUE(core.layer->capabilities().wants_codes && core.layer->capabilities().leaves_codes);
  MustOk(core.layer->Forward(core.run.forward, &dense));

  const QuantSpec codes = Must(core.layer->WantedInput(tokens, &saved));
  EXPECT_EQ(codes.rowwise_data.shape(),
            (Shape{kBatch * kSequence, (kHeads + 2 * kGroups) * kHeadDim}));
  MustOk(context->Zero(codes.rowwise_data));
  MustOk(context->Zero(TensorView(codes.scale_inv, DType::kFloat32, {1})));
  QuantSpec out;
  ForwardArgs args;
  args.input.codes = codes;
  EXPECT_TRUE(test::FailsWith(core.layer->Forward(args, &saved), kArgument,
                              "codes of the input without output_codes"));
  args.output_codes = &out;
  for (Saved* other : {&dense, static_cast<Saved*>(nullptr)}) {
    EXPECT_TRUE(test::FailsWith(core.layer->Forward(args, other), kPrecondition,
                                "not of WantedInput of the same pass"));
  }
  ForwardArgs mixed = core.run.forward;
  mixed.output_codes = &out;
  EXPECT_TRUE(test::FailsWith(core.layer->Forward(mixed, &dense), kArgument,
                              "output_codes is given with a dense input"));
  MustOk(core.layer->Forward(args, &saved));
  EXPECT_EQ(out.rowwise_data.shape(), (Shape{kBatch * kSequence, kHeads * kHeadDim}));
  MustOk(context->EndQuantization());

  const ArenaScope scope(context->scratch());
  QuantSpec gradient;
  BackwardArgs backward = {.doutput = y.view().Transpose(0, 1), .dinput_codes = &gradient};
  EXPECT_TRUE(test::FailsWith(core.layer->BackwardInput(backward, &dense), kPrecondition,
                              "dinput_codes is given after a forward pass of dense tensors"));
  EXPECT_TRUE(test::FailsWith(core.layer->BackwardInput({.doutput = y}, &saved), kPrecondition,
                              "dinput_codes is not given after a forward pass of codes"));
  backward.doutput = y;
  EXPECT_TRUE(test::FailsWith(core.layer->BackwardInput(backward, &saved), kArgument,
                              "core: doutput is float32"));
  backward.doutput = y.view().Transpose(0, 1);
  MustOk(core.layer->BackwardInput(backward, &saved));
  EXPECT_EQ(gradient.rowwise_data.shape(), codes.rowwise_data.shape());

  auto linear = Must(Linear::Create(context, {.in_features = 64, .out_features = 8}, "linear"));
  const Tensor into = Must(context->NewTensor(DType::kFloat32, {kBatch * kSequence, 8}));
  ForwardArgs multiply = {.output = into.view()};
  multiply.input.codes = out;
  MustOk(linear->Forward(multiply, nullptr));
  multiply.input.dense = y;
  EXPECT_TRUE(test::FailsWith(linear->Forward(multiply, nullptr), kArgument,
                              "input is given beside its codes"));
  multiply.input.dense = ConstTensorView();
  const Tensor half = Must(context->NewTensor(DType::kFloat32, {kBatch, 8}));
  multiply.output = half.view();
  EXPECT_TRUE(
      test::FailsWith(linear->Forward(multiply, nullptr), kArgument, "expected FP8 [2, 64]"));
  auto norm = Must(Norm::Create(context, {.hidden_size = 64}, "norm"));
  EXPECT_TRUE(test::FailsWith(norm->Forward(multiply, nullptr), kArgument,
                              "codes of the input is given; this layer does not take it"));
}

TEST_F(Float8AttentionTest, AWholeLayerInFp8IsNearTheFloatOneAndRepeatsItsBits) {
  test::Results plain;
  const auto quantized = [&](const Recipe* recipe) {
    auto context = test::NewContext();
    auto layer = Must(TransformerLayer::Create(context.get(), test::SmallLlamaLayer(), "block"));
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
