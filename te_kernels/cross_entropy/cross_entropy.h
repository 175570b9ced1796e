// Cross entropy with integer labels, and its gradient in the same pass.
//
//   loss[t] = lse[t] - (1 - label_smoothing) x[t, label] - label_smoothing mean_v x[t, v]
//   dlogits[t, v] = softmax(x[t, :])[v] - (1 - label_smoothing) [v == label] - label_smoothing / V
// Both are 0 where label == ignore_index. The gradient is that of the SUM of the losses: the count
// divides later, once (StepScalars::grad_scale). Source: torch.nn.functional.cross_entropy.
//
// logits [T, V] of {float32, bfloat16}, inner stride 1; labels int32 [T], each ignore_index or in
// [0, V); loss float32 [T]; dlogits of logits' dtype and shape, may be logits itself. Arithmetic in
// float32. Any other label: on the CPU kInvalidArgument names row and value, before anything is
// written; on CUDA, where labels are on the device, loss[t] and dlogits[t, :] are NaN.
#pragma once

#include "te_kernels/base/exec.h"
#include "te_kernels/base/view.h"

namespace te {

inline constexpr int32_t kIgnoreIndex = -100;

struct CrossEntropyArgs {
  ConstTensorView logits;
  ConstTensorView labels;
  int32_t ignore_index = kIgnoreIndex;
  float label_smoothing = 0;
  TensorView loss;
  TensorView dlogits;  // optional
};

Status ValidateCrossEntropy(const CrossEntropyArgs& args);
Status CrossEntropyCpu(const Exec& exec, const CrossEntropyArgs& args);
Status CrossEntropyCuda(const Exec& exec, const CrossEntropyArgs& args);

}  // namespace te
