// Rows of a matrix, each handled by one warp or one block: what normalizations and softmax share.
#pragma once

#include "te_kernels/cuda/reduce.cuh"
#include "te_kernels/cuda/vector.cuh"

namespace te::cuda {

// How a row is spread: kThreads threads (one warp, or the whole block), kVectors vectors of each,
// held in registers; 0 vectors: the row is too long to hold and is read again in each pass.
template <int kThreadsPerRow, int kVectorsPerThread>
struct RowTile {
  static constexpr int kThreads = kThreadsPerRow;
  static constexpr int kVectors = kVectorsPerThread;
  static constexpr int kBlock = kThreads == kWarp ? 4 * kWarp : kThreads;
  static constexpr int kRows = kBlock / kThreads;  // that a block has in hand
  static constexpr int kWarps = kThreads / kWarp;  // of a row
  static_assert(kThreads % kWarp == 0);
};

// Calls run(RowTile) with the smallest tile that holds rows of `vectors` vectors of N elements.
template <int N, typename F>
auto WithRowTile(int64_t vectors, F run) {
  if constexpr (N == 1) {  // more, narrower loads in flight
    if (vectors <= 128) return run(RowTile<32, 4>());
    if (vectors <= 512) return run(RowTile<128, 4>());
    if (vectors <= 2048) return run(RowTile<256, 8>());
    if (vectors <= 8192) return run(RowTile<512, 16>());
  } else {
    if (vectors <= 32) return run(RowTile<32, 1>());
    if (vectors <= 64) return run(RowTile<32, 2>());
    if (vectors <= 128) return run(RowTile<32, 4>());
    if (vectors <= 256) return run(RowTile<128, 2>());
    if (vectors <= 512) return run(RowTile<128, 4>());
    if (vectors <= 1024) return run(RowTile<256, 4>());
    if (vectors <= 2048) return run(RowTile<512, 4>());
    constexpr int kMost = N > 4 ? 3 : 4;  // 64 registers a thread hold no more
    if (vectors <= 1024 * kMost) return run(RowTile<1024, kMost>());
  }
  return run(RowTile<1024, 0>());
}

// A thread's part of one row, as it lies in memory (bfloat16 stays packed): vectors lane, lane +
// kThreads, ... Vectors beyond the row's end are zeros.
template <typename T, int N, typename Tile, bool kHeld = (Tile::kVectors > 0)>
class Row {
 public:
  __device__ void Read(const T* row, int lane, int vectors) {
#pragma unroll
    for (int j = 0; j < Tile::kVectors; ++j) {
      const int i = lane + j * Tile::kThreads;
      held_[j] = Vector{};
      // Read once by anyone: does not push parameters out of the L1 cache.
      if (i < vectors) held_[j] = __ldcs(reinterpret_cast<const Vector*>(row + int64_t{i} * N));
    }
  }
  // Vectors of a thread, those beyond the row's end included.
  __device__ static constexpr int Count(int) { return Tile::kVectors; }
  __device__ void Get(int j, float (&out)[N]) const { Unpack<T>(held_[j], out); }

 private:
  using Vector = typename Raw<N* static_cast<int>(sizeof(T))>::type;
  Vector held_[Tile::kVectors];
};

template <typename T, int N, typename Tile>
class Row<T, N, Tile, false> {
 public:
  __device__ void Read(const T* row, int lane, int vectors) {
    first_ = row + int64_t{lane} * N;
    count_ = (vectors - lane + Tile::kThreads - 1) / Tile::kThreads;
  }
  __device__ static int Count(int vectors) {
    return (vectors + Tile::kThreads - 1) / Tile::kThreads;
  }
  __device__ void Get(int j, float (&out)[N]) const {
    if (j < count_) {
      Load<N>(first_ + int64_t{j} * Tile::kThreads * N, out);
    } else {
#pragma unroll
      for (int e = 0; e < N; ++e) out[e] = 0;
    }
  }

 private:
  const T* first_;
  int count_;
};

// N elements of a parameter, which no operation writes while it reads it: in as many accesses of 16
// bytes as they need, free to move ahead of stores.
template <int N, typename T>
__device__ inline void LoadParameter(const T* p, float (&out)[N]) {
  constexpr int kPart = N < kLanes<T> ? N : kLanes<T>;
  using Vector = typename Raw<kPart* static_cast<int>(sizeof(T))>::type;
#pragma unroll
  for (int begin = 0; begin < N; begin += kPart) {
    float part[kPart];
    Unpack<T>(__ldg(reinterpret_cast<const Vector*>(p + begin)), part);
#pragma unroll
    for (int e = 0; e < kPart; ++e) out[begin + e] = part[e];
  }
}

// N floats, in as many accesses of 16 bytes as they need.
template <int N>
__device__ inline void StoreFloats(float* p, const float (&in)[N]) {
  constexpr int kPart = N < kLanes<float> ? N : kLanes<float>;
#pragma unroll
  for (int begin = 0; begin < N; begin += kPart) {
    float part[kPart];
#pragma unroll
    for (int e = 0; e < kPart; ++e) part[e] = in[begin + e];
    Store<kPart>(p + begin, part);
  }
}

// Sums of kCount values over a row's threads, in each of them, in a fixed order; one barrier when
// the row is a block's. `shared` is free again after the next barrier.
template <typename Tile, int kCount>
__device__ inline void RowSums(float (&values)[kCount], float (&shared)[kCount][Tile::kWarps]) {
#pragma unroll
  for (int k = 0; k < kCount; ++k) values[k] = WarpSum(values[k]);
  if constexpr (Tile::kWarps > 1) {
    if (threadIdx.x % kWarp == 0) {
#pragma unroll
      for (int k = 0; k < kCount; ++k) shared[k][threadIdx.x / kWarp] = values[k];
    }
    __syncthreads();
#pragma unroll
    for (int k = 0; k < kCount; ++k) {
      values[k] = 0;
#pragma unroll
      for (int w = 0; w < Tile::kWarps; ++w) values[k] += shared[k][w];
    }
  }
}
template <typename Tile>
__device__ inline float RowSum(float value, float (&shared)[1][Tile::kWarps]) {
  float values[1] = {value};
  RowSums<Tile>(values, shared);
  return values[0];
}

}  // namespace te::cuda
