#include "te_kernels/attention/attention.h"

#include "te_kernels/base/check.h"

namespace te {
namespace {

struct Forward {
  const char* op;
  const ConstTensorView &q, &k, &v;
  const AttentionMask& mask;
  float dropout;
};

Status CheckInputs(const Forward& args) {
  TE_RETURN_IF_ERROR(CheckFloats(args.op, "q", args.q, 4));
  TE_RETURN_IF_ERROR(CheckFloats(args.op, "k", args.k, 4));
  TE_RETURN_IF_ERROR(CheckFloats(args.op, "v", args.v, 4));
  const ConstTensorView &q = args.q, &k = args.k, &v = args.v;
  const int64_t groups = k.dim(2);
  const bool fits = q.dtype() == k.dtype() && q.dtype() == v.dtype() && q.dim(0) == k.dim(0) &&
                    q.dim(3) == k.dim(3) && k.dim(0) == v.dim(0) && k.dim(1) == v.dim(1) &&
                    k.dim(2) == v.dim(2) && groups > 0 && q.dim(2) % groups == 0;
  if (!fits) {
    return InvalidArgument(
        "{}: q is {}, k is {}, v is {}; expected [B, Sq, n, d], [B, Skv, g, d], [B, Skv, g, dv] of "
        "one dtype, n a multiple of g",
        args.op, q.ToString(), k.ToString(), v.ToString());
  }
  if (!(args.dropout >= 0 && args.dropout < 1))
    return InvalidArgument("{}: dropout is {}; expected [0, 1)", args.op, args.dropout);
  return ValidateAttentionMask(args.mask, q.dim(0), q.dim(2), q.dim(1), k.dim(1));
}

Shape OutShape(const ConstTensorView& q, const ConstTensorView& v) {
  return {q.dim(0), q.dim(1), q.dim(2), v.dim(3)};
}

}  // namespace

Status ValidateAttentionForward(const AttentionForwardArgs& args) {
  constexpr const char* kOp = "attention_forward";
  TE_RETURN_IF_ERROR(CheckInputs({kOp, args.q, args.k, args.v, args.mask, args.dropout}));
  TE_RETURN_IF_ERROR(CheckTensor(kOp, "out", args.out, args.q.dtype(), OutShape(args.q, args.v)));
  if (args.lse.defined()) {
    TE_RETURN_IF_ERROR(CheckTensor(kOp, "lse", args.lse, DType::kFloat32,
                                   {args.q.dim(0), args.q.dim(2), args.q.dim(1)}));
  }
  return OkStatus();
}

Status ValidateAttentionBackward(const AttentionBackwardArgs& args) {
  constexpr const char* kOp = "attention_backward";
  TE_RETURN_IF_ERROR(CheckInputs({kOp, args.q, args.k, args.v, args.mask, args.dropout}));
  const DType dtype = args.q.dtype();
  const Shape out_shape = OutShape(args.q, args.v);
  TE_RETURN_IF_ERROR(CheckTensor(kOp, "out", args.out, dtype, out_shape));
  TE_RETURN_IF_ERROR(CheckTensor(kOp, "dout", args.dout, dtype, out_shape));
  TE_RETURN_IF_ERROR(CheckTensor(kOp, "lse", args.lse, DType::kFloat32,
                                 {args.q.dim(0), args.q.dim(2), args.q.dim(1)}));
  TE_RETURN_IF_ERROR(CheckTensor(kOp, "dq", args.dq, dtype, args.q.shape()));
  TE_RETURN_IF_ERROR(CheckTensor(kOp, "dk", args.dk, dtype, args.k.shape()));
  return CheckTensor(kOp, "dv", args.dv, dtype, args.v.shape());
}

}  // namespace te
