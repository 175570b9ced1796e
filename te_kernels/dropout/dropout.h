// Dropout, with the bias before it and the residual after it, in one pass:
//   forward:  out[t, h] = residual[t, h] + keep(t, h) * (x[t, h] + bias[h]) / (1 - p)
//   backward: dx[t, h] = keep(t, h) * dout[t, h] / (1 - p)
// keep(t, h) = ToUniform(random number t H + h of `random`) >= p (philox.h): no mask is stored, and
// every device drops the same elements. p == 1 drops all; p == 0 is bias + residual addition.
//
// x, residual, out, dout, dx: [T, H], one dtype of {float32, bfloat16}, dense; bias [H] of that
// dtype. Arithmetic in float32, one rounding. out may be x or residual; dx may be dout. bias and
// residual are optional.
#pragma once

#include "te_kernels/base/exec.h"
#include "te_kernels/base/philox.h"
#include "te_kernels/base/view.h"

namespace te {

struct DropoutForwardArgs {
  ConstTensorView x;
  ConstTensorView bias;
  ConstTensorView residual;
  float p = 0;
  RandomState random;
  TensorView out;
};

struct DropoutBackwardArgs {
  ConstTensorView dout;
  float p = 0;
  RandomState random;
  TensorView dx;
};

Status ValidateDropoutForward(const DropoutForwardArgs& args);
Status ValidateDropoutBackward(const DropoutBackwardArgs& args);
Status DropoutForwardCpu(const Exec& exec, const DropoutForwardArgs& args);
Status DropoutForwardCuda(const Exec& exec, const DropoutForwardArgs& args);
Status DropoutBackwardCpu(const Exec& exec, const DropoutBackwardArgs& args);
Status DropoutBackwardCuda(const Exec& exec, const DropoutBackwardArgs& args);

}  // namespace te
