// The options of low-precision training by their names on the command line, turned into the recipe
// of a model's modules.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "te_core/quantization/module_recipes.h"
#include "te_core/quantization/recipe.h"

namespace te {

// As given: one that is absent has the recipe's default, one that the recipe does not have is an
// error.
struct Fp8Options {
  std::optional<std::string> recipe;  // delayed (also when absent), current, block, mxfp8, nvfp4
  std::optional<std::string> format;  // hybrid, e4m3
  std::optional<int64_t> margin;
  std::optional<int64_t> amax_history_len;
  std::optional<std::string> amax_compute_algo;  // max, most_recent
  // JSON: further parameters of the recipe (recipe_parameters.h).
  std::optional<std::string> recipe_parameters;
  std::optional<int64_t> first_layers_bf16;
  std::optional<int64_t> last_layers_bf16;
  std::optional<std::string> recipe_file;  // rules_file.h
  std::optional<int64_t> calibration_steps;
  bool lm_head = false;
  bool weights_only = false;  // --fp8-weights-only: QuantizedInit
  bool dpa = false;           // attention, too: of delayed
};

// The first option that is given, as a flag ("--fp8-margin 3"); empty when none is.
std::string FirstGivenFlag(const Fp8Options& options);

// What can be said before the model is known.
struct Fp8Plan {
  std::shared_ptr<const Recipe> main;
  std::vector<ModuleRule> rules;  // of recipe_file
  std::string recipe_file;
  int64_t first_layers_bf16 = 0;
  int64_t last_layers_bf16 = 0;
  std::optional<int> calibration_steps;  // absent: 1, or 0 where a saved state goes on
  bool lm_head = false;
  bool weights_only = false;
};

// kInvalidArgument names the flag, its value and what was expected; errors of recipe_file are those
// of ReadRulesFile.
StatusOr<Fp8Plan> MakeFp8Plan(const Fp8Options& options);

// The full names of the modules whose GEMMs recipes are asked for, and of those whose attention.
std::vector<std::string> QuantizedModules(int64_t num_layers);
std::vector<std::string> AttentionModules(int64_t num_layers);

// The recipe of a model's modules. The file's rules come first; the first and last layers that are
// to stay in their own dtype do so in training and evaluation, as does lm_head unless the plan has
// it; the main recipe has the rest. kInvalidArgument: more layers than the model has, a rule that
// matches no module, no module left to quantize in training (or evaluation).
StatusOr<std::unique_ptr<Recipe>> MakeModelRecipe(const Fp8Plan& plan, int64_t num_layers,
                                                  bool training);

}  // namespace te
