// RMSNorm and LayerNorm on CUDA: one pair of kernels, kCentered for LayerNorm. A row stays in
// registers between its passes; backward is a persistent grid that keeps the sums over its rows of
// the parameters' gradients in registers, and reads the next row while it works on one.
//
// Bytes (each of x, y, dy, add, dx once): forward 2, backward 3 or 4 times T H sizeof(T).
#pragma once

#include <algorithm>

#include "te_kernels/cuda/column_sums.cuh"
#include "te_kernels/cuda/cuda_state.h"
#include "te_kernels/cuda/cuda_status.h"
#include "te_kernels/cuda/rows.cuh"

namespace te::norm {

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
// A term of y without beta; of the gradient, w = dy g.
__device__ inline float Normalized(float centered, float rstd, float gamma, float plus) {
  return __fmul_rn(__fmul_rn(centered, rstd), __fadd_rn(gamma, plus));
}
__device__ inline float Weighted(float dy, float gamma, float plus) {
  return __fmul_rn(dy, __fadd_rn(gamma, plus));
}
// dx = rstd w + offset + slope (x - mean), with slope = -rstd^2 mean(w xhat), offset = -rstd
// mean(w).
__device__ inline float Slope(float rstd, float weighted_sum, float inverse_hidden) {
  return __fmul_rn(__fmul_rn(-rstd, rstd),
                   __fmul_rn(__fmul_rn(weighted_sum, rstd), inverse_hidden));
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

// ---- Backward ----

// Registers of a thread bound what a tile may hold: two vectors each of x, dy and add, twice.
// LayerNorm has a second row of sums to hold.
template <bool kCentered, int N, typename F>
auto WithBackwardTile(int64_t vectors, F run) {
  if constexpr (N == 1) {
    if (vectors <= 128) return run(cuda::RowTile<32, 4>());
    if (vectors <= 1024) return run(cuda::RowTile<128, 8>());
    if (vectors <= 4096) return run(cuda::RowTile<512, 8>());
  } else {
    if (vectors <= 32) return run(cuda::RowTile<32, 1>());
    if (vectors <= 64) return run(cuda::RowTile<32, 2>());
    if (vectors <= 128) return run(cuda::RowTile<128, 1>());
    if (vectors <= 256) return run(cuda::RowTile<128, 2>());
    if (vectors <= 512) return run(cuda::RowTile<256, 2>());
    if (vectors <= 1024) return run(cuda::RowTile<512, 2>());
    if constexpr (!kCentered) {
      if (vectors <= 2048) return run(cuda::RowTile<512, 4>());
    }
  }
  return run(cuda::RowTile<1024, 0>());
}

// Whether two rows fit: at most 8 registers of a thread for each tensor's.
template <bool kCentered, typename T, int N, typename Tile>
inline constexpr bool kReadsAhead = Tile::kVectors > 0 &&
                                    Tile::kVectors* std::max<int>(1, N * sizeof(T) / 4) <=
                                        (kCentered && N == 1 ? 4 : 8);

// Blocks of a multiprocessor: at most 128 registers a thread, 64 where a thread has one vector.
template <bool kCentered, typename Tile>
inline constexpr int kBackwardBlocks = std::max(1,
                                                (Tile::kVectors <= 1 && !kCentered ? 1024 : 512) /
                                                    Tile::kBlock);

// One row's inputs.
template <bool kCentered, bool kAdd, int N, typename Tile, typename T>
struct BackwardRow {
  template <typename P>
  __device__ void Read(const BackwardRows<T, P>& p, int64_t t, int lane, int vectors) {
    x.Read(p.x + t * p.x_stride, lane, vectors);
    dy.Read(p.dy + t * p.dy_stride, lane, vectors);
    if constexpr (kAdd) add.Read(p.add + t * p.add_stride, lane, vectors);
    rstd = p.rstd[t];
    if constexpr (kCentered) mean = p.mean[t];
  }
  cuda::Row<T, N, Tile> x, dy, add;
  float rstd, mean = 0;
};

// partials: null, or [blocks, hidden] for dgamma, and behind it as much for dbeta.
template <bool kCentered, bool kAdd, int N, typename Tile, typename T, typename P>
__global__ void __launch_bounds__(Tile::kBlock, kBackwardBlocks<kCentered, Tile>)
    BackwardKernel(BackwardRows<T, P> p, float* partials) {
  cuda::StartAfterEarlierKernels();
  constexpr bool kAhead = kReadsAhead<kCentered, T, N, Tile>;
  constexpr int kSums = kCentered ? 2 : 1;
  constexpr int kHeld = std::max(1, Tile::kVectors);
  __shared__ float shared[2][kSums][Tile::kWarps];
  const int lane = threadIdx.x % Tile::kThreads, group = threadIdx.x / Tile::kThreads;
  const int vectors = static_cast<int>(p.hidden / N);
  const int64_t step = int64_t{gridDim.x} * Tile::kRows;
  float dgamma[kHeld][N] = {}, dbeta[kHeld][N] = {};

  BackwardRow<kCentered, kAdd, N, Tile, T> row;
  int64_t t = int64_t{blockIdx.x} * Tile::kRows + group;
  if (t < p.rows) row.Read(p, t, lane, vectors);
  for (int buffer = 0; t < p.rows; t += step, buffer ^= 1) {
    BackwardRow<kCentered, kAdd, N, Tile, T> next;
    if constexpr (kAhead) {
      if (t + step < p.rows) next.Read(p, t + step, lane, vectors);
    }
    // sums: of w (x - mean), which is w xhat / rstd, and (LayerNorm) of w. The zeros beyond the
    // row's end add nothing.
    float sums[kSums] = {};
#pragma unroll
    for (int j = 0; j < row.x.Count(vectors); ++j) {
      const int i = lane + j * Tile::kThreads;
      if (!kAhead && i >= vectors) break;  // branches save the registers that loads ahead take
      float xs[N], dys[N], gamma[N];
      row.x.Get(j, xs);
      row.dy.Get(j, dys);
      cuda::LoadParameter<N>(p.gamma + int64_t{min(i, vectors - 1)} * N, gamma);
#pragma unroll
      for (int e = 0; e < N; ++e) {
        const float centered = kCentered ? xs[e] - row.mean : xs[e];
        const float w = Weighted(dys[e], gamma[e], p.plus);
        sums[0] = AddProduct(w, centered, sums[0]);
        if constexpr (kCentered) sums[1] += w;
        if constexpr (Tile::kVectors > 0) {
          dgamma[j][e] = AddProduct(dys[e], centered * row.rstd, dgamma[j][e]);
          if constexpr (kCentered) dbeta[j][e] += dys[e];
        }
      }
    }
    // The barrier of the next row's sums lies between this buffer's uses.
    cuda::RowSums<Tile>(sums, shared[buffer]);
    const float slope = Slope(row.rstd, sums[0], p.inverse_hidden);
    const float offset = kCentered ? -row.rstd * (sums[kSums - 1] * p.inverse_hidden) : 0;
    T* dx = p.dx + t * p.dx_stride;
#pragma unroll
    for (int j = 0; j < row.x.Count(vectors); ++j) {
      const int i = lane + j * Tile::kThreads;
      if (!kAhead && i >= vectors) break;
      float xs[N], dys[N], gamma[N], out[N];
      row.x.Get(j, xs);
      row.dy.Get(j, dys);
      if constexpr (kAdd) row.add.Get(j, out);
      cuda::LoadParameter<N>(p.gamma + int64_t{min(i, vectors - 1)} * N, gamma);
#pragma unroll
      for (int e = 0; e < N; ++e) {
        const float centered = kCentered ? xs[e] - row.mean : xs[e];
        const float w = Weighted(dys[e], gamma[e], p.plus);
        const float gradient = kCentered ? InputGradient(w, row.rstd, slope, centered, offset)
                                         : InputGradient(w, row.rstd, slope, centered);
        out[e] = kAdd ? gradient + out[e] : gradient;
      }
      if (i < vectors) cuda::Store<N>(dx + int64_t{i} * N, out);
    }
    if constexpr (kAhead) {
      row = next;
    } else {
      if (t + step < p.rows) row.Read(p, t + step, lane, vectors);
    }
  }

  if constexpr (Tile::kVectors > 0) {
    if (partials == nullptr) return;
    const int64_t dbeta_begin = int64_t{gridDim.x} * p.hidden;
    float* const first = partials + int64_t{blockIdx.x} * p.hidden;
    if constexpr (Tile::kRows == 1) {
#pragma unroll
      for (int j = 0; j < Tile::kVectors; ++j) {
        const int i = lane + j * Tile::kThreads;
        if (i >= vectors) break;
        cuda::StoreFloats<N>(first + int64_t{i} * N, dgamma[j]);
        if constexpr (kCentered)
          cuda::StoreFloats<N>(first + dbeta_begin + int64_t{i} * N, dbeta[j]);
      }
    } else {  // the block's warps, in order
      __shared__ float columns[kSums][Tile::kRows][Tile::kThreads * kHeld * N];
#pragma unroll
      for (int j = 0; j < Tile::kVectors; ++j) {
        const int i = lane + j * Tile::kThreads;
        cuda::StoreFloats<N>(&columns[0][group][i * N], dgamma[j]);
        if constexpr (kCentered) cuda::StoreFloats<N>(&columns[kSums - 1][group][i * N], dbeta[j]);
      }
      __syncthreads();
      for (int h = threadIdx.x; h < p.hidden; h += Tile::kBlock) {
#pragma unroll
        for (int k = 0; k < kSums; ++k) {
          float sum = 0;
#pragma unroll
          for (int r = 0; r < Tile::kRows; ++r) sum += columns[k][r][h];
          first[k * dbeta_begin + h] = sum;
        }
      }
    }
  }
}

// dy xhat, for the sums over rows that no block can hold.
template <bool kCentered, int N, typename T, typename P>
struct GammaTerms {
  BackwardRows<T, P> p;
  __device__ void operator()(int64_t t, int64_t column, float (&out)[N]) const {
    float xs[N];
    cuda::Load<N>(p.x + t * p.x_stride + column, xs);
    cuda::Load<N>(p.dy + t * p.dy_stride + column, out);
    const float rstd = p.rstd[t], mean = kCentered ? p.mean[t] : 0;
#pragma unroll
    for (int e = 0; e < N; ++e) out[e] *= (xs[e] - mean) * rstd;
  }
};

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

struct ParameterGradients {
  TensorView dgamma;  // both optional
  TensorView dbeta;
  bool accumulate;
};

template <bool kCentered, bool kAdd, int N, typename T, typename P>
Status LaunchBackwardVectors(const Exec& exec, const BackwardRows<T, P>& p,
                             const ParameterGradients& gradients) {
  TE_ASSIGN_OR_RETURN(const cuda::CudaState* state, cuda::GetCudaState(exec));
  const int num_sms = state->num_sms();
  return WithBackwardTile<kCentered, N>(p.hidden / N, [&](auto tile) -> Status {
    using Tile = decltype(tile);
    // As many rows for one block as for another, as far as they divide.
    const int64_t most = int64_t{num_sms} * kBackwardBlocks<kCentered, Tile> * Tile::kRows;
    const int64_t rounds = (p.rows + most - 1) / most;
    const int64_t blocks = (p.rows + rounds * Tile::kRows - 1) / (rounds * Tile::kRows);
    const auto launch = [&](float* partials) {
      cuda::LaunchOverlapping(exec, BackwardKernel<kCentered, kAdd, N, Tile, T, P>,
                              dim3(static_cast<unsigned int>(blocks)), dim3(Tile::kBlock), {}, p,
                              partials);
      return cuda::LaunchStatus(kCentered ? "layer_norm_backward" : "rms_norm_backward");
    };
    const bool dgamma = gradients.dgamma.defined(), dbeta = gradients.dbeta.defined();
    if (!dgamma && !dbeta) return launch(nullptr);
    if constexpr (Tile::kVectors == 0) {
      // The sums over rows first: dx may be dy.
      if (dgamma) {
        TE_RETURN_IF_ERROR(cuda::SumColumns<N>(exec, p.rows, GammaTerms<kCentered, N, T, P>{p},
                                               gradients.accumulate, gradients.dgamma));
      }
      if (dbeta) {
        TE_RETURN_IF_ERROR(cuda::SumColumns<N>(exec, p.rows,
                                               cuda::ColumnsOf<N, T>{p.dy, p.dy_stride},
                                               gradients.accumulate, gradients.dbeta));
      }
      return launch(nullptr);
    } else {
      ArenaScope scope(exec.scratch);
      TE_ASSIGN_OR_RETURN(
          TensorView scratch,
          exec.scratch->Allocate(DType::kFloat32, {kCentered ? 2 : 1, blocks, p.hidden}));
      float* const partials = scratch.as<float>();
      TE_RETURN_IF_ERROR(launch(partials));
      if (dgamma) {
        TE_RETURN_IF_ERROR(cuda::CombinePartials(exec, partials, blocks, p.hidden,
                                                 gradients.accumulate, gradients.dgamma));
      }
      if (dbeta) {
        TE_RETURN_IF_ERROR(cuda::CombinePartials(exec, partials + blocks * p.hidden, blocks,
                                                 p.hidden, gradients.accumulate, gradients.dbeta));
      }
      return OkStatus();
    }
  });
}

template <bool kCentered, typename T, typename P>
Status LaunchBackward(const Exec& exec, const BackwardRows<T, P>& p,
                      const ParameterGradients& gradients) {
  if (p.rows == 0 || p.hidden == 0) {
    for (const TensorView& gradient : {gradients.dgamma, gradients.dbeta}) {
      if (!gradient.defined()) continue;
      TE_RETURN_IF_ERROR(
          cuda::CombinePartials(exec, nullptr, 0, 0, gradients.accumulate, gradient));
    }
    return OkStatus();
  }
  constexpr int kN = cuda::kLanes<T>;
  const bool vectors = p.hidden % kN == 0 && cuda::Aligned<kN>(p.x, p.x_stride) &&
                       cuda::Aligned<kN>(p.dy, p.dy_stride) &&
                       cuda::Aligned<kN>(p.dx, p.dx_stride) &&
                       cuda::Aligned<kN>(p.add, p.add_stride) && ParameterAligned<kN>(p.gamma);
  if (p.add != nullptr) {
    return vectors ? LaunchBackwardVectors<kCentered, true, kN>(exec, p, gradients)
                   : LaunchBackwardVectors<kCentered, true, 1>(exec, p, gradients);
  }
  return vectors ? LaunchBackwardVectors<kCentered, false, kN>(exec, p, gradients)
                 : LaunchBackwardVectors<kCentered, false, 1>(exec, p, gradients);
}

}  // namespace te::norm
