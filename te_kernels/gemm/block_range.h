// CPU products at the edges of float32: what block scales make of codes may lie beyond it, or so
// close to 0 that processors take it for 0.
#pragma once

#include "te_kernels/base/exec.h"
#include "te_kernels/gemm/gemm_quantized.h"

namespace te {

// Values of an operand whose scales stand in blocks of 128 or 32, in double, where none overflows.
class BlockRange {
 public:
  static bool Applies(const QuantSpec& quant);
  explicit BlockRange(const QuantizedOperand& operand);

  int64_t rows() const { return rows_; }
  int64_t columns() const { return columns_; }
  // Whether some value, not 0, lies below the normal numbers of float32 and bfloat16, 2^-126.
  bool HasSubnormals(const Exec& exec) const;
  // What no |value| of the row exceeds: its largest scale times the largest code.
  double Bound(int64_t row) const;
  // The row's values.
  void DecodeRow(int64_t row, double* out) const;

 private:
  double Scale(int64_t row, int64_t block) const;

  QuantScaling scaling_;
  int64_t rows_;
  int64_t columns_;
  int64_t width_;  // of a block
  const uint8_t* codes_;
  const float* values_;  // of all codes
  double largest_code_;
  double least_code_;  // above 0
  const void* scales_;
  int64_t scales_stride_;
};

// Of d = a b^T, made in float32: the elements that may have met a number, or a sum, beyond float32
// on the way are made again in double. For operands of other scalings nothing is done: their codes'
// products are small numbers.
Status MendOverflow(const Exec& exec, const QuantizedOperand& a, const QuantizedOperand& b,
                    const TensorView& d);

}  // namespace te
