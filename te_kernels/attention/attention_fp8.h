// Attention of attention.h whose tensors are FP8 codes, with one scale a tensor that is known
// beforehand (delayed scaling; Transformer Engine's fp8_dpa). With x' = code * scale_inv the value
// of an input, and Q(x, t) = cast(x * scale_t) / scale_t, cast as in te_kernels/quantize:
//
//   forward   p = softmax(softmax_scale * q' k'^T);  out = cast(scale_o * Q(p, s) v')
//             lse = log-sum-exp of the scores
//   backward  p = exp(softmax_scale * q' k'^T - lse)
//             ds = p * (dout' v'^T - rowsum(dout' * out')) * softmax_scale
//             dv = cast(scale_dv * Q(p, s)^T dout')
//             dq = cast(scale_dq * Q(ds, dp) k');  dk = cast(scale_dk * Q(ds, dp)^T q')
//
// q, k, v, p and out are E4M3; dout, ds ("dp": the reference's name for it), dq, dk and dv are of
// `gradient_format`. An amax is that of the values before their scale (p, out, ds, dq, dk, dv), and
// is max-accumulated; scale_inv = 1 / scale of what is written. Several tensors may share scale,
// scale_inv and amax. The sums are float32. cuDNN rounds p before it is normalized, so that CPU and
// CUDA agree up to the roundings of FP8, not bit by bit; each repeats its own bits, CUDA's backward
// pass unless Exec::allow_nondeterministic lets it do otherwise.
//
// Codes are uint8 [B, Sq, n, d] (q, out, dout, dq) and [B, Skv, g, d] (k, v, dk, dv), inner stride
// 1, other strides free; lse float32 [B, n, Sq]. At least one token; masks no_mask, causal, padding
// and padding_causal without a window; no dropout. CUDA besides (kUnsupported): compute capability
// 9.0 or above, d = 128, strides that are multiples of 16, padding on the right, and what cuDNN
// says. Source: cudnn-frontend's sdpa_fp8 and sdpa_fp8_backward nodes; Transformer Engine's
// common/fused_attn.
#pragma once

#include "te_kernels/attention/attention_mask.h"
#include "te_kernels/base/exec.h"
#include "te_kernels/base/quant_spec.h"

namespace te {

// Device memory, as all pointers here.
struct Float8Input {
  ConstTensorView codes;
  const float* scale_inv = nullptr;
};
// Of a tensor that exists inside the operation alone.
struct Float8Scaling {
  const float* scale = nullptr;
  float* amax = nullptr;  // optional
};
struct Float8Output {
  TensorView codes;
  const float* scale = nullptr;
  float* scale_inv = nullptr;
  float* amax = nullptr;  // optional
};

struct AttentionFp8ForwardArgs {
  Float8Input q, k, v;
  AttentionMask mask;
  float softmax_scale = 1;
  Float8Scaling s;
  Float8Output out;
  TensorView lse;
};

struct AttentionFp8BackwardArgs {
  Float8Input q, k, v, out, dout;
  ConstTensorView lse;
  AttentionMask mask;
  float softmax_scale = 1;
  QuantFormat gradient_format = QuantFormat::kFloat8E5M2;
  Float8Scaling s;  // its amax is the forward pass's: not written here
  Float8Scaling dp;
  Float8Output dq, dk, dv;
};

Status ValidateAttentionFp8Forward(const AttentionFp8ForwardArgs& args);
Status ValidateAttentionFp8Backward(const AttentionFp8BackwardArgs& args);
Status AttentionFp8ForwardCpu(const Exec& exec, const AttentionFp8ForwardArgs& args);
Status AttentionFp8ForwardCuda(const Exec& exec, const AttentionFp8ForwardArgs& args);
Status AttentionFp8BackwardCpu(const Exec& exec, const AttentionFp8BackwardArgs& args);
Status AttentionFp8BackwardCuda(const Exec& exec, const AttentionFp8BackwardArgs& args);

}  // namespace te
