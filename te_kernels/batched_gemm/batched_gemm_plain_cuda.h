// The batched product for what cuBLASLt does not take: operands without a stride of 1, and sums
// without terms. One thread a result: right, not fast.
#pragma once

#include "te_kernels/batched_gemm/batched_gemm.h"

namespace te {

Status BatchedGemmPlainCuda(const Exec& exec, const BatchedGemmArgs& args);

}  // namespace te
