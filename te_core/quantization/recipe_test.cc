// What each parameter of a recipe does to a tensor's quantization, and which values are refused.
#include "te_core/quantization/recipe.h"

#include "gtest/gtest.h"

namespace te {
namespace {

constexpr QuantizerRole kInput = {"linear", "input", "m"}, kWeight = {"linear", "weight", "m"},
                        kGradOutput = {"linear", "grad_output", "m"};

template <typename Options>
std::unique_ptr<Recipe> Made(const Options& options) {
  StatusOr<std::unique_ptr<Recipe>> recipe = MakeRecipe(options);
  EXPECT_TRUE(recipe.ok()) << recipe.status().message();
  return recipe.ok() ? std::move(recipe).value() : MakePrecisionRecipe();
}
template <typename Options>
testing::AssertionResult Refused(const Options& options, const std::string& part) {
  const StatusOr<std::unique_ptr<Recipe>> recipe = MakeRecipe(options);
  if (recipe.ok()) return testing::AssertionFailure() << "accepted: " << (*recipe)->name();
  if (recipe.status().code() == StatusCode::kInvalidArgument &&
      recipe.status().message().find(part) != std::string::npos) {
    return testing::AssertionSuccess();
  }
  return testing::AssertionFailure() << "'" << part << "' is not in: " << recipe.status().message();
}

TEST(Recipe, SplitAccumulatorsAreTheReferences) {
  const auto splits = [](const Recipe& recipe) {
    return std::vector<bool>{recipe.SplitAccumulator(GemmKind::kFprop),
                             recipe.SplitAccumulator(GemmKind::kDgrad),
                             recipe.SplitAccumulator(GemmKind::kWgrad)};
  };
  using Bools = std::vector<bool>;
  EXPECT_EQ(splits(*Made(DelayedScalingRecipe())), Bools({false, true, true}));
  EXPECT_EQ(splits(*Made(Float8CurrentScalingRecipe())), Bools({false, true, true}));
  EXPECT_EQ(splits(*Made(Float8BlockScalingRecipe())), Bools({true, true, true}));
  Float8CurrentScalingRecipe current;
  current.fp8_gemm_fprop = {.use_split_accumulator = true};
  current.fp8_gemm_dgrad = {.use_split_accumulator = false};
  EXPECT_EQ(splits(*Made(current)), Bools({true, false, true}));
  current.fp8_gemm_wgrad = {.use_split_accumulator = false};
  EXPECT_EQ(splits(*Made(current)), Bools({true, false, false}));
  for (auto member :
       {&Float8BlockScalingRecipe::fp8_gemm_fprop, &Float8BlockScalingRecipe::fp8_gemm_dgrad,
        &Float8BlockScalingRecipe::fp8_gemm_wgrad}) {
    Float8BlockScalingRecipe block;
    (block.*member).use_split_accumulator = false;
    EXPECT_TRUE(Refused(block, "use_split_accumulator is false; expected true"));
  }
}

TEST(Recipe, BlockDimsChooseTheBlocks) {
  const auto scalings = [](int x, int w, int grad) {
    const auto recipe = Made(Float8BlockScalingRecipe{
        .x_block_scaling_dim = x, .w_block_scaling_dim = w, .grad_block_scaling_dim = grad});
    return std::vector<QuantScaling>{recipe->For(kInput).scaling, recipe->For(kWeight).scaling,
                                     recipe->For(kGradOutput).scaling};
  };
  constexpr auto kRow = QuantScaling::kBlock1x128, kSquare = QuantScaling::kBlock128x128;
  using Scalings = std::vector<QuantScaling>;
  EXPECT_EQ(scalings(1, 2, 1), Scalings({kRow, kSquare, kRow}));
  EXPECT_EQ(scalings(1, 1, 1), Scalings({kRow, kRow, kRow}));
  EXPECT_EQ(scalings(2, 1, 1), Scalings({kSquare, kRow, kRow}));
  EXPECT_EQ(scalings(1, 1, 2), Scalings({kRow, kRow, kSquare}));
  const auto dims = [](int x, int w, int grad) {
    return Float8BlockScalingRecipe{
        .x_block_scaling_dim = x, .w_block_scaling_dim = w, .grad_block_scaling_dim = grad};
  };
  EXPECT_TRUE(Refused(dims(2, 2, 1), "x_block_scaling_dim is 2, w_block_scaling_dim 2"));
  EXPECT_TRUE(Refused(dims(2, 1, 2), "grad_block_scaling_dim 2"));
  EXPECT_TRUE(Refused(dims(1, 2, 2), "grad_block_scaling_dim 2"));
  EXPECT_TRUE(Refused(dims(0, 2, 1), "x_block_scaling_dim is 0"));
  EXPECT_TRUE(Refused(dims(1, 3, 1), "w_block_scaling_dim is 3"));
  EXPECT_TRUE(Refused(dims(1, 2, -1), "grad_block_scaling_dim is -1"));
}

TEST(Recipe, Nvfp4RowScalesAreThoseOfInputs) {
  const auto recipe =
      Made(NVFP4BlockScalingRecipe{.disable_rht = true, .row_scaled_activation = true});
  EXPECT_TRUE(recipe->For(kInput).row_scaled);
  EXPECT_FALSE(recipe->For(kWeight).row_scaled);
  EXPECT_FALSE(recipe->For(kGradOutput).row_scaled);
  EXPECT_TRUE(recipe->For(kGradOutput).stochastic_rounding);
  EXPECT_TRUE(Refused(NVFP4BlockScalingRecipe{.row_scaled_activation = true},
                      "row_scaled_activation is true and nvfp4_4over6 none; expected disable_rht"));
}

TEST(Recipe, FourOverSixIsForTheTensorsThatItNames) {
  const struct {
    Nvfp4Scope scope, use_256;
    bool weight, input, weight_256, input_256;
  } cases[] = {{Nvfp4Scope::kNone, Nvfp4Scope::kAll, false, false, false, false},
               {Nvfp4Scope::kWeights, Nvfp4Scope::kAll, true, false, true, false},
               {Nvfp4Scope::kActivations, Nvfp4Scope::kAll, false, true, false, true},
               {Nvfp4Scope::kAll, Nvfp4Scope::kAll, true, true, true, true},
               {Nvfp4Scope::kAll, Nvfp4Scope::kNone, true, true, false, false},
               {Nvfp4Scope::kAll, Nvfp4Scope::kWeights, true, true, true, false},
               {Nvfp4Scope::kAll, Nvfp4Scope::kActivations, true, true, false, true}};
  for (const auto& c : cases) {
    const auto recipe = Made(NVFP4BlockScalingRecipe{
        .disable_rht = true, .nvfp4_4over6 = c.scope, .nvfp4_4over6_e4m3_use_256 = c.use_256});
    SCOPED_TRACE(recipe->name());
    EXPECT_EQ(recipe->For(kWeight).four_over_six, c.weight ? FourOverSix::kMAE : FourOverSix::kOff);
    EXPECT_EQ(recipe->For(kInput).four_over_six, c.input ? FourOverSix::kMAE : FourOverSix::kOff);
    EXPECT_EQ(recipe->For(kWeight).e4m3_use_256, c.weight_256);
    EXPECT_EQ(recipe->For(kInput).e4m3_use_256, c.input_256);
    EXPECT_EQ(recipe->For(kGradOutput).four_over_six, FourOverSix::kOff);
    EXPECT_FALSE(recipe->For(kGradOutput).e4m3_use_256);
  }
  // Weights have no transform to be in the way.
  EXPECT_TRUE(Made(NVFP4BlockScalingRecipe{.nvfp4_4over6 = Nvfp4Scope::kWeights})
                  ->For(kInput)
                  .random_hadamard);
  for (const Nvfp4Scope scope : {Nvfp4Scope::kActivations, Nvfp4Scope::kAll})
    EXPECT_TRUE(Refused(NVFP4BlockScalingRecipe{.nvfp4_4over6 = scope}, "expected disable_rht"));
  EXPECT_TRUE(Refused(NVFP4BlockScalingRecipe{.nvfp4_4over6_err_mode = FourOverSix::kMSE},
                      "nvfp4_4over6_err_mode MSE with nvfp4_4over6 none"));
  EXPECT_TRUE(Refused(NVFP4BlockScalingRecipe{.nvfp4_4over6_e4m3_use_256 = Nvfp4Scope::kWeights},
                      "nvfp4_4over6_e4m3_use_256 is weights"));
  EXPECT_TRUE(Refused(NVFP4BlockScalingRecipe{.nvfp4_4over6 = Nvfp4Scope::kWeights,
                                              .nvfp4_4over6_err_mode = FourOverSix::kOff},
                      "nvfp4_4over6_err_mode is 0"));
  EXPECT_TRUE(Refused(NVFP4BlockScalingRecipe{.nvfp4_4over6 = static_cast<Nvfp4Scope>(9)},
                      "nvfp4_4over6 is 9"));
}

TEST(Recipe, DelayedScalingTakesNoBackwardOverride) {
  for (const auto override : {BackwardOverride::kHighPrecision, BackwardOverride::kDequantized}) {
    EXPECT_TRUE(Refused(DelayedScalingRecipe{.backward_override = override},
                        std::string("DelayedScaling: backward_override is ") + te::Name(override)));
    EXPECT_EQ(Made(Float8CurrentScalingRecipe{.backward_override = override})->backward_override(),
              override);
    EXPECT_EQ(Made(Float8BlockScalingRecipe{.backward_override = override})->backward_override(),
              override);
    EXPECT_EQ(Made(MXFP8BlockScalingRecipe{.backward_override = override})->backward_override(),
              override);
    EXPECT_EQ(Made(NVFP4BlockScalingRecipe{.backward_override = override})->backward_override(),
              override);
  }
  const auto unknown = static_cast<BackwardOverride>(5);
  EXPECT_TRUE(Refused(DelayedScalingRecipe{.backward_override = unknown}, "is 5"));
  EXPECT_TRUE(Refused(Float8CurrentScalingRecipe{.backward_override = unknown}, "is 5"));
  EXPECT_TRUE(Refused(Float8BlockScalingRecipe{.backward_override = unknown}, "is 5"));
  EXPECT_TRUE(Refused(MXFP8BlockScalingRecipe{.backward_override = unknown}, "is 5"));
  EXPECT_TRUE(Refused(NVFP4BlockScalingRecipe{.backward_override = unknown}, "is 5"));
}

TEST(Recipe, NamesComeBack) {
  for (const auto value :
       {BackwardOverride::kNone, BackwardOverride::kHighPrecision, BackwardOverride::kDequantized})
    EXPECT_EQ(*ParseBackwardOverride(te::Name(value)), value);
  for (const auto value :
       {Nvfp4Scope::kNone, Nvfp4Scope::kWeights, Nvfp4Scope::kActivations, Nvfp4Scope::kAll})
    EXPECT_EQ(*ParseNvfp4Scope(te::Name(value)), value);
  for (const auto value : {FourOverSix::kMAE, FourOverSix::kMSE})
    EXPECT_EQ(*ParseFourOverSixErrMode(te::Name(value)), value);
  EXPECT_FALSE(ParseBackwardOverride("None").ok());
  EXPECT_FALSE(ParseNvfp4Scope("activation").ok());
  EXPECT_FALSE(ParseFourOverSixErrMode("off").ok());
}

}  // namespace
}  // namespace te
