#include "te_kernels/attention/attention_fp8.h"

#include "te_kernels/base/check.h"

namespace te {
namespace {

constexpr const char* kForward = "attention_fp8_forward";
constexpr const char* kBackward = "attention_fp8_backward";

Status CheckPointer(const char* op, const char* tensor, const char* member, const void* pointer) {
  if (pointer != nullptr) return OkStatus();
  return InvalidArgument("{}: {} has no {}", op, tensor, member);
}

Status CheckInput(const char* op, const char* tensor, const Float8Input& x, const Shape& shape) {
  TE_RETURN_IF_ERROR(CheckTensor(op, tensor, x.codes, DType::kUInt8, shape));
  return CheckPointer(op, tensor, "scale_inv", x.scale_inv);
}

Status CheckOutput(const char* op, const char* tensor, const Float8Output& x, const Shape& shape) {
  TE_RETURN_IF_ERROR(CheckTensor(op, tensor, x.codes, DType::kUInt8, shape));
  TE_RETURN_IF_ERROR(CheckPointer(op, tensor, "scale", x.scale));
  return CheckPointer(op, tensor, "scale_inv", x.scale_inv);
}

Status CheckMask(const char* op, const AttentionMask& mask) {
  switch (mask.type) {
    case AttentionMaskType::kNoMask:
    case AttentionMaskType::kCausal:
    case AttentionMaskType::kPadding:
    case AttentionMaskType::kPaddingCausal:
      break;
    default:
      return Unsupported(
          "{}: the mask type is {}; expected no_mask, causal, padding or padding_causal", op,
          Name(mask.type));
  }
  if (mask.window_left < 0 && (mask.window_right < 0 || IsCausal(mask.type))) return OkStatus();
  return Unsupported("{}: the window is ({}, {}); expected none (-1)", op, mask.window_left,
                     mask.window_right);
}

// q, k, v, mask and scale of p, which both passes read.
Status CheckInputs(const char* op, const Float8Input& q, const Float8Input& k, const Float8Input& v,
                   const AttentionMask& mask, const Float8Scaling& s) {
  const ConstTensorView &qc = q.codes, &kc = k.codes;
  const bool fits = qc.rank() == 4 && kc.rank() == 4 && qc.dim(0) == kc.dim(0) &&
                    qc.dim(3) == kc.dim(3) && kc.dim(2) > 0 && qc.dim(2) % kc.dim(2) == 0;
  if (!fits) {
    return InvalidArgument(
        "{}: q is {}, k is {}; expected uint8 [B, Sq, n, d] and [B, Skv, g, d], n a multiple of g",
        op, qc.ToString(), kc.ToString());
  }
  if (qc.elements() == 0 || kc.elements() == 0) {
    return Unsupported("{}: q is {}, k is {}; expected at least one sequence of at least one token",
                       op, qc.ToString(), kc.ToString());
  }
  TE_RETURN_IF_ERROR(CheckInput(op, "q", q, qc.shape()));
  TE_RETURN_IF_ERROR(CheckInput(op, "k", k, kc.shape()));
  TE_RETURN_IF_ERROR(CheckInput(op, "v", v, kc.shape()));
  TE_RETURN_IF_ERROR(CheckPointer(op, "s", "scale", s.scale));
  TE_RETURN_IF_ERROR(CheckMask(op, mask));
  return ValidateAttentionMask(mask, qc.dim(0), qc.dim(2), qc.dim(1), kc.dim(1));
}

Shape LseShape(const ConstTensorView& q) { return {q.dim(0), q.dim(2), q.dim(1)}; }

}  // namespace

Status ValidateAttentionFp8Forward(const AttentionFp8ForwardArgs& args) {
  TE_RETURN_IF_ERROR(CheckInputs(kForward, args.q, args.k, args.v, args.mask, args.s));
  TE_RETURN_IF_ERROR(CheckOutput(kForward, "out", args.out, args.q.codes.shape()));
  return CheckTensor(kForward, "lse", args.lse, DType::kFloat32, LseShape(args.q.codes));
}

Status ValidateAttentionFp8Backward(const AttentionFp8BackwardArgs& args) {
  TE_RETURN_IF_ERROR(CheckInputs(kBackward, args.q, args.k, args.v, args.mask, args.s));
  if (args.gradient_format != QuantFormat::kFloat8E4M3 &&
      args.gradient_format != QuantFormat::kFloat8E5M2) {
    return InvalidArgument("{}: gradient_format is {}; expected e4m3 or e5m2", kBackward,
                           Name(args.gradient_format));
  }
  const Shape &q = args.q.codes.shape(), &k = args.k.codes.shape();
  TE_RETURN_IF_ERROR(CheckInput(kBackward, "out", args.out, q));
  TE_RETURN_IF_ERROR(CheckInput(kBackward, "dout", args.dout, q));
  TE_RETURN_IF_ERROR(
      CheckTensor(kBackward, "lse", args.lse, DType::kFloat32, LseShape(args.q.codes)));
  TE_RETURN_IF_ERROR(CheckPointer(kBackward, "dp", "scale", args.dp.scale));
  TE_RETURN_IF_ERROR(CheckOutput(kBackward, "dq", args.dq, q));
  TE_RETURN_IF_ERROR(CheckOutput(kBackward, "dk", args.dk, k));
  return CheckOutput(kBackward, "dv", args.dv, k);
}

}  // namespace te
