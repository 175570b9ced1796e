// NVFP4's four_over_six, as quantize.h defines it: which of two scales a block is stored with.
#pragma once

#include <cstdint>

#include "te_kernels/quantize/quantize_scales.h"

namespace te::quantize_internal {

// A block in one orientation: element (r, c) at x[r * row_stride + c * column_stride], where c runs
// along the orientation's rows. At most 16 x 16; what is missing counts as zeros.
template <typename T>
struct Block {
  const T* x = nullptr;
  int64_t row_stride = 0;
  int64_t column_stride = 0;
  int64_t rows = 1;
  int64_t columns = 0;
};

// amax: the block's.
template <typename T>
BlockScale FourOverSixScale(const QuantSpec& out, TensorScale tensor, float amax,
                            const Block<T>& block);

}  // namespace te::quantize_internal
