// Files of recipes by module name, with all parameters of recipes.
#include "models/quantization/rules_file.h"
#include "tests/fuzz/fuzzing.h"

namespace te {
namespace {

TE_FUZZ_TARGET(input) {
  static fuzz::MemoryFile source;
  source.Set(input);
  const fuzz::MemoryBound bound(input.size(), {.factor = 256});
  StatusOr<std::vector<ModuleRule>> rules = ReadRulesFile(source.path());
  if (!rules.ok()) return fuzz::CheckRefusal(rules.status());
  for (const ModuleRule& rule : *rules) {
    for (const auto& recipe : {rule.training, rule.evaluation}) {
      if (recipe == nullptr) continue;
      TE_FUZZ_CHECK(!std::string_view(recipe->name()).empty(), "a recipe without a name");
      recipe->For({{}, "input", "model.layers.0.self_attention.proj"});
    }
  }
}

}  // namespace
}  // namespace te
