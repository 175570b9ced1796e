// LayerNorm (Ba, Kiros and Hinton 2016, "Layer Normalization", equation 4, over the hidden
// dimension).
//
//   mean[t] = mean_h x[t, h];   rstd[t] = 1 / sqrt(mean_h (x[t, h] - mean[t])^2 + epsilon)
//   y[t, h] = (x[t, h] - mean[t]) * rstd[t] * g[h] + beta[h],   g = gamma, or 1 + gamma when
//   zero_centered_gamma
//
// backward, with xhat = (x - mean) * rstd and w = dy * g:
//   dx = rstd * (w - mean_h(w) - xhat * mean_h(w * xhat)) (+ add);  dgamma = sum_t dy * xhat; dbeta
//   = sum_t dy
//
// Shapes, dtypes, aliasing and determinism as in rms_norm.h; mean and rstd: float32 [T].
#pragma once

#include "te_kernels/base/exec.h"
#include "te_kernels/base/quant_spec.h"

namespace te {

struct LayerNormForwardArgs {
  ConstTensorView x;
  ConstTensorView gamma;
  ConstTensorView beta;
  float epsilon = 1e-5f;
  bool zero_centered_gamma = false;
  Sink y;
  TensorView mean;  // mean and rstd: both or neither (inference)
  TensorView rstd;
};

struct LayerNormBackwardArgs {
  ConstTensorView dy;
  ConstTensorView x;
  ConstTensorView gamma;
  ConstTensorView mean;
  ConstTensorView rstd;
  bool zero_centered_gamma = false;
  ConstTensorView add;  // optional
  Sink dx;
  TensorView dgamma;  // dgamma and dbeta: each optional
  TensorView dbeta;
  bool accumulate_parameter_gradients = false;
};

Status ValidateLayerNormForward(const LayerNormForwardArgs& args);
Status ValidateLayerNormBackward(const LayerNormBackwardArgs& args);
Status LayerNormForwardCpu(const Exec& exec, const LayerNormForwardArgs& args);
Status LayerNormForwardCuda(const Exec& exec, const LayerNormForwardArgs& args);
Status LayerNormBackwardCpu(const Exec& exec, const LayerNormBackwardArgs& args);
Status LayerNormBackwardCuda(const Exec& exec, const LayerNormBackwardArgs& args);

}  // namespace te
