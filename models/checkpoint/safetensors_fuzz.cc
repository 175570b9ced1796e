// Safetensors files: a header that is taken accounts for every byte of the file; the tensors,
// written anew, read back as the same.
#include <map>

#include "models/checkpoint/safetensors.h"
#include "models/checkpoint/testing_tensor_fuzz.h"
#include "tests/fuzz/fuzzing.h"

namespace te {
namespace {

struct Contents {
  std::map<std::string, std::pair<std::string, std::string>> tensors;  // form and bytes by name
  std::map<std::string, std::string> metadata;
  bool operator==(const Contents&) const = default;
};

Contents ContentsOf(const SafetensorsFile& file, size_t most_bytes) {
  Contents contents;
  for (const auto& [key, value] : file.metadata()) contents.metadata[key] = value;
  for (size_t i = 0; i < file.entries().size(); ++i) {
    const TensorEntry& entry = file.entries()[i];
    contents.tensors[entry.name] = {entry.ToString(), fuzz::ReadWhole(file, i, most_bytes)};
  }
  return contents;
}

// The file that our own writer makes of the contents.
StatusOr<std::string> WriteAnew(const SafetensorsFile& file, const Contents& contents,
                                const fuzz::MemoryFolder& folder) {
  std::vector<SafetensorsItem> items;
  for (const TensorEntry& entry : file.entries()) {
    const std::string& bytes = contents.tensors.at(entry.name).second;
    items.push_back(
        {entry.name, entry.type, entry.shape, [&bytes](const SafetensorsItem::Sink& sink) {
           return bytes.empty() ? OkStatus() : sink(bytes.data(), bytes.size());
         }});
  }
  const std::string path = folder.path() + "/written.safetensors";
  TE_RETURN_IF_ERROR(WriteSafetensors(path, items, file.metadata(), /*replace=*/true));
  return path;
}

TE_FUZZ_TARGET(input) {
  static const fuzz::MemoryFolder folder;
  static fuzz::MemoryFile source;
  source.Set(input);
  const fuzz::MemoryBound bound(input.size(), {.base = size_t{1} << 20, .factor = 256});
  const auto file = SafetensorsFile::Open(source.path());
  if (!file.ok()) return fuzz::CheckRefusal(file.status());
  uint64_t bytes = 8;
  for (const TensorEntry& entry : (*file)->entries()) bytes += entry.bytes();
  TE_FUZZ_CHECK(bytes <= input.size(), "{} bytes of tensors in a file of {}", bytes, input.size());
  const Contents contents = ContentsOf(**file, input.size());
  TE_FUZZ_CHECK(contents.tensors.size() == (*file)->entries().size(), "two tensors of one name");
  const StatusOr<std::string> written = WriteAnew(**file, contents, folder);
  TE_FUZZ_CHECK(written.ok(), "{}", written.status().message());
  const auto again = SafetensorsFile::Open(*written);
  TE_FUZZ_CHECK(again.ok(), "{}", again.status().message());
  TE_FUZZ_CHECK(ContentsOf(**again, input.size()) == contents, "it was written otherwise");
}

}  // namespace
}  // namespace te
