// Recipes by module name, from a JSON file: Megatron's per-module quantization
// (TEQuantizationRecipe, TEQuantizationParams).
//
//   {"configs": {"wide": {"training_recipe": {"recipe": "current", "fp8_format": "hybrid"},
//                         "evaluation_recipe": null}},
//    "matchers": [{"pattern": "*.fc2", "config": "wide"}]}
//
// matchers: in order, the first whose glob matches a module's full name decides ('*' matches dots,
// too). training_recipe: null is the tensors' own dtype. evaluation_recipe: absent, it is the
// training's. A recipe is named as on the command line; its parameters are those of
// recipe_parameters.h.
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
