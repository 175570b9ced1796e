// Sums and maxima over a warp or a block, in a fixed order: the same input gives the same bits.
#pragma once

#include <cuda_runtime.h>

namespace te::cuda {

inline constexpr int kWarp = 32;

// In every lane.
__device__ inline float WarpSum(float x) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2)
    x += __shfl_xor_sync(0xffffffffu, x, offset);
  return x;
}
__device__ inline double WarpSum(double x) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2)
    x += __shfl_xor_sync(0xffffffffu, x, offset);
  return x;
}
__device__ inline float WarpMax(float x) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2)
    x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, offset));
  return x;
}

// In every thread. blockDim.x = kThreads, a multiple of 32; all threads call. `shared`: kThreads /
// 32 elements that nobody else uses until the next barrier after the call.
template <int kThreads, typename T>
__device__ inline T BlockSum(T x, T* shared) {
  constexpr int kWarps = kThreads / kWarp;
  x = WarpSum(x);
  if constexpr (kWarps == 1) return x;
  if (threadIdx.x % kWarp == 0) shared[threadIdx.x / kWarp] = x;
  __syncthreads();
  T sum = 0;
#pragma unroll
  for (int i = 0; i < kWarps; ++i) sum += shared[i];
  return sum;
}
template <int kThreads>
__device__ inline float BlockMax(float x, float* shared) {
  constexpr int kWarps = kThreads / kWarp;
  x = WarpMax(x);
  if constexpr (kWarps == 1) return x;
  if (threadIdx.x % kWarp == 0) shared[threadIdx.x / kWarp] = x;
  __syncthreads();
  float maximum = shared[0];
#pragma unroll
  for (int i = 1; i < kWarps; ++i) maximum = fmaxf(maximum, shared[i]);
  return maximum;
}

}  // namespace te::cuda
