// RMSNorm (Zhang and Sennrich 2019, "Root Mean Square Layer Normalization", equation 4).
//
//   rstd[t] = 1 / sqrt(mean_h(x[t, h]^2) + epsilon)
//   y[t, h] = x[t, h] * rstd[t] * g[h],   g = gamma, or 1 + gamma when zero_centered_gamma
//
// backward, with xhat = x * rstd and w = dy * g:
//   dx[t, h]  = rstd[t] * (w[t, h] - xhat[t, h] * mean_h(w[t, :] * xhat[t, :])) (+ add[t, h])
//   dgamma[h] = sum_t dy[t, h] * xhat[t, h]   (+= when accumulate_dgamma)
//
// x, y, dy, dx, add: [T, H], one dtype of {float32, bfloat16}, inner stride 1; gamma, dgamma: [H]
// of that dtype or float32; rstd: float32 [T]. Arithmetic in float32, gamma multiplied before the
// rounding of y (as Transformer Engine does). y may be x; dx may be dy or add. Bitwise repeatable,
// for any number of threads. T may be 0.
#pragma once

#include "te_kernels/base/exec.h"
#include "te_kernels/base/quant_spec.h"

namespace te {

struct RmsNormForwardArgs {
  ConstTensorView x;
  ConstTensorView gamma;
  float epsilon = 1e-5f;
  bool zero_centered_gamma = false;
  Sink y;
  TensorView rstd;  // optional: undefined in inference
};

struct RmsNormBackwardArgs {
  ConstTensorView dy;
  ConstTensorView x;
  ConstTensorView gamma;
  ConstTensorView rstd;
  bool zero_centered_gamma = false;
  ConstTensorView add;  // optional: the residual branch's gradient, summed into dx
  Sink dx;
  TensorView dgamma;  // optional: undefined for a frozen gamma
  bool accumulate_dgamma = false;
};

Status ValidateRmsNormForward(const RmsNormForwardArgs& args);
Status ValidateRmsNormBackward(const RmsNormBackwardArgs& args);
Status RmsNormForwardCpu(const Exec& exec, const RmsNormForwardArgs& args);
Status RmsNormForwardCuda(const Exec& exec, const RmsNormForwardArgs& args);
Status RmsNormBackwardCpu(const Exec& exec, const RmsNormBackwardArgs& args);
Status RmsNormBackwardCuda(const Exec& exec, const RmsNormBackwardArgs& args);

}  // namespace te
