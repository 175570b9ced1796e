// An Exec for tests and benchmarks of single operations on the CPU: scratch arena and thread count,
// no library state.
#pragma once

#include <cstdlib>
#include <cstring>

#include "te_kernels/base/exec.h"

namespace te::test {

// Fresh memory is filled with NaN (in every floating dtype): reading scratch before writing it
// shows.
class PoisonedHostMemory : public MemoryResource {
 public:
  StatusOr<void*> Allocate(size_t bytes) override {
    const size_t rounded = (bytes + 255) / 256 * 256;
    void* pointer = rounded < bytes ? nullptr : std::aligned_alloc(256, rounded);
    if (pointer == nullptr) return OutOfMemory("asked for {} bytes of host memory", bytes);
    std::memset(pointer, 0xff, rounded);
    return pointer;
  }
  void Free(void* pointer, size_t) override { std::free(pointer); }
};

// Not movable: the Exec points into it.
class CpuExec {
 public:
  explicit CpuExec(int num_threads = 1) {
    exec_.num_threads = num_threads;
    exec_.scratch = &scratch_;
  }
  CpuExec(const CpuExec&) = delete;
  CpuExec& operator=(const CpuExec&) = delete;

  operator const Exec&() const { return exec_; }
  const Exec& exec() const { return exec_; }
  Arena& scratch() { return scratch_; }

 private:
  PoisonedHostMemory memory_;
  Arena scratch_{&memory_};
  Exec exec_;
};

}  // namespace te::test
