// Scopes, recipes and layers together: when scales move, what is cast and when, and that a
// quantized layer computes the product of dequantized tensors.
#include <cmath>

#include "te_core/layers/linear.h"
#include "te_core/layers/testing/layer_harness.h"
#include "te_core/layers/transformer_layer.h"
#include "te_core/quantization/module_recipes.h"
#include "te_kernels/testing/host_tensor.h"

namespace te {
namespace {

using test::Must;
using test::MustOk;

class QuantizationTest : public ::testing::Test {
 protected:
  static constexpr int64_t kTokens = 32, kIn = 48, kOut = 64;

  std::unique_ptr<Linear> MakeLinear(const std::string& name = "model.linear") {
    auto layer = Must(Linear::Create(
        context_.get(),
        {.in_features = kIn, .out_features = kOut, .bias = false, .params_dtype = DType::kFloat32},
        name));
    test::Randomize(layer.get(), 1, 0.5);
    return layer;
  }
  Tensor Uniform(const Shape& shape, uint64_t seed, double scale) {
    std::vector<double> values = test::UniformDoubles(shape.elements(), seed);
    for (double& value : values) value *= scale;
    return test::NewTensor(context_.get(), DType::kFloat32, shape, values);
  }

  struct Pass {
    std::unique_ptr<Arena> arena;
    std::unique_ptr<Saved> saved;
    Tensor y;
  };
  Pass Forward(Layer* layer, const Tensor& x, bool save) {
    Pass pass;
    pass.arena = std::make_unique<Arena>(context_->memory());
    pass.saved = std::make_unique<Saved>(pass.arena.get());
    pass.y = Must(context_->NewTensor(DType::kFloat32, {kTokens, kOut}));
    ForwardArgs args;
    args.input = x;
    args.output = pass.y.view();
    MustOk(layer->Forward(args, save ? pass.saved.get() : nullptr));
    return pass;
  }
  Tensor Backward(Layer* layer, Pass* pass, const Tensor& dy) {
    Tensor dx = Must(context_->NewTensor(DType::kFloat32, {kTokens, kIn}));
    BackwardArgs args;
    args.doutput = dy;
    args.dinput = dx.view();
    MustOk(layer->Backward(args, pass->saved.get()));
    return dx;
  }
  DelayedScalingState::Saved StateOf(const std::string& name) {
    for (DelayedScalingState::Saved& state :
         Must(context_->delayed_scaling().Export(context_->exec()))) {
      if (state.name == name) return std::move(state);
    }
    ADD_FAILURE() << "no FP8 state named " << name;
    return {};
  }
  static double Amax(const Tensor& tensor) {
    double amax = 0;
    for (double value : test::ToDoubles(tensor)) amax = std::max(amax, std::abs(value));
    return amax;
  }

  std::unique_ptr<Context> context_ = test::NewContext();
  std::unique_ptr<Recipe> delayed_ = Must(MakeRecipe(DelayedScalingRecipe{.amax_history_len = 4}));
};

TEST_F(QuantizationTest, ForwardScalesMoveAtTheEndOfTheOutermostScopeAndBackwardOnesAfterBackward) {
  auto layer = MakeLinear();
  const Tensor x = Uniform({kTokens, kIn}, 2, 3.0), dy = Uniform({kTokens, kOut}, 3, 1e-3);
  context_->BeginQuantization(delayed_.get(), {});
  context_->BeginQuantization(delayed_.get(), {});
  Pass pass = Forward(layer.get(), x, true);
  MustOk(context_->EndQuantization());
  EXPECT_EQ(StateOf("model.linear.input").scale, 1.0f);  // the inner scope's end
  MustOk(context_->EndQuantization());
  const float amax = static_cast<float>(Amax(x));
  EXPECT_EQ(StateOf("model.linear.input").scale, 448.0f / amax);
  EXPECT_EQ(StateOf("model.linear.input").amax_history, (std::vector<float>{0, 0, 0, amax}));
  EXPECT_EQ(StateOf("model.linear.weight").scale,
            448.0f / static_cast<float>(Amax(layer->Parameters()[0]->value)));

  Backward(layer.get(), &pass, dy);
  EXPECT_EQ(StateOf("model.linear.grad_output").scale, 57344.0f / static_cast<float>(Amax(dy)));
  EXPECT_EQ(StateOf("model.linear.input").scale, 448.0f / amax);
}

TEST_F(QuantizationTest, BackwardScalesWaitForTheFirstModuleOfTheScope) {
  auto first = MakeLinear("first"), second = MakeLinear("second");
  const Tensor x = Uniform({kTokens, kIn}, 2, 1.0), dy = Uniform({kTokens, kOut}, 3, 1.0);
  context_->BeginQuantization(delayed_.get(), {});
  Pass a = Forward(first.get(), x, true), b = Forward(second.get(), x, true);
  MustOk(context_->EndQuantization());
  Backward(second.get(), &b, dy);
  EXPECT_EQ(StateOf("second.grad_output").scale, 1.0f);
  Backward(first.get(), &a, dy);
  EXPECT_NE(StateOf("second.grad_output").scale, 1.0f);
  EXPECT_NE(StateOf("first.grad_output").scale, 1.0f);
}

TEST_F(QuantizationTest, EvaluationChangesNoState) {
  auto layer = MakeLinear();
  const Tensor x = Uniform({kTokens, kIn}, 2, 3.0), other = Uniform({kTokens, kIn}, 4, 100.0);
  context_->BeginQuantization(delayed_.get(), {});
  Forward(layer.get(), x, true);
  MustOk(context_->EndQuantization());
  const auto before = StateOf("model.linear.input"), weight = StateOf("model.linear.weight");
  context_->BeginQuantization(delayed_.get(), {.training = false});
  Forward(layer.get(), other, false);
  MustOk(context_->EndQuantization());
  EXPECT_EQ(StateOf("model.linear.input").scale, before.scale);
  EXPECT_EQ(StateOf("model.linear.input").amax_history, before.amax_history);
  EXPECT_EQ(StateOf("model.linear.weight").amax_history, weight.amax_history);
}

TEST_F(QuantizationTest, ABackwardPassAfterAnEvaluationIsRefusedByName) {
  auto layer = MakeLinear();
  const Tensor x = Uniform({kTokens, kIn}, 2, 3.0), dy = Uniform({kTokens, kOut}, 3, 1.0);
  context_->BeginQuantization(delayed_.get(), {.training = false});
  const Pass pass = Forward(layer.get(), x, true);
  MustOk(context_->EndQuantization());
  BackwardArgs args;
  args.doutput = dy;
  const Status status = layer->Backward(args, pass.saved.get());
  EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition);
  EXPECT_NE(status.message().find("model.linear: backward after"), std::string::npos)
      << status.message();
}

TEST_F(QuantizationTest, CalibrationComputesInFullPrecisionAndFillsTheHistories) {
  auto layer = MakeLinear();
  const Tensor x = Uniform({kTokens, kIn}, 2, 1e-4), dy = Uniform({kTokens, kOut}, 3, 1e-9);
  Pass plain = Forward(layer.get(), x, true);
  const std::vector<double> want = test::ToDoubles(plain.y);
  context_->BeginQuantization(delayed_.get(), {.calibrating = true});
  Pass pass = Forward(layer.get(), x, true);
  MustOk(context_->EndQuantization());
  EXPECT_EQ(test::ToDoubles(pass.y), want);
  Backward(layer.get(), &pass, dy);
  EXPECT_EQ(StateOf("model.linear.input").scale, 448.0f / static_cast<float>(Amax(x)));
  EXPECT_EQ(StateOf("model.linear.grad_output").scale, 57344.0f / static_cast<float>(Amax(dy)));
  EXPECT_FALSE(layer->Parameters()[0]->quantized.valid);
}

// The quantized product against the product of float32 tensors: the error of a cast to E4M3 is at
// most 2^-4 of a value, or half the smallest subnormal 2^-9 over the scale; over a sum of K
// products of two such casts it stays below (2 * 2^-4 + 2^-8) sum |x w| + what underflows.
TEST_F(QuantizationTest, EveryRecipesLinearIsNearTheFloatOne) {
  const std::vector<std::unique_ptr<Recipe>> recipes = [] {
    std::vector<std::unique_ptr<Recipe>> out;
    out.push_back(Must(MakeRecipe(DelayedScalingRecipe())));
    out.push_back(Must(MakeRecipe(Float8CurrentScalingRecipe())));
    out.push_back(Must(MakeRecipe(Float8BlockScalingRecipe())));
    out.push_back(Must(MakeRecipe(MXFP8BlockScalingRecipe())));
    out.push_back(Must(MakeRecipe(NVFP4BlockScalingRecipe())));
    return out;
  }();
  for (const auto& recipe : recipes) {
    SCOPED_TRACE(recipe->name());
    auto layer = MakeLinear();
    const Tensor x = Uniform({kTokens, kIn}, 2, 3.0), dy = Uniform({kTokens, kOut}, 3, 1e-3);
    Pass plain = Forward(layer.get(), x, true);
    const Tensor plain_dx = Backward(layer.get(), &plain, dy);
    const std::vector<double> plain_dw = test::ToDoubles(layer->Parameters()[0]->grad);
    for (bool calibrating : {true, false}) {
      context_->BeginQuantization(recipe.get(), {.calibrating = calibrating});
      Pass pass = Forward(layer.get(), x, true);
      MustOk(context_->EndQuantization());
      const Tensor dx = Backward(layer.get(), &pass, dy);
      if (calibrating) continue;
      const bool fp4 = recipe->name().starts_with("NVFP4");
      // Root mean square of the relative error: uniform values, steps of 2^-4 (E4M3), 2^-3 (E5M2),
      // 2^-2 (E2M1) at most, errors uniform in half a step and independent.
      const double bound = fp4 ? 0.25 : 0.08;
      const auto error = [](const std::vector<double>& got, const std::vector<double>& want) {
        double sum = 0, norm = 0;
        for (size_t i = 0; i < got.size(); ++i) {
          sum += (got[i] - want[i]) * (got[i] - want[i]);
          norm += want[i] * want[i];
        }
        return std::sqrt(sum / norm);
      };
      const double y_error = error(test::ToDoubles(pass.y), test::ToDoubles(plain.y));
      const double dx_error = error(test::ToDoubles(dx), test::ToDoubles(plain_dx));
      const double dw_error = error(test::ToDoubles(layer->Parameters()[0]->grad), plain_dw);
      for (const double e : {y_error, dx_error, dw_error}) {
        EXPECT_LT(e, bound);
        EXPECT_GT(e, 1e-4) << "nothing was quantized";
      }
    }
  }
}

TEST_F(QuantizationTest, WeightsAreCastAgainOnlyWhenValueOrScaleHasChanged) {
  auto layer = MakeLinear();
  const Tensor x = Uniform({kTokens, kIn}, 2, 3.0);
  Parameter* weight = layer->Parameters()[0];
  const auto forward = [&](bool first) {
    context_->BeginQuantization(delayed_.get(), {.is_first_microbatch = first});
    Forward(layer.get(), x, true);
    MustOk(context_->EndQuantization());
  };
  forward(true);
  const uint64_t by_scale = weight->quantized.scale_version;
  forward(false);
  EXPECT_EQ(weight->quantized.scale_version, by_scale);  // reused, though the scale has moved on
  forward(true);
  EXPECT_GT(weight->quantized.scale_version, by_scale);
  test::Randomize(layer.get(), 9, 0.5);
  ++weight->version;
  forward(false);
  EXPECT_EQ(weight->quantized.value_version, weight->version);  // another value is never reused
}

TEST_F(QuantizationTest, RulesByNameChooseTheRecipeAndTheFirstMatchWins) {
  const std::shared_ptr<const Recipe> current = Must(MakeRecipe(Float8CurrentScalingRecipe()));
  const std::shared_ptr<const Recipe> block = Must(MakeRecipe(Float8BlockScalingRecipe()));
  const auto recipe = MakeModuleRecipes(
      {{.pattern = "*.layers.0.*", .training = nullptr, .evaluation = nullptr},
       {.pattern = "*.fc2", .training = block, .evaluation = current},
       {.pattern = "model.layers.0.mlp.fc1", .training = block, .evaluation = block}},
      current);
  EXPECT_EQ(recipe->ForModule("", "model.layers.0.mlp.fc2", true), nullptr);
  EXPECT_EQ(recipe->ForModule("", "model.layers.0.mlp.fc1", true), nullptr);
  EXPECT_EQ(recipe->ForModule("", "model.layers.1.mlp.fc2", true), block.get());
  EXPECT_EQ(recipe->ForModule("", "model.layers.1.mlp.fc2", false), current.get());
  EXPECT_EQ(recipe->ForModule("", "model.layers.1.mlp.fc1", true), current.get());
}

TEST_F(QuantizationTest, StateComesBackBitForBit) {
  auto layer = MakeLinear();
  const Tensor x = Uniform({kTokens, kIn}, 2, 3.0), dy = Uniform({kTokens, kOut}, 3, 1e-3);
  const auto step = [&](Linear* linear, Context*) {
    context_->BeginQuantization(delayed_.get(), {});
    Pass pass = Forward(linear, x, true);
    MustOk(context_->EndQuantization());
    Backward(linear, &pass, dy);
    return test::ToDoubles(pass.y);
  };
  step(layer.get(), context_.get());
  const auto saved = Must(context_->delayed_scaling().Export(context_->exec()));
  ASSERT_EQ(saved.size(), 3u);
  const std::vector<double> second = step(layer.get(), context_.get());

  // Another layer in the place of the first one, and the state given to it before it exists.
  layer.reset();
  layer = MakeLinear();
  MustOk(context_->delayed_scaling().Import(context_->exec(), saved));
  const auto waiting = Must(context_->delayed_scaling().Export(context_->exec()));
  ASSERT_EQ(waiting.size(), 3u);
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(waiting[i].amax_history, saved[i].amax_history);
  EXPECT_EQ(step(layer.get(), context_.get()), second);
  // The twin: without it, the scale is 1.
  layer.reset();
  layer = MakeLinear();
  EXPECT_NE(step(layer.get(), context_.get()), second);

  // A recipe that asks for another history refuses it by name.
  layer.reset();
  layer = MakeLinear();
  MustOk(context_->delayed_scaling().Import(context_->exec(), saved));
  const auto longer = Must(MakeRecipe(DelayedScalingRecipe{.amax_history_len = 5}));
  context_->BeginQuantization(longer.get(), {});
  ForwardArgs args;
  args.input = x;
  Tensor y = Must(context_->NewTensor(DType::kFloat32, {kTokens, kOut}));
  args.output = y.view();
  const Status status = layer->Forward(args, nullptr);
  MustOk(context_->EndQuantization());
  EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition);
  EXPECT_NE(status.message().find("model.linear.input"), std::string::npos) << status.message();
}

// A module that runs after the end of the scope (lm_head does): what the end would have moved has
// moved when it takes up its state.
TEST_F(QuantizationTest, StateThatWaitsGoesThroughTheUpdatesMeanwhile) {
  auto layer = MakeLinear();
  const Tensor x = Uniform({kTokens, kIn}, 2, 3.0), dy = Uniform({kTokens, kOut}, 3, 1e-3);
  const auto empty_scope = [&] {
    context_->BeginQuantization(delayed_.get(), {});
    MustOk(context_->EndQuantization());
  };
  context_->BeginQuantization(delayed_.get(), {.calibrating = true});
  Pass first = Forward(layer.get(), x, true);
  Backward(layer.get(), &first, dy);
  const auto saved = Must(context_->delayed_scaling().Export(context_->exec()));
  MustOk(context_->EndQuantization());  // moves what the export has in row 0
  const auto result = [&] {
    context_->BeginQuantization(delayed_.get(), {.training = false});
    const Pass pass = Forward(layer.get(), x, false);
    MustOk(context_->EndQuantization());
    return test::ToDoubles(pass.y);
  };
  const std::vector<double> expected = result();
  layer.reset();
  layer = MakeLinear();
  MustOk(context_->delayed_scaling().Import(context_->exec(), saved));
  for (int i = 0; i < 3; ++i) empty_scope();  // the second and third find nothing to move
  EXPECT_EQ(result(), expected);
  layer.reset();
  layer = MakeLinear();
  empty_scope();
  MustOk(context_->delayed_scaling().Import(context_->exec(), saved));
  EXPECT_NE(result(), expected) << "an update before the import is none of its";
}

// With a history of 4 and its maximum: a spike rules the scale as long as it is remembered, and the
// steps after it are cast with it; then the scale is what it was. What is clipped meanwhile is the
// spike itself, once.
TEST_F(QuantizationTest, AnAmaxSpikePassesAndAZeroTensorLeavesTheScale) {
  auto layer = MakeLinear();
  const auto step = [&](double scale) {
    const Tensor x = Uniform({kTokens, kIn}, 2, scale);
    context_->BeginQuantization(delayed_.get(), {});
    const Pass pass = Forward(layer.get(), x, true);
    MustOk(context_->EndQuantization());
    return test::ToDoubles(pass.y);
  };
  step(1.0);
  const std::vector<double> before = step(1.0);
  const float calm = StateOf("model.linear.input").scale;
  const std::vector<double> clipped = step(1000.0);
  for (size_t i = 0; i < clipped.size(); ++i) {
    ASSERT_TRUE(std::isfinite(clipped[i]));
    EXPECT_LT(std::abs(clipped[i]), 100 * (1 + std::abs(before[i])));  // saturated, not 1000 times
  }
  EXPECT_NEAR(StateOf("model.linear.input").scale * 1000, calm, 1e-3 * calm);
  int remembered = 0;
  while (StateOf("model.linear.input").scale != calm && remembered < 10) {
    step(1.0);
    ++remembered;
  }
  EXPECT_EQ(remembered, 4);
  EXPECT_EQ(step(1.0), before);
  for (const double y : step(0.0)) EXPECT_EQ(y, 0.0);
  EXPECT_EQ(StateOf("model.linear.input").scale, calm);
}

// Outlying channels cost all others their precision in one scale a tensor, less so in blocks along
// the sum: of 128 channels (and more) apart, only those in the outlier's block.
TEST_F(QuantizationTest, BlocksConfineWhatOutlyingChannelsCost) {
  constexpr int64_t kWide = 512;
  auto layer = Must(Linear::Create(
      context_.get(),
      {.in_features = kWide, .out_features = kOut, .bias = false, .params_dtype = DType::kFloat32},
      "wide"));
  test::Randomize(layer.get(), 1, 0.5);
  // The outlier meets a weight of 0: what is seen is what it does to the others.
  Tensor& w = layer->Parameters()[0]->value;
  std::vector<double> weights = test::ToDoubles(w);
  for (int64_t row = 0; row < kOut; ++row) weights[static_cast<size_t>(row * kWide)] = 0;
  const Tensor zeroed = test::NewTensor(context_.get(), DType::kFloat32, w.shape(), weights);
  MustOk(context_->kernels().cast(context_->exec(),
                                  {.x = zeroed, .y = layer->Parameters()[0]->MutableValue()}));
  const auto error = [&](double outlier, StatusOr<std::unique_ptr<Recipe>> made) {
    const std::unique_ptr<Recipe> recipe = Must(std::move(made));
    std::vector<double> values = test::UniformDoubles(kTokens * kWide, 2);
    for (int64_t t = 0; t < kTokens; ++t) values[static_cast<size_t>(t * kWide)] *= outlier;
    const Tensor x = test::NewTensor(context_.get(), DType::kFloat32, {kTokens, kWide}, values);
    const std::vector<double> plain = test::ToDoubles(Forward(layer.get(), x, false).y);
    context_->BeginQuantization(recipe.get(), {.training = false});
    const std::vector<double> quantized = test::ToDoubles(Forward(layer.get(), x, false).y);
    MustOk(context_->EndQuantization());
    double sum = 0, norm = 0;
    for (size_t i = 0; i < plain.size(); ++i) {
      sum += (quantized[i] - plain[i]) * (quantized[i] - plain[i]);
      norm += plain[i] * plain[i];
    }
    return std::sqrt(sum / norm);
  };
  for (const double outlier : {1.0, 100.0}) {  // E4M3 spans 2^18: nothing is lost yet
    EXPECT_LT(error(outlier, MakeRecipe(Float8CurrentScalingRecipe())), 0.05) << outlier;
    EXPECT_LT(error(outlier, MakeRecipe(Float8BlockScalingRecipe())), 0.05) << outlier;
  }
  const double tensor = error(1e6, MakeRecipe(Float8CurrentScalingRecipe()));
  const double block = error(1e6, MakeRecipe(Float8BlockScalingRecipe()));
  EXPECT_GT(tensor, 0.5);          // all others underflow
  EXPECT_LT(block, 0.6 * tensor);  // a quarter of them do: the square root of it in the norm
}

TEST_F(QuantizationTest, ABlockOfLayersInFp8IsNearTheFloatOne) {
  TransformerLayerOptions options = test::SmallLlamaLayer();
  for (const bool bias : {false, true}) {
    options.bias = bias;
    auto layer = Must(TransformerLayer::Create(context_.get(), options, "block"));
    test::Randomize(layer.get(), 1, 0.2);
    const Shape shape = {2, 16, 64};
    const Tensor x = test::NewTensor(context_.get(), DType::kFloat32, shape,
                                     test::UniformDoubles(shape.elements(), 5));
    test::LayerRun run;
    run.layer = layer.get();
    run.forward.input = x;
    run.output_shape = shape;
    const auto weights = test::OutputWeights(run, 6);
    const test::Results plain = test::Run(run, weights);
    test::Results quantized;
    for (const bool calibrating : {true, false}) {
      context_->BeginQuantization(delayed_.get(), {.calibrating = calibrating});
      quantized = test::Run(run, weights);
      MustOk(context_->EndQuantization());
    }
    // Through seven quantized products, each with errors of some 2^-5 of its root mean square.
    EXPECT_TRUE(test::ResultsNear(quantized, plain, 0.25, 0.05));
    EXPECT_FALSE(test::ResultsNear(quantized, plain, 1e-4, 0.05)) << "nothing was quantized";
  }
}

TEST(Recipes, OptionsAreCheckedByName) {
  const auto message = [](const auto& options) {
    const auto recipe = MakeRecipe(options);
    EXPECT_FALSE(recipe.ok());
    return recipe.ok() ? "" : recipe.status().message();
  };
  EXPECT_NE(message(DelayedScalingRecipe{.margin = 1000}).find("margin is 1000"),
            std::string::npos);
  EXPECT_NE(message(DelayedScalingRecipe{.amax_history_len = 0}).find("amax_history_len is 0"),
            std::string::npos);
  EXPECT_NE(message(Float8CurrentScalingRecipe{.amax_epsilon = -1}).find("amax_epsilon is -1"),
            std::string::npos);
  EXPECT_NE(message(MXFP8BlockScalingRecipe{.margin = 1}).find("margin is 1"), std::string::npos);
}

}  // namespace
}  // namespace te
