// Directories of weights: an index and its shards, or single files. Whatever opens, each tensor
// is in the file that the reader says.
#include "models/checkpoint/checkpoint_reader.h"
#include "models/checkpoint/model_directory.h"
#include "tests/fuzz/fuzzing.h"

namespace te {
namespace {

TE_FUZZ_TARGET(input) {
  static const fuzz::MemoryFolder folder;
  folder.Clear();
  fuzz::UnpackFiles(input, folder);
  const fuzz::MemoryBound bound(input.size(), {.base = size_t{2} << 20, .factor = 1024});
  fuzz::CheckRefusal(FindModelDirectory(folder.path(), "").status());
  fuzz::CheckRefusal(DescribeMissingWeights(folder.path(), ""));
  const auto reader = CheckpointReader::Open(folder.path());
  if (!reader.ok()) return fuzz::CheckRefusal(reader.status());
  for (const auto& [name, tensor] : (*reader)->tensors()) {
    TE_FUZZ_CHECK(tensor.entry->name == name, "{} is {}", name, tensor.entry->name);
    TE_FUZZ_CHECK((*reader)->files()[tensor.file]->Find(name) == tensor.entry, "{} is elsewhere",
                  name);
    TE_FUZZ_CHECK((*reader)->PathOf(tensor).starts_with(folder.path() + "/"), "{} is outside",
                  (*reader)->PathOf(tensor));
    fuzz::CheckRefusal((*reader)->OpenStream(tensor).status());
  }
}

}  // namespace
}  // namespace te
