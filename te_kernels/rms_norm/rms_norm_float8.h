// RMSNorm on CUDA that writes FP8 copies itself: one pass over memory.
#pragma once

#include "te_kernels/rms_norm/rms_norm.h"

namespace te::norm {

// Whether it takes these (valid) arguments: bfloat16, a scale known beforehand, whole vectors, rows
// of which 16 fit into shared memory as codes.
bool FusesForward(const RmsNormForwardArgs& args);
bool FusesBackward(const RmsNormBackwardArgs& args);

Status RmsNormForwardFloat8Cuda(const Exec& exec, const RmsNormForwardArgs& args);
Status RmsNormBackwardFloat8Cuda(const Exec& exec, const RmsNormBackwardArgs& args);

}  // namespace te::norm
