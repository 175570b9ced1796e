// backward_override: which operands dgrad and wgrad have, against gradients in double of operands
// that the references of quantize and dequantize make.
#include <cmath>
#include <functional>

#include "te_core/layers/linear.h"
#include "te_core/layers/linear_cross_entropy.h"
#include "te_core/layers/testing/layer_harness.h"
#include "te_core/layers/transformer_layer.h"
#include "te_core/quantization/recipe.h"
#include "te_kernels/dequantize/dequantize_ref.h"
#include "te_kernels/quantize/quantize_ref.h"
#include "te_kernels/testing/host_tensor.h"
#include "te_kernels/testing/near.h"

namespace te {
namespace {

using test::Must;
using test::MustOk;
using Doubles = std::vector<double>;

constexpr int64_t kTokens = 20, kIn = 48, kOut = 36;
constexpr BackwardOverride kNone = BackwardOverride::kNone,
                           kHighPrecision = BackwardOverride::kHighPrecision,
                           kDequantized = BackwardOverride::kDequantized;

// A recipe of each kind that takes an override.
struct Kind {
  const char* name;
  std::function<std::unique_ptr<Recipe>(BackwardOverride)> make;
};
template <typename Options>
Kind KindOf(const char* name, Options options) {
  return {name, [options](BackwardOverride override) mutable {
            options.backward_override = override;
            return Must(MakeRecipe(options));
          }};
}
const Kind kKinds[] = {
    KindOf("current", Float8CurrentScalingRecipe()),
    KindOf("block", Float8BlockScalingRecipe()),
    KindOf("mxfp8", MXFP8BlockScalingRecipe()),
    KindOf("nvfp4", NVFP4BlockScalingRecipe()),
    KindOf("nvfp4_rows",
           NVFP4BlockScalingRecipe{.disable_rht = true, .row_scaled_activation = true}),
    KindOf("nvfp4_4over6",
           NVFP4BlockScalingRecipe{.disable_rht = true, .nvfp4_4over6 = Nvfp4Scope::kAll}),
};

// What the rowwise copy of a float32 tensor [rows, columns] stands for.
Doubles DequantizedRef(const Recipe& recipe, const char* tensor_type, const Doubles& values,
                       int64_t rows, int64_t columns) {
  const TensorQuantization q = recipe.For({"linear", tensor_type, "linear"});
  QuantSpec spec;
  spec.format = q.format;
  spec.scaling = q.scaling;
  spec.power_of_2_scales = q.power_of_2_scales;
  spec.amax_epsilon = q.amax_epsilon;
  spec.row_scaled = q.row_scaled;
  spec.four_over_six = q.four_over_six;
  spec.e4m3_use_256 = q.e4m3_use_256;
  const QuantizedRef quantized =
      QuantizeRef({values.begin(), values.end()}, rows, columns, DType::kFloat32, spec, 1);
  const std::vector<float> out = DequantizeRef(
      q.format, q.scaling, rows, columns, quantized.rowwise.codes, quantized.rowwise.float_scales,
      quantized.rowwise.byte_scales, quantized.scale_inv);
  return {out.begin(), out.end()};
}

struct Product {
  Doubles values;
  Doubles tolerance;  // of a float32 sum in any order: terms * u * sum |a b|
};
// a^T b, or a b, of a [m, k] or [k, m] and b [k, n].
Product Multiply(const Doubles& a, bool transposed, const Doubles& b, int64_t m, int64_t n,
                 int64_t k) {
  Product out;
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      double sum = 0, magnitudes = 0;
      for (int64_t l = 0; l < k; ++l) {
        const double term = a[transposed ? l * m + i : i * k + l] * b[l * n + j];
        sum += term;
        magnitudes += std::fabs(term);
      }
      out.values.push_back(sum);
      out.tolerance.push_back(static_cast<double>(k + 2) * test::UnitRoundoff(DType::kFloat32) *
                              magnitudes);
    }
  }
  return out;
}

class BackwardOverrideTest : public ::testing::TestWithParam<Kind> {
 protected:
  Tensor Uniform(const Shape& shape, uint64_t seed, double scale) {
    Doubles values = test::UniformDoubles(shape.elements(), seed);
    for (double& value : values) value *= scale;
    return test::NewTensor(context_.get(), DType::kFloat32, shape, values);
  }
  struct Gradients {
    Doubles y, dx, dw;
    bool columnwise_weight = false;
  };
  // One pass of a linear layer.
  Gradients Run(const Recipe* recipe) {
    auto layer = Must(Linear::Create(
        context_.get(),
        {.in_features = kIn, .out_features = kOut, .bias = false, .params_dtype = DType::kFloat32},
        "linear"));
    test::Randomize(layer.get(), 1, 0.5);
    Parameter* weight = layer->Parameters()[0];
    w_ = test::ToDoubles(weight->value);
    Arena arena(context_->memory());
    Saved saved(&arena);
    const Tensor y = Must(context_->NewTensor(DType::kFloat32, {kTokens, kOut}));
    const Tensor dx = Must(context_->NewTensor(DType::kFloat32, {kTokens, kIn}));
    context_->BeginQuantization(recipe, {});
    ForwardArgs forward;
    forward.input = x_;
    forward.output = y.view();
    MustOk(layer->Forward(forward, &saved));
    MustOk(context_->EndQuantization());
    BackwardArgs backward;
    backward.doutput = dy_;
    backward.dinput = dx.view();
    MustOk(layer->Backward(backward, &saved));
    return {test::ToDoubles(y), test::ToDoubles(dx), test::ToDoubles(weight->grad),
            weight->quantized.spec.columnwise_data.rank() != 0};
  }

  std::unique_ptr<Context> context_ = test::NewContext();
  Tensor x_ = Uniform({kTokens, kIn}, 2, 3.0), dy_ = Uniform({kTokens, kOut}, 3, 1e-3);
  Doubles w_;
};

TEST_P(BackwardOverrideTest, GradientsAreThoseOfTheOperandsThatItNames) {
  const Gradients plain = Run(GetParam().make(kNone).get());
  EXPECT_TRUE(plain.columnwise_weight);
  const Doubles dy = test::ToDoubles(dy_);
  for (const BackwardOverride override : {kHighPrecision, kDequantized}) {
    SCOPED_TRACE(te::Name(override));
    const auto recipe = GetParam().make(override);
    const Gradients got = Run(recipe.get());
    EXPECT_EQ(got.y, plain.y) << "the forward pass is the same";
    EXPECT_FALSE(got.columnwise_weight) << "a copy that nobody reads";
    const Doubles x = test::ToDoubles(x_);
    const Doubles x_values = DequantizedRef(*recipe, "input", x, kTokens, kIn);
    const Doubles w_values = DequantizedRef(*recipe, "weight", w_, kOut, kIn);
    const bool high = override == kHighPrecision;
    const Product dx = Multiply(dy, false, high ? w_ : w_values, kTokens, kIn, kOut);
    const Product dw = Multiply(dy, true, high ? x : x_values, kOut, kIn, kTokens);
    EXPECT_TRUE(test::Near(got.dx, dx.values, dx.tolerance));
    EXPECT_TRUE(test::Near(got.dw, dw.values, dw.tolerance));
    // The twins: the other override's operands, and the quantized products.
    const Product other_dx = Multiply(dy, false, high ? w_values : w_, kTokens, kIn, kOut);
    const Product other_dw = Multiply(dy, true, high ? x_values : x, kOut, kIn, kTokens);
    EXPECT_FALSE(test::Near(got.dx, other_dx.values, dx.tolerance));
    EXPECT_FALSE(test::Near(got.dw, other_dw.values, dw.tolerance));
    EXPECT_FALSE(test::Near(plain.dx, dx.values, dx.tolerance));
    EXPECT_FALSE(test::Near(plain.dw, dw.values, dw.tolerance));
  }
}

// The head, whose logits become their own gradient: dlogits = softmax(logits) - one-hot, of the
// quantized product's logits. float32 exponentials and sums: 2^-18 of the largest gradient.
TEST_P(BackwardOverrideTest, OfTheHead) {
  constexpr int64_t kVocab = 40;
  auto layer = Must(LinearCrossEntropy::Create(
      context_.get(), {.hidden_size = kIn, .vocab_size = kVocab, .params_dtype = DType::kFloat32},
      "lm_head"));
  test::Randomize(layer.get(), 1, 0.5);
  Parameter* weight = layer->Parameters()[0];
  std::vector<int32_t> label_values;
  for (int32_t i = 0; i < kTokens; ++i) label_values.push_back(i * 7 % kVocab);
  const Tensor labels = test::NewInt32(context_.get(), {kTokens}, label_values);
  const Tensor logits = Must(context_->NewTensor(DType::kFloat32, {kTokens, kVocab}));
  const Tensor dx = Must(context_->NewTensor(DType::kFloat32, {kTokens, kIn}));
  for (const BackwardOverride override : {kHighPrecision, kDequantized}) {
    SCOPED_TRACE(te::Name(override));
    const auto recipe = GetParam().make(override);
    context_->BeginQuantization(recipe.get(), {});
    MustOk(layer->Logits(x_, logits.view()));
    MustOk(
        layer->Run({.input = x_, .labels = labels, .dinput = dx.view(), .weight_gradient = true}));
    MustOk(context_->EndQuantization());
    Doubles dlogits = test::ToDoubles(logits);
    for (int64_t t = 0; t < kTokens; ++t) {
      double sum = 0;
      for (int64_t v = 0; v < kVocab; ++v) sum += std::exp(dlogits[t * kVocab + v]);
      for (int64_t v = 0; v < kVocab; ++v)
        dlogits[t * kVocab + v] =
            std::exp(dlogits[t * kVocab + v]) / sum - (v == label_values[t] ? 1 : 0);
    }
    const Doubles x = test::ToDoubles(x_), w = test::ToDoubles(weight->value);
    const Doubles x_values = DequantizedRef(*recipe, "input", x, kTokens, kIn);
    const Doubles w_values = DequantizedRef(*recipe, "weight", w, kVocab, kIn);
    const bool high = override == kHighPrecision;
    const auto check = [](const Doubles& got, const Product& want, const Product& other) {
      const double tolerance = 0x1p-18 * test::MaxAbs(want.values);
      EXPECT_TRUE(test::Near(got, want.values, tolerance));
      EXPECT_FALSE(test::Near(got, other.values, tolerance));
    };
    check(test::ToDoubles(dx), Multiply(dlogits, false, high ? w : w_values, kTokens, kIn, kVocab),
          Multiply(dlogits, false, high ? w_values : w, kTokens, kIn, kVocab));
    check(test::ToDoubles(weight->grad),
          Multiply(dlogits, true, high ? x : x_values, kVocab, kIn, kTokens),
          Multiply(dlogits, true, high ? x_values : x, kVocab, kIn, kTokens));
  }
}

// A whole layer keeps what its overrides read: gradients near those without quantization. Products
// of formats' casts are off by less than a quarter (E2M1) or 0.08 (8 bits) in the root mean square
// (quantization_test.cc); four of them in a row, attention and norms between.
TEST_P(BackwardOverrideTest, OfAWholeLayer) {
  constexpr int64_t kBatch = 2, kSequence = 16, kHidden = 64;
  const auto run = [&](const Recipe* recipe) {
    TransformerLayerOptions options;
    options.hidden_size = kHidden;
    options.ffn_hidden_size = 96;
    options.num_attention_heads = 4;
    options.params_dtype = DType::kFloat32;
    options.hidden_dropout = options.attention_dropout = 0;
    auto layer = Must(TransformerLayer::Create(context_.get(), options, "layer"));
    test::Randomize(layer.get(), 1, 0.3);
    test::LayerRun pass;
    pass.layer = layer.get();
    const Tensor x = Uniform({kBatch, kSequence, kHidden}, 5, 1.0);
    pass.forward.input = x;
    pass.output_shape = {kBatch, kSequence, kHidden};
    if (recipe != nullptr) context_->BeginQuantization(recipe, {});
    test::Results results = test::Run(pass, test::OutputWeights(pass, 6));
    if (recipe != nullptr) MustOk(context_->EndQuantization());
    return results;
  };
  const test::Results plain = run(nullptr);
  const auto error = [&plain](const test::Results& got, const std::string& name) {
    double sum = 0, norm = 0;
    const Doubles& want = plain.at(name);
    for (size_t i = 0; i < want.size(); ++i) {
      sum += (got.at(name)[i] - want[i]) * (got.at(name)[i] - want[i]);
      norm += want[i] * want[i];
    }
    return std::sqrt(sum / norm);
  };
  const bool fp4 = std::string(GetParam().name).starts_with("nvfp4");
  const test::Results without = run(GetParam().make(kNone).get());
  for (const BackwardOverride override : {kHighPrecision, kDequantized}) {
    const test::Results got = run(GetParam().make(override).get());
    EXPECT_EQ(got.at("output"), without.at("output"));
    for (const auto& [name, values] : plain) {
      if (name == "output" || name.ends_with("bias")) continue;  // some biases' gradients vanish
      SCOPED_TRACE(name + " " + te::Name(override));
      EXPECT_LT(error(got, name), fp4 ? 4 * 0.25 : 4 * 0.08);
      EXPECT_GT(error(got, name), 1e-4) << "the forward pass was quantized";
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, BackwardOverrideTest, testing::ValuesIn(kKinds),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace te
