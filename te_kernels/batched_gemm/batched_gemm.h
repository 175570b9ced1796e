// Batched matrix product: d[i, j] = alpha * a[i, j] b[i, j] (+ beta * d[i, j]), for all i, j.
//
// a [B0, B1, M, K], b [B0, B1, K, N], d [B0, B1, M, N], any strides (a transposed operand is a
// transposed view; a stride of 0 in a batch dimension of a or b broadcasts); d's inner stride is 1
// and it does not overlap a or b. dtypes: a and b share one of {float32, bfloat16}; d has it too or
// is float32. Accumulation in float32. beta is 0 or 1.
#pragma once

#include "te_kernels/base/exec.h"
#include "te_kernels/base/view.h"

namespace te {

struct BatchedGemmArgs {
  ConstTensorView a;
  ConstTensorView b;
  TensorView d;
  float alpha = 1;
  float beta = 0;
};

Status ValidateBatchedGemm(const BatchedGemmArgs& args);
Status BatchedGemmCpu(const Exec& exec, const BatchedGemmArgs& args);
Status BatchedGemmCuda(const Exec& exec, const BatchedGemmArgs& args);

}  // namespace te
