#include "te_kernels/cuda/cuda_status.h"

namespace te::cuda {

Status ToStatus(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return OkStatus();
  const char* text = cudaGetErrorString(error);
  if (error == cudaErrorMemoryAllocation) return OutOfMemory("{}: {}", what, text);
  return Internal("{}: {} (CUDA error {})", what, text, static_cast<int>(error));
}

}  // namespace te::cuda
