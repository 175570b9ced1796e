// RoPE on CUDA that writes FP8 copies itself, from bfloat16 or from codes: one pass over memory.
#pragma once

#include "te_kernels/rope/rope.h"

namespace te::rope {

// Whether it takes these (valid) arguments: bfloat16 or what codes stand for in it, a scale known
// beforehand, heads that lie side by side, are rotated whole and fill tiles of 128 columns (16, 32,
// 64 or 128 elements), whole vectors.
bool FusesFloat8(const RopeArgs& args);

Status RopeFloat8Cuda(const Exec& exec, const RopeArgs& args);

}  // namespace te::rope
