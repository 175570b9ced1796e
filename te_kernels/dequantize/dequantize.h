// The values of a quantized tensor: y = code * scale_inv, in float32, rounded once to y's dtype.
//
// x: one orientation of a QuantSpec, kRowwise as [M, K] or kColumnwise as what it holds: [K, M]
// (not transposed back). y: float32 or bfloat16 of that shape, inner stride 1. The random Hadamard
// transform is not undone. Bitwise the same on CPU and CUDA. Equation: quantize.h.
#pragma once

#include "te_kernels/base/exec.h"
#include "te_kernels/base/quant_spec.h"

namespace te {

enum class Orientation : int32_t { kRowwise = 0, kColumnwise = 1 };

struct DequantizeArgs {
  QuantSpec x;
  Orientation orientation = Orientation::kRowwise;
  TensorView y;
};

Status ValidateDequantize(const DequantizeArgs& args);
Status DequantizeCpu(const Exec& exec, const DequantizeArgs& args);
Status DequantizeCuda(const Exec& exec, const DequantizeArgs& args);

}  // namespace te
