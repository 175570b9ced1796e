// Activations on CUDA that write FP8 copies themselves: one pass over memory.
#pragma once

#include "te_kernels/activation/activation.h"

namespace te::activation {

// Whether they take these (valid) arguments: bfloat16, a scale known beforehand, whole vectors.
bool FusesForward(const ActivationForwardArgs& args);
bool FusesBackward(const ActivationBackwardArgs& args);

Status ForwardFloat8Cuda(const Exec& exec, const ActivationForwardArgs& args);
Status BackwardFloat8Cuda(const Exec& exec, const ActivationBackwardArgs& args);

}  // namespace te::activation
