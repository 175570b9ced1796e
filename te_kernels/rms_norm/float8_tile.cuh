// What kernels of a norm that write FP8 codes in both orientations share. A block takes tiles of 16
// or 32 whole rows: its threads form groups that go through rows as the dense kernels do (the same
// sums in the same order: the same bits) and leave the codes in shared memory, from where the block
// writes them transposed, a byte of a column for each row. Memory takes 32 bytes at a time: tiles
// of 16 rows, half of that, take up to twice the time.
#pragma once

#include <algorithm>

#include "te_kernels/cuda/fused_float8.cuh"
#include "te_kernels/cuda/rows.cuh"
#include "te_kernels/rms_norm/norm_rows.cuh"

namespace te::norm::float8 {

using cuda::Float8Output;

inline constexpr int kN = 8;           // elements of a vector
inline constexpr int kThreads = 512;   // of a block
inline constexpr int kPieceRows = 16;  // whose codes of a column a thread writes at once

// Groups that a block's threads form. Tile, the dense kernels', says how a group spreads a row.
template <typename Tile>
inline constexpr int kGroups = kThreads / Tile::kThreads;

// Of a block whose tiles have kTileRows rows.
template <typename Tile, int kTileRows>
struct Groups {
  static constexpr int kCount = kGroups<Tile>;
  static constexpr int kSteps = kTileRows / kCount;  // rows of a group
  static_assert(kCount * Tile::kThreads == kThreads && kSteps * kCount == kTileRows);

  float sums[2][kCount][Tile::kWarps];

  // cuda::RowSum, of a group, whose barrier it passes where it has several warps. That of the next
  // sum lies between one buffer's uses.
  __device__ float Sum(float value, int group, int buffer) {
    value = cuda::WarpSum(value);
    if constexpr (Tile::kWarps > 1) {
      float(&shared)[Tile::kWarps] = sums[buffer][group];
      if (threadIdx.x % cuda::kWarp == 0) shared[threadIdx.x / cuda::kWarp % Tile::kWarps] = value;
      GroupBarrier<Tile::kThreads>(group);
      value = 0;
#pragma unroll
      for (int w = 0; w < Tile::kWarps; ++w) value += shared[w];
    }
    return value;
  }
};

// A tile's codes in shared memory: rows of `hidden` bytes, and 64 bytes behind each 16 rows, so
// that the reads of StoreColumns hit every bank once where hidden is a multiple of 128.
__host__ __device__ inline int CodesAt(int row, int hidden) {
  return row * hidden + row / kPieceRows * 64;
}

// By all threads: lanes side by side write a column's pieces.
template <int kTileRows>
__device__ inline void StoreColumns(const uint8_t* codes, const Float8Output& out,
                                    int64_t first_row) {
  constexpr int kPieces = kTileRows / kPieceRows;
  const int hidden = static_cast<int>(out.columns);
  const int row = threadIdx.x % kPieces * kPieceRows;
  const int first_column = threadIdx.x / kPieces * 4;
  for (int column = first_column; column < hidden; column += kThreads / kPieces * 4) {
    cuda::StoreTransposed<kPieceRows>(codes + CodesAt(row, hidden) + column, hidden,
                                      out.columnwise + column * out.rows + first_row + row,
                                      out.rows);
  }
}

// Writes the columns of a tile whose codes all threads have left at *codes, one of 1 or 2 places in
// `places`. Then *codes is where those of the next one go: in the other place, whose barrier lies
// between these reads and the next codes here, or in the only one.
template <int kTileRows>
__device__ inline void StoreTile(uint8_t* places, int num_places, const Float8Output& out,
                                 int64_t first_row, uint8_t** codes) {
  __syncthreads();
  StoreColumns<kTileRows>(*codes, out, first_row);
  if (num_places == 1) {
    __syncthreads();
  } else {
    *codes = places + (*codes == places ? CodesAt(kTileRows, static_cast<int>(out.columns)) : 0);
  }
}

// The codes of a vector to both orientations, and the dense vector.
__device__ inline void StoreVector(const float (&values)[kN], const Float8Output& out, int64_t row,
                                   int tile_row, int column, bfloat16* dense,
                                   cuda::Float8Encoder* encoder, uint8_t* tile) {
  uint4 rounded;
  const uint2 codes = encoder->Encode(values, &rounded);
  if (dense != nullptr) cuda::StoreVector(dense + column, rounded);
  if (out.rowwise != nullptr)
    *reinterpret_cast<uint2*>(out.rowwise + row * out.columns + column) = codes;
  if (out.columnwise != nullptr)
    *reinterpret_cast<uint2*>(tile + CodesAt(tile_row, static_cast<int>(out.columns)) + column) =
        codes;
}

// A block's part of dgamma: the sums of its groups in order, through `columns` (a float of
// each group for each column of shared memory that others may still use). partials: null, or
// [blocks, hidden].
template <typename Tile>
__device__ inline void StorePartials(const float (&dgamma)[Tile::kVectors][kN], float* columns,
                                     int hidden, float* partials) {
  if (partials == nullptr) return;
  const int group = threadIdx.x / Tile::kThreads, lane = threadIdx.x % Tile::kThreads;
  __syncthreads();
#pragma unroll
  for (int j = 0; j < Tile::kVectors; ++j) {
    const int column = (lane + j * Tile::kThreads) * kN;
    if (column < hidden) cuda::StoreFloats<kN>(columns + group * hidden + column, dgamma[j]);
  }
  __syncthreads();
  for (int h = threadIdx.x; h < hidden; h += kThreads) {
    float sum = 0;
#pragma unroll
    for (int g = 0; g < kGroups<Tile>; ++g) sum += columns[g * hidden + h];
    partials[int64_t{blockIdx.x} * hidden + h] = sum;
  }
}

}  // namespace te::norm::float8
