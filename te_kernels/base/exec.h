// What every operation needs besides its tensors. Passed by const reference; owned by the context.
#pragma once

#include "te_kernels/base/kernel_log.h"
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
  bool once = false;  // work that is not done again: not worth a search for the fastest way
  // Faster kernels may run whose sums have another order each time: cuDNN's attention backward. The
  // CPU backend has none.
  bool allow_nondeterministic = false;
  // Multiprocessors that cuBLASLt's products leave to what runs beside them on another stream. More
  // than a quarter of the card is ignored.
  int sm_margin = 0;
  bool beside = false;       // the stream is the context's second one (Context::RunBeside)
  KernelLog* log = nullptr;  // when given, operations of the CUDA backend say there what they ran
};

// For operations: adds a record when somebody listens.
inline void Record(const Exec& exec, const char* operation, const char* kernel, DType dtype,
                   int64_t bytes, const char* orientation = "") {
  if (exec.log != nullptr)
    exec.log->Add({operation, kernel, dtype, orientation, bytes, exec.beside});
}

}  // namespace te
