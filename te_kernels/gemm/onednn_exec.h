// An Exec with oneDNN's state, for tests and benchmarks of the operations that multiply matrices.
#pragma once

#include <memory>

#include "te_kernels/gemm/onednn_state.h"
#include "te_kernels/testing/cpu_exec.h"

namespace te::test {

// Not movable: the Exec points into it.
class OnednnExec {
 public:
  explicit OnednnExec(int num_threads = 1, bool native_bf16 = true)
      : base_(num_threads), exec_(base_.exec()) {
    auto state = NewOnednnState();
    if (!state.ok()) return;  // the operations then say that they have no state
    libraries_ = std::move(state).value();
    exec_.libraries = libraries_.get();
    if (!native_bf16) static_cast<OnednnState*>(libraries_.get())->set_native_bf16(false);
  }
  OnednnExec(const OnednnExec&) = delete;
  OnednnExec& operator=(const OnednnExec&) = delete;

  operator const Exec&() const { return exec_; }

 private:
  CpuExec base_;
  std::unique_ptr<LibraryState> libraries_;
  Exec exec_;
};

using TestLibraryExec = OnednnExec;  // as test_device.h calls it

}  // namespace te::test
