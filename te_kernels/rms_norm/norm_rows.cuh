// RMSNorm and LayerNorm on CUDA: one set of kernels, kCentered for LayerNorm. Here the arguments,
// the arithmetic and forward, where a row stays in registers between its passes; backward is in
// norm_rows_backward.cuh.
//
// Bytes (each of x, y, dy, add, dx once): forward 2, backward 3 or 4 times T H sizeof(T).
#pragma once

#include <algorithm>

#include "te_kernels/cuda/cuda_state.h"
#include "te_kernels/cuda/cuda_status.h"
#include "te_kernels/cuda/launch.cuh"
#include "te_kernels/cuda/rows.cuh"

namespace te::norm {

// Where a block's threads form groups of kThreads, each with a row: a barrier of one of them. (The
// hardware's; 0 is __syncthreads'.)
template <int kThreads>
__device__ inline void GroupBarrier(int group) {
  asm volatile("bar.sync %0, %1;" ::"r"(group + 1), "n"(kThreads) : "memory");
}

// The arguments of both operations; LayerNorm's mean, beta and dbeta are null in RMSNorm.
template <typename T, typename P>
struct ForwardRows {
  int64_t rows, hidden;
  const T* x;
  int64_t x_stride;
  const P* gamma;
  const P* beta;
  float plus;  // 1 for a zero-centered gamma
  float epsilon;
  float inverse_hidden;
  T* y;
  int64_t y_stride;
  float* mean;  // mean and rstd may be null
  float* rstd;
};

template <typename T, typename P>
struct BackwardRows {
  int64_t rows, hidden;
  const T* dy;
  int64_t dy_stride;
  const T* x;
  int64_t x_stride;
  const P* gamma;
  const float* mean;
  const float* rstd;
  float plus;
  float inverse_hidden;
  const T* add;  // may be null
  int64_t add_stride;
  T* dx;
  int64_t dx_stride;
};

// ---- Arithmetic ----
// Kernels of one operation round alike, whatever surrounds the arithmetic: where the compiler could
// fuse either of two products, or none, it is written out.

__device__ inline float AddProduct(float a, float b, float sum) { return __fmaf_rn(a, b, sum); }
// rsqrtf errs by at most 2 ulp.
__device__ inline float Rstd(float squares, float inverse_hidden, float epsilon) {
  return rsqrtf(__fmaf_rn(squares, inverse_hidden, epsilon));
}
// A term of y without beta; g = gamma + plus.
__device__ inline float Normalized(float centered, float rstd, float g) {
  return __fmul_rn(__fmul_rn(centered, rstd), g);
}
__device__ inline float Normalized(float centered, float rstd, float gamma, float plus) {
  return Normalized(centered, rstd, __fadd_rn(gamma, plus));
}
// dx = rstd w + offset + slope (x - mean), with w = dy g, slope = -rstd^2 mean(w xhat), offset =
// -rstd mean(w).
__device__ inline float Slope(float rstd, float weighted_sum, float inverse_hidden) {
  return __fmul_rn(__fmul_rn(-rstd, rstd),
                   __fmul_rn(__fmul_rn(weighted_sum, rstd), inverse_hidden));
}
__device__ inline float Offset(float rstd, float weight_sum, float inverse_hidden) {
  return -rstd * (weight_sum * inverse_hidden);
}
__device__ inline float InputGradient(float w, float rstd, float slope, float centered) {
  return __fmaf_rn(slope, centered, __fmul_rn(rstd, w));
}
__device__ inline float InputGradient(float w, float rstd, float slope, float centered,
                                      float offset) {
  return __fmaf_rn(slope, centered, __fmaf_rn(rstd, w, offset));
}

// ---- Forward ----

// Blocks of a multiprocessor: at most 64 registers a thread, 128 where that spills.
template <bool kCentered, typename Tile>
inline constexpr int kForwardBlocks =
    (Tile::kVectors > 4 || (kCentered && Tile::kThreads == 512) ? 512 : 1024) / Tile::kBlock;

// Threads beyond the row's end compute on zeros and on the row's last parameters, and write
// nothing: without branches the loads of all vectors start together.
template <bool kCentered, int N, typename Tile, typename T, typename P>
__global__ void __launch_bounds__(Tile::kBlock, kForwardBlocks<kCentered, Tile>)
    ForwardKernel(ForwardRows<T, P> p) {
  cuda::StartAfterEarlierKernels();
  __shared__ float shared[2][1][Tile::kWarps];
  const int lane = threadIdx.x % Tile::kThreads;
  const int64_t t = int64_t{blockIdx.x} * Tile::kRows + threadIdx.x / Tile::kThreads;
  if (t >= p.rows) return;  // a whole warp: with more than one row, no barrier follows
  const int vectors = static_cast<int>(p.hidden / N);
  cuda::Row<T, N, Tile> x;
  x.Read(p.x + t * p.x_stride, lane, vectors);
  float mean = 0;
  if constexpr (kCentered) {
#pragma unroll
    for (int j = 0; j < x.Count(vectors); ++j) {
      float xs[N];
      x.Get(j, xs);
#pragma unroll
      for (int e = 0; e < N; ++e) mean += xs[e];
    }
    mean = cuda::RowSum<Tile>(mean, shared[0]) * p.inverse_hidden;
  }
  float squares = 0;
#pragma unroll
  for (int j = 0; j < x.Count(vectors); ++j) {
    // Zeros add nothing, unless a mean is subtracted.
    const bool counts = !kCentered || lane + j * Tile::kThreads < vectors;
    float xs[N];
    x.Get(j, xs);
#pragma unroll
    for (int e = 0; e < N; ++e) {
      const float centered = counts ? xs[e] - mean : 0;
      squares = AddProduct(centered, centered, squares);
    }
  }
  const float rstd = Rstd(cuda::RowSum<Tile>(squares, shared[1]), p.inverse_hidden, p.epsilon);
  if (lane == 0 && p.rstd != nullptr) {
    p.rstd[t] = rstd;
    if constexpr (kCentered) p.mean[t] = mean;
  }
  T* y = p.y + t * p.y_stride;
#pragma unroll
  for (int j = 0; j < x.Count(vectors); ++j) {
    const int i = lane + j * Tile::kThreads;
    const int64_t parameter = int64_t{min(i, vectors - 1)} * N;
    float xs[N], gamma[N], beta[N], out[N];
    x.Get(j, xs);
    cuda::LoadParameter<N>(p.gamma + parameter, gamma);
    if constexpr (kCentered) cuda::LoadParameter<N>(p.beta + parameter, beta);
#pragma unroll
    for (int e = 0; e < N; ++e) {
      out[e] = Normalized(xs[e] - mean, rstd, gamma[e], p.plus);
      if constexpr (kCentered) out[e] += beta[e];
    }
    if (i < vectors) cuda::Store<N>(y + int64_t{i} * N, out);
  }
}

// ---- Launchers ----

// Whether a parameter's vectors of N elements may be loaded 16 bytes at a time.
template <int N, typename P>
bool ParameterAligned(const P* p) {
  return cuda::Aligned<std::min(N, cuda::kLanes<P>)>(p, 0);
}

template <bool kCentered, int N, typename T, typename P>
Status LaunchForwardVectors(const Exec& exec, const ForwardRows<T, P>& p) {
  const auto run = [&](auto tile) {
    using Tile = decltype(tile);
    const auto blocks = static_cast<unsigned int>((p.rows + Tile::kRows - 1) / Tile::kRows);
    cuda::LaunchOverlapping(exec, ForwardKernel<kCentered, N, Tile, T, P>, dim3(blocks),
                            dim3(Tile::kBlock), {}, p);
    return cuda::LaunchStatus(kCentered ? "layer_norm_forward" : "rms_norm_forward");
  };
  return cuda::WithRowTile<N>(p.hidden / N, run);
}

template <bool kCentered, typename T, typename P>
Status LaunchForward(const Exec& exec, const ForwardRows<T, P>& p) {
  if (p.rows == 0 || p.hidden == 0) return OkStatus();
  constexpr int kN = cuda::kLanes<T>;
  const bool vectors = p.hidden % kN == 0 && cuda::Aligned<kN>(p.x, p.x_stride) &&
                       cuda::Aligned<kN>(p.y, p.y_stride) && ParameterAligned<kN>(p.gamma) &&
                       ParameterAligned<kN>(p.beta);
  return vectors ? LaunchForwardVectors<kCentered, kN>(exec, p)
                 : LaunchForwardVectors<kCentered, 1>(exec, p);
}

}  // namespace te::norm
