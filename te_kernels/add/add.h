// Element-wise sum: out = a + b. Dense tensors of one shape and one dtype of {float32, bfloat16};
// arithmetic in float32; out may be a or b.
#pragma once

#include "te_kernels/base/exec.h"
#include "te_kernels/base/view.h"

namespace te {

struct AddArgs {
  ConstTensorView a;
  ConstTensorView b;
  TensorView out;
};

Status ValidateAdd(const AddArgs& args);
Status AddCpu(const Exec& exec, const AddArgs& args);
Status AddCuda(const Exec& exec, const AddArgs& args);

}  // namespace te
