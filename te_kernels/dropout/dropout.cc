#include "te_kernels/dropout/dropout.h"

#include "te_kernels/base/check.h"

namespace te {
namespace {

Status CheckProbability(const char* op, float p) {
  if (p >= 0 && p <= 1) return OkStatus();
  return InvalidArgument("{}: p is {}; expected a probability, 0 to 1", op, p);
}

Status CheckOutput(const char* op, const char* name, const ConstTensorView& view,
                   const ConstTensorView& like) {
  TE_RETURN_IF_ERROR(CheckTensor(op, name, view, like.dtype(), like.shape()));
  return CheckDense(op, name, view);
}

}  // namespace

Status ValidateDropoutForward(const DropoutForwardArgs& args) {
  constexpr const char* kOp = "dropout_forward";
  TE_RETURN_IF_ERROR(CheckFloats(kOp, "x", args.x, 2));
  TE_RETURN_IF_ERROR(CheckDense(kOp, "x", args.x));
  TE_RETURN_IF_ERROR(CheckOutput(kOp, "out", args.out, args.x));
  if (args.residual.defined()) {
    TE_RETURN_IF_ERROR(CheckOutput(kOp, "residual", args.residual, args.x));
  }
  if (args.bias.defined()) {
    TE_RETURN_IF_ERROR(CheckTensor(kOp, "bias", args.bias, args.x.dtype(), {args.x.dim(1)}));
  }
  return CheckProbability(kOp, args.p);
}

Status ValidateDropoutBackward(const DropoutBackwardArgs& args) {
  constexpr const char* kOp = "dropout_backward";
  TE_RETURN_IF_ERROR(CheckFloats(kOp, "dout", args.dout, 2));
  TE_RETURN_IF_ERROR(CheckDense(kOp, "dout", args.dout));
  TE_RETURN_IF_ERROR(CheckOutput(kOp, "dx", args.dx, args.dout));
  return CheckProbability(kOp, args.p);
}

}  // namespace te
