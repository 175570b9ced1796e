// Tiles of FP8 codes on CUDA: how the kernels that update a parameter write its codes in both
// orientations. (te_kernels/cuda/cast_transpose.cuh holds a whole tile of values in a block's
// registers; beside the update's four tensors a thread has no room for that.)
//
// A block owns 64 rows of 256 columns: its warps read whole lines of 512 bytes of each bfloat16
// tensor, and meet once, before the transposed codes go out in pieces of 64 bytes. The width is
// what counts: pieces of 128 bytes (a warp of its own for each 64 x 64 elements, no barrier) took
// 9% more time, and arithmetic none (bench/notes.md, section 11).
#pragma once

#include <climits>
#include <initializer_list>

#include "te_kernels/adamw/adamw_vectors.cuh"
#include "te_kernels/base/quant_spec.h"
#include "te_kernels/cuda/float8.cuh"
#include "te_kernels/cuda/reduce.cuh"

namespace te::adamw_cuda {

inline constexpr int kTileRows = 64;
// A lane has a vector of a row.
inline constexpr int kTileColumns = kWidth * cuda::kWarp;
// Of a lane, one below the other: a word of the transposed tile.
inline constexpr int kRowsAtATime = 4;

// The transposed tile in shared memory: 16 words (64 rows) for each column. Four words between
// groups of eight columns spread what a warp writes (a word of each group) over eight times as many
// banks.
inline constexpr int kColumnWords = kTileRows / kRowsAtATime;
inline constexpr int kGroupWords = kWidth * kColumnWords + 4;
inline constexpr int kTileWords = cuda::kWarp * kGroupWords;

struct Copies {
  const float* scale;
  float* scale_inv;     // may be null when no codes are wanted
  float* amax;          // may be null, as may be
  uint8_t* rowwise;     // either of
  uint8_t* columnwise;  // these
  int64_t rows, columns;
  unsigned int blocks_across;
};

inline int64_t BlocksOf(int64_t extent, int64_t size) { return (extent + size - 1) / size; }

inline Copies CopiesOf(const QuantSpec& quant, int64_t rows, int64_t columns) {
  return {.scale = quant.scale,
          .scale_inv = quant.scale_inv,
          .amax = quant.amax,
          .rowwise = quant.rowwise_data.as<uint8_t>(),
          .columnwise = quant.columnwise_data.as<uint8_t>(),
          .rows = rows,
          .columns = columns,
          .blocks_across = static_cast<unsigned int>(BlocksOf(columns, kTileColumns))};
}

// Whether the matrix has whole rows of tiles and vectors, and every pointer (null or not) is
// aligned to vectors.
inline bool FitTiles(int64_t rows, int64_t columns, std::initializer_list<const void*> pointers) {
  for (const void* p : pointers) {
    if (reinterpret_cast<uintptr_t>(p) % 16 != 0) return false;
  }
  return rows % kTileRows == 0 && columns % kWidth == 0 && rows <= INT_MAX && columns <= INT_MAX &&
         rows * columns != 0;
}

// Of a launch.
inline unsigned int Blocks(const Copies& copies) {
  return static_cast<unsigned int>(copies.blocks_across * (copies.rows / kTileRows));
}

// quantize.h's codes of four values, the first in the lowest byte.
__device__ inline uint32_t CastScaled(const float (&w)[4], float scale) {
  return cuda::CastFour<cuda::kE4M3>(w[0] * scale, w[1] * scale, w[2] * scale, w[3] * scale);
}

// Rows become columns: byte i of out[j] is byte j of row i.
__device__ inline void Transpose(uint32_t row0, uint32_t row1, uint32_t row2, uint32_t row3,
                                 uint32_t (&out)[4]) {
  const uint32_t low01 = __byte_perm(row0, row1, 0x5140), high01 = __byte_perm(row0, row1, 0x7362);
  const uint32_t low23 = __byte_perm(row2, row3, 0x5140), high23 = __byte_perm(row2, row3, 0x7362);
  out[0] = __byte_perm(low01, low23, 0x5410);
  out[1] = __byte_perm(low01, low23, 0x7632);
  out[2] = __byte_perm(high01, high23, 0x5410);
  out[3] = __byte_perm(high01, high23, 0x7632);
}

// All lanes call; `amax` may be null.
__device__ inline void RaiseAmax(float* amax, float value) {
  if (amax == nullptr) return;
  value = cuda::WarpMax(value);
  // Bits of numbers that are not negative are ordered as the numbers are.
  if (threadIdx.x % cuda::kWarp == 0)
    atomicMax(reinterpret_cast<unsigned int*>(amax), __float_as_uint(value));
}

// A lane's place in its block's tile: rows kRowsAtATime word ... of it, for words from the warp's
// own on.
struct Place {
  int row0, column0;  // of the tile
  int warp, lane;
  bool inside;  // of the matrix

  // Index into the matrix of the kWidth elements of row r of a word.
  __device__ int64_t ElementOf(const Copies& copies, int word, int r) const {
    int64_t i = int64_t{row0 + kRowsAtATime * word + r} * copies.columns + column0 + kWidth * lane;
    // Hides that the rows are related: one address is formed where it is used, instead of twenty
    // kept in registers.
    asm volatile("" : "+l"(i));
    return i;
  }
};
__device__ inline Place PlaceOf(const Copies& copies) {
  Place at;
  at.row0 = static_cast<int>(blockIdx.x / copies.blocks_across) * kTileRows;
  at.column0 = static_cast<int>(blockIdx.x % copies.blocks_across) * kTileColumns;
  at.warp = static_cast<int>(threadIdx.x) / cuda::kWarp;
  at.lane = static_cast<int>(threadIdx.x) % cuda::kWarp;
  at.inside = at.column0 + kWidth * at.lane < copies.columns;
  return at;
}

// The block's tile; all kWarps warps call. read(i): what next needs for the kWidth elements from i
// on; `first`: of the lane's first row, used where there is a warp for each word (a select in the
// loop over words costs more than it hides). next(inputs, i, emit): their new param, each half with
// its codes to emit(half, w, codes); called for the lane's rows from top to bottom. `shared`:
// kTileWords.
template <int kWarps, typename Inputs, typename Read, typename Next>
__device__ void WriteTile(const Copies& copies, const Place& at, uint32_t* shared, Inputs first,
                          Read read, Next next) {
  float amax = 0;
#pragma unroll 1
  for (int word = at.warp; word < kColumnWords && at.inside; word += kWarps) {
    uint32_t codes[kRowsAtATime][2];
#pragma unroll
    for (int r = 0; r < kRowsAtATime; ++r) {
      const int64_t i = at.ElementOf(copies, word, r);
      if (r > 0 || kWarps < kColumnWords) first = read(i);
      next(first, i, [&](int half, const float(&w)[4], uint32_t packed) {
        amax = fmaxf(fmaxf(fmaxf(amax, fabsf(w[0])), fabsf(w[1])), fmaxf(fabsf(w[2]), fabsf(w[3])));
        codes[r][half] = packed;
      });
      if (copies.rowwise != nullptr)
        *reinterpret_cast<uint2*>(copies.rowwise + i) = make_uint2(codes[r][0], codes[r][1]);
    }
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      uint32_t columns[4];
      Transpose(codes[0][h], codes[1][h], codes[2][h], codes[3][h], columns);
#pragma unroll
      for (int k = 0; k < 4; ++k)
        shared[at.lane * kGroupWords + (4 * h + k) * kColumnWords + word] = columns[k];
    }
    if constexpr (kWarps >= kColumnWords) break;
  }
  if (copies.columnwise != nullptr) {
    __syncthreads();
    constexpr int kPieces = kTileRows / 16;  // of a column
#pragma unroll
    for (int k = 0; k < kTileColumns * kPieces; k += kWarps * cuda::kWarp) {
      const int column = (k + threadIdx.x) / kPieces, piece = threadIdx.x % kPieces;
      if (at.column0 + column >= copies.columns) continue;
      const uint4 rows = *reinterpret_cast<const uint4*>(
          shared + column / kWidth * kGroupWords + column % kWidth * kColumnWords + 4 * piece);
      uint8_t* out = copies.columnwise + int64_t{at.column0 + column} * copies.rows + at.row0;
      *reinterpret_cast<uint4*>(out + 16 * piece) = rows;
    }
  }
  RaiseAmax(copies.amax, amax);
}

}  // namespace te::adamw_cuda
