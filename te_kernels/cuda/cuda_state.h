// What one context keeps of CUDA's libraries: the card's figures, cuBLASLt with the algorithms
// chosen so far, cuDNN with the attention graphs built so far. Used by one thread at a time.
#pragma once

#include <cublasLt.h>
#include <cudnn.h>
#include <driver_types.h>

#include <memory>
#include <string>

#include "te_kernels/base/exec.h"
#include "te_kernels/cuda/recorded_counters.h"

namespace te::cuda {

// Caches that operations keep in the state; each operation derives its own.
class OperationCache {
 public:
  virtual ~OperationCache() = default;
};

class CudaState : public LibraryState {
 public:
  static StatusOr<std::unique_ptr<CudaState>> Create();
  ~CudaState() override;
  CudaState(const CudaState&) = delete;
  CudaState& operator=(const CudaState&) = delete;

  int num_sms() const { return num_sms_; }
  int compute_capability() const { return compute_capability_; }  // 90 on Hopper
  cublasLtHandle_t cublas_lt() const { return cublas_lt_; }
  // Made at the first call: a process that never attends does not load cuDNN's engines.
  StatusOr<cudnnHandle_t> Cudnn(cudaStream_t stream);

  RecordedCounters& counters() { return counters_; }

  std::unique_ptr<OperationCache> searches;  // SearchSession (time_candidates.h)
  std::unique_ptr<OperationCache> gemm_cache;
  std::unique_ptr<OperationCache> attention_cache;

 private:
  CudaState() = default;

  int num_sms_ = 0;
  int compute_capability_ = 0;
  cublasLtHandle_t cublas_lt_ = nullptr;
  cudnnHandle_t cudnn_ = nullptr;
  RecordedCounters counters_;
};

// The CudaState of `exec`; kFailedPrecondition when it has none.
StatusOr<CudaState*> GetCudaState(const Exec& exec);

// "NVIDIA H200 | driver 13000", of the current device: what a choice made by timing is valid for.
StatusOr<std::string> CardAndDriver();

inline cudaStream_t StreamOf(const Exec& exec) { return static_cast<cudaStream_t>(exec.stream); }

}  // namespace te::cuda
