// Parameters of recipes in JSON, under Transformer Engine's names and with its defaults
// (common/recipe/__init__.py):
//   delayed   margin, fp8_format, amax_history_len, amax_compute_algo, reduce_amax, fp8_dpa
//   current   fp8_format, use_power_2_scales, amax_epsilon, fp8_gemm_fprop, fp8_gemm_dgrad,
//             fp8_gemm_wgrad
//   block     fp8_format, use_f32_scales, amax_epsilon, x_block_scaling_dim, w_block_scaling_dim,
//             grad_block_scaling_dim, fp8_gemm_fprop, fp8_gemm_dgrad, fp8_gemm_wgrad
//   mxfp8     margin (0), fp8_format, enable_2d_quantization
//   nvfp4     disable_rht, disable_stochastic_rounding, disable_2d_quantization,
//             row_scaled_activation, nvfp4_4over6, nvfp4_4over6_e4m3_use_256,
//             nvfp4_4over6_err_mode, fp4_format (e2m1), fp8_format (e4m3)
//   all       backward_override (null or a name; delayed: null or none alone)
// Formats and algorithms are names as on the command line; a fp8_gemm_* is
// {"use_split_accumulator": true}. block also takes use_power_2_scales, which is the contrary of
// use_f32_scales. What te does not offer (fp8_mha, scaling_factor_compute_algo, and fp8_dpa of
// other recipes than delayed) may be there with the reference's default, false or null.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <variant>

#include "models/json/json.h"
#include "te_core/quantization/recipe.h"

namespace te {

using RecipeOptions =
    std::variant<DelayedScalingRecipe, Float8CurrentScalingRecipe, Float8BlockScalingRecipe,
                 MXFP8BlockScalingRecipe, NVFP4BlockScalingRecipe>;

// The defaults of the recipe that the command line and files call `name`. kInvalidArgument: "recipe
// is ...; expected delayed, current, block, mxfp8 or nvfp4".
StatusOr<RecipeOptions> RecipeOptionsOf(std::string_view name);
// Reads `object`'s members over what *options holds. kInvalidArgument names `where`, the member,
// its value and what was expected; *options may then have changed.
Status ReadRecipeParameters(const JsonValue& object, const std::string& where,
                            RecipeOptions* options);
StatusOr<std::shared_ptr<const Recipe>> MakeRecipe(const RecipeOptions& options);

}  // namespace te
