// One tile of the CPU's quantize: maxima, scales, codes in both orientations.
#pragma once

#include <algorithm>
#include <cstdint>

#include "te_kernels/base/dtype.h"
#include "te_kernels/quantize/quantize.h"
#include "te_kernels/quantize/quantize_scales.h"

namespace te::quantize_internal {

inline constexpr int64_t kTile = 128;

// Of the random Hadamard transform: 16 terms of +-1/4 make it orthogonal.
inline constexpr float kHadamardFactor = 0.25f;

// Where the block scales of an orientation lie: entry (row, block) at row / rows_per_entry *
// row_stride + block * block_stride.
struct ScaleLayout {
  void* data = nullptr;
  bool float32 = false;
  int64_t rows_per_entry = 1;
  int64_t row_stride = 0;
  int64_t block_stride = 0;
};

// What all tiles share.
struct Plan {
  explicit Plan(const QuantizeArgs& args);

  QuantSpec out;  // with its random state resolved
  int64_t rows = 0;
  int64_t columns = 0;
  bool rowwise = false;
  bool columnwise = false;
  QuantBlock block;  // kTile x kTile where the whole tensor shares a scale
  TensorScale rowwise_scale;
  TensorScale columnwise_scale;
  float hadamard_factor = kHadamardFactor;  // smaller where the transformed tensor overflows
  // row_scaled: the amax of each row and of each column; else null.
  const float* row_amaxes = nullptr;
  const float* column_amaxes = nullptr;
  ScaleLayout rowwise_scales;
  ScaleLayout columnwise_scales;

  TensorScale OfRow(int64_t row) const {
    return row_amaxes == nullptr ? rowwise_scale : Nvfp4TensorScale(out, row_amaxes[row]);
  }
  TensorScale OfColumn(int64_t column) const {
    return column_amaxes == nullptr ? columnwise_scale
                                    : Nvfp4TensorScale(out, column_amaxes[column]);
  }
};

template <typename T>
struct Tile {
  const T* x = nullptr;
  int64_t stride = 0;
  int64_t first_row = 0;
  int64_t first_column = 0;
  int64_t rows = 0;  // <= kTile
  int64_t columns = 0;
};

// Bits of the largest |x|, NaN not counted.
template <typename T>
uint32_t MaxAbsBits(const Tile<T>& tile);

// The same of each row and of each column.
template <typename T>
void RowMaxAbsBits(const Tile<T>& tile, uint32_t* rows);
template <typename T>
void ColumnMaxAbsBits(const Tile<T>& tile, uint32_t* columns);

// The tile of which the columnwise copy is made with random_hadamard, in `storage` [kTile, kTile];
// all of it times factor / kHadamardFactor.
template <typename T>
Tile<T> Transformed(const Tile<T>& tile, float factor, T* storage);

template <typename T>
void QuantizeTile(const Plan& plan, const Tile<T>& tile);

}  // namespace te::quantize_internal
