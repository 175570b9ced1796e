// Attention through cuDNN's fused engines.
#pragma once

#include "te_kernels/attention/attention.h"

namespace te {

// Runs the operation when cuDNN has a deterministic engine for it and says so; false, with nothing
// done, otherwise: float32, dropout (its random numbers are not ours), arbitrary masks, padding
// that may stand on the left, head dimensions that are no multiple of 8 or above 256.
StatusOr<bool> AttentionForwardCudnn(const Exec& exec, const AttentionForwardArgs& args);
StatusOr<bool> AttentionBackwardCudnn(const Exec& exec, const AttentionBackwardArgs& args);

}  // namespace te
