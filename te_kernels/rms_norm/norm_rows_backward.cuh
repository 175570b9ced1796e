// Backward of the norms of norm_rows.cuh: a persistent grid that keeps the sums over its rows of
// the parameters' gradients in registers. Where the card copies rows in bulk they come through
// rings in shared memory; elsewhere a thread reads the next row while it works on one.
#pragma once

#include <algorithm>

#include "te_kernels/cuda/column_sums.cuh"
#include "te_kernels/cuda/shared_memory.h"
#include "te_kernels/rms_norm/norm_rows.cuh"
#include "te_kernels/rms_norm/row_ring.cuh"

namespace te::norm {

// ---- Arithmetic: one vector of a row ----

// gamma + plus.
template <int N, typename P>
__device__ inline void LoadGamma(const P* gamma, float plus, float (&g)[N]) {
  cuda::LoadParameter<N>(gamma, g);
#pragma unroll
  for (int e = 0; e < N; ++e) g[e] = __fadd_rn(g[e], plus);
}

// Of a thread's vectors; beyond the row's end, of its last one.
template <typename Tile, int N, typename P>
__device__ inline void LoadGammas(const P* gamma, float plus, int lane, int vectors,
                                  float (&g)[Tile::kVectors][N]) {
#pragma unroll
  for (int j = 0; j < Tile::kVectors; ++j)
    LoadGamma(gamma + int64_t{min(lane + j * Tile::kThreads, vectors - 1)} * N, plus, g[j]);
}

// Adds to the row's sums, of w (x - mean), which is w xhat / rstd, and (LayerNorm) of w; and to the
// thread's sums over rows for dgamma and (LayerNorm) the N for dbeta.
template <bool kCentered, int N>
__device__ inline void AddTerms(const float (&xs)[N], const float (&dys)[N], const float (&g)[N],
                                float mean, float rstd, float (&sums)[kCentered ? 2 : 1],
                                float (&dgamma)[N], float* dbeta) {
#pragma unroll
  for (int e = 0; e < N; ++e) {
    const float centered = kCentered ? xs[e] - mean : xs[e];
    const float w = __fmul_rn(dys[e], g[e]);
    sums[0] = AddProduct(w, centered, sums[0]);
    if constexpr (kCentered) sums[1] += w;
    dgamma[e] = AddProduct(dys[e], centered * rstd, dgamma[e]);
    if constexpr (kCentered) dbeta[e] += dys[e];
  }
}

// dx, with the row's Slope and Offset; with kAdd, added to what `out` holds.
template <bool kCentered, bool kAdd, int N>
__device__ inline void InputGradients(const float (&xs)[N], const float (&dys)[N],
                                      const float (&g)[N], float mean, float rstd, float slope,
                                      float offset, float (&out)[N]) {
#pragma unroll
  for (int e = 0; e < N; ++e) {
    const float w = __fmul_rn(dys[e], g[e]);
    const float gradient = kCentered ? InputGradient(w, rstd, slope, xs[e] - mean, offset)
                                     : InputGradient(w, rstd, slope, xs[e]);
    out[e] = kAdd ? gradient + out[e] : gradient;
  }
}

// ---- Rows in registers ----

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
    float sums[kSums] = {};  // the zeros beyond the row's end add nothing
#pragma unroll
    for (int j = 0; j < row.x.Count(vectors); ++j) {
      const int i = lane + j * Tile::kThreads;
      if (!kAhead && i >= vectors) break;  // branches save the registers that loads ahead take
      float xs[N], dys[N], g[N];
      row.x.Get(j, xs);
      row.dy.Get(j, dys);
      LoadGamma(p.gamma + int64_t{min(i, vectors - 1)} * N, p.plus, g);
      const int held = Tile::kVectors > 0 ? j : 0;  // of rows not held: sums that nobody reads
      AddTerms<kCentered>(xs, dys, g, row.mean, row.rstd, sums, dgamma[held], dbeta[held]);
    }
    // The barrier of the next row's sums lies between this buffer's uses.
    cuda::RowSums<Tile>(sums, shared[buffer]);
    const float slope = Slope(row.rstd, sums[0], p.inverse_hidden);
    const float offset = kCentered ? Offset(row.rstd, sums[kSums - 1], p.inverse_hidden) : 0;
    T* dx = p.dx + t * p.dx_stride;
#pragma unroll
    for (int j = 0; j < row.x.Count(vectors); ++j) {
      const int i = lane + j * Tile::kThreads;
      if (!kAhead && i >= vectors) break;
      float xs[N], dys[N], g[N], out[N];
      row.x.Get(j, xs);
      row.dy.Get(j, dys);
      if constexpr (kAdd) row.add.Get(j, out);
      LoadGamma(p.gamma + int64_t{min(i, vectors - 1)} * N, p.plus, g);
      InputGradients<kCentered, kAdd>(xs, dys, g, row.mean, row.rstd, slope, offset, out);
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

// ---- Rows through rings ----

// RowRing: as many rows on their way as fit in shared memory, not in registers. One block a
// multiprocessor; its groups of Tile::kThreads threads go through rows each with a ring of its own,
// and the block writes one partial sum. The order of a row's sums is BackwardKernel's.

// Tiles whose row, gamma and sums for dgamma a thread can hold.
template <typename T, int N, typename Tile>
inline constexpr bool kHasRing = Tile::kVectors > 0 && Tile::kVectors* N <= 16 &&
                                 Tile::kRows == 1 && N * sizeof(T) == 16;

// At most 128 registers a thread.
template <typename Tile>
inline constexpr int kRingGroups = 512 / Tile::kThreads;

// Row t into a ring's stage.
template <bool kAdd, typename T, typename P>
__device__ inline void FillRow(const RowRing<kAdd ? 3 : 2>& ring, int stage,
                               const BackwardRows<T, P>& p, int64_t t) {
  const T* const x = p.x + t * p.x_stride;
  const T* const dy = p.dy + t * p.dy_stride;
  if constexpr (kAdd) {
    ring.Fill(stage, {x, dy, p.add + t * p.add_stride});
  } else {
    ring.Fill(stage, {x, dy});
  }
}

// Bytes of a block's shared memory that its rings leave to the kernel's other arrays.
inline constexpr int64_t kBesideRings = 4096;

template <bool kCentered, bool kAdd, int N, typename Tile, typename T, typename P>
__global__ void __launch_bounds__(Tile::kThreads* kRingGroups<Tile>, 1)
    BackwardRingKernel(BackwardRows<T, P> p, int stages, float* partials) {
  cuda::StartAfterEarlierKernels();
  using Vector = typename cuda::Raw<N* static_cast<int>(sizeof(T))>::type;
  constexpr int kTensors = kAdd ? 3 : 2;
  constexpr int kGroups = kRingGroups<Tile>;
  constexpr int kSums = kCentered ? 2 : 1;
  constexpr int kVectors = Tile::kVectors;
  extern __shared__ uint4 dynamic[];
  __shared__ float shared[2][kGroups][kSums][Tile::kWarps];
  __shared__ uint64_t barriers[kGroups][kMostStages];
  static_assert(sizeof(shared) + sizeof(barriers) <= kBesideRings);
  const int lane = threadIdx.x % Tile::kThreads, group = threadIdx.x / Tile::kThreads;
  const int vectors = static_cast<int>(p.hidden / N);
  const uint32_t row_bytes = static_cast<uint32_t>(p.hidden * sizeof(T));
  RowRing<kTensors> ring(
      reinterpret_cast<unsigned char*>(dynamic) + group * stages * kTensors * row_bytes,
      barriers[group], stages, row_bytes);
  // Groups far apart: the blocks' numbers of rows differ by one at most.
  const int64_t first = int64_t{group} * gridDim.x + blockIdx.x;
  const int64_t step = int64_t{gridDim.x} * kGroups;
  if (lane == 0) {
    ring.Initialize();
    int64_t t = first;
    for (int s = 0; s < stages && t < p.rows; ++s, t += step) FillRow<kAdd>(ring, s, p, t);
  }
  __syncthreads();

  float g[kVectors][N];
  LoadGammas<Tile>(p.gamma, p.plus, lane, vectors, g);
  float dgamma[kVectors][N] = {}, dbeta[kVectors][N] = {};
  float rstd = 0, mean = 0;
  if (first < p.rows) {
    rstd = p.rstd[first];
    if constexpr (kCentered) mean = p.mean[first];
  }
  int buffer = 0;
  int64_t t = first;
#pragma unroll 1
  for (; t < p.rows; t += step, buffer ^= 1, ring.Advance()) {
    float next_rstd = 0, next_mean = 0;
    if (t + step < p.rows) {
      next_rstd = p.rstd[t + step];
      if constexpr (kCentered) next_mean = p.mean[t + step];
    }
    Vector row[kTensors][kVectors];
    ring.Read(lane, Tile::kThreads, vectors, row);
    float sums[kSums] = {};
#pragma unroll
    for (int j = 0; j < kVectors; ++j) {
      float xs[N], dys[N];
      cuda::Unpack<T>(row[0][j], xs);
      cuda::Unpack<T>(row[1][j], dys);
      AddTerms<kCentered>(xs, dys, g[j], mean, rstd, sums, dgamma[j], dbeta[j]);
    }
    // cuda::RowSums, of a group. Its barrier: all have read the stage.
    float(&group_sums)[kSums][Tile::kWarps] = shared[buffer][group];
#pragma unroll
    for (int k = 0; k < kSums; ++k) {
      sums[k] = cuda::WarpSum(sums[k]);
      if (lane % cuda::kWarp == 0) group_sums[k][lane / cuda::kWarp] = sums[k];
    }
    GroupBarrier<Tile::kThreads>(group);
    if (lane == 0 && t + stages * step < p.rows)
      FillRow<kAdd>(ring, ring.stage(), p, t + stages * step);
#pragma unroll
    for (int k = 0; k < kSums; ++k) {
      sums[k] = 0;
#pragma unroll
      for (int w = 0; w < Tile::kWarps; ++w) sums[k] += group_sums[k][w];
    }
    const float slope = Slope(rstd, sums[0], p.inverse_hidden);
    const float offset = kCentered ? Offset(rstd, sums[kSums - 1], p.inverse_hidden) : 0;
    T* const dx = p.dx + t * p.dx_stride;
#pragma unroll
    for (int j = 0; j < kVectors; ++j) {
      const int i = lane + j * Tile::kThreads;
      float xs[N], dys[N], out[N];
      cuda::Unpack<T>(row[0][j], xs);
      cuda::Unpack<T>(row[1][j], dys);
      if constexpr (kAdd) cuda::Unpack<T>(row[kTensors - 1][j], out);
      InputGradients<kCentered, kAdd>(xs, dys, g[j], mean, rstd, slope, offset, out);
      if (i < vectors) cuda::Store<N>(dx + int64_t{i} * N, out);
    }
    rstd = next_rstd;
    mean = next_mean;
  }

  // The first group may have had a row more. compute-sanitizer's racecheck takes the groups'
  // barriers for the block's, and sees races behind them where their numbers differ.
  if (t - int64_t{group} * gridDim.x < p.rows) GroupBarrier<Tile::kThreads>(group);
  if (partials == nullptr) return;
  // The groups' sums in order, through the rings' memory.
  const int hidden = static_cast<int>(p.hidden);
  float* const columns = reinterpret_cast<float*>(dynamic);
  __syncthreads();
#pragma unroll
  for (int j = 0; j < kVectors; ++j) {
    const int i = lane + j * Tile::kThreads;
    if (i >= vectors) break;
    float* const to = columns + group * kSums * hidden + i * N;
    cuda::StoreFloats<N>(to, dgamma[j]);
    if constexpr (kCentered) cuda::StoreFloats<N>(to + hidden, dbeta[j]);
  }
  __syncthreads();
  constexpr int kPart = cuda::kLanes<float>;
#pragma unroll 2
  for (int c = threadIdx.x * kPart; c < kSums * hidden; c += kGroups * Tile::kThreads * kPart) {
    float sum[kPart] = {};
#pragma unroll
    for (int r = 0; r < kGroups; ++r) {
      float part[kPart];
      cuda::Load<kPart>(columns + r * kSums * hidden + c, part);
#pragma unroll
      for (int e = 0; e < kPart; ++e) sum[e] += part[e];
    }
    // dbeta's partials lie behind all of dgamma's.
    const int64_t block = kCentered && c >= hidden ? gridDim.x + blockIdx.x : blockIdx.x;
    cuda::Store<kPart>(partials + block * hidden + (c >= hidden ? c - hidden : c), sum);
  }
}

// ---- Rows that no block holds ----

// dy xhat, for the sums over rows.
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

struct ParameterGradients {
  TensorView dgamma;  // both optional
  TensorView dbeta;
  bool accumulate;
};

// Bytes that a block has for rings, where its kernel has `others` besides; 0 on cards without bulk
// copies.
inline StatusOr<int64_t> RingBytes(const cuda::CudaState& state, int64_t others) {
  if (state.compute_capability() < 90) return 0;
  TE_ASSIGN_OR_RETURN(const int64_t most, cuda::MostSharedMemory());
  return most - others;
}
// Stages of a block's rings in so many bytes; 0: no ring.
inline int RingStages(int64_t bytes, int64_t stage_bytes) {
  const int64_t stages = std::min<int64_t>(kMostStages, std::max<int64_t>(bytes, 0) / stage_bytes);
  return stages < 2 ? 0 : static_cast<int>(stages);
}

template <bool kCentered, bool kAdd, int N, typename T, typename P>
Status LaunchBackwardVectors(const Exec& exec, const BackwardRows<T, P>& p,
                             const ParameterGradients& gradients) {
  TE_ASSIGN_OR_RETURN(const cuda::CudaState* state, cuda::GetCudaState(exec));
  return WithBackwardTile<kCentered, N>(p.hidden / N, [&](auto tile) -> Status {
    using Tile = decltype(tile);
    constexpr const char* kName = kCentered ? "layer_norm_backward" : "rms_norm_backward";
    // As many rows for one block as for another, as far as they divide.
    const int64_t most = int64_t{state->num_sms()} * kBackwardBlocks<kCentered, Tile> * Tile::kRows;
    const int64_t rounds = (p.rows + most - 1) / most;
    int64_t blocks = (p.rows + rounds * Tile::kRows - 1) / (rounds * Tile::kRows);
    int stages = 0;
    int64_t stage_bytes = 0;  // of a block
    if constexpr (kHasRing<T, N, Tile>) {
      stage_bytes = int64_t{kAdd ? 3 : 2} * sizeof(T) * p.hidden * kRingGroups<Tile>;
      TE_ASSIGN_OR_RETURN(const int64_t ring_bytes, RingBytes(*state, kBesideRings));
      stages = RingStages(ring_bytes, stage_bytes);
      if (stages > 0) blocks = std::min<int64_t>(state->num_sms(), p.rows);
    }
    const auto launch = [&](float* partials) -> Status {
      const dim3 grid(static_cast<unsigned int>(blocks));
      if constexpr (kHasRing<T, N, Tile>) {
        if (stages > 0) {
          const auto kernel = BackwardRingKernel<kCentered, kAdd, N, Tile, T, P>;
          const size_t bytes = stages * stage_bytes;
          TE_RETURN_IF_ERROR(cuda::ToStatus(
              cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                   static_cast<int>(bytes)),
              "cudaFuncSetAttribute"));
          cuda::LaunchOverlapping(exec, kernel, grid, dim3(Tile::kThreads * kRingGroups<Tile>),
                                  {.shared_bytes = bytes}, p, stages, partials);
          return cuda::LaunchStatus(kName);
        }
      }
      cuda::LaunchOverlapping(exec, BackwardKernel<kCentered, kAdd, N, Tile, T, P>, grid,
                              dim3(Tile::kBlock), {}, p, partials);
      return cuda::LaunchStatus(kName);
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
