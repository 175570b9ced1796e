// Norm, Linear, LayerNormLinear and LayerNormMLP against their equations.
#include "te_core/layers/layer_norm_linear.h"
#include "te_core/layers/layer_norm_mlp.h"
#include "te_core/layers/linear.h"
#include "te_core/layers/norm.h"
#include "te_core/layers/testing/layer_harness.h"
#include "te_kernels/testing/host_tensor.h"
#include "te_kernels/testing/near.h"

namespace te {
namespace {

using test::Get;
using test::Must;
using test::Tensors;
using test::Values;

class PrecisionTest : public ::testing::TestWithParam<DType> {
 protected:
  Tensor Uniform(const Shape& shape, uint64_t seed) {
    return test::NewTensor(context_.get(), GetParam(), shape,
                           test::UniformDoubles(shape.elements(), seed));
  }
  test::LayerRun RunOf(Layer* layer, const Tensor& input, int64_t out_features) {
    test::LayerRun run;
    run.layer = layer;
    run.forward.input = input;
    run.output_shape = input.shape();
    run.output_shape[input.shape().rank() - 1] = out_features;
    run.output_dtype = GetParam();
    return run;
  }
  std::unique_ptr<Context> context_ = test::NewContext();
};

INSTANTIATE_TEST_SUITE_P(, PrecisionTest, ::testing::Values(DType::kFloat32, DType::kBFloat16),
                         [](const auto& info) { return Name(info.param); });

TEST_P(PrecisionTest, NormMatchesItsEquation) {
  for (NormalizationKind kind : {NormalizationKind::kRmsNorm, NormalizationKind::kLayerNorm}) {
    for (bool zero_centered : {false, true}) {
      const NormOptions options = {.hidden_size = 13,
                                   .normalization = kind,
                                   .layernorm_epsilon = 1e-3f,
                                   .zero_centered_gamma = zero_centered,
                                   .params_dtype = GetParam()};
      auto layer = Must(Norm::Create(context_.get(), options, "norm"));
      test::Randomize(layer.get(), 1, 0.5);
      const Tensor x = Uniform({2, 3, 13}, 2);
      test::ExpectMatchesReference(
          RunOf(layer.get(), x, 13),
          [&](const Tensors& t) {
            return test::NormReference(kind, options.layernorm_epsilon, zero_centered,
                                       Get(t, "input"), Get(t, "weight"), Get(t, "bias"));
          },
          13, 4, 3);
    }
  }
}

TEST_P(PrecisionTest, LinearMatchesItsEquationWithAndWithoutResidual) {
  for (bool bias : {false, true}) {
    auto layer = Must(Linear::Create(
        context_.get(),
        {.in_features = 7, .out_features = 11, .bias = bias, .params_dtype = GetParam()},
        "linear"));
    test::Randomize(layer.get(), 1, 0.5);
    const Tensor x = Uniform({5, 7}, 2), residual = Uniform({5, 11}, 4);
    for (bool add : {false, true}) {
      test::LayerRun run = RunOf(layer.get(), x, 11);
      if (add) run.forward.residual = residual;
      const std::vector<double> r = test::ToDoubles(residual);
      test::ExpectMatchesReference(
          run,
          [&](const Tensors& t) {
            Values y = test::LinearReference(Get(t, "input"), Get(t, "weight"), Get(t, "bias"), 7);
            for (size_t i = 0; add && i < y.size(); ++i) y[i] += r[i];
            return y;
          },
          11, 2, 3);
    }
  }
}

TEST_P(PrecisionTest, LayerNormLinearMatchesItsEquationAndNamesItsSlices) {
  for (NormalizationKind kind : {NormalizationKind::kRmsNorm, NormalizationKind::kLayerNorm}) {
    const LayerNormLinearOptions options = {.in_features = 6,
                                            .out_features = 9,
                                            .normalization = kind,
                                            .parameters_split = {{"query_", 5}, {"key_", 4}},
                                            .params_dtype = GetParam()};
    auto layer = Must(LayerNormLinear::Create(context_.get(), options, "qkv"));
    test::Randomize(layer.get(), 1, 0.5);
    std::vector<std::string> names;
    for (const NamedParameter& p : layer->NamedParameters()) names.push_back(p.name);
    std::vector<std::string> expected = {"layer_norm_weight"};
    if (kind == NormalizationKind::kLayerNorm) expected.push_back("layer_norm_bias");
    expected.insert(expected.end(), {"query_weight", "key_weight", "query_bias", "key_bias"});
    EXPECT_EQ(names, expected);
    const Tensor x = Uniform({3, 2, 6}, 2);
    test::ExpectMatchesReference(
        RunOf(layer.get(), x, 9),
        [&](const Tensors& t) {
          Values w = Get(t, "query_weight"), b = Get(t, "query_bias");
          for (const auto& v : Get(t, "key_weight")) w.push_back(v);
          for (const auto& v : Get(t, "key_bias")) b.push_back(v);
          return test::LinearReference(
              test::NormReference(kind, options.layernorm_epsilon, false, Get(t, "input"),
                                  Get(t, "layer_norm_weight"), Get(t, "layer_norm_bias")),
              w, b, 6);
        },
        9, 6, 3);
  }
}

TEST_P(PrecisionTest, LayerNormMLPMatchesItsEquationForEveryActivation) {
  for (int kind = 0; kind <= static_cast<int>(ActivationKind::kClampedSwiglu); ++kind) {
    const LayerNormMLPOptions options = {
        .hidden_size = 6,
        .ffn_hidden_size = 7,
        .bias = kind % 2 == 0,
        .normalization =
            kind % 3 == 0 ? NormalizationKind::kLayerNorm : NormalizationKind::kRmsNorm,
        .activation = static_cast<ActivationKind>(kind),
        .activation_params = {.limit = 0.6f, .alpha = 1.5f, .glu_linear_offset = 0.5f},
        .params_dtype = GetParam()};
    SCOPED_TRACE(Name(options.activation));
    auto layer = Must(LayerNormMLP::Create(context_.get(), options, "mlp"));
    test::Randomize(layer.get(), 10 * kind + 1, 0.7);
    const Tensor x = Uniform({1, 4, 6}, 2);
    test::ExpectMatchesReference(
        RunOf(layer.get(), x, 6),
        [&](const Tensors& t) { return test::MlpReference(options, t, "", Get(t, "input")); }, 14,
        10, 3);
  }
}

TEST_P(PrecisionTest, NoTokensGiveEmptyOutputAndZeroGradients) {
  auto layer = Must(LayerNormMLP::Create(
      context_.get(), {.hidden_size = 6, .ffn_hidden_size = 7, .params_dtype = GetParam()}, "mlp"));
  const Tensor x = Uniform({0, 3, 6}, 2);
  const test::Results results = test::Run(RunOf(layer.get(), x, 6), {});
  EXPECT_TRUE(results.at("output").empty());
  for (const NamedParameter& p : layer->NamedParameters()) {
    const std::vector<double> zeros(static_cast<size_t>(p.value().elements()), 0);
    EXPECT_EQ(results.at(p.name), zeros) << p.name;
  }
}

TEST(FeedForwardTest, ErrorsNameLayerTensorAndShapes) {
  auto context = test::NewContext();
  auto layer = Must(
      LayerNormMLP::Create(context.get(), {.hidden_size = 6, .ffn_hidden_size = 7}, "model.mlp"));
  Tensor x = Must(context->NewTensor(DType::kFloat32, {2, 5})),
         y = Must(context->NewTensor(DType::kFloat32, {2, 6}));
  ForwardArgs args;
  args.input = x;
  args.output = y.view();
  EXPECT_TRUE(
      test::FailsWith(layer->Forward(args, nullptr), StatusCode::kInvalidArgument,
                      "model.mlp: input is float32 [2, 5]; expected dense float32 [..., 6]"));
  args.input = y;
  args.output = x.view();
  EXPECT_TRUE(
      test::FailsWith(layer->Forward(args, nullptr), StatusCode::kInvalidArgument,
                      "model.mlp: output is float32 [2, 5]; expected dense float32 [2, 6]"));
  Tensor z = Must(context->NewTensor(DType::kFloat32, {2, 6}));
  args.output = z.view();
  args.labels = x;
  EXPECT_TRUE(test::FailsWith(layer->Forward(args, nullptr), StatusCode::kInvalidArgument,
                              "labels is given"));
  EXPECT_TRUE(test::FailsWith(layer->Backward({}, nullptr), StatusCode::kFailedPrecondition,
                              "without saved state"));
  EXPECT_TRUE(test::FailsWith(
      LayerNormMLP::Create(context.get(), {.hidden_size = 6, .ffn_hidden_size = 0}, "model.mlp")
          .status(),
      StatusCode::kInvalidArgument, "model.mlp: ffn_hidden_size is 0"));
  EXPECT_TRUE(test::FailsWith(
      Linear::Create(context.get(),
                     {.in_features = 6, .out_features = 5, .parameters_split = {{"a_", 2}}}, "lin")
          .status(),
      StatusCode::kInvalidArgument, "lin: parameters_split has 2 rows; expected out_features = 5"));
  EXPECT_TRUE(test::FailsWith(
      Linear::Create(context.get(),
                     {.in_features = 6, .out_features = 5, .params_dtype = DType::kFloat16}, "lin")
          .status(),
      StatusCode::kUnsupported, "lin: params_dtype is float16"));
}

TEST(FeedForwardTest, InitializationIsTransformerEngines) {
  auto context = test::NewContext();
  auto layer = Must(Linear::Create(context.get(), {.in_features = 128, .out_features = 96}, "lin"));
  const std::vector<double> w = test::ToDoubles(layer->weight().value);
  double square = 0;
  for (double v : w) square += v * v / static_cast<double>(w.size());
  // The standard deviation of an estimate of sigma from n numbers is sigma / sqrt(2 n).
  EXPECT_NEAR(std::sqrt(square), 0.023, 5 * 0.023 / std::sqrt(2.0 * static_cast<double>(w.size())));
  EXPECT_EQ(test::ToDoubles(layer->NamedParameters()[1].value()), std::vector<double>(96, 0));
  auto norm = Must(Norm::Create(context.get(), {.hidden_size = 3}, "norm"));
  EXPECT_EQ(test::ToDoubles(norm->NamedParameters()[0].value()), std::vector<double>(3, 1));
  auto centered =
      Must(Norm::Create(context.get(), {.hidden_size = 3, .zero_centered_gamma = true}, "norm"));
  EXPECT_EQ(test::ToDoubles(centered->NamedParameters()[0].value()), std::vector<double>(3, 0));
}

}  // namespace
}  // namespace te
