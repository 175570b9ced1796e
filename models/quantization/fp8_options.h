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
  std::optional<int64_t> first_layers_bf16;
  std::optional<int64_t> last_layers_bf16;
  std::optional<int64_t> calibration_steps;
  bool lm_head = false;
};

// The first option that is given, as a flag ("--fp8-margin 3"); empty when none is.
std::string FirstGivenFlag(const Fp8Options& options);

// What can be said before the model is known.
struct Fp8Plan {
  std::shared_ptr<const Recipe> main;
  int64_t first_layers_bf16 = 0;
  int64_t last_layers_bf16 = 0;
  int calibration_steps = 1;
  bool lm_head = false;
};

// kInvalidArgument names the flag, its value and what was expected.
StatusOr<Fp8Plan> MakeFp8Plan(const Fp8Options& options);

// The recipe of a model's modules: "model.layers.N..." and "lm_head". The first and last layers
// that are to stay in their own dtype do so in training and evaluation; so does lm_head unless the
// plan has it. kInvalidArgument: more layers than the model has, or no module left to quantize.
StatusOr<std::unique_ptr<Recipe>> MakeModelRecipe(const Fp8Plan& plan, int64_t num_layers);

}  // namespace te
