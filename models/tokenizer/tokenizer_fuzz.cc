// tokenizer.model and tokenizer_config.json: what loads gives ids that it decodes again.
#include "models/tokenizer/tokenizer.h"
#include "tests/fuzz/fuzzing.h"

namespace te {
namespace {

void Try(const Tokenizer& tokenizer, std::string_view text) {
  const StatusOr<std::vector<int32_t>> ids = tokenizer.Encode(text);
  if (!ids.ok()) return fuzz::CheckRefusal(ids.status());
  const StatusOr<std::string> decoded = tokenizer.Decode(*ids);
  fuzz::CheckRefusal(decoded.status());
  std::vector<int32_t> cut = *ids;
  tokenizer.Truncate(&cut, 1);
  TE_FUZZ_CHECK(cut.size() <= 1, "{} tokens after truncation to 1", cut.size());
}

TE_FUZZ_TARGET(input) {
  static const fuzz::MemoryFolder folder;
  folder.Clear();
  fuzz::UnpackFiles(input, folder);
  const fuzz::MemoryBound bound(input.size(), {.base = size_t{4} << 20, .factor = 512});
  const auto tokenizer = LoadTokenizer(folder.path());
  if (!tokenizer.ok()) return fuzz::CheckRefusal(tokenizer.status());
  TE_FUZZ_CHECK((*tokenizer)->vocab_size() > 0, "no pieces");
  TE_FUZZ_CHECK(!(*tokenizer)->Describe().empty(), "no description");
  for (const std::string_view text :
       {"", "a", "Hello, world", "  two  spaces ", "\xc3\xa9\xe6\x97\xa5", "<s></s>\n\t\xff"}) {
    Try(**tokenizer, text);
  }
  constexpr int32_t kOddIds[] = {-1, 0, 1, INT32_MAX, INT32_MIN};
  fuzz::CheckRefusal((*tokenizer)->Decode(kOddIds).status());
}

}  // namespace
}  // namespace te
