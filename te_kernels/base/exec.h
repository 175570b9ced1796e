// What every operation needs besides its tensors. Passed by const reference; owned by the context.
#pragma once

#include "te_kernels/base/memory.h"

namespace te {

// What a backend's libraries keep between calls (oneDNN's engine, cuBLASLt's handle, cached
// primitives). Each backend derives its own; made by the device, so that no state is global.
class LibraryState {
 public:
  virtual ~LibraryState() = default;
};

struct Exec {
  void* stream = nullptr;    // cudaStream_t; null on the CPU, where calls are synchronous
  int num_threads = 1;       // OpenMP threads of the CPU backend
  Arena* scratch = nullptr;  // temporaries: take an ArenaScope
  LibraryState* libraries = nullptr;
};

}  // namespace te
