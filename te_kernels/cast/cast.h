// Copies a tensor, converting its elements: y = scale * x, rounded to nearest even.
//
// x, y: one shape, any strides, no overlap (or exactly the same memory and dtype); dtypes float32,
// bfloat16, float16, float64 in any pair (int32 <-> int64 and equal types of any kind with scale
// 1). scale is applied in float32 (float64 when either side is float64), and the product is rounded
// once. A value beyond the range of y's dtype becomes infinity, as in the reference; int64 -> int32
// saturates (an id beyond int32 must not become a valid one).
#pragma once

#include "te_kernels/base/exec.h"
#include "te_kernels/base/view.h"

namespace te {

struct CastArgs {
  ConstTensorView x;
  TensorView y;
  float scale = 1;
};

Status ValidateCast(const CastArgs& args);
Status CastCpu(const Exec& exec, const CastArgs& args);
Status CastCuda(const Exec& exec, const CastArgs& args);

}  // namespace te
