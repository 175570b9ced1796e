// A recipe that chooses by a module's name: the equivalent of Megatron's per-module quantization
// (TEQuantizationRecipe, TEQuantizationParams): an ordered list of patterns, the first match wins,
// separately for training and evaluation.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "te_core/quantization/recipe.h"

namespace te {

struct ModuleRule {
  // Glob on the module's full name: "*.layernorm_mlp.fc2", "model.layers.0.*", "lm_head". '*'
  // matches dots, too.
  std::string pattern;
  // Null: in the tensors' own dtype.
  std::shared_ptr<const Recipe> training;
  std::shared_ptr<const Recipe> evaluation;
};

// `otherwise` is the recipe of modules that no pattern matches; null: their own dtype.
std::unique_ptr<Recipe> MakeModuleRecipes(std::vector<ModuleRule> rules,
                                          std::shared_ptr<const Recipe> otherwise);

}  // namespace te
