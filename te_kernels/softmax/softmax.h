// Scaled, masked softmax over whole rows of scores: the unfused attention's (Hugging Face's eager
// path).
//
//   y[b, h, i, :] = softmax_j(scale * x[b, h, i, j]) over the visible keys; 0 at masked keys (whole
//   row masked: 0) backward: dx = scale * y * (dy - sum_j dy y)
//
// x, y, dy, dx: dense [B, n, Sq, Skv], one dtype of {float32, bfloat16}; arithmetic in float32; y
// may be x, dx may be dy.
#pragma once

#include "te_kernels/attention/attention_mask.h"
#include "te_kernels/base/exec.h"

namespace te {

struct SoftmaxForwardArgs {
  ConstTensorView x;
  AttentionMask mask;
  float scale = 1;
  TensorView y;
};

struct SoftmaxBackwardArgs {
  ConstTensorView y;
  ConstTensorView dy;
  float scale = 1;
  TensorView dx;
};

Status ValidateSoftmaxForward(const SoftmaxForwardArgs& args);
Status ValidateSoftmaxBackward(const SoftmaxBackwardArgs& args);
Status SoftmaxForwardCpu(const Exec& exec, const SoftmaxForwardArgs& args);
Status SoftmaxForwardCuda(const Exec& exec, const SoftmaxForwardArgs& args);
Status SoftmaxBackwardCpu(const Exec& exec, const SoftmaxBackwardArgs& args);
Status SoftmaxBackwardCuda(const Exec& exec, const SoftmaxBackwardArgs& args);

}  // namespace te
