// The values of a quantized tensor: y = code * scale_inv, in float32, rounded once to y's dtype.
//
// x: one orientation of a QuantSpec, kRowwise as [M, K] or kColumnwise as what it holds: [K, M]
// (not transposed back). y: float32 or bfloat16 of that shape, inner stride 1. The random Hadamard
// transform is not undone. Bitwise the same on CPU and CUDA. Equation: quantize.h.
//
// y quantized (x then E4M3 or E5M2): codes of one scale, or of blocks, become others, transposed
// ones included, as Quantize makes them of the dense y; y.dense absent is not written. y's memory
// is not x's.
#pragma once

#include "te_kernels/base/exec.h"
#include "te_kernels/base/quant_spec.h"

namespace te {

enum class Orientation : int32_t { kRowwise = 0, kColumnwise = 1 };

struct DequantizeArgs {
  QuantSpec x;
  Orientation orientation = Orientation::kRowwise;
  Sink y;
  DType dtype = DType::kBFloat16;  // of y, where y.dense is absent
};

// Of y. Without y.dense the shape is that of x's codes.
Shape DequantizedShape(const DequantizeArgs& args);
DType DequantizedDType(const DequantizeArgs& args);

Status ValidateDequantize(const DequantizeArgs& args);
Status DequantizeCpu(const Exec& exec, const DequantizeArgs& args);
Status DequantizeCuda(const Exec& exec, const DequantizeArgs& args);

}  // namespace te
