#include "models/quantization/recipe_parameters.h"

#include "gtest/gtest.h"

namespace te {
namespace {

constexpr const char* kRecipes[] = {"delayed", "current", "block", "mxfp8", "nvfp4"};

StatusOr<RecipeOptions> Read(const std::string& recipe, const std::string& json) {
  TE_ASSIGN_OR_RETURN(RecipeOptions options, RecipeOptionsOf(recipe));
  TE_ASSIGN_OR_RETURN(const JsonValue object, ParseJson(json));
  TE_RETURN_IF_ERROR(ReadRecipeParameters(object, "here", &options));
  return options;
}

// What a recipe says of itself: all its parameters.
std::string Made(const std::string& recipe, const std::string& json) {
  const StatusOr<RecipeOptions> options = Read(recipe, json);
  if (!options.ok()) return "refused: " + options.status().message();
  const auto made = MakeRecipe(*options);
  return made.ok() ? (*made)->name() : "refused: " + made.status().message();
}

testing::AssertionResult Refused(const std::string& recipe, const std::string& json,
                                 const std::string& part) {
  const std::string said = Made(recipe, json);
  if (said.starts_with("refused") && said.find(part) != std::string::npos)
    return testing::AssertionSuccess();
  return testing::AssertionFailure() << "'" << part << "' is not in: " << said;
}

// Transformer Engine's defaults, written out, are those of an empty object.
TEST(RecipeParameters, TheReferencesDefaults) {
  const std::string dpa = R"("fp8_dpa": false, "fp8_mha": false, "backward_override": null)";
  const std::string gemms = R"("fp8_gemm_dgrad": {"use_split_accumulator": true},
                               "fp8_gemm_wgrad": {"use_split_accumulator": true}, )";
  const std::string defaults[] = {
      R"({"margin": 0, "fp8_format": "hybrid", "amax_history_len": 1024,
          "amax_compute_algo": "max", "scaling_factor_compute_algo": null, "reduce_amax": true, )",
      R"({"use_power_2_scales": false, "fp8_format": "hybrid",
          "fp8_gemm_fprop": {"use_split_accumulator": false}, )" +
          gemms,
      R"({"use_f32_scales": false, "fp8_format": "e4m3", "x_block_scaling_dim": 1,
          "w_block_scaling_dim": 2, "grad_block_scaling_dim": 1,
          "fp8_gemm_fprop": {"use_split_accumulator": true}, )" +
          gemms,
      R"({"margin": 0, "fp8_format": "e4m3", "enable_2d_quantization": false, )",
      R"({"disable_rht": false, "disable_stochastic_rounding": false,
          "disable_2d_quantization": false, "row_scaled_activation": false,
          "nvfp4_4over6": "none", "nvfp4_4over6_e4m3_use_256": "all",
          "nvfp4_4over6_err_mode": "MAE", "fp4_format": "e2m1", "fp8_format": "e4m3", )"};
  for (size_t i = 0; i < 5; ++i) {
    const std::string unset = Made(kRecipes[i], "{}");
    EXPECT_FALSE(unset.starts_with("refused")) << unset;
    EXPECT_EQ(Made(kRecipes[i], defaults[i] + dpa + "}"), unset);
  }
}

TEST(RecipeParameters, EachOneArrives) {
  const struct {
    const char* recipe;
    const char* json;
  } cases[] = {
      {"delayed", R"({"margin": 2})"},
      {"delayed", R"({"fp8_format": "e4m3"})"},
      {"delayed", R"({"amax_history_len": 16})"},
      {"delayed", R"({"amax_compute_algo": "most_recent"})"},
      {"delayed", R"({"fp8_dpa": true})"},
      {"current", R"({"use_power_2_scales": true})"},
      {"current", R"({"fp8_format": "e4m3"})"},
      {"current", R"({"amax_epsilon": 0.5})"},
      {"current", R"({"fp8_gemm_fprop": {"use_split_accumulator": true}})"},
      {"current", R"({"fp8_gemm_dgrad": {"use_split_accumulator": false}})"},
      {"current", R"({"fp8_gemm_wgrad": {"use_split_accumulator": false}})"},
      {"current", R"({"backward_override": "high_precision"})"},
      {"block", R"({"use_f32_scales": true})"},
      {"block", R"({"use_power_2_scales": false})"},
      {"block", R"({"amax_epsilon": 0.5})"},
      {"block", R"({"fp8_format": "hybrid"})"},
      {"block", R"({"w_block_scaling_dim": 1})"},
      {"block", R"({"w_block_scaling_dim": 1, "x_block_scaling_dim": 2})"},
      {"block", R"({"w_block_scaling_dim": 1, "grad_block_scaling_dim": 2})"},
      {"block", R"({"backward_override": "dequantized"})"},
      {"mxfp8", R"({"fp8_format": "hybrid"})"},
      {"mxfp8", R"({"enable_2d_quantization": true})"},
      {"mxfp8", R"({"backward_override": "dequantized"})"},
      {"nvfp4", R"({"disable_rht": true})"},
      {"nvfp4", R"({"disable_stochastic_rounding": true})"},
      {"nvfp4", R"({"disable_2d_quantization": true})"},
      {"nvfp4", R"({"disable_rht": true, "row_scaled_activation": true})"},
      {"nvfp4", R"({"nvfp4_4over6": "weights"})"},
      {"nvfp4", R"({"nvfp4_4over6": "weights", "nvfp4_4over6_e4m3_use_256": "none"})"},
      {"nvfp4", R"({"nvfp4_4over6": "weights", "nvfp4_4over6_err_mode": "MSE"})"},
      {"nvfp4", R"({"backward_override": "high_precision"})"},
  };
  std::vector<std::string> seen;
  for (const char* recipe : kRecipes) seen.push_back(Made(recipe, "{}"));
  for (const auto& c : cases) {
    const std::string made = Made(c.recipe, c.json);
    EXPECT_FALSE(made.starts_with("refused")) << made;
    const bool same_as_the_contrary =
        std::string(c.json).find("power_2_scales\": false") != std::string::npos;
    EXPECT_EQ(std::find(seen.begin(), seen.end(), made) != seen.end(), same_as_the_contrary)
        << c.json << ": " << made;
    seen.push_back(made);
  }
  const StatusOr<RecipeOptions> local = Read("delayed", R"({"reduce_amax": false})");
  ASSERT_TRUE(local.ok());
  EXPECT_FALSE(std::get<DelayedScalingRecipe>(*local).reduce_amax);
}

TEST(RecipeParameters, WhatIsUnknownContradictoryOrNotOfferedIsNamed) {
  for (const char* recipe : kRecipes) {
    EXPECT_TRUE(Refused(recipe, R"({"interval": 1})", "here: unknown key \"interval\"; expected"));
    EXPECT_TRUE(Refused(recipe, "[]", "here is []; expected an object"));
    if (std::string(recipe) != "delayed") {
      EXPECT_TRUE(
          Refused(recipe, R"({"fp8_dpa": true})", "here.fp8_dpa is true, which is not offered"));
    }
    EXPECT_TRUE(
        Refused(recipe, R"({"fp8_mha": true})", "here.fp8_mha is true, which is not offered"));
    EXPECT_TRUE(Refused(recipe, R"({"backward_override": "None"})", "backward_override is 'None'"));
    EXPECT_TRUE(Refused(recipe, R"({"backward_override": 1})", "here.backward_override is 1"));
  }
  EXPECT_TRUE(
      Refused("delayed", R"({"scaling_factor_compute_algo": "f"})",
              "here.scaling_factor_compute_algo is \"f\", which is not offered: a function"));
  EXPECT_TRUE(Refused("delayed", R"({"backward_override": "dequantized"})",
                      "DelayedScaling: backward_override is dequantized; expected none"));
  EXPECT_TRUE(Refused("delayed", R"({"use_f32_scales": true})", "unknown key"));
  EXPECT_TRUE(Refused("delayed", R"({"fp8_dpa": 1})", "here.fp8_dpa is 1; expected true or false"));
  EXPECT_TRUE(Refused("current", R"({"use_power_2_scales": 1})", "here.use_power_2_scales is 1"));
  EXPECT_TRUE(Refused("current", R"({"amax_epsilon": -1})", "here.amax_epsilon is -1"));
  EXPECT_TRUE(Refused("current", R"({"fp8_gemm_fprop": true})", "here.fp8_gemm_fprop is true"));
  EXPECT_TRUE(
      Refused("current", R"({"fp8_gemm_fprop": {"split": true}})",
              "here.fp8_gemm_fprop: unknown key \"split\"; expected use_split_accumulator"));
  EXPECT_TRUE(Refused("block", R"({"use_f32_scales": true, "use_power_2_scales": true})",
                      "are both given"));
  EXPECT_TRUE(Refused("block", R"({"fp8_gemm_fprop": {"use_split_accumulator": false}})",
                      "fp8_gemm_fprop.use_split_accumulator is false"));
  EXPECT_TRUE(Refused("block", R"({"x_block_scaling_dim": 2})", "x_block_scaling_dim is 2"));
  EXPECT_TRUE(Refused("mxfp8", R"({"margin": 1})", "margin is 1; expected 0"));
  EXPECT_TRUE(Refused("nvfp4", R"({"fp4_format": "e3m0"})", "here.fp4_format is \"e3m0\""));
  EXPECT_TRUE(Refused("nvfp4", R"({"fp8_format": "hybrid"})", "here.fp8_format is \"hybrid\""));
  EXPECT_TRUE(Refused("nvfp4", R"({"nvfp4_4over6": "all"})", "expected disable_rht true"));
  EXPECT_TRUE(Refused("nvfp4", R"({"nvfp4_4over6": "some"})", "here.nvfp4_4over6: "));
  EXPECT_TRUE(Refused("nvfp4", R"({"nvfp4_4over6_err_mode": "mae"})", "expected MAE or MSE"));
  EXPECT_TRUE(Refused("x", "{}", "recipe is \"x\"; expected delayed"));
}

}  // namespace
}  // namespace te
