// Element-wise product: out = a * b. Dense tensors of one shape and one dtype of {float32,
// bfloat16}; arithmetic in float32; out may be a or b. (Its gradient is two more products: da =
// dout * b, db = dout * a.)
#pragma once

#include "te_kernels/base/exec.h"
#include "te_kernels/base/view.h"

namespace te {

struct MultiplyArgs {
  ConstTensorView a;
  ConstTensorView b;
  TensorView out;
};

Status ValidateMultiply(const MultiplyArgs& args);
Status MultiplyCpu(const Exec& exec, const MultiplyArgs& args);
Status MultiplyCuda(const Exec& exec, const MultiplyArgs& args);

}  // namespace te
