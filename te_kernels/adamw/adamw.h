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
//
// FP8-only weights: with previous_scale_inv, the codes in quantized_param.rowwise_data [rows,
// columns] (E4M3, scaling kTensor) are the parameter itself; param and master are undefined and the
// other tensors have rows * columns elements. In place, with the scale of before and the one of
// now:
//
//   w = code * *previous_scale_inv, updated as above (float32)
//   code = cast(w * *scale);   scale_inv = 1 / *scale
// and, where they are given, amax is max-accumulated over the |w| that are cast (whose growth
// beyond the codes' range it shows) and columnwise_data receives the new codes transposed. On skip
// the codes stay, so scale_inv = *previous_scale_inv. That is never scale_inv itself, which blocks
// that still read would see change: who calls copies it before. cast: to nearest even (quantize.h)
// or stochastic: y = w * *scale is clipped to +-448 (NaN: 0x7f) and lies between two neighbouring
// codes; of the 2^20 parts of their distance, 16 r + 8, r the low half of the element's random
// number, are added before truncation. So it is unbiased to 2^-17 of a code's step, and a y that
// is representable, or all but that (scale_inv * scale may not be 1), stays.
#pragma once

#include "te_kernels/base/exec.h"
#include "te_kernels/base/philox.h"
#include "te_kernels/base/quant_spec.h"
#include "te_kernels/base/step_scalars.h"
#include "te_kernels/base/view.h"

namespace te {

enum class Rounding : int32_t { kNearest = 0, kStochastic = 1 };

struct AdamWArgs {
  TensorView param;  // undefined for FP8-only weights
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
  // The caller's word that the operation before this one on the stream is an update, too, and that
  // the two share no memory but what both only read: CUDA's may begin before that one has ended.
  bool follows_update = false;
  QuantSpec quantized_param;                  // optional; param is then rank 2
  const float* previous_scale_inv = nullptr;  // device memory; given for FP8-only weights alone
};

Status ValidateAdamW(const AdamWArgs& args);
Status AdamWCpu(const Exec& exec, const AdamWArgs& args);
Status AdamWCuda(const Exec& exec, const AdamWArgs& args);

}  // namespace te
