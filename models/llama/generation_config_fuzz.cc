// generation_config.json beside a config of one eos token.
#include "models/llama/generation_config.h"
#include "tests/fuzz/fuzzing.h"

namespace te {
namespace {

TE_FUZZ_TARGET(input) {
  static const fuzz::MemoryFolder folder;
  folder.Set("generation_config.json", input);
  const fuzz::MemoryBound bound(input.size(), {.base = size_t{1} << 20, .factor = 256});
  const StatusOr<GenerationConfig> config = ReadGenerationConfig(folder.path(), LlamaConfig());
  if (!config.ok()) return fuzz::CheckRefusal(config.status());
  TE_FUZZ_CHECK(config->present, "the file is there");
  for (const int64_t id : config->eos_token_ids) TE_FUZZ_CHECK(id >= 0, "id {}", id);
  for (const std::string& text : config->not_applied) fuzz::CheckRefusal(CorruptData("{}", text));
}

}  // namespace
}  // namespace te
