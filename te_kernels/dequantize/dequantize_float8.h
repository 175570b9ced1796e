// Dequantize on CUDA that writes FP8 copies itself: one pass over memory.
#pragma once

#include "te_kernels/dequantize/dequantize.h"

namespace te::dequantize {

// Whether it takes these (valid) arguments: codes of one scale into codes of one known beforehand,
// through bfloat16, whole vectors, no dense y.
bool FusesFloat8(const DequantizeArgs& args);

Status DequantizeFloat8Cuda(const Exec& exec, const DequantizeArgs& args);

}  // namespace te::dequantize
