// An Exec on a CUDA device, for tests of single operations, and the wrapper that waits for one.
#pragma once

#include <memory>

#include "te_kernels/base/exec.h"

namespace te::test {

// A stream, poisoned scratch and the libraries' state. Both parameters are for the interface of the
// CPU's. Not movable: the Exec points into it.
class CudaExec {
 public:
  explicit CudaExec(int num_threads = 1, bool native_bf16 = true);
  ~CudaExec();
  CudaExec(const CudaExec&) = delete;
  CudaExec& operator=(const CudaExec&) = delete;

  operator const Exec&() const;
  const Exec& exec() const { return *this; }
  Arena& scratch();

 private:
  struct Members;
  std::unique_ptr<Members> members_;
};

// The operation's status, or else that of the stream after it.
Status WaitFor(const Exec& exec, Status status);

template <typename Args>
struct SynchronousOperation {
  Status operator()(const Exec& exec, const Args& args) const {
    return WaitFor(exec, operation(exec, args));
  }
  Status (*operation)(const Exec&, const Args&);
};

template <typename Args>
SynchronousOperation<Args> Synchronous(Status (*operation)(const Exec&, const Args&)) {
  return {operation};
}

}  // namespace te::test
