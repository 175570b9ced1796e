// AdamW (Loshchilov and Hutter 2019, algorithm 2), in one pass over one tensor; torch.optim.AdamW's
// arithmetic:
//
//   g = scalars->grad_scale * grad
//   w = w * (1 - lr * weight_decay)
//   m = beta1 m + (1 - beta1) g;   v = beta2 v + (1 - beta2) g^2
//   w = w - (lr / (1 - beta1^t)) * m / (sqrt(v) / sqrt(1 - beta2^t) + epsilon)
// with lr = scalars->learning_rate, t = scalars->step. Nothing changes when scalars->skip != 0.
//
// w is `master` when given (float32; param receives its rounding), else param itself. Arithmetic in
// float32. param, grad: float32 or bfloat16, grad of either; moments m, v: one dtype of {float32,
// bfloat16}. All dense, n elements. Rounding of bfloat16 stores: to nearest even, or stochastic: 16
// random bits are added to the float's bits before truncation. Of number i of `random`, element i
// of param takes the low half, m the high half, v the exclusive or of both: each is uniform and any
// two are independent, which is what unbiased sums of roundings need. (random.step_offset =
// &scalars->rng_offset keeps a captured graph unchanged from step to step.)
//
// quantized_param: param's new value is also written quantized, as the matrix [rows, n / rows] with
// rows = param.dim(0) (what the next step's GEMMs read); on skip, the old value's.
#pragma once

#include "te_kernels/base/exec.h"
#include "te_kernels/base/philox.h"
#include "te_kernels/base/quant_spec.h"
#include "te_kernels/base/step_scalars.h"
#include "te_kernels/base/view.h"

namespace te {

enum class Rounding : int32_t { kNearest = 0, kStochastic = 1 };

struct AdamWArgs {
  TensorView param;
  ConstTensorView grad;
  TensorView m;
  TensorView v;
  TensorView master;   // optional
  double beta1 = 0.9;  // double: 1 - beta and beta^t are formed before they are rounded
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0.01;
  Rounding rounding = Rounding::kNearest;
  RandomState random;
  const StepScalars* scalars = nullptr;  // device memory
  QuantSpec quantized_param;             // optional; param is then rank 2
};

Status ValidateAdamW(const AdamWArgs& args);
Status AdamWCpu(const Exec& exec, const AdamWArgs& args);
Status AdamWCuda(const Exec& exec, const AdamWArgs& args);

}  // namespace te
