#include "te_core/quantization/module_recipes.h"

#include <fnmatch.h>

#include <algorithm>
#include <utility>

#include "fmt/format.h"

namespace te {
namespace {

class ModuleRecipes : public Recipe {
 public:
  ModuleRecipes(std::vector<ModuleRule> rules, std::shared_ptr<const Recipe> otherwise)
      : rules_(std::move(rules)), otherwise_(std::move(otherwise)) {}

  std::string name() const override {
    return fmt::format("{}; by module name: {} rule(s)",
                       otherwise_ == nullptr ? "no quantization" : otherwise_->name(),
                       rules_.size());
  }
  const Recipe* ForModule(std::string_view module_type, std::string_view name,
                          bool training) const override {
    const std::string text(name);
    const Recipe* chosen = otherwise_.get();
    for (const ModuleRule& rule : rules_) {
      if (fnmatch(rule.pattern.c_str(), text.c_str(), FNM_NOESCAPE) != 0) continue;
      chosen = (training ? rule.training : rule.evaluation).get();
      break;
    }
    return chosen == nullptr ? nullptr : chosen->ForModule(module_type, name, training);
  }
  bool calibrates() const override {
    const auto of = [](const std::shared_ptr<const Recipe>& recipe) {
      return recipe != nullptr && recipe->calibrates();
    };
    return of(otherwise_) || std::any_of(rules_.begin(), rules_.end(),
                                         [&of](const auto& rule) { return of(rule.training); });
  }
  // Asked of the recipe that ForModule returns, never of this one.
  TensorQuantization For(const QuantizerRole&) const override { return {}; }
  bool SplitAccumulator(GemmKind) const override { return true; }

 private:
  std::vector<ModuleRule> rules_;
  std::shared_ptr<const Recipe> otherwise_;
};

}  // namespace

std::unique_ptr<Recipe> MakeModuleRecipes(std::vector<ModuleRule> rules,
                                          std::shared_ptr<const Recipe> otherwise) {
  return std::make_unique<ModuleRecipes>(std::move(rules), std::move(otherwise));
}

}  // namespace te
