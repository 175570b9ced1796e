// Tiles of 128 x 128 values, from registers into FP8: codes rowwise, codes transposed, scales and
// amax, as te_kernels/quantize/quantize.h defines them. One block of kTileThreads threads makes a
// tile; a thread holds 8 rows of 8 columns. Whoever produces a tensor (quantize from memory,
// activations, norms, RoPE, AdamW) fills a Tile, rounded to the tensor's dtype, and calls
// WriteTile:
//
//   __shared__ TileShared<kScaling> shared;
//   const TilePlace at = PlaceOf(blockIdx.x, to);
//   Tile<T> tile;
//   Produce(at, to, producer, tile);                 // or LoadTile, from memory
//   WriteTile<kScaling, kFormat>(to, at, tile, shared);
//
// with TileBlocks(to) blocks, where to.wide (else the producer writes densely, and quantize does
// the rest byte by byte). What remains of a tile at an edge is zeros and is not written.
//
// The transposition: 8 x 8 bytes within a thread by byte permutations, then through shared memory
// in words of 8 bytes (8 rows of a column), whose place in their column is swizzled by the column
// group, so that neither the writes (8 bytes) nor the reads (16 bytes) meet in a bank. Both copies
// go out in whole lines of 128 bytes.
#pragma once

#include <algorithm>

#include "te_kernels/cuda/float8.cuh"
#include "te_kernels/cuda/vector.cuh"

namespace te::cuda {

inline constexpr int kTileSide = 128;
inline constexpr int kTileThreads = 256;
inline constexpr int kTileWarps = kTileThreads / 32;
inline constexpr int kTilePart = 8;                        // rows and columns of a thread
inline constexpr int kTileGroups = kTileSide / kTilePart;  // of columns, and of rows

// Where a tensor [rows, columns] goes, for kernels: what they need of a QuantSpec.
struct QuantTarget {
  int64_t rows = 0;
  int64_t columns = 0;
  int column_tiles = 1;
  uint8_t* rowwise = nullptr;     // null: not wanted
  uint8_t* columnwise = nullptr;  // null: not wanted
  float* rowwise_block_scale_inv = nullptr;
  float* columnwise_block_scale_inv = nullptr;
  const float* scale = nullptr;
  float* scale_inv = nullptr;
  float* amax = nullptr;
  bool power_of_2_scales = false;
  float amax_epsilon = 0;
  bool wide = false;  // codes rowwise in accesses of 8 bytes, columnwise of 16
};

inline int64_t TilesAlong(int64_t n) { return (n + kTileSide - 1) / kTileSide; }

inline QuantTarget TargetOf(const QuantSpec& quant, int64_t rows, int64_t columns) {
  QuantTarget to;
  to.rows = rows;
  to.columns = columns;
  to.column_tiles = static_cast<int>(std::max<int64_t>(1, TilesAlong(columns)));
  to.rowwise = quant.rowwise_data.as<uint8_t>();
  to.columnwise = quant.columnwise_data.as<uint8_t>();
  to.rowwise_block_scale_inv = quant.rowwise_scale_inv.as<float>();
  to.columnwise_block_scale_inv = quant.columnwise_scale_inv.as<float>();
  to.scale = quant.scale;
  to.scale_inv = quant.scale_inv;
  to.amax = quant.amax;
  to.power_of_2_scales = quant.power_of_2_scales;
  to.amax_epsilon = quant.amax_epsilon;
  to.wide = Aligned<8>(to.rowwise, to.rowwise == nullptr ? 0 : columns) &&
            Aligned<16>(to.columnwise, to.columnwise == nullptr ? 0 : rows) && columns % 8 == 0;
  return to;
}

// At least one, so that an empty tensor's scale_inv is written.
inline unsigned int TileBlocks(const QuantTarget& to) {
  return static_cast<unsigned int>(std::max<int64_t>(1, TilesAlong(to.rows)) * to.column_tiles);
}

// Runs with a std::integral_constant of the format (E4M3 or E5M2), and of the scaling (one of those
// that WriteTile knows).
template <typename F>
auto WithFloat8Format(QuantFormat format, F run) {
  if (format == kE4M3) return run(std::integral_constant<QuantFormat, kE4M3>());
  return run(std::integral_constant<QuantFormat, kE5M2>());
}
template <typename F>
auto WithTileScaling(QuantScaling scaling, F run) {
  using Q = QuantScaling;
  if (scaling == Q::kBlock1x128) return run(std::integral_constant<Q, Q::kBlock1x128>());
  if (scaling == Q::kBlock128x128) return run(std::integral_constant<Q, Q::kBlock128x128>());
  if (scaling == Q::kTensorCurrent) return run(std::integral_constant<Q, Q::kTensorCurrent>());
  return run(std::integral_constant<Q, Q::kTensor>());
}
constexpr bool IsTileScaling(QuantScaling scaling) {
  return scaling == QuantScaling::kTensor || scaling == QuantScaling::kTensorCurrent ||
         scaling == QuantScaling::kBlock1x128 || scaling == QuantScaling::kBlock128x128;
}

// A tile, and this thread's part of it.
struct TilePlace {
  int tile_row;
  int tile_column;
  int row_group;     // of the thread: rows 8 * row_group ... of the tile
  int column_group;  // a half-warp has one row group and all column groups
  int64_t row;       // of the tensor: the thread's first
  int64_t column;
};
__device__ inline TilePlace PlaceOf(unsigned int index, const QuantTarget& to) {
  TilePlace at;
  at.tile_row = static_cast<int>(index / static_cast<unsigned int>(to.column_tiles));
  at.tile_column = static_cast<int>(index % static_cast<unsigned int>(to.column_tiles));
  at.row_group = static_cast<int>(threadIdx.x) / kTileGroups;
  at.column_group = static_cast<int>(threadIdx.x) % kTileGroups;
  at.row = int64_t{at.tile_row} * kTileSide + at.row_group * kTilePart;
  at.column = int64_t{at.tile_column} * kTileSide + at.column_group * kTilePart;
  return at;
}

// A thread's 8 x 8 values, as they lie in memory (bfloat16 stays packed: 32 registers).
template <typename T>
class Tile {
 public:
  static constexpr int kVectors = kTilePart / kLanes<T>;  // of 16 bytes in a row

  __device__ void Clear() {
#pragma unroll
    for (auto& row : rows_) {
#pragma unroll
      for (uint4& vector : row) vector = uint4{};
    }
  }
  // Rounds to T.
  __device__ void Set(int i, const float (&values)[kTilePart]) {
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      Elements<T, kLanes<T>> elements;
#pragma unroll
      for (int e = 0; e < kLanes<T>; ++e) elements.at[e] = FromFloat<T>(values[v * kLanes<T> + e]);
      rows_[i][v] = std::bit_cast<uint4>(elements);
    }
  }
  __device__ void Get(int i, float (&values)[kTilePart]) const {
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      float part[kLanes<T>];
      Unpack<T>(rows_[i][v], part);
#pragma unroll
      for (int e = 0; e < kLanes<T>; ++e) values[v * kLanes<T> + e] = part[e];
    }
  }
  // Row i from, and to, memory aligned to 16 bytes.
  __device__ void Read(int i, const T* p) {
#pragma unroll
    for (int v = 0; v < kVectors; ++v) rows_[i][v] = reinterpret_cast<const uint4*>(p)[v];
  }
  __device__ void Write(int i, T* p) const {
#pragma unroll
    for (int v = 0; v < kVectors; ++v) reinterpret_cast<uint4*>(p)[v] = rows_[i][v];
  }

 private:
  uint4 rows_[kTilePart][kVectors];
};

// Fills a tile. A producer has kRowsInFlight (1, 2, 4 or 8), a type Held, and
//   Held Load(int64_t row, int64_t column) const     what it reads for 8 values, all loads first
//   void Values(const Held&, int64_t row, int64_t column, float (&values)[8]) const
// Called for rows and groups of 8 columns within the tensor: columns is a multiple of 8.
template <typename T, typename Producer>
__device__ inline void Produce(const TilePlace& at, const QuantTarget& to, const Producer& producer,
                               Tile<T>& tile) {
  constexpr int kInFlight = Producer::kRowsInFlight;
  static_assert(kTilePart % kInFlight == 0);
  const bool inside = at.column < to.columns;
#pragma unroll
  for (int first = 0; first < kTilePart; first += kInFlight) {
    typename Producer::Held held[kInFlight];
#pragma unroll
    for (int u = 0; u < kInFlight; ++u) {
      const int64_t row = at.row + first + u;
      if (inside && row < to.rows) held[u] = producer.Load(row, at.column);
    }
#pragma unroll
    for (int u = 0; u < kInFlight; ++u) {
      const int64_t row = at.row + first + u;
      float values[kTilePart] = {};
      if (inside && row < to.rows) producer.Values(held[u], row, at.column, values);
      tile.Set(first + u, values);
    }
  }
}

// Fills a tile from memory, x [rows, columns]; kWide: in vectors of 16 bytes, to which x and its
// rows are aligned, and columns is a multiple of 8.
template <bool kWide = true, typename T>
__device__ inline void LoadTile(const T* x, int64_t row_stride, const TilePlace& at,
                                const QuantTarget& to, Tile<T>& tile) {
  const T* p = x + at.row * row_stride + at.column;
  if constexpr (kWide) {
    tile.Clear();
    const bool inside = at.column < to.columns;
#pragma unroll
    for (int i = 0; i < kTilePart; ++i) {
      if (inside && at.row + i < to.rows) tile.Read(i, p + i * row_stride);
    }
  } else {
#pragma unroll
    for (int i = 0; i < kTilePart; ++i) {
      float values[kTilePart];
#pragma unroll
      for (int e = 0; e < kTilePart; ++e) {
        const bool inside = at.row + i < to.rows && at.column + e < to.columns;
        values[e] = inside ? ToFloat(p[i * row_stride + e]) : 0.0f;
      }
      tile.Set(i, values);
    }
  }
}

// The largest of |x| and `maximum`; NaN is not counted.
__device__ inline float MaxAbs(const float (&values)[kTilePart], float maximum) {
#pragma unroll
  for (float value : values) maximum = fmaxf(maximum, fabsf(value));
  return maximum;
}

struct WarpMaxima {
  unsigned int bits[kTileWarps];
};
// Of numbers that are not negative (their bits are ordered as they are) in the block's threads: to
// call before a barrier, and to read after it.
__device__ inline void ShareMaximum(float maximum, WarpMaxima& shared) {
  const unsigned int bits = __reduce_max_sync(0xffffffffu, __float_as_uint(maximum));
  if (threadIdx.x % 32 == 0) shared.bits[threadIdx.x / 32] = bits;
}
__device__ inline unsigned int MaximumBits(const WarpMaxima& shared) {
  unsigned int bits = shared.bits[0];
#pragma unroll
  for (int w = 1; w < kTileWarps; ++w) bits = max(bits, shared.bits[w]);
  return bits;
}
// The same maximum in any order of the blocks.
__device__ inline void AccumulateAmax(const WarpMaxima& shared, float* amax) {
  if (threadIdx.x == 0)
    atomicMax(reinterpret_cast<int*>(amax), static_cast<int>(MaximumBits(shared)));
}

// What a block needs besides registers. Free for the next tile after a barrier.
struct NoMaxima {};
struct ColumnMaxima {
  float of_groups[kTileGroups][kTileSide];
  float scales[kTileSide];
};
template <QuantScaling kScaling>
struct TileShared {
  alignas(16) uint2 codes[kTileSide][kTileGroups];  // [column][row group, swizzled]
  WarpMaxima maxima;
  std::conditional_t<kScaling == QuantScaling::kBlock1x128, ColumnMaxima, NoMaxima> columns;
};

namespace cast_transpose_internal {

__device__ inline int64_t CeilTo4(int64_t n) { return (n + 3) / 4 * 4; }

template <QuantFormat kFormat>
__device__ inline uint2 CastRow(const float (&v)[kTilePart], float s) {
  return {CastFour<kFormat>(v[0] * s, v[1] * s, v[2] * s, v[3] * s),
          CastFour<kFormat>(v[4] * s, v[5] * s, v[6] * s, v[7] * s)};
}

// The 4 x 4 bytes of four words, transposed.
__device__ inline void TransposeBytes(uint32_t a, uint32_t b, uint32_t c, uint32_t d,
                                      uint32_t (&out)[4]) {
  const uint32_t ab_low = __byte_perm(a, b, 0x5140), ab_high = __byte_perm(a, b, 0x7362);
  const uint32_t cd_low = __byte_perm(c, d, 0x5140), cd_high = __byte_perm(c, d, 0x7362);
  out[0] = __byte_perm(ab_low, cd_low, 0x5410);
  out[1] = __byte_perm(ab_low, cd_low, 0x7632);
  out[2] = __byte_perm(ab_high, cd_high, 0x5410);
  out[3] = __byte_perm(ab_high, cd_high, 0x7632);
}

template <bool kWide>
__device__ inline void StoreRowwise(const QuantTarget& to, const TilePlace& at,
                                    const uint2 (&codes)[kTilePart]) {
  uint8_t* p = to.rowwise + at.row * to.columns + at.column;
  if constexpr (kWide) {
    if (at.column >= to.columns) return;
#pragma unroll
    for (int i = 0; i < kTilePart; ++i) {
      if (at.row + i < to.rows) *reinterpret_cast<uint2*>(p + i * to.columns) = codes[i];
    }
  } else {
#pragma unroll
    for (int i = 0; i < kTilePart; ++i) {
#pragma unroll
      for (int e = 0; e < kTilePart; ++e) {
        if (at.row + i < to.rows && at.column + e < to.columns)
          p[i * to.columns + e] =
              static_cast<uint8_t>((e < 4 ? codes[i].x : codes[i].y) >> e % 4 * 8);
      }
    }
  }
}

// Four columns of the thread's eight, transposed to their places in shared memory.
template <typename Shared>
__device__ inline void ShareTransposed(const TilePlace& at, int first_column,
                                       const uint32_t (&rows)[kTilePart], Shared& shared) {
  uint32_t top[4], bottom[4];
  TransposeBytes(rows[0], rows[1], rows[2], rows[3], top);
  TransposeBytes(rows[4], rows[5], rows[6], rows[7], bottom);
  const int place = at.row_group ^ at.column_group;
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    shared.codes[at.column_group * kTilePart + first_column + j][place] = {top[j], bottom[j]};
  }
}

template <bool kWide, typename Shared>
__device__ inline void StoreColumnwise(const QuantTarget& to, const TilePlace& at,
                                       const Shared& shared) {
  constexpr int kChunks = kTileSide / 16;  // of 16 rows: two row groups
  const int chunk = static_cast<int>(threadIdx.x) % kChunks;
  const int64_t row = int64_t{at.tile_row} * kTileSide + chunk * 16;
#pragma unroll
  for (int k = 0; k < kTileSide * kChunks / kTileThreads; ++k) {
    const int c = static_cast<int>(threadIdx.x) / kChunks + k * (kTileThreads / kChunks);
    const int64_t column = int64_t{at.tile_column} * kTileSide + c;
    const int swizzle = c / kTilePart;
    const uint4 read = reinterpret_cast<const uint4*>(shared.codes[c])[chunk ^ (swizzle / 2)];
    const uint4 codes = swizzle % 2 == 0 ? read : uint4{read.z, read.w, read.x, read.y};
    if (column >= to.columns) continue;
    uint8_t* p = to.columnwise + column * to.rows + row;
    if constexpr (kWide) {
      if (row < to.rows) *reinterpret_cast<uint4*>(p) = codes;
    } else {
      const uint32_t words[4] = {codes.x, codes.y, codes.z, codes.w};
#pragma unroll
      for (int i = 0; i < 16; ++i) {
        if (row + i < to.rows) p[i] = static_cast<uint8_t>(words[i / 4] >> i % 4 * 8);
      }
    }
  }
}

// One step of a maximum over lanes that differ in `bit`, of which each keeps half of the rows.
template <int kRows>
__device__ inline void HalveRows(float (&maxima)[kTilePart], int bit) {
  const bool upper = (threadIdx.x & bit) != 0;
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    const float kept = upper ? maxima[i + kRows] : maxima[i];
    const float given = upper ? maxima[i] : maxima[i + kRows];
    maxima[i] = fmaxf(kept, __shfl_xor_sync(0xffffffffu, given, bit));
  }
}

// kBlock1x128 rowwise: a half-warp has whole rows. Two of its lanes make a row's scale.
template <QuantFormat kFormat, bool kWide, typename T>
__device__ inline void WriteRowBlocks(const QuantTarget& to, const TilePlace& at,
                                      const Tile<T>& tile) {
  float maxima[kTilePart];
#pragma unroll
  for (int i = 0; i < kTilePart; ++i) {
    float values[kTilePart];
    tile.Get(i, values);
    maxima[i] = MaxAbs(values, 0.0f);
  }
  HalveRows<4>(maxima, 8);
  HalveRows<2>(maxima, 4);
  HalveRows<1>(maxima, 2);
  const float amax = fmaxf(maxima[0], __shfl_xor_sync(0xffffffffu, maxima[0], 1));
  const float own =
      ScaleFromAmax<kFormat>(amax, to.power_of_2_scales, to.amax_epsilon, kLargest<T>);
  const int64_t row = at.row + at.column_group / 2;
  const int64_t scale_columns = CeilTo4(to.rows);
  if (at.column_group % 2 == 0 && row < scale_columns) {
    to.rowwise_block_scale_inv[at.tile_column * scale_columns + row] =
        row < to.rows ? __fdiv_rn(1.0f, own) : 0.0f;
  }
  uint2 codes[kTilePart];
#pragma unroll
  for (int i = 0; i < kTilePart; ++i) {
    float values[kTilePart];
    tile.Get(i, values);
    codes[i] = CastRow<kFormat>(values, __shfl_sync(0xffffffffu, own, 2 * i, kTileGroups));
  }
  StoreRowwise<kWide>(to, at, codes);
}

// kBlock1x128 columnwise: blocks of 128 rows of a column.
template <QuantFormat kFormat, bool kWide, typename T>
__device__ inline void WriteColumnBlocks(const QuantTarget& to, const TilePlace& at,
                                         const Tile<T>& tile,
                                         TileShared<QuantScaling::kBlock1x128>& shared) {
  ColumnMaxima& columns = shared.columns;
  float maxima[kTilePart] = {};
#pragma unroll
  for (int i = 0; i < kTilePart; ++i) {
    float values[kTilePart];
    tile.Get(i, values);
#pragma unroll
    for (int e = 0; e < kTilePart; ++e) maxima[e] = fmaxf(maxima[e], fabsf(values[e]));
  }
  float4* own =
      reinterpret_cast<float4*>(&columns.of_groups[at.row_group][at.column_group * kTilePart]);
  own[0] = {maxima[0], maxima[1], maxima[2], maxima[3]};
  own[1] = {maxima[4], maxima[5], maxima[6], maxima[7]};
  __syncthreads();
  if (threadIdx.x < kTileSide) {
    float amax = 0;
#pragma unroll
    for (int g = 0; g < kTileGroups; ++g) amax = fmaxf(amax, columns.of_groups[g][threadIdx.x]);
    const float scale =
        ScaleFromAmax<kFormat>(amax, to.power_of_2_scales, to.amax_epsilon, kLargest<T>);
    columns.scales[threadIdx.x] = scale;
    const int64_t column = int64_t{at.tile_column} * kTileSide + threadIdx.x;
    const int64_t scale_columns = CeilTo4(to.columns);
    if (column < scale_columns) {
      to.columnwise_block_scale_inv[at.tile_row * scale_columns + column] =
          column < to.columns ? __fdiv_rn(1.0f, scale) : 0.0f;
    }
  }
  __syncthreads();
  const float4* scales =
      reinterpret_cast<const float4*>(&columns.scales[at.column_group * kTilePart]);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float4 s = scales[half];
    uint32_t codes[kTilePart];
#pragma unroll
    for (int i = 0; i < kTilePart; ++i) {
      float values[kTilePart];
      tile.Get(i, values);
      const float* v = &values[half * 4];
      codes[i] = CastFour<kFormat>(v[0] * s.x, v[1] * s.y, v[2] * s.z, v[3] * s.w);
    }
    ShareTransposed(at, half * 4, codes, shared);
  }
  __syncthreads();
  StoreColumnwise<kWide>(to, at, shared);
}

// kBlock128x128: the tile's scale to its place in both orientations, and zeros beyond the last.
__device__ inline void WriteSquareScales(const QuantTarget& to, const TilePlace& at, float scale) {
  const int64_t row_tiles = (to.rows + kTileSide - 1) / kTileSide;
  const auto write = [scale](float* out, int64_t i, int64_t j, int64_t tiles) {
    const int64_t padded = CeilTo4(tiles);
    out[i * padded + j] = __fdiv_rn(1.0f, scale);
    if (j == tiles - 1) {
      for (int64_t k = tiles; k < padded; ++k) out[i * padded + k] = 0;
    }
  };
  if (to.rowwise != nullptr)
    write(to.rowwise_block_scale_inv, at.tile_row, at.tile_column, to.column_tiles);
  if (to.columnwise != nullptr)
    write(to.columnwise_block_scale_inv, at.tile_column, at.tile_row, row_tiles);
}

}  // namespace cast_transpose_internal

// Writes a tile as `to` asks; kWide needs to.wide. All threads of the block call. kTensor: scale is
// read, amax (when given) accumulated. kTensorCurrent: *amax is final and gives the scale. The
// block scalings: not for empty tensors; amax is not used.
template <QuantScaling kScaling, QuantFormat kFormat, bool kWide = true, typename T>
__device__ inline void WriteTile(const QuantTarget& to, const TilePlace& at, const Tile<T>& tile,
                                 TileShared<kScaling>& shared) {
  using namespace cast_transpose_internal;
  static_assert(IsTileScaling(kScaling));
  if constexpr (kScaling == QuantScaling::kBlock1x128) {
    if (to.rowwise != nullptr) WriteRowBlocks<kFormat, kWide>(to, at, tile);
    if (to.columnwise != nullptr) WriteColumnBlocks<kFormat, kWide>(to, at, tile, shared);
  } else {
    const bool counts = kScaling == QuantScaling::kTensor && to.amax != nullptr;
    float maximum = 0;
    if (kScaling == QuantScaling::kBlock128x128 || counts) {
#pragma unroll
      for (int i = 0; i < kTilePart; ++i) {
        float values[kTilePart];
        tile.Get(i, values);
        maximum = MaxAbs(values, maximum);
      }
      ShareMaximum(maximum, shared.maxima);
    }
    float scale;
    if constexpr (kScaling == QuantScaling::kTensor) {
      scale = *to.scale;
    } else if constexpr (kScaling == QuantScaling::kTensorCurrent) {
      scale = ScaleFromAmax<kFormat>(*to.amax, to.power_of_2_scales, to.amax_epsilon);
    } else {
      __syncthreads();
      scale = ScaleFromAmax<kFormat>(__uint_as_float(MaximumBits(shared.maxima)),
                                     to.power_of_2_scales, to.amax_epsilon, kLargest<T>);
    }
    if (threadIdx.x == 0) {
      if constexpr (kScaling == QuantScaling::kBlock128x128) {
        WriteSquareScales(to, at, scale);
      } else if (at.tile_row == 0 && at.tile_column == 0 && to.scale_inv != nullptr) {
        *to.scale_inv = __fdiv_rn(1.0f, scale);
      }
    }
    uint2 codes[kTilePart];
#pragma unroll
    for (int i = 0; i < kTilePart; ++i) {
      float values[kTilePart];
      tile.Get(i, values);
      codes[i] = CastRow<kFormat>(values, scale);
    }
    if (to.rowwise != nullptr) StoreRowwise<kWide>(to, at, codes);
    if (to.columnwise != nullptr) {
      uint32_t left[kTilePart], right[kTilePart];
#pragma unroll
      for (int i = 0; i < kTilePart; ++i) {
        left[i] = codes[i].x;
        right[i] = codes[i].y;
      }
      ShareTransposed(at, 0, left, shared);
      ShareTransposed(at, 4, right, shared);
    }
    if (to.columnwise != nullptr || counts) __syncthreads();
    if (to.columnwise != nullptr) StoreColumnwise<kWide>(to, at, shared);
    if (counts) AccumulateAmax(shared.maxima, to.amax);
  }
}

}  // namespace te::cuda
