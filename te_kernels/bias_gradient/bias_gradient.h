// Gradient of a bias: dbias[n] (+)= sum_t dy[t, n]. dy [T, N] of {float32, bfloat16}, inner stride
// 1; dbias [N] of that dtype or float32. Sum in float32 in a fixed order: bitwise repeatable, for
// any number of threads.
#pragma once

#include "te_kernels/base/exec.h"
#include "te_kernels/base/view.h"

namespace te {

struct BiasGradientArgs {
  ConstTensorView dy;
  TensorView dbias;
  bool accumulate = false;
};

Status ValidateBiasGradient(const BiasGradientArgs& args);
Status BiasGradientCpu(const Exec& exec, const BiasGradientArgs& args);
Status BiasGradientCuda(const Exec& exec, const BiasGradientArgs& args);

}  // namespace te
