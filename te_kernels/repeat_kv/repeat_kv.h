// Hugging Face's repeat_kv: y[b, h, s, :] = x[b, h / r, s, :] with r = n / g; backward: dx[b, g',
// s, :] = sum over the r heads of group g' of dy, in float32, in the order of h.
//
// x, dx [B, g, S, d]; y, dy [B, n, S, d], g divides n; one dtype of {float32, bfloat16}, inner
// stride 1, other strides free.
#pragma once

#include "te_kernels/base/exec.h"
#include "te_kernels/base/view.h"

namespace te {

struct RepeatKvForwardArgs {
  ConstTensorView x;
  TensorView y;
};

struct RepeatKvBackwardArgs {
  ConstTensorView dy;
  TensorView dx;
};

Status ValidateRepeatKvForward(const RepeatKvForwardArgs& args);
Status ValidateRepeatKvBackward(const RepeatKvBackwardArgs& args);
Status RepeatKvForwardCpu(const Exec& exec, const RepeatKvForwardArgs& args);
Status RepeatKvForwardCuda(const Exec& exec, const RepeatKvForwardArgs& args);
Status RepeatKvBackwardCpu(const Exec& exec, const RepeatKvBackwardArgs& args);
Status RepeatKvBackwardCuda(const Exec& exec, const RepeatKvBackwardArgs& args);

}  // namespace te
