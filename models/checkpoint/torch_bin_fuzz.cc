// Files of torch.save: every tensor that is listed lies inside its storage and is read, within
// memory that the file's size bounds.
#include "models/checkpoint/testing_tensor_fuzz.h"
#include "models/checkpoint/torch_bin.h"
#include "tests/fuzz/fuzzing.h"

namespace te {
namespace {

constexpr size_t kMostBytes = 4096;  // of a tensor that is read
constexpr size_t kMostTensors = 64;

TE_FUZZ_TARGET(input) {
  static fuzz::MemoryFile source;
  source.Set(input);
  // libzip and zlib hold buffers of their own; a deflated pickle grows.
  const fuzz::MemoryBound bound(input.size(), {.base = size_t{2} << 20, .factor = 1024});
  const auto file = TorchBinFile::Open(source.path());
  if (!file.ok()) return fuzz::CheckRefusal(file.status());
  for (size_t i = 0; i < std::min((*file)->entries().size(), kMostTensors); ++i)
    fuzz::ReadWhole(**file, i, kMostBytes);
}

}  // namespace
}  // namespace te
