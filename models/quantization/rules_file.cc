#include "models/quantization/rules_file.h"

#include <algorithm>
#include <map>
#include <memory>
#include <span>
#include <string_view>
#include <utility>

#include "fmt/format.h"
#include "fmt/ranges.h"
#include "models/quantization/recipe_parameters.h"

namespace te {
namespace {

using Keys = std::span<const std::string_view>;

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

StatusOr<std::shared_ptr<const Recipe>> ParseRecipe(const JsonValue& value,
                                                    const std::string& where) {
  if (value.is_null()) return std::shared_ptr<const Recipe>();
  if (!value.is_object())
    return Unexpected(where, value, "an object with \"recipe\", or null (no quantization)");
  TE_RETURN_IF_ERROR(
      Require(where, value, "recipe", "one of delayed, current, block, mxfp8, nvfp4"));
  const JsonValue& name = *value.Find("recipe");
  if (!name.is_string())
    return Unexpected(where + ".recipe", name, "one of delayed, current, block, mxfp8, nvfp4");
  const auto located = [&where](Status status) {
    return status.message().starts_with(where) ? status : status.WithContext(where);
  };
  StatusOr<RecipeOptions> options = RecipeOptionsOf(name.string());
  if (!options.ok()) return located(options.status());
  Status read = ReadRecipeParameters(value.Without("recipe"), where, &*options);
  if (!read.ok()) return read.WithContext(fmt::format("recipe {}", name.string()));
  StatusOr<std::shared_ptr<const Recipe>> recipe = MakeRecipe(*options);
  if (!recipe.ok()) return located(recipe.status());
  return recipe;
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
  TE_ASSIGN_OR_RETURN(const JsonValue file, ReadJsonFile(path, kMaxBytes, InputUse::kOnceInOrder));
  return ParseRules(file, path);
}

}  // namespace te
