#include "models/quantization/rules_file.h"

#include <algorithm>
#include <initializer_list>
#include <limits>
#include <map>
#include <memory>
#include <span>
#include <string_view>
#include <utility>

#include "fmt/format.h"
#include "fmt/ranges.h"
#include "te_core/quantization/recipe.h"

namespace te {
namespace {

using Keys = std::span<const std::string_view>;

struct RecipeKeys {
  std::string_view recipe;
  std::vector<std::string_view> keys;
};

const std::vector<RecipeKeys>& KnownRecipes() {
  static const std::vector<RecipeKeys> kKnown{
      {"delayed",
       {"recipe", "margin", "fp8_format", "amax_history_len", "amax_compute_algo", "reduce_amax"}},
      {"current", {"recipe", "fp8_format", "use_power_2_scales", "amax_epsilon"}},
      {"block", {"recipe", "fp8_format", "use_power_2_scales", "amax_epsilon"}},
      {"mxfp8", {"recipe", "margin", "fp8_format", "enable_2d_quantization"}},
      {"nvfp4",
       {"recipe", "disable_rht", "disable_stochastic_rounding", "disable_2d_quantization"}}};
  return kKnown;
}

// Escaped and cut: names come from the file.
std::string Quoted(const std::string& text) { return JsonValue::String(text).ToString(); }

Status Unexpected(const std::string& where, const JsonValue& value, std::string_view expected) {
  return InvalidArgument("{} is {}; expected {}", where, value.ToString(), expected);
}

Status CheckObject(const std::string& where, const JsonValue& value, Keys keys) {
  if (!value.is_object())
    return Unexpected(where, value, fmt::format("an object of {}", fmt::join(keys, ", ")));
  for (const JsonMember& member : value.members()) {
    if (std::find(keys.begin(), keys.end(), member.key) == keys.end()) {
      return InvalidArgument("{}: unknown key {}; expected {}", where, Quoted(member.key),
                             fmt::join(keys, ", "));
    }
  }
  return OkStatus();
}

Status Require(const std::string& where, const JsonValue& object, const char* key,
               std::string_view expected) {
  if (object.Find(key) != nullptr) return OkStatus();
  return InvalidArgument("{}: \"{}\" is missing; expected {}", where, key, expected);
}

// The parameters of one recipe: absent ones keep their defaults.
class Parameters {
 public:
  Parameters(const JsonValue& object, const std::string& where) : object_(object), where_(where) {}

  Status Get(const char* key, bool* to) const {
    const JsonValue* value = object_.Find(key);
    if (value == nullptr) return OkStatus();
    if (!value->is_bool()) return Unexpected(Path(key), *value, "true or false");
    *to = value->boolean();
    return OkStatus();
  }
  Status Get(const char* key, float* to) const {
    const JsonValue* value = object_.Find(key);
    if (value == nullptr) return OkStatus();
    if (!value->is_number() || !(value->number() >= 0) ||
        value->number() > std::numeric_limits<float>::max()) {
      return Unexpected(Path(key), *value, "a number that float32 holds, 0 or more");
    }
    *to = static_cast<float>(value->number());
    return OkStatus();
  }
  template <typename Int>
  Status GetInteger(const char* key, Int* to) const {
    const JsonValue* value = object_.Find(key);
    if (value == nullptr) return OkStatus();
    constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
    if (!value->is_integer() || value->integer() < -kMost || value->integer() > kMost)
      return Unexpected(Path(key), *value, "an integer of 32 bits");
    *to = static_cast<Int>(value->integer());
    return OkStatus();
  }
  template <typename Enum>
  Status GetName(const char* key, StatusOr<Enum> (*parse)(std::string_view), Enum* to) const {
    const JsonValue* value = object_.Find(key);
    if (value == nullptr) return OkStatus();
    if (!value->is_string()) return Unexpected(Path(key), *value, "a name");
    StatusOr<Enum> parsed = parse(value->string());
    if (!parsed.ok()) return parsed.status().WithContext(where_);
    *to = *parsed;
    return OkStatus();
  }

 private:
  std::string Path(const char* key) const { return fmt::format("{}.{}", where_, key); }

  const JsonValue& object_;
  const std::string& where_;
};

StatusOr<std::unique_ptr<Recipe>> MakeByName(std::string_view recipe, const Parameters& p) {
  if (recipe == "delayed") {
    DelayedScalingRecipe delayed;
    TE_RETURN_IF_ERROR(p.GetInteger("margin", &delayed.margin));
    TE_RETURN_IF_ERROR(p.GetName("fp8_format", &ParseFp8Format, &delayed.fp8_format));
    TE_RETURN_IF_ERROR(p.GetInteger("amax_history_len", &delayed.amax_history_len));
    TE_RETURN_IF_ERROR(
        p.GetName("amax_compute_algo", &ParseAmaxComputeAlgo, &delayed.amax_compute_algo));
    TE_RETURN_IF_ERROR(p.Get("reduce_amax", &delayed.reduce_amax));
    return MakeRecipe(delayed);
  }
  if (recipe == "current") {
    Float8CurrentScalingRecipe current;
    TE_RETURN_IF_ERROR(p.GetName("fp8_format", &ParseFp8Format, &current.fp8_format));
    TE_RETURN_IF_ERROR(p.Get("use_power_2_scales", &current.use_power_2_scales));
    TE_RETURN_IF_ERROR(p.Get("amax_epsilon", &current.amax_epsilon));
    return MakeRecipe(current);
  }
  if (recipe == "block") {
    Float8BlockScalingRecipe block;
    TE_RETURN_IF_ERROR(p.GetName("fp8_format", &ParseFp8Format, &block.fp8_format));
    TE_RETURN_IF_ERROR(p.Get("use_power_2_scales", &block.use_power_2_scales));
    TE_RETURN_IF_ERROR(p.Get("amax_epsilon", &block.amax_epsilon));
    return MakeRecipe(block);
  }
  if (recipe == "mxfp8") {
    MXFP8BlockScalingRecipe mxfp8;
    TE_RETURN_IF_ERROR(p.GetInteger("margin", &mxfp8.margin));
    TE_RETURN_IF_ERROR(p.GetName("fp8_format", &ParseFp8Format, &mxfp8.fp8_format));
    TE_RETURN_IF_ERROR(p.Get("enable_2d_quantization", &mxfp8.enable_2d_quantization));
    return MakeRecipe(mxfp8);
  }
  NVFP4BlockScalingRecipe nvfp4;
  TE_RETURN_IF_ERROR(p.Get("disable_rht", &nvfp4.disable_rht));
  TE_RETURN_IF_ERROR(p.Get("disable_stochastic_rounding", &nvfp4.disable_stochastic_rounding));
  TE_RETURN_IF_ERROR(p.Get("disable_2d_quantization", &nvfp4.disable_2d_quantization));
  return MakeRecipe(nvfp4);
}

StatusOr<std::shared_ptr<const Recipe>> ParseRecipe(const JsonValue& value,
                                                    const std::string& where) {
  if (value.is_null()) return std::shared_ptr<const Recipe>();
  if (!value.is_object())
    return Unexpected(where, value, "an object with \"recipe\", or null (no quantization)");
  std::vector<std::string_view> names;
  for (const RecipeKeys& known : KnownRecipes()) names.push_back(known.recipe);
  const std::string expected = fmt::format("one of {}", fmt::join(names, ", "));
  TE_RETURN_IF_ERROR(Require(where, value, "recipe", expected));
  const JsonValue& name = *value.Find("recipe");
  const RecipeKeys* found = nullptr;
  for (const RecipeKeys& known : KnownRecipes())
    if (name.is_string() && name.string() == known.recipe) found = &known;
  if (found == nullptr) return Unexpected(where + ".recipe", name, expected);
  TE_RETURN_IF_ERROR(
      CheckObject(where, value, found->keys).WithContext(fmt::format("recipe {}", found->recipe)));
  StatusOr<std::unique_ptr<Recipe>> recipe = MakeByName(found->recipe, Parameters(value, where));
  if (!recipe.ok()) {
    return recipe.status().message().starts_with(where) ? recipe.status()
                                                        : recipe.status().WithContext(where);
  }
  return std::shared_ptr<const Recipe>(std::move(recipe).value());
}

struct Config {
  std::shared_ptr<const Recipe> training;
  std::shared_ptr<const Recipe> evaluation;
};

StatusOr<Config> ParseConfig(const JsonValue& value, const std::string& where) {
  constexpr std::string_view kKeys[] = {"training_recipe", "evaluation_recipe"};
  TE_RETURN_IF_ERROR(CheckObject(where, value, kKeys));
  TE_RETURN_IF_ERROR(
      Require(where, value, "training_recipe", "a recipe, or null (no quantization)"));
  Config config;
  TE_ASSIGN_OR_RETURN(config.training,
                      ParseRecipe(*value.Find("training_recipe"), where + ".training_recipe"));
  const JsonValue* evaluation = value.Find("evaluation_recipe");
  config.evaluation = config.training;
  if (evaluation != nullptr) {
    TE_ASSIGN_OR_RETURN(config.evaluation, ParseRecipe(*evaluation, where + ".evaluation_recipe"));
  }
  return config;
}

StatusOr<std::vector<ModuleRule>> ParseFile(const JsonValue& file) {
  constexpr std::string_view kKeys[] = {"configs", "matchers"};
  constexpr std::string_view kMatcherKeys[] = {"pattern", "config"};
  TE_RETURN_IF_ERROR(CheckObject("the file", file, kKeys));
  TE_RETURN_IF_ERROR(Require("the file", file, "configs", "an object of named configs"));
  TE_RETURN_IF_ERROR(Require("the file", file, "matchers", "an array of matchers"));
  const JsonValue& configs = *file.Find("configs");
  const JsonValue& matchers = *file.Find("matchers");
  if (!configs.is_object()) return Unexpected("configs", configs, "an object of named configs");
  if (!matchers.is_array()) return Unexpected("matchers", matchers, "an array of matchers");
  std::map<std::string, Config> by_name;
  for (const JsonMember& member : configs.members()) {
    TE_ASSIGN_OR_RETURN(by_name[member.key],
                        ParseConfig(member.value, "configs." + Quoted(member.key)));
  }
  std::vector<ModuleRule> rules;
  for (size_t i = 0; i < matchers.array().size(); ++i) {
    const JsonValue& matcher = matchers.array()[i];
    const std::string where = fmt::format("matchers[{}]", i);
    TE_RETURN_IF_ERROR(CheckObject(where, matcher, kMatcherKeys));
    for (const char* key : {"pattern", "config"}) {
      TE_RETURN_IF_ERROR(Require(where, matcher, key, "a string"));
      const JsonValue& value = *matcher.Find(key);
      if (!value.is_string())
        return Unexpected(fmt::format("{}.{}", where, key), value, "a string");
    }
    const JsonValue& config = *matcher.Find("config");
    const auto found = by_name.find(config.string());
    if (found == by_name.end())
      return Unexpected(where + ".config", config, "the name of one of the file's configs");
    rules.push_back({.pattern = matcher.Find("pattern")->string(),
                     .training = found->second.training,
                     .evaluation = found->second.evaluation});
  }
  return rules;
}

}  // namespace

StatusOr<std::vector<ModuleRule>> ParseRules(const JsonValue& file, const std::string& name) {
  StatusOr<std::vector<ModuleRule>> rules = ParseFile(file);
  if (!rules.ok()) return rules.status().WithContext(name);
  return rules;
}

StatusOr<std::vector<ModuleRule>> ReadRulesFile(const std::string& path) {
  constexpr size_t kMaxBytes = size_t{1} << 20;
  TE_ASSIGN_OR_RETURN(const JsonValue file, ReadJsonFile(path, kMaxBytes));
  return ParseRules(file, path);
}

}  // namespace te
