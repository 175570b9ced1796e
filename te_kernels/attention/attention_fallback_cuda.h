// Attention for everything that cuDNN does not take: the whole contract of attention.h in plain
// FP32 arithmetic, without tensor cores. Arguments are validated by the caller. Asynchronous, and
// capturable in a CUDA graph.
#pragma once

#include "te_kernels/attention/attention.h"

namespace te {

Status AttentionForwardFallbackCuda(const Exec& exec, const AttentionForwardArgs& args);
Status AttentionBackwardFallbackCuda(const Exec& exec, const AttentionBackwardArgs& args);

}  // namespace te
