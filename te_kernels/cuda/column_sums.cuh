// Sums over the rows of a matrix, one a column, in two kernels: partial sums of blocks of rows, and
// the partials in a fixed order. Bitwise repeatable on one card.
#pragma once

#include <algorithm>

#include "te_kernels/cuda/cuda_state.h"
#include "te_kernels/cuda/cuda_status.h"
#include "te_kernels/cuda/launch.cuh"
#include "te_kernels/cuda/reduce.cuh"
#include "te_kernels/cuda/rows.cuh"

namespace te::cuda {

inline constexpr int kCombineSlices = 32;
// Of a thread: all that it takes, where each of up to 160 multiprocessors has left one.
inline constexpr int kPartialsInFlight = 5;

// out[c] (+)= sum over p of partials[p * stride + c], c < columns. A block has one warp of columns;
// its warps take every 32nd partial. The time is that of loads that wait for each other, so none
// does: beyond the last partial there are zeros, which change no sum, and what is added to is read
// before the partials.
template <typename T>
__global__ void __launch_bounds__(kWarp* kCombineSlices)
    CombinePartialsKernel(const float* partials, int count, int64_t stride, int64_t columns,
                          bool accumulate, T* out) {
  StartAfterEarlierKernels();
  __shared__ float sums[kCombineSlices][kWarp];
  const int lane = threadIdx.x % kWarp, slice = threadIdx.x / kWarp;
  const int64_t column = int64_t{blockIdx.x} * kWarp + lane;
  const bool writes = slice == 0 && column < columns;
  T before = {};
  if (accumulate && writes) before = out[column];
  float sum = 0;
  if (column < columns) {
    const float* from = partials + slice * stride + column;
#pragma unroll 1
    for (int p = slice; p < count; p += kCombineSlices * kPartialsInFlight) {
      float values[kPartialsInFlight];
#pragma unroll
      for (int u = 0; u < kPartialsInFlight; ++u, from += kCombineSlices * stride)
        values[u] = p + u * kCombineSlices < count ? *from : 0;
#pragma unroll
      for (int u = 0; u < kPartialsInFlight; ++u) sum += values[u];
    }
  }
  sums[slice][lane] = sum;
  __syncthreads();
  if (!writes) return;
  sum = 0;
#pragma unroll
  for (int s = 0; s < kCombineSlices; ++s) sum += sums[s][lane];
  out[column] = FromFloat<T>(accumulate ? ToFloat(before) + sum : sum);
}

// `out`: dense [columns], float32 or bfloat16. No partials (count 0): zeros, or `out` as it is.
// At most 65535 of them.
inline Status CombinePartials(const Exec& exec, const float* partials, int64_t count,
                              int64_t stride, bool accumulate, const TensorView& out) {
  const int64_t columns = out.dim(0);
  if (columns == 0) return OkStatus();
  const auto launch = [&]<typename T>(T* to) {
    LaunchOverlapping(exec, CombinePartialsKernel<T>,
                      dim3(static_cast<unsigned int>((columns + kWarp - 1) / kWarp)),
                      dim3(kWarp * kCombineSlices), {}, partials, static_cast<int>(count), stride,
                      columns, accumulate, to);
  };
  out.dtype() == DType::kFloat32 ? launch(out.as<float>()) : launch(out.as<bfloat16>());
  return LaunchStatus("combine_partials");
}

inline constexpr int kColumnWarps = 8;
inline constexpr int kColumnRowsInFlight = 4;  // of a warp

// partials[chunk * columns + c] = sum over the chunk's rows of value(row, c), where value(row, c,
// out) yields columns c to c + N - 1. A block takes 32 N columns of one chunk; its warps take every
// 8th row.
template <int N, typename F>
__global__ void __launch_bounds__(kWarp* kColumnWarps, 3)
    ColumnPartialsKernel(int64_t rows, int64_t columns, int64_t chunk_rows, F value,
                         float* partials) {
  StartAfterEarlierKernels();
  __shared__ float sums[kColumnWarps][N][kWarp];
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int64_t column = (int64_t{blockIdx.x} * kWarp + lane) * N;
  const int64_t begin = blockIdx.y * chunk_rows;
  const int64_t end = min(begin + chunk_rows, rows);
  float sum[N] = {};
  if (column < columns) {
    int64_t row = begin + warp;
    constexpr int64_t kStep = int64_t{kColumnWarps} * kColumnRowsInFlight;
    for (; row + kStep - kColumnWarps < end; row += kStep) {
      float values[kColumnRowsInFlight][N];
#pragma unroll
      for (int u = 0; u < kColumnRowsInFlight; ++u)
        value(row + u * kColumnWarps, column, values[u]);
#pragma unroll
      for (int u = 0; u < kColumnRowsInFlight; ++u) {
#pragma unroll
        for (int e = 0; e < N; ++e) sum[e] += values[u][e];
      }
    }
    for (; row < end; row += kColumnWarps) {
      float values[N];
      value(row, column, values);
#pragma unroll
      for (int e = 0; e < N; ++e) sum[e] += values[e];
    }
  }
#pragma unroll
  for (int e = 0; e < N; ++e) sums[warp][e][lane] = sum[e];
  __syncthreads();
  // One thread a column of the block's 32 N.
  for (int c = threadIdx.x; c < kWarp * N; c += kWarp * kColumnWarps) {
    const int64_t to = int64_t{blockIdx.x} * kWarp * N + c;
    if (to >= columns) break;
    float total = 0;
#pragma unroll
    for (int w = 0; w < kColumnWarps; ++w) total += sums[w][c % N][c / N];
    partials[blockIdx.y * columns + to] = total;
  }
}

// A matrix's own elements as `value`.
template <int N, typename T>
struct ColumnsOf {
  const T* x;
  int64_t row_stride;
  __device__ void operator()(int64_t row, int64_t column, float (&out)[N]) const {
    Load<N, Cache::kOnce>(x + row * row_stride + column, out);
  }
};

// out[c] (+)= sum over rows of value(row, c): `out` and `value` as above. columns is a multiple of
// N.
template <int N, typename F>
Status SumColumns(const Exec& exec, int64_t rows, F value, bool accumulate, const TensorView& out) {
  const int64_t columns = out.dim(0);
  if (columns == 0) return OkStatus();
  if (rows == 0) return CombinePartials(exec, nullptr, 0, 0, accumulate, out);
  TE_ASSIGN_OR_RETURN(const CudaState* state, GetCudaState(exec));
  const int64_t tiles = (columns + kWarp * N - 1) / (kWarp * N);
  // Eight blocks a multiprocessor, unless that leaves a warp no row of its own.
  const int64_t wanted = std::max<int64_t>(1, int64_t{8} * state->num_sms() / tiles);
  const int64_t most = (rows + kColumnWarps - 1) / kColumnWarps;
  int64_t chunks = std::min({wanted, most, int64_t{65535}});
  const int64_t chunk_rows = (rows + chunks - 1) / chunks;
  chunks = (rows + chunk_rows - 1) / chunk_rows;
  ArenaScope scope(exec.scratch);
  TE_ASSIGN_OR_RETURN(TensorView partials,
                      exec.scratch->Allocate(DType::kFloat32, {chunks, columns}));
  const dim3 grid(static_cast<unsigned int>(tiles), static_cast<unsigned int>(chunks));
  LaunchOverlapping(exec, ColumnPartialsKernel<N, F>, grid, dim3(kWarp * kColumnWarps), {}, rows,
                    columns, chunk_rows, value, partials.as<float>());
  TE_RETURN_IF_ERROR(LaunchStatus("column_partials"));
  return CombinePartials(exec, partials.as<float>(), chunks, columns, accumulate, out);
}

}  // namespace te::cuda
