// A block takes 32 tensors, a warp one row of their histories at a time: whole sectors. Rows move
// up by one, segment after segment: every row of a segment is read before any of it is written, and
// the row after it belongs to the next. 2 * 4 * len * n bytes: 8 MiB at len 1024, n 1000.
#include <cmath>

#include "te_kernels/cuda/cuda_state.h"
#include "te_kernels/cuda/cuda_status.h"
#include "te_kernels/delayed_scaling/delayed_scaling.h"

namespace te {
namespace {

constexpr int kTensors = 32;  // of a block: its lanes
constexpr int kWarps = 32;    // of a block: rows
constexpr int kRows = 8;      // of a thread in a segment: loads in flight
constexpr int kSegment = kWarps * kRows;

__global__ void __launch_bounds__(kTensors* kWarps)
    DelayedScalingKernel(int64_t length, int64_t n, bool use_max, float largest,
                         float* __restrict__ history, float* __restrict__ scale) {
  __shared__ float maxima[kWarps][kTensors];
  const int lane = static_cast<int>(threadIdx.x) % kTensors;
  const int warp = static_cast<int>(threadIdx.x) / kTensors;
  const int64_t i = int64_t{blockIdx.x} * kTensors + lane;
  const bool inside = i < n;
  const float last = inside ? history[i] : 0.0f;
  const bool rolls = inside && last != 0;
  float maximum = last;
  for (int64_t first = 0; first < length; first += kSegment) {
    float next[kRows];  // row j + 1
#pragma unroll
    for (int u = 0; u < kRows; ++u) {
      const int64_t j = first + u * kWarps + warp;
      next[u] = rolls && j + 1 < length ? history[(j + 1) * n + i] : last;
    }
    __syncthreads();
#pragma unroll
    for (int u = 0; u < kRows; ++u) {
      const int64_t j = first + u * kWarps + warp;
      maximum = fmaxf(maximum, next[u]);
      if (rolls && j > 0 && j < length) history[j * n + i] = next[u];
    }
  }
  maxima[warp][lane] = maximum;
  __syncthreads();
  if (warp != 0 || !inside) return;
  history[i] = 0;
  float amax = last;
  if (use_max) {
#pragma unroll
    for (int w = 0; w < kWarps; ++w) amax = fmaxf(amax, maxima[w][lane]);
    if (last == 0) amax = 0;
  }
  constexpr float kLargestFloat = 3.402823466e38f;
  if (amax > 0 && amax <= kLargestFloat) {
    scale[i] = fminf(__fdiv_rn(largest, amax), kLargestFloat);
  }
}

}  // namespace

Status DelayedScalingCuda(const Exec& exec, const DelayedScalingArgs& args) {
  TE_RETURN_IF_ERROR(ValidateDelayedScaling(args));
  const int64_t length = args.history.dim(0), n = args.history.dim(1);
  Record(exec, "delayed_scaling", "delayed_scaling_cuda", DType::kFloat32,
         static_cast<int64_t>(2 * args.history.bytes() + args.scale.bytes()));
  if (n == 0 || length == 0) return OkStatus();
  const float largest = std::ldexp(QuantMax(args.format), -args.margin);
  const auto blocks = static_cast<unsigned int>((n + kTensors - 1) / kTensors);
  DelayedScalingKernel<<<blocks, kTensors * kWarps, 0, cuda::StreamOf(exec)>>>(
      length, n, args.algo == AmaxComputeAlgo::kMax, largest, args.history.as<float>(),
      args.scale.as<float>());
  return cuda::LaunchStatus("delayed_scaling");
}

}  // namespace te
