// Launches that overlap with the end of the kernel before them on the stream (programmatic
// dependent launch, sm_90 on): blocks of the next kernel take the places that the last blocks of
// this one leave, so that neither a launch nor the first blocks' start is waited for.
#pragma once

#include <cuda_runtime.h>

#include <utility>

#include "te_kernels/cuda/cuda_state.h"
#include "te_kernels/cuda/cuda_status.h"

namespace te::cuda {

// First statement of every kernel that LaunchOverlapping launches, in every thread: returns when
// the kernel before has ended and what it wrote can be read; only then lets the next one's blocks
// in. So a kernel that has ended has seen all before it end, however it was launched. Nothing may
// be read or written before.
__device__ inline void StartAfterEarlierKernels() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// The pair for kernels that touch nothing that the kernel before them on the stream, or those which
// that one did not wait for, write: their blocks begin as soon as all of its blocks have begun. The
// first is their first statement, the second their last in at least one thread of each block: a
// kernel that has ended has still seen all before it end.
__device__ inline void StartBesideEarlierKernels() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
__device__ inline void EndAfterEarlierKernels() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

struct LaunchOptions {
  size_t shared_bytes = 0;
  unsigned int cluster = 0;  // blocks of one, in x; 0: none
};

// kernel<<<grid, block, options.shared_bytes, StreamOf(exec)>>>(args...), overlapping where the
// card can. LaunchStatus says how it went.
template <typename... Parameters, typename... Args>
void LaunchOverlapping(const Exec& exec, void (*kernel)(Parameters...), dim3 grid, dim3 block,
                       const LaunchOptions& options, Args&&... args) {
  cudaLaunchAttribute attributes[2] = {};
  unsigned int count = 0;
  if (const StatusOr<CudaState*> state = GetCudaState(exec);
      state.ok() && (*state)->compute_capability() >= 90) {
    attributes[count].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[count++].val.programmaticStreamSerializationAllowed = 1;
  }
  if (options.cluster != 0) {
    attributes[count].id = cudaLaunchAttributeClusterDimension;
    attributes[count++].val.clusterDim = {options.cluster, 1, 1};
  }
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = options.shared_bytes;
  config.stream = StreamOf(exec);
  config.attrs = attributes;
  config.numAttrs = count;
  // The error, if any, stays for LaunchStatus.
  static_cast<void>(cudaLaunchKernelEx(&config, kernel, std::forward<Args>(args)...));
}

}  // namespace te::cuda
