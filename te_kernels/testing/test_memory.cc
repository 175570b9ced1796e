#include "te_kernels/testing/test_memory.h"

#include <cstdio>
#include <cstdlib>

namespace te::test {
namespace {

MemoryResource*& Installed() {
  static MemoryResource* memory = nullptr;
  return memory;
}

}  // namespace

void SetTestMemory(MemoryResource* memory) { Installed() = memory; }

std::shared_ptr<uint8_t[]> AllocateTestBytes(size_t bytes) {
  MemoryResource* memory = Installed();
  if (memory == nullptr) return std::shared_ptr<uint8_t[]>(new uint8_t[bytes]);
  StatusOr<void*> pointer = memory->Allocate(bytes);
  if (!pointer.ok()) {
    std::fprintf(stderr, "test memory: %s\n", pointer.status().message().c_str());
    std::abort();
  }
  return std::shared_ptr<uint8_t[]>(static_cast<uint8_t*>(*pointer),
                                    [memory, bytes](uint8_t* p) { memory->Free(p, bytes); });
}

}  // namespace te::test
