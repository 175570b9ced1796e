// Kernels that map dense tensors element by element: out[i] = f(in0[i], in1[i], ...), in float32.
#pragma once

#include <algorithm>

#include "te_kernels/cuda/cuda_state.h"
#include "te_kernels/cuda/cuda_status.h"
#include "te_kernels/cuda/launch.cuh"
#include "te_kernels/cuda/vector.cuh"

namespace te::cuda {

inline constexpr int kElementwiseThreads = 256;
// Vectors that a thread has in flight: enough outstanding bytes to cover HBM's latency.
inline constexpr int kElementwiseUnroll = 4;

// One block takes kElementwiseUnroll * kElementwiseThreads vectors of N elements; the ragged end
// (and everything, when a pointer is not aligned) goes element by element. out may be an input.
template <int N, typename Out, typename F, typename... In>
__global__ void __launch_bounds__(kElementwiseThreads)
    ElementwiseKernel(int64_t n, F f, Out* out, const In*... in) {
  StartAfterEarlierKernels();
  constexpr int64_t kBlock = int64_t{N} * kElementwiseThreads * kElementwiseUnroll;
  const int64_t begin = blockIdx.x * kBlock;
  if (begin + kBlock <= n) {
    float values[kElementwiseUnroll][sizeof...(In)][N];
#pragma unroll
    for (int u = 0; u < kElementwiseUnroll; ++u) {
      const int64_t i = begin + (int64_t{u} * kElementwiseThreads + threadIdx.x) * N;
      int k = 0;
      (Load<N>(in + i, values[u][k++]), ...);
    }
#pragma unroll
    for (int u = 0; u < kElementwiseUnroll; ++u) {
      const int64_t i = begin + (int64_t{u} * kElementwiseThreads + threadIdx.x) * N;
      float result[N];
#pragma unroll
      for (int e = 0; e < N; ++e) {
        if constexpr (sizeof...(In) == 1) {
          result[e] = f(values[u][0][e]);
        } else {
          result[e] = f(values[u][0][e], values[u][1][e]);
        }
      }
      Store<N>(out + i, result);
    }
    return;
  }
  for (int64_t i = begin + threadIdx.x; i < n; i += kElementwiseThreads)
    out[i] = FromFloat<Out>(f(ToFloat(in[i])...));
}

// All dense, n elements each; one or two inputs. `kernel` names it in errors.
template <typename Out, typename F, typename... In>
Status LaunchElementwise(const Exec& exec, const char* kernel, int64_t n, F f, Out* out,
                         const In*... in) {
  static_assert(sizeof...(In) == 1 || sizeof...(In) == 2);
  if (n == 0) return OkStatus();
  // The widest type fills its 16 bytes; the others move as many elements.
  constexpr int kN = std::min({kLanes<Out>, kLanes<In>...});
  const bool aligned = Aligned<kN>(out, 0) && (Aligned<kN>(in, 0) && ...);
  const auto blocks = [n](int64_t per_block) {
    return static_cast<unsigned int>((n + per_block - 1) / per_block);
  };
  constexpr int64_t kPerLane = int64_t{kElementwiseThreads} * kElementwiseUnroll;
  if (aligned) {
    LaunchOverlapping(exec, ElementwiseKernel<kN, Out, F, In...>, dim3(blocks(kN * kPerLane)),
                      dim3(kElementwiseThreads), {}, n, f, out, in...);
  } else {
    LaunchOverlapping(exec, ElementwiseKernel<1, Out, F, In...>, dim3(blocks(kPerLane)),
                      dim3(kElementwiseThreads), {}, n, f, out, in...);
  }
  return LaunchStatus(kernel);
}

}  // namespace te::cuda
