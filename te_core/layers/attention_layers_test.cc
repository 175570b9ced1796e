// DotProductAttention and MultiheadAttention against their equations; the key-value cache.
#include <cmath>

#include "te_core/layers/multihead_attention.h"
#include "te_core/layers/testing/layer_harness.h"
#include "te_kernels/testing/host_tensor.h"
#include "te_kernels/testing/near.h"

namespace te {
namespace {

using test::Get;
using test::Must;
using test::Tensors;
using test::Values;

constexpr AttentionMaskType kMaskTypes[] = {AttentionMaskType::kNoMask,
                                            AttentionMaskType::kPadding,
                                            AttentionMaskType::kCausal,
                                            AttentionMaskType::kPaddingCausal,
                                            AttentionMaskType::kCausalBottomRight,
                                            AttentionMaskType::kPaddingCausalBottomRight,
                                            AttentionMaskType::kArbitrary};

bool UsesPaddingMask(AttentionMaskType type) {
  return type == AttentionMaskType::kPadding || type == AttentionMaskType::kPaddingCausal ||
         type == AttentionMaskType::kPaddingCausalBottomRight;
}

// The masks of a type for batch 2: the last key of row 1 padded; a few pairs masked.
struct Masks {
  std::vector<uint8_t> padding, arbitrary;
  Tensor padding_tensor, arbitrary_tensor;
};
Masks MakeMasks(Context* context, AttentionMaskType type, int64_t heads, int64_t queries,
                int64_t keys) {
  Masks m;
  if (UsesPaddingMask(type)) {
    m.padding.assign(static_cast<size_t>(2 * keys), 0);
    m.padding.back() = 1;
    m.padding_tensor = test::NewUInt8(context, {2, keys}, m.padding);
  }
  if (type == AttentionMaskType::kArbitrary) {
    m.arbitrary.assign(static_cast<size_t>(2 * heads * queries * keys), 0);
    for (size_t i = 0; i < m.arbitrary.size(); i += 3) m.arbitrary[i] = 1;
    m.arbitrary_tensor = test::NewUInt8(context, {2, heads, queries, keys}, m.arbitrary);
  }
  return m;
}

TEST(DotProductAttentionTest, MatchesItsEquationForEveryMaskFormatWindowAndGroupRatio) {
  auto context = test::NewContext();
  uint64_t seed = 1;
  for (AttentionMaskType type : kMaskTypes) {
    for (AttentionFormat format : {AttentionFormat::kBshd, AttentionFormat::kSbhd}) {
      for (int64_t groups : {1, 2, 4}) {
        SCOPED_TRACE(std::string(Name(type)) + " " + Name(format) + " groups " +
                     std::to_string(groups));
        const int64_t B = 2, Sq = 3, Skv = 5, n = 4, d = 3;
        const bool causal = type != AttentionMaskType::kNoMask &&
                            type != AttentionMaskType::kPadding &&
                            type != AttentionMaskType::kArbitrary;
        const DotProductAttentionOptions options = {
            .num_attention_heads = n,
            .kv_channels = d,
            .num_gqa_groups = groups,
            .qkv_format = format,
            .attn_mask_type = type,
            .window_size = {groups == 2 ? 1 : -1, causal ? 0 : (groups == 2 ? 2 : -1)}};
        auto layer = Must(DotProductAttention::Create(context.get(), options, "core"));
        const bool sbhd = format == AttentionFormat::kSbhd;
        const Shape q_shape = sbhd ? Shape{Sq, B, n, d} : Shape{B, Sq, n, d};
        const Shape k_shape = sbhd ? Shape{Skv, B, groups, d} : Shape{B, Skv, groups, d};
        const auto uniform = [&](const Shape& shape) {
          return test::NewTensor(context.get(), DType::kFloat32, shape,
                                 test::UniformDoubles(shape.elements(), ++seed));
        };
        const Tensor q = uniform(q_shape), k = uniform(k_shape), v = uniform(k_shape);
        const Masks masks = MakeMasks(context.get(), type, n, Sq, Skv);
        test::LayerRun run;
        run.layer = layer.get();
        run.forward.input = q;
        run.forward.attention.key = k;
        run.forward.attention.value = v;
        run.forward.attention.padding_mask = masks.padding_tensor;
        run.forward.attention.arbitrary_mask = masks.arbitrary_tensor;
        run.output_shape = q_shape;
        const std::vector<double> weights = test::OutputWeights(run, ++seed);
        test::AttentionProblem p = {.batch = B,
                                    .queries = Sq,
                                    .keys = Skv,
                                    .heads = n,
                                    .groups = groups,
                                    .head_dim = d,
                                    .mask_type = type,
                                    .window = options.window_size,
                                    .scale = 1 / std::sqrt(3.0),
                                    .padding = masks.padding,
                                    .arbitrary = masks.arbitrary};
        const test::Reference reference = [&](const Tensors& t) {
          const auto batch_first = [&](const char* name, int64_t s) {
            return sbhd ? test::SwapFirstTwo(Get(t, name), s, B) : Get(t, name);
          };
          const Values out = test::AttentionReference(
              p, batch_first("input", Sq), batch_first("key", Skv), batch_first("value", Skv));
          return sbhd ? test::SwapFirstTwo(out, B, Sq) : out;
        };
        const Tensors tensors = test::TensorsOf(run);
        const test::Results got = test::Run(run, weights);
        const double tolerance = test::Tolerance(DType::kFloat32, d + Skv, 6);
        EXPECT_TRUE(test::ResultsNear(
            got, test::ReferenceResults(reference, tensors, weights, true), tolerance, 0.1));
        // Twin: one more key masked must show.
        test::AttentionProblem other = p;
        other.padding = std::vector<uint8_t>(static_cast<size_t>(B * Skv), 0);
        other.padding[2] = 1;  // seen by some query under every mask and window here
        std::swap(p, other);
        EXPECT_FALSE(test::ResultsNear(
            got, test::ReferenceResults(reference, tensors, weights, true), tolerance, 0.1));
        std::swap(p, other);
      }
    }
  }
}

TEST(DotProductAttentionTest, RefusesMasksThatItsTypeDoesNotUse) {
  auto context = test::NewContext();
  auto layer = Must(DotProductAttention::Create(
      context.get(), {.num_attention_heads = 1, .kv_channels = 2}, "core"));
  Tensor x = test::NewTensor(context.get(), DType::kFloat32, {1, 1, 1, 2}, {1, 2}),
         y = Must(context->NewTensor(DType::kFloat32, {1, 1, 1, 2}));
  Tensor mask = test::NewUInt8(context.get(), {1, 1}, {0});
  ForwardArgs args;
  args.input = x;
  args.attention.key = args.attention.value = x;
  args.output = y.view();
  EXPECT_TRUE(test::IsOk(layer->Forward(args, nullptr)));
  args.attention.padding_mask = mask;
  EXPECT_TRUE(test::FailsWith(layer->Forward(args, nullptr), StatusCode::kInvalidArgument,
                              "attn_mask_type causal does not use it"));
  args.attention.padding_mask = ConstTensorView();
  args.attention.start_position = 1;
  EXPECT_TRUE(test::FailsWith(layer->Forward(args, nullptr), StatusCode::kInvalidArgument,
                              "start_position is given"));
  EXPECT_TRUE(test::FailsWith(
      DotProductAttention::Create(
          context.get(), {.num_attention_heads = 3, .kv_channels = 2, .num_gqa_groups = 2}, "core")
          .status(),
      StatusCode::kInvalidArgument,
      "core: num_gqa_groups is 2; expected a divisor of num_attention_heads = 3"));
}

// Tables with any angles: the rotation's own frequencies are rotary_position_embedding's.
struct Rotary {
  test::RotaryReference reference;
  Tensor cos, sin, positions;
};
Rotary MakeRotary(Context* context, int64_t half, bool interleaved,
                  const std::vector<int32_t>& positions, int64_t batch, int64_t sequence) {
  Rotary r;
  const std::vector<double> angles = test::UniformDoubles(16 * half, 99, -3, 3);
  for (double a : angles) {
    r.reference.cos.push_back(static_cast<float>(std::cos(a)));
    r.reference.sin.push_back(static_cast<float>(std::sin(a)));
  }
  r.reference.half = half;
  r.reference.interleaved = interleaved;
  r.reference.positions = positions;
  r.cos = test::NewTensor(context, DType::kFloat32, {16, half}, r.reference.cos);
  r.sin = test::NewTensor(context, DType::kFloat32, {16, half}, r.reference.sin);
  if (!positions.empty()) r.positions = test::NewInt32(context, {batch, sequence}, positions);
  return r;
}

class MultiheadAttentionTest : public ::testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(, MultiheadAttentionTest,
                         ::testing::Values(DType::kFloat32, DType::kBFloat16),
                         [](const auto& info) { return Name(info.param); });

TEST_P(MultiheadAttentionTest, MatchesItsEquationInEveryWeightLayout) {
  auto context = test::NewContext();
  uint64_t seed = 1;
  struct Case {
    int64_t heads, groups, d;
    bool fused, interleaved, norm, sbhd, rotary;
  };
  const Case cases[] = {
      {4, 2, 3, false, true, true, false, true},  {4, 2, 3, true, true, true, true, true},
      {4, 2, 4, true, true, false, false, false}, {4, 2, 3, true, false, true, true, true},
      {3, 3, 2, true, true, true, false, true},   {3, 1, 5, true, true, false, true, true},
      {6, 3, 2, false, true, false, true, false}};
  for (const Case& c : cases) {
    SCOPED_TRACE(
        fmt::format("{} heads, {} groups, d {}, fused {}, interleaved {}, norm {}, sbhd {}",
                    c.heads, c.groups, c.d, c.fused, c.interleaved, c.norm, c.sbhd));
    const int64_t B = 2, S = 3, H = 5;
    const MultiheadAttentionOptions options = {
        .hidden_size = H,
        .num_attention_heads = c.heads,
        .kv_channels = c.d,
        .num_gqa_groups = c.groups,
        .attention_dropout = 0,
        .attn_mask_type = c.sbhd ? AttentionMaskType::kPadding : AttentionMaskType::kCausal,
        .input_layernorm = c.norm,
        .normalization = c.heads == 3 ? NormalizationKind::kLayerNorm : NormalizationKind::kRmsNorm,
        .bias = c.groups != 3,
        .qkv_bias = c.d == 4 ? std::optional<bool>(false) : std::nullopt,
        .fuse_qkv_params = c.fused,
        .qkv_weight_interleaved = c.interleaved,
        .qkv_format = c.sbhd ? AttentionFormat::kSbhd : AttentionFormat::kBshd,
        .params_dtype = GetParam()};
    auto layer = Must(MultiheadAttention::Create(context.get(), options, "attention"));
    test::Randomize(layer.get(), seed += 100, 0.7);
    const Shape shape = c.sbhd ? Shape{S, B, H} : Shape{B, S, H};
    const Tensor x = test::NewTensor(context.get(), GetParam(), shape,
                                     test::UniformDoubles(shape.elements(), ++seed));
    const Masks masks = MakeMasks(context.get(), options.attn_mask_type, c.heads, S, S);
    Rotary rotary;
    test::LayerRun run;
    if (c.rotary) {
      rotary = MakeRotary(context.get(), c.d / 2, c.sbhd,
                          c.fused ? std::vector<int32_t>{0, 5, 2, 1, 9, 3} : std::vector<int32_t>(),
                          B, S);
      run.forward.attention.rotary = {rotary.cos, rotary.sin, c.sbhd};
      run.forward.attention.positions = rotary.positions;
    }
    run.layer = layer.get();
    run.forward.input = x;
    run.forward.attention.padding_mask = masks.padding_tensor;
    run.output_shape = shape;
    run.output_dtype = GetParam();
    const test::AttentionProblem attention = {.batch = B, .queries = S, .padding = masks.padding};
    test::ExpectMatchesReference(
        run,
        [&](const Tensors& t) {
          return test::MultiheadAttentionReference(options, t, "", Get(t, "input"), attention,
                                                   rotary.reference);
        },
        30, 12, ++seed);
  }
}

TEST_P(MultiheadAttentionTest, IncrementalInferenceEqualsTheFullForwardPass) {
  auto context = test::NewContext();
  for (bool sbhd : {false, true}) {
    for (int64_t window : {-1, 2}) {
      const int64_t B = 2, S = 7, H = 6;
      const MultiheadAttentionOptions options = {
          .hidden_size = H,
          .num_attention_heads = 4,
          .kv_channels = 3,
          .num_gqa_groups = 2,
          .window_size = {window, -1},
          .fuse_qkv_params = true,
          .qkv_format = sbhd ? AttentionFormat::kSbhd : AttentionFormat::kBshd,
          .params_dtype = GetParam()};
      auto layer = Must(MultiheadAttention::Create(context.get(), options, "attention"));
      test::Randomize(layer.get(), 3, 0.7);
      const Rotary rotary = MakeRotary(context.get(), 1, false, {}, B, S);
      const int axis = sbhd ? 0 : 1;
      const auto run = [&](ConstTensorView x, KeyValueCache* cache) {
        test::LayerRun r;
        r.layer = layer.get();
        r.forward.input = x;
        r.forward.attention.rotary = {rotary.cos, rotary.sin, false};
        r.forward.attention.cache = cache;
        r.output_shape = x.shape();
        r.output_dtype = GetParam();
        return test::Infer(r).at("output");
      };
      const Shape shape = sbhd ? Shape{S, B, H} : Shape{B, S, H};
      const Tensor x = test::NewTensor(context.get(), GetParam(), shape,
                                       test::UniformDoubles(shape.elements(), 5));
      const Tensor full = test::NewTensor(context.get(), GetParam(), shape, run(x, nullptr));
      KeyValueCache cache = Must(layer->NewCache(B, S));
      const double tolerance = test::Tolerance(GetParam(), 12, 6);
      for (const auto& [begin, end] : {std::pair<int64_t, int64_t>{0, 4}, {4, 5}, {5, 7}}) {
        const std::vector<double> values = test::ToDoubles(x.view().Slice(axis, begin, end));
        Shape part = shape;
        part[axis] = end - begin;
        const Tensor chunk = test::NewTensor(context.get(), GetParam(), part, values);
        const test::Results got = {{"output", run(chunk, &cache)}};
        const test::Results want = {
            {"output", test::ToDoubles(full.view().Slice(axis, begin, end))}};
        EXPECT_TRUE(test::ResultsNear(got, want, tolerance, 0.1)) << begin;
        // Twin: the same tokens without what came before.
        if (begin != 0) {
          EXPECT_FALSE(test::ResultsNear({{"output", run(chunk, nullptr)}}, want, tolerance, 0.1));
        }
        EXPECT_EQ(cache.length, end);
      }
      Tensor y = Must(context->NewTensor(GetParam(), shape));
      ForwardArgs args;
      args.input = x;
      args.output = y.view();
      args.attention.cache = &cache;
      EXPECT_TRUE(test::FailsWith(layer->Forward(args, nullptr), StatusCode::kInvalidArgument,
                                  "holds 7 tokens; expected room for 7 more"));
      EXPECT_EQ(cache.length, S);
    }
  }
}

}  // namespace
}  // namespace te
