// How many values of x are no numbers in another dtype: *count += number of i for which x[i],
// rounded to nearest even to `as`, is NaN or infinite. x: dense, {float32, bfloat16}; `as`:
// {float64, float32, bfloat16, float16}, x's own for what is not finite already; count: one int64
// of device memory. The converted values are not stored anywhere: a conversion that rounds to
// nearest is infinite from a fixed magnitude on, which each |x[i]| is compared with.
#pragma once

#include <cstdint>

#include "te_kernels/base/exec.h"
#include "te_kernels/base/view.h"

namespace te {

struct CountNonfiniteArgs {
  ConstTensorView x;
  DType as = DType::kFloat32;
  int64_t* count = nullptr;
};

Status ValidateCountNonfinite(const CountNonfiniteArgs& args);
Status CountNonfiniteCpu(const Exec& exec, const CountNonfiniteArgs& args);
Status CountNonfiniteCuda(const Exec& exec, const CountNonfiniteArgs& args);

// The bits of the least float32 magnitude that is infinite as `as`; NaNs' bits are larger.
uint32_t LeastNonfiniteBits(DType as);

}  // namespace te
