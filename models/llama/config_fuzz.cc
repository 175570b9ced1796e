// config.json: what is taken is valid, and its own text reads back as the same configuration.
#include "models/llama/config.h"
#include "tests/fuzz/fuzzing.h"

namespace te {
namespace {

TE_FUZZ_TARGET(input) {
  const fuzz::MemoryBound bound(input.size(), {.factor = 128});
  const StatusOr<LlamaConfig> config = LlamaConfig::FromJson(input);
  if (!config.ok()) return fuzz::CheckRefusal(config.status());
  TE_FUZZ_CHECK(config->Validate().ok(), "{}", config->Validate().message());
  TE_FUZZ_CHECK(config->ParameterCount() > 0, "{} parameters", config->ParameterCount());
  const std::string text = config->ToJson();
  const StatusOr<LlamaConfig> again = LlamaConfig::FromJson(text);
  TE_FUZZ_CHECK(again.ok(), "{} in {}", again.status().message(), text);
  TE_FUZZ_CHECK(again->ToJson() == text, "{} became {}", text, again->ToJson());
}

}  // namespace
}  // namespace te
