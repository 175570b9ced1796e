// The transpose of a matrix of bytes: y[c, r] = x[r, c]. x uint8 [R, C], y uint8 [C, R], both
// dense, in memory of their own. Exact. For FP8 codes of which only one orientation is kept:
// Hopper's dgrad reads a weight by columns.
#pragma once

#include "te_kernels/base/exec.h"
#include "te_kernels/base/view.h"

namespace te {

struct TransposeArgs {
  ConstTensorView x;
  TensorView y;
};

Status ValidateTranspose(const TransposeArgs& args);
Status TransposeCpu(const Exec& exec, const TransposeArgs& args);
Status TransposeCuda(const Exec& exec, const TransposeArgs& args);

}  // namespace te
