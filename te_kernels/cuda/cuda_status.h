// CUDA's errors as Status.
#pragma once

#include <cuda_runtime_api.h>

#include "te_kernels/base/status.h"

namespace te::cuda {

// "what: CUDA's text (code)"; kOutOfMemory for a failed allocation, else kInternal.
Status ToStatus(cudaError_t error, const char* what);

// Of the launch just made: its configuration's error, if any. (Errors of running kernels appear at
// the next synchronization.)
inline Status LaunchStatus(const char* kernel) { return ToStatus(cudaGetLastError(), kernel); }

}  // namespace te::cuda
