// What a file is said to be: always something, in words for a message.
#include "models/file_kind/file_kind.h"
#include "tests/fuzz/fuzzing.h"

namespace te {
namespace {

TE_FUZZ_TARGET(input) {
  const fuzz::MemoryBound bound(input.size());
  for (const uint64_t size : {static_cast<uint64_t>(input.size()), uint64_t{1} << 40}) {
    const FileContent content = DescribeContent(input, size);
    TE_FUZZ_CHECK(!content.what.empty(), "kind {} has no name", static_cast<int>(content.kind));
    TE_FUZZ_CHECK(content.ToString().size() < 1000, "{}", content.ToString());
    const Status status = CorruptData("{}", content.ToString());
    fuzz::CheckRefusal(status);
    TE_FUZZ_CHECK(status.message() == content.ToString(), "no printable line: {}",
                  status.message());
  }
}

}  // namespace
}  // namespace te
