// TransformerLayer against its equation in many configurations; what training needs of it: dropout,
// deferred weight gradients, several micro-batches in flight, accumulation, repeatability, no
// allocation.
#include "te_core/layers/transformer_layer.h"

#include <cmath>

#include "te_core/layers/testing/layer_harness.h"
#include "te_kernels/testing/host_tensor.h"
#include "te_kernels/testing/near.h"

namespace te {
namespace {

using test::Get;
using test::Must;
using test::MustOk;
using test::Tensors;

// Draws from few values: what a test of configurations needs.
class Dice {
 public:
  explicit Dice(uint64_t seed) : random_{.seed = seed} {}
  int64_t Below(int64_t n) {
    return static_cast<int64_t>(Philox::At(random_, next_++) % static_cast<uint64_t>(n));
  }
  bool Coin() { return Below(2) == 1; }

 private:
  RandomState random_;
  uint64_t next_ = 0;
};

TransformerLayerOptions Small() {
  TransformerLayerOptions o;
  o.hidden_size = 6;
  o.ffn_hidden_size = 7;
  o.num_attention_heads = 4;
  o.num_gqa_groups = 2;
  o.kv_channels = 3;
  o.hidden_dropout = 0;
  o.attention_dropout = 0;
  o.normalization = NormalizationKind::kRmsNorm;
  o.activation = ActivationKind::kSwiglu;
  o.attn_input_format = AttentionFormat::kBshd;
  return o;
}

Tensor Hidden(Context* context, const TransformerLayerOptions& o, int64_t batch, int64_t sequence,
              uint64_t seed) {
  const Shape shape = o.attn_input_format == AttentionFormat::kSbhd
                          ? Shape{sequence, batch, o.hidden_size}
                          : Shape{batch, sequence, o.hidden_size};
  return test::NewTensor(context, o.params_dtype, shape,
                         test::UniformDoubles(shape.elements(), seed));
}

test::LayerRun RunOf(Layer* layer, const Tensor& x) {
  test::LayerRun run;
  run.layer = layer;
  run.forward.input = x;
  run.output_shape = x.shape();
  run.output_dtype = x.dtype();
  return run;
}

class RandomConfigurationTest : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(, RandomConfigurationTest, ::testing::Range(0, 14));

TEST_P(RandomConfigurationTest, MatchesTheEquation) {
  Dice dice(static_cast<uint64_t>(GetParam()) + 1);
  auto context = test::NewContext();
  TransformerLayerOptions o;
  const int64_t B = 1 + dice.Below(2), S = 2 + dice.Below(3);
  o.num_gqa_groups = 1 + dice.Below(3);
  o.num_attention_heads = o.num_gqa_groups * (1 + dice.Below(3));
  o.kv_channels = 1 + dice.Below(5);
  o.hidden_size = 3 + dice.Below(5);
  o.ffn_hidden_size = 1 + dice.Below(9);
  o.hidden_dropout = dice.Coin() ? 0.25f : 0.0f;
  o.attention_dropout = dice.Coin() ? 0.25f : 0.0f;
  o.self_attn_mask_type = dice.Coin() ? AttentionMaskType::kCausal : AttentionMaskType::kNoMask;
  o.window_size.left = dice.Coin() ? 1 : -1;
  o.fuse_qkv_params = dice.Coin();
  o.qkv_weight_interleaved = dice.Coin();
  o.bias = dice.Coin();
  if (dice.Coin()) o.qkv_bias = dice.Coin();
  if (dice.Coin()) o.mlp_bias = dice.Coin();
  o.normalization = dice.Coin() ? NormalizationKind::kRmsNorm : NormalizationKind::kLayerNorm;
  o.zero_centered_gamma = dice.Coin();
  o.activation = static_cast<ActivationKind>(dice.Below(12));
  o.attn_input_format = dice.Coin() ? AttentionFormat::kBshd : AttentionFormat::kSbhd;
  o.output_layernorm = dice.Below(4) == 0;
  // Every block form comes up: by the test's number, not by chance.
  o.apply_residual_connection_post_layernorm = GetParam() % 3 == 1;
  o.parallel_attention_mlp = GetParam() % 3 == 2;
  o.params_dtype = GetParam() % 5 == 4 ? DType::kBFloat16 : DType::kFloat32;
  o.layernorm_epsilon =
      1e-2f;  // a row of few, nearly equal features would amplify rounding without bound
  const std::string description = fmt::format(
      "B {}, S {}, heads {}, groups {}, d {}, H {}, F {}, dropout {} {}, {}, post {}, parallel {}, "
      "output_layernorm {}",
      B, S, o.num_attention_heads, o.num_gqa_groups, o.kv_channels, o.hidden_size,
      o.ffn_hidden_size, o.hidden_dropout, o.attention_dropout, Name(o.activation),
      o.apply_residual_connection_post_layernorm, o.parallel_attention_mlp, o.output_layernorm);
  SCOPED_TRACE(description);
  auto layer = Must(TransformerLayer::Create(context.get(), o, "layer"));
  test::Randomize(layer.get(), 1000 + static_cast<uint64_t>(GetParam()), 0.6);
  const Tensor x = Hidden(context.get(), o, B, S, 5);

  test::AttentionProblem attention = {.batch = B, .queries = S};
  attention.random = context->Random(layer->core_attention_stream()).Resolved();
  const test::HiddenDropout hidden = {
      context->Random(layer->hidden_dropout_streams().first).Resolved(),
      context->Random(layer->hidden_dropout_streams().second).Resolved()};
  test::ExpectMatchesReference(
      RunOf(layer.get(), x),
      [&](const Tensors& t) {
        return test::TransformerLayerReference(o, t, Get(t, "input"), attention, {}, hidden);
      },
      40, 24, 9);
}

TEST(TransformerLayerTest, SbhdAgreesWithBshdWithinRounding) {
  TransformerLayerOptions o = Small();
  std::map<std::string, std::vector<double>> results[2];
  const int64_t B = 2, S = 5;
  for (AttentionFormat format : {AttentionFormat::kBshd, AttentionFormat::kSbhd}) {
    auto context = test::NewContext();
    o.attn_input_format = format;
    auto layer = Must(TransformerLayer::Create(context.get(), o, "layer"));
    test::Randomize(layer.get(), 1, 0.6);
    const std::vector<double> values = test::UniformDoubles(B * S * 6, 3),
                              weights = test::UniformDoubles(B * S * 6, 4);
    const auto to_format = [&](const std::vector<double>& v, int64_t a, int64_t b) {
      if (format == AttentionFormat::kBshd) return v;
      std::vector<double> out;
      for (const test::Complex& c : test::SwapFirstTwo(test::Values(v.begin(), v.end()), a, b))
        out.push_back(c.real());
      return out;
    };
    const Shape shape = format == AttentionFormat::kSbhd ? Shape{S, B, 6} : Shape{B, S, 6};
    const Tensor x =
        test::NewTensor(context.get(), DType::kFloat32, shape, to_format(values, B, S));
    test::Results r = test::Run(RunOf(layer.get(), x), to_format(weights, B, S));
    r["output"] = to_format(r["output"], S, B);
    r["input"] = to_format(r["input"], S, B);
    results[static_cast<int>(format)] = r;
  }
  // Rows are the same numbers in the same operations; parameters' gradients add the tokens in
  // another order.
  EXPECT_TRUE(
      test::ResultsNear(results[1], results[0], test::Tolerance(DType::kFloat32, 10, 2), 0.1));
  results[1]["output"][3] += 1e-3;
  EXPECT_FALSE(
      test::ResultsNear(results[1], results[0], test::Tolerance(DType::kFloat32, 10, 2), 0.1));
}

TEST(TransformerLayerTest, RepeatsBitForBitAndForAnyNumberOfThreads) {
  for (DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    TransformerLayerOptions o = Small();
    o.hidden_size = 64;
    o.ffn_hidden_size = 96;
    o.kv_channels = 16;
    o.hidden_dropout = o.attention_dropout = 0.1f;
    o.params_dtype = dtype;
    std::vector<test::Results> results;
    for (int threads : {1, 1, 2}) {
      auto context = test::NewContext(threads);
      auto layer = Must(TransformerLayer::Create(context.get(), o, "layer"));
      test::Randomize(layer.get(), 1, 0.2);
      const Tensor x = Hidden(context.get(), o, 2, 17, 3);
      results.push_back(
          test::Run(RunOf(layer.get(), x), test::OutputWeights(RunOf(layer.get(), x), 4)));
    }
    EXPECT_TRUE(test::ResultsEqual(results[0], results[1]));
    // A library's GEMM may split its sums by thread: within rounding.
    EXPECT_TRUE(test::ResultsNear(results[2], results[0], test::Tolerance(dtype, 96, 24), 0.1));
  }
}

// What one micro-batch needs, kept while another runs.
struct MicroBatch {
  Tensor x, y, dy, dx;
  SavedPool::Handle slot;
};
MicroBatch NewMicroBatch(Context* context, SavedPool* pool, const TransformerLayerOptions& o,
                         int64_t sequence, uint64_t seed) {
  MicroBatch m{Hidden(context, o, 2, sequence, seed), Hidden(context, o, 2, sequence, 0),
               Hidden(context, o, 2, sequence, seed + 1), Hidden(context, o, 2, sequence, 0),
               Must(pool->Acquire())};
  return m;
}
void Forward(Layer* layer, MicroBatch* m) {
  ForwardArgs args;
  args.input = m->x;
  args.output = m->y.view();
  MustOk(layer->Forward(args, &m->slot->root));
}
BackwardArgs BackwardArgsOf(MicroBatch* m, bool accumulate) {
  BackwardArgs args;
  args.doutput = m->dy;
  args.dinput = m->dx.view();
  args.accumulate_gradients = accumulate;
  return args;
}
test::Results Gradients(Layer* layer) {
  test::Results results;
  for (const NamedParameter& p : layer->NamedParameters())
    results[p.name] = test::ToDoubles(p.grad());
  return results;
}

TransformerLayerOptions WithDropout() {
  TransformerLayerOptions o = Small();
  o.hidden_dropout = 0.2f;
  o.attention_dropout = 0.1f;
  o.bias = true;
  return o;
}

TEST(TransformerLayerTest, MicroBatchesInFlightEqualOneAfterTheOther) {
  for (const TransformerLayerOptions& o : {Small(), WithDropout()}) {
    test::Results gradients[2], outputs[2];
    for (bool interleaved : {false, true}) {
      auto context = test::NewContext();
      auto layer = Must(TransformerLayer::Create(context.get(), o, "layer"));
      test::Randomize(layer.get(), 1, 0.6);
      SavedPool pool(context->memory());
      MicroBatch a = NewMicroBatch(context.get(), &pool, o, 4, 10),
                 b = NewMicroBatch(context.get(), &pool, o, 3, 20);
      context->set_micro_batch(0);
      Forward(layer.get(), &a);
      if (interleaved) {
        context->set_micro_batch(1);
        Forward(layer.get(), &b);
      }
      MustOk(layer->Backward(BackwardArgsOf(&a, false), &a.slot->root));
      if (!interleaved) {
        context->set_micro_batch(1);
        Forward(layer.get(), &b);
      }
      MustOk(layer->Backward(BackwardArgsOf(&b, true), &b.slot->root));
      gradients[interleaved] = Gradients(layer.get());
      outputs[interleaved] = {{"ya", test::ToDoubles(a.y)},
                              {"yb", test::ToDoubles(b.y)},
                              {"dxa", test::ToDoubles(a.dx)},
                              {"dxb", test::ToDoubles(b.dx)}};
      if (interleaved) {  // accumulation added: the second micro-batch alone gives something else
        MustOk(layer->Backward(BackwardArgsOf(&b, false), &b.slot->root));
        EXPECT_FALSE(test::ResultsEqual(Gradients(layer.get()), gradients[1]));
      }
    }
    EXPECT_TRUE(test::ResultsEqual(gradients[0], gradients[1]));
    EXPECT_TRUE(test::ResultsEqual(outputs[0], outputs[1]));
  }
}

TEST(TransformerLayerTest, DeferredWeightGradientsEqualImmediateOnesBitForBit) {
  for (const TransformerLayerOptions& o : {Small(), WithDropout()}) {
    auto context = test::NewContext();
    auto layer = Must(TransformerLayer::Create(context.get(), o, "layer"));
    test::Randomize(layer.get(), 1, 0.6);
    SavedPool pool(context->memory());
    MicroBatch a = NewMicroBatch(context.get(), &pool, o, 4, 10),
               b = NewMicroBatch(context.get(), &pool, o, 3, 20);
    Forward(layer.get(), &a);
    EXPECT_EQ(layer->BackwardWeight(BackwardArgsOf(&a, false), &a.slot->root).code(),
              StatusCode::kFailedPrecondition);
    MustOk(layer->Backward(BackwardArgsOf(&a, false), &a.slot->root));
    const test::Results want = Gradients(layer.get());
    const std::vector<double> dx = test::ToDoubles(a.dx);
    Forward(layer.get(), &a);
    Forward(layer.get(), &b);
    MustOk(layer->BackwardInput(BackwardArgsOf(&a, false), &a.slot->root));
    EXPECT_EQ(test::ToDoubles(a.dx), dx);
    const test::Results norms = Gradients(layer.get());
    MustOk(layer->BackwardInput(BackwardArgsOf(&b, true), &b.slot->root));
    MustOk(layer->BackwardWeight(BackwardArgsOf(&a, false), &a.slot->root));
    test::Results got = Gradients(layer.get());
    // BackwardInput of b has added to the norms' gradients, which fall out there.
    for (auto& [name, values] : got) {
      if (name.find("layer_norm") != std::string::npos) {
        EXPECT_NE(values, norms.at(name));
        values = norms.at(name);
      }
    }
    EXPECT_TRUE(test::ResultsEqual(got, want));
  }
}

TEST(TransformerLayerTest, EveryTrainableParameterIsReportedReadyOnceAndFrozenOnesAreLeftAlone) {
  const TransformerLayerOptions o = WithDropout();
  auto context = test::NewContext();
  auto layer = Must(TransformerLayer::Create(context.get(), o, "layer"));
  test::Randomize(layer.get(), 1, 0.6);
  SavedPool pool(context->memory());
  MicroBatch a = NewMicroBatch(context.get(), &pool, o, 4, 10);
  std::map<std::string, int> ready_counts;
  std::map<std::string, std::vector<double>> at_ready;
  const GradientReady ready = [&](Parameter& p) {
    ++ready_counts[p.name + p.value.shape().ToString()];
    at_ready[p.name + p.value.shape().ToString()] = test::ToDoubles(p.grad);
    return OkStatus();
  };
  std::vector<Parameter*> parameters = layer->Parameters();
  parameters[1]->requires_grad = false;
  Forward(layer.get(), &a);
  BackwardArgs args = BackwardArgsOf(&a, false);
  args.gradient_ready = &ready;
  MustOk(layer->Backward(args, &a.slot->root));
  EXPECT_FALSE(parameters[1]->grad.defined());
  size_t trainable = 0;
  for (Parameter* p : parameters) {
    if (!p->requires_grad) continue;
    ++trainable;
    // Names repeat between layers; those that do have the same shape here and are counted twice.
    EXPECT_GE(ready_counts[p->name + p->value.shape().ToString()], 1) << p->name;
  }
  int calls = 0;
  for (const auto& [name, count] : ready_counts) calls += count;
  EXPECT_EQ(static_cast<size_t>(calls), trainable);
  // Nothing was added after the report (the layer reported last under a shared name is the one
  // compared).
  for (Parameter* p : parameters) {
    if (p->requires_grad && ready_counts[p->name + p->value.shape().ToString()] == 1) {
      EXPECT_EQ(at_ready[p->name + p->value.shape().ToString()], test::ToDoubles(p->grad))
          << p->name;
    }
  }
}

TEST(TransformerLayerTest, WithoutDinputTheParametersGradientsAreTheSame) {
  const TransformerLayerOptions o = Small();
  auto context = test::NewContext();
  auto layer = Must(TransformerLayer::Create(context.get(), o, "layer"));
  test::Randomize(layer.get(), 1, 0.6);
  SavedPool pool(context->memory());
  MicroBatch a = NewMicroBatch(context.get(), &pool, o, 4, 10);
  Forward(layer.get(), &a);
  MustOk(layer->Backward(BackwardArgsOf(&a, false), &a.slot->root));
  const test::Results want = Gradients(layer.get());
  Forward(layer.get(), &a);
  BackwardArgs args = BackwardArgsOf(&a, false);
  args.dinput = TensorView();
  MustOk(layer->Backward(args, &a.slot->root));
  EXPECT_TRUE(test::ResultsEqual(Gradients(layer.get()), want));
}

TEST(TransformerLayerTest, DropoutDiffersByStepAndMicroBatchAndIsOffInInference) {
  TransformerLayerOptions o = WithDropout();
  auto context = test::NewContext();
  auto layer = Must(TransformerLayer::Create(context.get(), o, "layer"));
  test::Randomize(layer.get(), 1, 0.6);
  SavedPool pool(context->memory());
  MicroBatch m = NewMicroBatch(context.get(), &pool, o, 4, 10);
  const auto output = [&] {
    m.slot.reset();
    m.slot = Must(pool.Acquire());
    Forward(layer.get(), &m);
    return test::ToDoubles(m.y);
  };
  const std::vector<double> first = output();
  EXPECT_EQ(output(), first);
  context->set_micro_batch(1);
  EXPECT_NE(output(), first);
  context->set_micro_batch(0);
  MustOk(context->WriteScalars({.rng_offset = 1}));
  EXPECT_NE(output(), first);
  const test::Results inferred = test::Infer(RunOf(layer.get(), m.x));
  MustOk(context->WriteScalars({}));
  EXPECT_EQ(test::Infer(RunOf(layer.get(), m.x)).at("output"), inferred.at("output"));
  EXPECT_NE(inferred.at("output"), first);
}

TEST(TransformerLayerTest, ARepeatedShapeAllocatesNothing) {
  for (const TransformerLayerOptions& o : {Small(), WithDropout()}) {
    auto context = test::NewContext();
    auto layer = Must(TransformerLayer::Create(context.get(), o, "layer"));
    MustOk(layer->EnsureGradients());
    SavedPool pool(context->memory());
    Tensor x = Hidden(context.get(), o, 2, 9, 1), y = Hidden(context.get(), o, 2, 9, 2),
           dx = Hidden(context.get(), o, 2, 9, 3);
    const auto step = [&] {
      auto slot = Must(pool.Acquire());
      ForwardArgs forward;
      forward.input = x;
      forward.output = y.view();
      MustOk(layer->Forward(forward, &slot->root));
      BackwardArgs backward;
      backward.doutput = y;
      backward.dinput = dx.view();
      MustOk(layer->Backward(backward, &slot->root));
      slot.reset();
      MustOk(context->scratch()->Reset());
    };
    step();
    step();
    const auto before = context->memory_statistics();
    step();
    EXPECT_EQ(context->memory_statistics().allocations, before.allocations);
    EXPECT_EQ(context->memory_statistics().bytes, before.bytes);
  }
}

TEST(TransformerLayerTest, DescribesItselfAsAModuleTree) {
  auto context = test::NewContext();
  TransformerLayerOptions o = Small();
  o.bias = false;
  auto layer = Must(TransformerLayer::Create(context.get(), o, "layer"));
  EXPECT_EQ(
      layer->Describe(0),
      "TransformerLayer(\n"
      "  (self_attention): MultiheadAttention(\n"
      "    (layernorm_qkv): LayerNormLinear(in_features=6, out_features=24, bias=False, "
      "normalization=RMSNorm, eps=1e-05, "
      "layer_norm_weight=[6], query_weight=[12, 6], key_weight=[6, 6], value_weight=[6, 6], 150 "
      "parameters)\n"
      "    (core_attention): DotProductAttention(num_attention_heads=4, num_gqa_groups=2, "
      "kv_channels=3, attn_mask_type=causal, "
      "softmax_scale=0.57735, attention_dropout=0)\n"
      "    (proj): Linear(in_features=12, out_features=6, bias=False, weight=[6, 12], 72 "
      "parameters)\n"
      "  )\n"
      "  (layernorm_mlp): LayerNormMLP(hidden_size=6, ffn_hidden_size=7, activation=swiglu, "
      "bias=False, normalization=RMSNorm, "
      "eps=1e-05, layer_norm_weight=[6], fc1_weight=[14, 6], fc2_weight=[6, 7], 132 parameters)\n"
      ")");
}

TEST(TransformerLayerTest, ErrorsNameTheLayer) {
  auto context = test::NewContext();
  TransformerLayerOptions o = Small();
  o.layer_number = 3;
  auto layer = Must(TransformerLayer::Create(context.get(), o, "model.layers.2"));
  Tensor x = Must(context->NewTensor(DType::kFloat32, {2, 3, 5})),
         y = Must(context->NewTensor(DType::kFloat32, {2, 3, 6}));
  ForwardArgs args;
  args.input = x;
  args.output = y.view();
  EXPECT_TRUE(test::FailsWith(
      layer->Forward(args, nullptr), StatusCode::kInvalidArgument,
      "layer 3: model.layers.2: input is float32 [2, 3, 5]; expected dense float32 [..., 6]"));
  o.apply_residual_connection_post_layernorm = o.parallel_attention_mlp = true;
  EXPECT_TRUE(test::FailsWith(TransformerLayer::Create(context.get(), o, "layer").status(),
                              StatusCode::kUnsupported, "parallel_attention_mlp"));
  o = Small();
  o.hidden_dropout = 1.5f;
  EXPECT_TRUE(test::FailsWith(TransformerLayer::Create(context.get(), o, "layer").status(),
                              StatusCode::kInvalidArgument, "layer: hidden_dropout is 1.5"));
}

}  // namespace
}  // namespace te
