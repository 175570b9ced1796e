// Scaled dot-product attention (Vaswani et al. 2017, equation 1) with grouped queries (Ainslie et
// al. 2023), computed block by block so that the scores never exist whole (Dao et al. 2022).
//
//   head h of n reads group h / (n / g) of g
//   p[b, h, i, :] = softmax_j(softmax_scale * q[b, i, h, :] . k[b, j, h', :]) over the visible keys
//   out[b, i, h, :] = sum_j drop(p[b, h, i, j]) v[b, j, h', :];  lse[b, h, i] = log sum_j
//   exp(score)
//
// Dropout: drop(p) = p / (1 - dropout) or 0; element (b, h, i, j) uses random number ((b n + h) Sq
// + i) Skv + j of `random` (philox.h), kept where ToUniform(number) >= dropout.
//
// q, out [B, Sq, n, d], k, v [B, Skv, g, d]: one dtype of {float32, bfloat16}, inner stride 1,
// other strides free (slices of a packed buffer; [S, B, ...] as a transposed view); lse float32 [B,
// n, Sq], -infinity where every key is masked (out is 0 there). Softmax and accumulation in
// float32; p is rounded to the dtype before its product with v, as fused GPU kernels do. v's
// head_dim may differ from q's. Any head_dim >= 1. Backward needs q, k, v, out and lse of the
// forward pass, and the same mask, scale, dropout and random state; dq, dk, dv are overwritten.
// Bitwise repeatable, for any number of threads; with Exec::allow_nondeterministic the backward
// pass on CUDA need not be (cuDNN's without order in the sums of dq, which is faster).
#pragma once

#include "te_kernels/attention/attention_mask.h"
#include "te_kernels/base/exec.h"
#include "te_kernels/base/philox.h"
#include "te_kernels/base/quant_spec.h"

namespace te {

struct AttentionForwardArgs {
  ConstTensorView q, k, v;
  AttentionMask mask;
  float softmax_scale = 1;
  float dropout = 0;
  RandomState random;
  TensorView out;
  TensorView lse;  // optional: undefined in inference
};

struct AttentionBackwardArgs {
  ConstTensorView q, k, v, out, dout, lse;
  AttentionMask mask;
  float softmax_scale = 1;
  float dropout = 0;
  RandomState random;
  TensorView dq, dk, dv;
};

Status ValidateAttentionForward(const AttentionForwardArgs& args);
Status ValidateAttentionBackward(const AttentionBackwardArgs& args);
Status AttentionForwardCpu(const Exec& exec, const AttentionForwardArgs& args);
Status AttentionForwardCuda(const Exec& exec, const AttentionForwardArgs& args);
Status AttentionBackwardCpu(const Exec& exec, const AttentionBackwardArgs& args);
Status AttentionBackwardCuda(const Exec& exec, const AttentionBackwardArgs& args);

}  // namespace te
