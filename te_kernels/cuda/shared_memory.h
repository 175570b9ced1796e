// How much shared memory a kernel may ask for.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "te_kernels/cuda/cuda_status.h"

namespace te::cuda {

// Bytes of shared memory that a block of the current device may ask for: 227 KiB on Hopper, 163 on
// A100, 99 on smaller cards.
inline StatusOr<int64_t> MostSharedMemory() {
  int device = 0, most = 0;
  TE_RETURN_IF_ERROR(ToStatus(cudaGetDevice(&device), "cudaGetDevice"));
  TE_RETURN_IF_ERROR(
      ToStatus(cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
               "cudaDeviceGetAttribute"));
  return int64_t{most};
}

}  // namespace te::cuda
