// Sums for the step's scalars: *out (+)= sum_i x[i]^2, or sum_i x[i]. x: dense, {float32,
// bfloat16, float64}; out: one double of device memory. Chunks of fixed size are summed pairwise:
// the same bits for any number of threads. float64 is there for sums of sums: a GPU gives them one
// block.
#pragma once

#include "te_kernels/base/exec.h"
#include "te_kernels/base/view.h"

namespace te {

struct SumArgs {
  ConstTensorView x;
  bool squared = true;
  bool accumulate = false;
  double* out = nullptr;
};

Status ValidateSum(const SumArgs& args);
Status SumCpu(const Exec& exec, const SumArgs& args);
Status SumCuda(const Exec& exec, const SumArgs& args);

}  // namespace te
