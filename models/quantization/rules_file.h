// Recipes by module name, from a JSON file: Megatron's per-module quantization
// (TEQuantizationRecipe, TEQuantizationParams).
//
//   {"configs": {"wide": {"training_recipe": {"recipe": "current", "fp8_format": "hybrid"},
//                         "evaluation_recipe": null}},
//    "matchers": [{"pattern": "*.fc2", "config": "wide"}]}
//
// matchers: in order, the first whose glob matches a module's full name decides ('*' matches dots,
// too). training_recipe: null is the tensors' own dtype. evaluation_recipe: absent, it is the
// training's. A recipe is named as on the command line; its parameters have Transformer Engine's
// names and defaults:
//   delayed   margin, fp8_format, amax_history_len, amax_compute_algo, reduce_amax
//   current   fp8_format, use_power_2_scales, amax_epsilon
//   block     fp8_format, use_power_2_scales, amax_epsilon
//   mxfp8     margin (0), fp8_format, enable_2d_quantization
//   nvfp4     disable_rht, disable_stochastic_rounding, disable_2d_quantization
#pragma once

#include <string>
#include <vector>

#include "models/json/json.h"
#include "te_core/quantization/module_recipes.h"

namespace te {

// kInvalidArgument: "NAME: configs."wide".training_recipe.margin is ...; expected ...".
StatusOr<std::vector<ModuleRule>> ParseRules(const JsonValue& file, const std::string& name);
// kNotFound, kIoError, kCorruptData (not JSON, a key twice), kInvalidArgument.
StatusOr<std::vector<ModuleRule>> ReadRulesFile(const std::string& path);

}  // namespace te
