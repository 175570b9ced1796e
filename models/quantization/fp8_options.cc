#include "models/quantization/fp8_options.h"

#include <fnmatch.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "fmt/format.h"
#include "fmt/ranges.h"
#include "models/quantization/recipe_parameters.h"
#include "models/quantization/rules_file.h"

namespace te {
namespace {

constexpr char kRecipe[] = "--recipe";
constexpr char kFormat[] = "--fp8-format";
constexpr char kMargin[] = "--fp8-margin";
constexpr char kHistory[] = "--fp8-amax-history-len";
constexpr char kAlgo[] = "--fp8-amax-compute-algo";
constexpr char kParameters[] = "--fp8-recipe-parameters";
constexpr char kFirstLayers[] = "--fp8-first-layers-bf16";
constexpr char kLastLayers[] = "--fp8-last-layers-bf16";
constexpr char kRecipeFile[] = "--fp8-recipe-file";
constexpr char kCalibration[] = "--fp8-calibration-steps";
constexpr char kLmHead[] = "--fp8-lm-head";
constexpr char kWeightsOnly[] = "--fp8-weights-only";
constexpr char kDpa[] = "--fp8-dpa";

StatusOr<int64_t> CountOr(const char* flag, const std::optional<int64_t>& value, int64_t absent) {
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
  if (!value) return absent;
  if (*value < 0 || *value > kMost)
    return InvalidArgument("{} is {}; expected a number from 0 to {}", flag, *value, kMost);
  return *value;
}

// An option that some recipes have and this one has not.
template <typename T>
Status OnlyWith(const char* flag, const std::optional<T>& value, const std::string& recipe,
                const char* owners) {
  if (!value) return OkStatus();
  return InvalidArgument("{} is {}, which --recipe {} does not have; expected --recipe {}", flag,
                         *value, recipe, owners);
}

Status CheckNoDelayedOptions(const Fp8Options& options, const std::string& recipe) {
  TE_RETURN_IF_ERROR(OnlyWith(kMargin, options.margin, recipe, "delayed"));
  TE_RETURN_IF_ERROR(OnlyWith(kHistory, options.amax_history_len, recipe, "delayed"));
  if (options.dpa) {
    return InvalidArgument("{} with --recipe {}; expected it with --recipe delayed", kDpa, recipe);
  }
  return OnlyWith(kAlgo, options.amax_compute_algo, recipe, "delayed");
}

Status SetDelayed(const Fp8Options& options, DelayedScalingRecipe* delayed) {
  if (options.margin) {
    constexpr int64_t kMost = std::numeric_limits<int>::max();
    delayed->margin = static_cast<int>(std::clamp(*options.margin, -kMost, kMost));
    TE_RETURN_IF_ERROR(MakeRecipe(*delayed).status().WithContext(kMargin));
  }
  if (options.amax_history_len) {
    delayed->amax_history_len = *options.amax_history_len;
    TE_RETURN_IF_ERROR(MakeRecipe(*delayed).status().WithContext(kHistory));
  }
  if (options.amax_compute_algo) {
    StatusOr<AmaxComputeAlgo> algo = ParseAmaxComputeAlgo(*options.amax_compute_algo);
    if (!algo.ok()) return algo.status().WithContext(kAlgo);
    delayed->amax_compute_algo = *algo;
  }
  delayed->fp8_dpa = options.dpa;
  return OkStatus();
}

// A parameter that has a flag of its own, too.
template <typename T>
Status GivenOnce(const char* flag, const std::optional<T>& value, const JsonValue& parameters,
                 const char* key) {
  const JsonValue* other = parameters.Find(key);
  if (!value || other == nullptr) return OkStatus();
  return InvalidArgument("{} is {} and {}'s {} is {}; expected one of them", flag, *value,
                         kParameters, key, other->ToString());
}

Status SetParameters(const Fp8Options& options, RecipeOptions* recipe) {
  if (!options.recipe_parameters) return OkStatus();
  TE_ASSIGN_OR_RETURN(const JsonValue parameters,
                      ParseJson(*options.recipe_parameters, kParameters));
  TE_RETURN_IF_ERROR(GivenOnce(kFormat, options.format, parameters, "fp8_format"));
  TE_RETURN_IF_ERROR(GivenOnce(kMargin, options.margin, parameters, "margin"));
  TE_RETURN_IF_ERROR(GivenOnce(kHistory, options.amax_history_len, parameters, "amax_history_len"));
  TE_RETURN_IF_ERROR(GivenOnce(kAlgo, options.amax_compute_algo, parameters, "amax_compute_algo"));
  if (options.dpa && parameters.Find("fp8_dpa") != nullptr) {
    return InvalidArgument("{} and {}'s fp8_dpa are both given; expected one of them", kDpa,
                           kParameters);
  }
  return ReadRecipeParameters(parameters, kParameters, recipe);
}

StatusOr<std::shared_ptr<const Recipe>> MakeMainRecipe(const Fp8Options& options) {
  const std::string name = options.recipe.value_or("delayed");
  StatusOr<RecipeOptions> recipe = RecipeOptionsOf(name);
  if (!recipe.ok()) {
    return InvalidArgument("{} is \"{}\"; expected delayed, current, block, mxfp8 or nvfp4",
                           kRecipe, name);
  }
  if (auto* delayed = std::get_if<DelayedScalingRecipe>(&*recipe); delayed != nullptr) {
    TE_RETURN_IF_ERROR(SetDelayed(options, delayed));
  } else {
    TE_RETURN_IF_ERROR(CheckNoDelayedOptions(options, name));
  }
  if (options.format) {
    StatusOr<Fp8Format> format = ParseFp8Format(*options.format);
    if (!format.ok()) return format.status().WithContext(kFormat);
    const bool has_format = std::visit(
        [&format](auto& o) {
          if constexpr (requires { o.fp8_format; }) {
            o.fp8_format = *format;
            return true;
          }
          return false;
        },
        *recipe);
    if (!has_format)
      return OnlyWith(kFormat, options.format, name, "delayed, current, block or mxfp8");
  }
  TE_RETURN_IF_ERROR(SetParameters(options, &*recipe));
  StatusOr<std::shared_ptr<const Recipe>> made = MakeRecipe(*recipe);
  if (!made.ok() && options.recipe_parameters) return made.status().WithContext(kParameters);
  return made;
}

Status CheckLayers(const char* flag, int64_t layers, int64_t num_layers) {
  if (layers <= num_layers) return OkStatus();
  return InvalidArgument("{} is {}; expected at most the model's {} layers", flag, layers,
                         num_layers);
}

Status CheckPatterns(const Fp8Plan& plan, const std::vector<std::string>& modules) {
  for (size_t i = 0; i < plan.rules.size(); ++i) {
    const std::string& pattern = plan.rules[i].pattern;
    // As MakeModuleRecipes matches.
    const auto matches = [&pattern](const std::string& module) {
      return fnmatch(pattern.c_str(), module.c_str(), FNM_NOESCAPE) == 0;
    };
    if (std::any_of(modules.begin(), modules.end(), matches)) continue;
    return InvalidArgument(
        "{}: {}: matchers[{}].pattern is {}, which matches no module; expected a glob for some of "
        "{}",
        kRecipeFile, plan.recipe_file, i, JsonValue::String(pattern).ToString(),
        fmt::join(modules, ", "));
  }
  return OkStatus();
}

// Every recipe that a weight may meet in training.
Status CheckWeightsOnly(const Fp8Plan& plan) {
  const auto check = [](const std::string& source, const Recipe* recipe) -> Status {
    if (recipe == nullptr) return OkStatus();
    const TensorQuantization q = recipe->For({"linear", "weight", ""});
    if (!q.quantized() || q.fp8_only()) return OkStatus();
    return InvalidArgument(
        "{} with {}: {} gives a weight other codes than E4M3 with one scale, which the optimizer "
        "cannot update in place; expected --recipe delayed or current",
        kWeightsOnly, source, recipe->name());
  };
  for (const ModuleRule& rule : plan.rules) {
    TE_RETURN_IF_ERROR(check(fmt::format("{} {}: pattern {}", kRecipeFile, plan.recipe_file,
                                         JsonValue::String(rule.pattern).ToString()),
                             rule.training.get()));
  }
  return check(fmt::format("{}", kRecipe), plan.main.get());
}

}  // namespace

std::string FirstGivenFlag(const Fp8Options& options) {
  const auto given = [](const char* flag, const auto& value) {
    return value ? fmt::format("{} {}", flag, *value) : std::string();
  };
  for (const std::string& text :
       {given(kRecipe, options.recipe), given(kFormat, options.format),
        given(kMargin, options.margin), given(kHistory, options.amax_history_len),
        given(kAlgo, options.amax_compute_algo), given(kParameters, options.recipe_parameters),
        given(kFirstLayers, options.first_layers_bf16),
        given(kLastLayers, options.last_layers_bf16), given(kRecipeFile, options.recipe_file),
        given(kCalibration, options.calibration_steps)}) {
    if (!text.empty()) return text;
  }
  if (options.lm_head) return kLmHead;
  if (options.weights_only) return kWeightsOnly;
  return options.dpa ? kDpa : "";
}

StatusOr<Fp8Plan> MakeFp8Plan(const Fp8Options& options) {
  Fp8Plan plan;
  TE_ASSIGN_OR_RETURN(plan.main, MakeMainRecipe(options));
  TE_ASSIGN_OR_RETURN(plan.first_layers_bf16, CountOr(kFirstLayers, options.first_layers_bf16, 0));
  TE_ASSIGN_OR_RETURN(plan.last_layers_bf16, CountOr(kLastLayers, options.last_layers_bf16, 0));
  if (options.calibration_steps) {
    TE_ASSIGN_OR_RETURN(const int64_t steps, CountOr(kCalibration, options.calibration_steps, 0));
    plan.calibration_steps = static_cast<int>(steps);
  }
  plan.lm_head = options.lm_head;
  if (options.recipe_file) {
    plan.recipe_file = *options.recipe_file;
    StatusOr<std::vector<ModuleRule>> rules = ReadRulesFile(plan.recipe_file);
    if (!rules.ok()) return rules.status().WithContext(kRecipeFile);
    plan.rules = std::move(rules).value();
  }
  if (!MakeModuleRecipes(plan.rules, plan.main)->calibrates()) {
    TE_RETURN_IF_ERROR(OnlyWith(kCalibration, options.calibration_steps,
                                options.recipe.value_or("delayed"), "delayed"));
  }
  plan.weights_only = options.weights_only;
  if (plan.weights_only) TE_RETURN_IF_ERROR(CheckWeightsOnly(plan));
  return plan;
}

std::vector<std::string> QuantizedModules(int64_t num_layers) {
  std::vector<std::string> names;
  for (int64_t i = 0; i < num_layers; ++i) {
    for (const char* module : {"self_attention.layernorm_qkv", "self_attention.proj",
                               "layernorm_mlp.fc1", "layernorm_mlp.fc2"})
      names.push_back(fmt::format("model.layers.{}.{}", i, module));
  }
  names.emplace_back("lm_head");
  return names;
}

std::vector<std::string> AttentionModules(int64_t num_layers) {
  std::vector<std::string> names;
  for (int64_t i = 0; i < num_layers; ++i)
    names.push_back(fmt::format("model.layers.{}.self_attention.core_attention", i));
  return names;
}

StatusOr<std::unique_ptr<Recipe>> MakeModelRecipe(const Fp8Plan& plan, int64_t num_layers,
                                                  bool training) {
  TE_RETURN_IF_ERROR(CheckLayers(kFirstLayers, plan.first_layers_bf16, num_layers));
  TE_RETURN_IF_ERROR(CheckLayers(kLastLayers, plan.last_layers_bf16, num_layers));
  const std::vector<std::string> modules = QuantizedModules(num_layers);
  std::vector<std::string> named = modules;
  for (std::string& module : AttentionModules(num_layers)) named.push_back(std::move(module));
  TE_RETURN_IF_ERROR(CheckPatterns(plan, named));
  std::vector<ModuleRule> rules = plan.rules;
  for (int64_t i = 0; i < num_layers; ++i) {
    if (i >= plan.first_layers_bf16 && i < num_layers - plan.last_layers_bf16) continue;
    rules.push_back({.pattern = fmt::format("model.layers.{}.*", i),
                     .training = nullptr,
                     .evaluation = nullptr});
  }
  if (!plan.lm_head)
    rules.push_back({.pattern = "lm_head", .training = nullptr, .evaluation = nullptr});
  std::unique_ptr<Recipe> recipe = MakeModuleRecipes(std::move(rules), plan.main);
  const auto quantized = [&recipe, training](const std::string& module) {
    return recipe->ForModule({}, module, training) != nullptr;
  };
  if (std::none_of(modules.begin(), modules.end(), quantized)) {
    return InvalidArgument(
        "{} is {} and {} is {} of {} layers{}: no module is left in low precision; expected "
        "fewer, or --precision bf16",
        kFirstLayers, plan.first_layers_bf16, kLastLayers, plan.last_layers_bf16, num_layers,
        plan.rules.empty() ? "" : fmt::format(", after the rules of {}", plan.recipe_file));
  }
  return recipe;
}

}  // namespace te
