#include "te_kernels/quantize/quantize_tile.h"

#include <bit>
#include <cstring>

#include "te_kernels/base/float8.h"
#include "te_kernels/base/philox_fill.h"
#include "te_kernels/base/simd.h"
#include "te_kernels/quantize/four_over_six.h"

namespace te::quantize_internal {
namespace {

constexpr int64_t kHadamard = 16;
constexpr int64_t kMaxBlocks = kTile / 16;

struct E4M3 {
  static uint8_t Encode(float value) { return FloatToFloat8E4M3Bits(value); }
};
struct E5M2 {
  static uint8_t Encode(float value) { return FloatToFloat8E5M2Bits(value); }
};
struct E2M1 {
  static uint8_t Encode(float value) { return FloatToFloat4E2M1Bits(value); }
};

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// ---- Maxima: of magnitude bits, which are ordered as the numbers are ----

template <typename T>
struct BitsOf;
template <>
struct BitsOf<float> {
  using Word = uint32_t;
  static constexpr Word kMagnitude = 0x7fffffffu, kInfinity = 0x7f800000u;
};
template <>
struct BitsOf<bfloat16> {
  using Word = uint16_t;
  static constexpr Word kMagnitude = 0x7fff, kInfinity = 0x7f80;
};

// One AVX-512 register of elements, in the compiler's portable vector type: it does not recognize
// the maxima of the bfloat16 loop.
template <typename T>
struct Maxima {
  using Bits = BitsOf<T>;
  using Word = typename Bits::Word;
  using Words __attribute__((vector_size(64))) = Word;
  static constexpr int64_t kLanes = 64 / sizeof(Word);

  void Include(const T* x, int64_t n) {
    Words v = {};
    if (n >= kLanes) {
      std::memcpy(&v, x, sizeof(v));
    } else {
      std::memcpy(&v, x, static_cast<size_t>(n) * sizeof(T));
    }
    v &= Bits::kMagnitude;
    v = v > Bits::kInfinity ? Words{} : v;
    largest = v > largest ? v : largest;
  }
  // As float32.
  uint32_t Lane(int64_t i) const {
    Word lanes[kLanes];
    std::memcpy(lanes, &largest, sizeof(lanes));
    return static_cast<uint32_t>(lanes[i]) << (32 - 8 * sizeof(Word));
  }

  Words largest = {};
};

template <typename T>
uint32_t MaxAbsBits(const T* x, int64_t n) {
  Maxima<T> maxima;
  for (int64_t i = 0; i < n; i += Maxima<T>::kLanes) maxima.Include(x + i, n - i);
  uint32_t largest = 0;
  const int64_t used = std::min(n, Maxima<T>::kLanes);
  for (int64_t i = 0; i < used; ++i) largest = std::max(largest, maxima.Lane(i));
  return largest;
}

// Of each column over the rows of one block.
template <typename T>
void ColumnMaxAbs(const T* x, int64_t stride, int64_t rows, int64_t columns, float* out) {
  for (int64_t first = 0; first < columns; first += Maxima<T>::kLanes) {
    Maxima<T> maxima;
    for (int64_t r = 0; r < rows; ++r) maxima.Include(x + r * stride + first, columns - first);
    const int64_t n = std::min(columns - first, Maxima<T>::kLanes);
    for (int64_t c = 0; c < n; ++c) out[first + c] = std::bit_cast<float>(maxima.Lane(c));
  }
}

// ---- Scales ----

void StoreScale(const ScaleLayout& layout, int64_t row, int64_t block, const BlockScale& scale) {
  if (layout.data == nullptr) return;
  const int64_t at = row / layout.rows_per_entry * layout.row_stride + block * layout.block_stride;
  if (layout.float32) {
    static_cast<float*>(layout.data)[at] = scale.scale_inv;
  } else {
    static_cast<uint8_t*>(layout.data)[at] = scale.code;
  }
}

template <typename T>
BlockScale ScaleOf(const QuantSpec& out, TensorScale tensor, float amax, const Block<T>& block) {
  return out.four_over_six == FourOverSix::kOff ? BlockScaleFromAmax<T>(out, tensor.scale, amax)
                                                : FourOverSixScale(out, tensor, amax, block);
}

// Multipliers of a tile: rowwise[r][j] for block j of row r, columnwise[i][c] for the block of rows
// i in column c.
struct Multipliers {
  alignas(64) float rowwise[kTile][kMaxBlocks];
  alignas(64) float columnwise[kMaxBlocks][kTile];
};

template <typename T>
void ScaleRows(const Plan& plan, const Tile<T>& tile, Multipliers& out) {
  const int64_t width = plan.block.columns;
  const int64_t first_block = tile.first_column / width;
  for (int64_t r = 0; r < tile.rows; ++r) {
    const TensorScale tensor = plan.OfRow(tile.first_row + r);
    for (int64_t c = 0, j = 0; c < tile.columns; c += width, ++j) {
      const Block<T> block = {.x = tile.x + r * tile.stride + c,
                              .column_stride = 1,
                              .columns = std::min(width, tile.columns - c)};
      const uint32_t bits = MaxAbsBits(block.x, block.columns);
      const BlockScale scale = ScaleOf(plan.out, tensor, std::bit_cast<float>(bits), block);
      StoreScale(plan.rowwise_scales, tile.first_row + r, first_block + j, scale);
      out.rowwise[r][j] = scale.multiplier;
    }
  }
}

template <typename T>
void ScaleColumns(const Plan& plan, const Tile<T>& tile, Multipliers& out) {
  const int64_t height = plan.block.columns;
  const int64_t first_block = tile.first_row / height;
  for (int64_t r = 0, i = 0; r < tile.rows; r += height, ++i) {
    float amax[kTile];
    ColumnMaxAbs(tile.x + r * tile.stride, tile.stride, std::min(height, tile.rows - r),
                 tile.columns, amax);
    for (int64_t c = 0; c < tile.columns; ++c) {
      const Block<T> block = {.x = tile.x + r * tile.stride + c,
                              .column_stride = tile.stride,
                              .columns = std::min(height, tile.rows - r)};
      const BlockScale scale =
          ScaleOf(plan.out, plan.OfColumn(tile.first_column + c), amax[c], block);
      StoreScale(plan.columnwise_scales, tile.first_column + c, first_block + i, scale);
      out.columnwise[i][c] = scale.multiplier;
    }
  }
}

// For the orientations that are asked for: their blocks are the same squares.
template <typename T>
void ScaleSquares(const Plan& plan, const Tile<T>& tile, bool rowwise, bool columnwise,
                  Multipliers& out) {
  const int64_t side = plan.block.rows;
  for (int64_t r = 0, i = 0; r < tile.rows; r += side, ++i) {
    const int64_t height = std::min(side, tile.rows - r);
    float amax[kTile];
    ColumnMaxAbs(tile.x + r * tile.stride, tile.stride, height, tile.columns, amax);
    for (int64_t c = 0, j = 0; c < tile.columns; c += side, ++j) {
      const int64_t width = std::min(side, tile.columns - c);
      const float largest = *std::max_element(amax + c, amax + c + width);
      const T* x = tile.x + r * tile.stride + c;
      if (rowwise) {
        const BlockScale scale = ScaleOf(plan.out, plan.rowwise_scale, largest,
                                         Block<T>{.x = x,
                                                  .row_stride = tile.stride,
                                                  .column_stride = 1,
                                                  .rows = height,
                                                  .columns = width});
        for (int64_t k = r; k < r + height; ++k) {
          StoreScale(plan.rowwise_scales, tile.first_row + k, tile.first_column / side + j, scale);
          out.rowwise[k][j] = scale.multiplier;
        }
      }
      if (columnwise) {
        const BlockScale scale = ScaleOf(plan.out, plan.columnwise_scale, largest,
                                         Block<T>{.x = x,
                                                  .row_stride = 1,
                                                  .column_stride = tile.stride,
                                                  .rows = width,
                                                  .columns = height});
        for (int64_t k = c; k < c + width; ++k) {
          StoreScale(plan.columnwise_scales, tile.first_column + k, tile.first_row / side + i,
                     scale);
          out.columnwise[i][k] = scale.multiplier;
        }
      }
    }
  }
}

// ---- Codes: one byte an element in codes[r * kTile + c], E2M1 as well ----

template <typename Format, typename T>
void EncodeRows(const Plan& plan, const Tile<T>& tile, const Multipliers& by, uint8_t* codes) {
  const int64_t width = plan.block.columns;
  for (int64_t r = 0; r < tile.rows; ++r) {
    for (int64_t first = 0; first < tile.columns; first += width) {
      const T* x = tile.x + r * tile.stride + first;
      const float multiplier = by.rowwise[r][first / width];
      uint8_t* to = codes + r * kTile + first;
      const int64_t n = std::min(width, tile.columns - first);
#pragma omp simd
      for (int64_t c = 0; c < n; ++c) to[c] = Format::Encode(LoadFloat(x + c) * multiplier);
    }
  }
}

template <typename Format, typename T>
void EncodeColumns(const Plan& plan, const Tile<T>& tile, const Multipliers& by, uint8_t* codes) {
  for (int64_t r = 0; r < tile.rows; ++r) {
    const T* x = tile.x + r * tile.stride;
    const float* multipliers = by.columnwise[r / plan.block.columns];
    uint8_t* to = codes + r * kTile;
#pragma omp simd
    for (int64_t c = 0; c < tile.columns; ++c) {
      to[c] = Format::Encode(LoadFloat(x + c) * multipliers[c]);
    }
  }
}

// Numbers [first, first + n) of the sequence; n <= kTile.
void FillUniform(const RandomState& random, int64_t first, int64_t n, float* out) {
  uint32_t numbers[kTile + 8];
  const int64_t skip = first % 4;
  PhiloxFill(random, static_cast<uint64_t>(first / 4), CeilDiv(skip + n, 4), numbers);
  for (int64_t i = 0; i < n; ++i) out[i] = Philox::ToUniform(numbers[skip + i]);
}

template <typename T>
void EncodeRowsStochastically(const Plan& plan, const Tile<T>& tile, const Multipliers& by,
                              uint8_t* codes) {
  float uniform[kTile];
  for (int64_t r = 0; r < tile.rows; ++r) {
    FillUniform(plan.out.random, (tile.first_row + r) * plan.columns + tile.first_column,
                tile.columns, uniform);
    for (int64_t c = 0; c < tile.columns; ++c) {
      const float x = LoadFloat(tile.x + r * tile.stride + c);
      codes[r * kTile + c] =
          FloatToFloat4E2M1Bits(x * by.rowwise[r][c / plan.block.columns], uniform[c]);
    }
  }
}

template <typename T>
void EncodeColumnsStochastically(const Plan& plan, const Tile<T>& tile, const Multipliers& by,
                                 uint8_t* codes) {
  float uniform[kTile];
  for (int64_t c = 0; c < tile.columns; ++c) {
    FillUniform(plan.out.random, (tile.first_column + c) * plan.rows + tile.first_row, tile.rows,
                uniform);
    for (int64_t r = 0; r < tile.rows; ++r) {
      const float x = LoadFloat(tile.x + r * tile.stride + c);
      codes[r * kTile + c] =
          FloatToFloat4E2M1Bits(x * by.columnwise[r / plan.block.columns][c], uniform[r]);
    }
  }
}

// ---- Stores ----

using Bytes = uint8_t __attribute__((vector_size(16)));

// 16 x 16 bytes: in round k, rows that stand 8 apart are interleaved; after four rounds byte (r, c)
// is at (c, r).
void Transpose16(const uint8_t* from, uint8_t* to) {
  constexpr Bytes kLow = {0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23};
  constexpr Bytes kHigh = {8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  Bytes rows[16], next[16];
  for (int r = 0; r < 16; ++r) std::memcpy(&rows[r], from + r * kTile, 16);
  for (int round = 0; round < 4; ++round) {
    for (int r = 0; r < 8; ++r) {
      next[2 * r] = __builtin_shuffle(rows[r], rows[r + 8], kLow);
      next[2 * r + 1] = __builtin_shuffle(rows[r], rows[r + 8], kHigh);
    }
    std::memcpy(rows, next, sizeof(rows));
  }
  for (int r = 0; r < 16; ++r) std::memcpy(to + r * kTile, &rows[r], 16);
}

void Transpose(const uint8_t* codes, int64_t rows, int64_t columns, uint8_t* to) {
  for (int64_t r = 0; r < rows; r += 16) {
    for (int64_t c = 0; c < columns; c += 16) {
      Transpose16(codes + r * kTile + c, to + c * kTile + r);
    }
  }
}

void StoreCodes(const uint8_t* codes, int64_t rows, int64_t columns, int64_t first_row,
                int64_t first_column, const TensorView& data, bool packed) {
  const int64_t stride = data.dim(1);
  for (int64_t r = 0; r < rows; ++r) {
    const uint8_t* from = codes + r * kTile;
    uint8_t* to = data.as<uint8_t>() + (first_row + r) * stride;
    if (!packed) {
      std::memcpy(to + first_column, from, static_cast<size_t>(columns));
      continue;
    }
    to += first_column / 2;
    for (int64_t c = 0; c < columns / 2; ++c) {
      to[c] = static_cast<uint8_t>(from[2 * c] | from[2 * c + 1] << 4);
    }
    if (columns % 2 != 0) to[columns / 2] = from[columns - 1];
  }
}

void StoreTransposed(const Plan& plan, const uint8_t* codes, int64_t rows, int64_t columns,
                     int64_t first_row, int64_t first_column) {
  alignas(64) uint8_t transposed[kTile * kTile];
  Transpose(codes, rows, columns, transposed);
  StoreCodes(transposed, columns, rows, first_column, first_row, plan.out.columnwise_data,
             plan.out.format == QuantFormat::kFloat4E2M1);
}

template <typename T>
void Rows(const Plan& plan, const Tile<T>& tile, const Multipliers& by, uint8_t* codes) {
  switch (plan.out.format) {
    case QuantFormat::kFloat8E4M3:
      return EncodeRows<E4M3>(plan, tile, by, codes);
    case QuantFormat::kFloat8E5M2:
      return EncodeRows<E5M2>(plan, tile, by, codes);
    default:
      if (plan.out.stochastic_rounding) return EncodeRowsStochastically(plan, tile, by, codes);
      return EncodeRows<E2M1>(plan, tile, by, codes);
  }
}

template <typename T>
void Columns(const Plan& plan, const Tile<T>& tile, const Multipliers& by, uint8_t* codes) {
  switch (plan.out.format) {
    case QuantFormat::kFloat8E4M3:
      return EncodeColumns<E4M3>(plan, tile, by, codes);
    case QuantFormat::kFloat8E5M2:
      return EncodeColumns<E5M2>(plan, tile, by, codes);
    default:
      if (plan.out.stochastic_rounding) return EncodeColumnsStochastically(plan, tile, by, codes);
      return EncodeColumns<E2M1>(plan, tile, by, codes);
  }
}

template <typename T>
void Scale(const Plan& plan, const Tile<T>& tile, bool rowwise, bool columnwise, Multipliers& out) {
  if (plan.block.rows > 1) return ScaleSquares(plan, tile, rowwise, columnwise, out);
  if (rowwise) ScaleRows(plan, tile, out);
  if (columnwise) ScaleColumns(plan, tile, out);
}

void ScaleByTensor(const Plan& plan, Multipliers& out) {
  for (auto& row : out.rowwise) row[0] = plan.rowwise_scale.scale;
  std::fill_n(out.columnwise[0], kTile, plan.columnwise_scale.scale);
}

ScaleLayout LayoutOf(QuantScaling scaling, const TensorView& scales) {
  ScaleLayout layout;
  if (scales.rank() == 0) return layout;
  layout.data = scales.data();
  layout.float32 = BlockScaleDType(scaling) == DType::kFloat32;
  layout.row_stride = scales.dim(1);
  layout.block_stride = 1;
  if (scaling == QuantScaling::kBlock1x128) std::swap(layout.row_stride, layout.block_stride);
  if (scaling == QuantScaling::kBlock128x128) layout.rows_per_entry = kTile;
  return layout;
}

}  // namespace

Plan::Plan(const QuantizeArgs& args)
    : out(args.out),
      rows(args.x.dim(0)),
      columns(args.x.dim(1)),
      rowwise(out.rowwise_data.rank() != 0),
      columnwise(out.columnwise_data.rank() != 0),
      block(BlockOf(out.scaling)) {
  if (block.rows == 0) block = {kTile, kTile};
  if (out.stochastic_rounding) out.random = out.random.Resolved();
  if (rowwise) rowwise_scales = LayoutOf(out.scaling, out.rowwise_scale_inv);
  if (columnwise) columnwise_scales = LayoutOf(out.scaling, out.columnwise_scale_inv);
}

template <typename T>
uint32_t MaxAbsBits(const Tile<T>& tile) {
  float largest[kTile];
  ColumnMaxAbs(tile.x, tile.stride, tile.rows, tile.columns, largest);
  return std::bit_cast<uint32_t>(*std::max_element(largest, largest + tile.columns));
}

template <typename T>
void RowMaxAbsBits(const Tile<T>& tile, uint32_t* rows) {
  for (int64_t r = 0; r < tile.rows; ++r)
    rows[r] = MaxAbsBits(tile.x + r * tile.stride, tile.columns);
}

template <typename T>
void ColumnMaxAbsBits(const Tile<T>& tile, uint32_t* columns) {
  float largest[kTile];
  ColumnMaxAbs(tile.x, tile.stride, tile.rows, tile.columns, largest);
  for (int64_t c = 0; c < tile.columns; ++c) columns[c] = std::bit_cast<uint32_t>(largest[c]);
}

template <typename T>
Tile<T> Transformed(const Tile<T>& tile, float factor, T* storage) {
  constexpr uint32_t kNegative = 0b1101011111101000;  // bit i: sign i is -1
  for (int64_t first = 0; first < tile.rows; first += kHadamard) {
    const T* x = tile.x + first * tile.stride;
    T* to = storage + first * kTile;
    if (tile.rows - first < kHadamard) {
      const float by = factor / kHadamardFactor;  // 1, but for very large numbers
      for (int64_t r = 0; r < tile.rows - first; ++r) {
        for (int64_t c = 0; c < tile.columns; ++c)
          StoreRounded(by * LoadFloat(x + r * tile.stride + c), to + r * kTile + c);
      }
      break;
    }
    alignas(64) float v[kHadamard][kTile];
    for (int64_t r = 0; r < kHadamard; ++r) {
      // Before the sums, which would overflow sooner.
      const float by = (kNegative >> r & 1u) != 0 ? -factor : factor;
      for (int64_t c = 0; c < tile.columns; ++c) {
        v[r][c] = by * LoadFloat(x + r * tile.stride + c);
      }
    }
    for (int64_t apart = 1; apart < kHadamard; apart *= 2) {
      for (int64_t r = 0; r < kHadamard; ++r) {
        if ((r & apart) != 0) continue;
        for (int64_t c = 0; c < tile.columns; ++c) {
          const float a = v[r][c], b = v[r + apart][c];
          v[r][c] = a + b;
          v[r + apart][c] = a - b;
        }
      }
    }
    for (int64_t r = 0; r < kHadamard; ++r) {
      for (int64_t c = 0; c < tile.columns; ++c) StoreRounded(v[r][c], to + r * kTile + c);
    }
  }
  Tile<T> out = tile;
  out.x = storage;
  out.stride = kTile;
  return out;
}

template <typename T>
void QuantizeTile(const Plan& plan, const Tile<T>& tile) {
  alignas(64) uint8_t codes[kTile * kTile];
  Multipliers by;
  const bool whole = BlockOf(plan.out.scaling).rows == 0;
  const bool transform = plan.out.random_hadamard && plan.columnwise;
  const auto scale = [&](const Tile<T>& from, bool rowwise, bool columnwise) {
    if (whole) return ScaleByTensor(plan, by);
    Scale(plan, from, rowwise, columnwise, by);
  };
  scale(tile, plan.rowwise, plan.columnwise && !transform);
  if (plan.rowwise) {
    Rows(plan, tile, by, codes);
    StoreCodes(codes, tile.rows, tile.columns, tile.first_row, tile.first_column,
               plan.out.rowwise_data, plan.out.format == QuantFormat::kFloat4E2M1);
  }
  if (!plan.columnwise) return;
  if (transform) {
    alignas(64) T storage[kTile * kTile];
    const Tile<T> transformed = Transformed(tile, plan.hadamard_factor, storage);
    scale(transformed, false, true);
    Columns(plan, transformed, by, codes);
  } else if (!plan.rowwise || plan.block.rows == 1 || plan.out.stochastic_rounding ||
             plan.out.four_over_six != FourOverSix::kOff) {
    Columns(plan, tile, by, codes);
  }  // else the codes of the rows are those of the columns
  StoreTransposed(plan, codes, tile.rows, tile.columns, tile.first_row, tile.first_column);
}

#define TE_QUANTIZE_TILE(T)                                  \
  template uint32_t MaxAbsBits(const Tile<T>&);              \
  template void RowMaxAbsBits(const Tile<T>&, uint32_t*);    \
  template void ColumnMaxAbsBits(const Tile<T>&, uint32_t*); \
  template Tile<T> Transformed(const Tile<T>&, float, T*);   \
  template void QuantizeTile(const Plan&, const Tile<T>&)
TE_QUANTIZE_TILE(float);
TE_QUANTIZE_TILE(bfloat16);
#undef TE_QUANTIZE_TILE

}  // namespace te::quantize_internal
