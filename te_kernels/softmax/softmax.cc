#include "te_kernels/softmax/softmax.h"

#include "te_kernels/base/check.h"

namespace te {

Status ValidateSoftmaxForward(const SoftmaxForwardArgs& args) {
  constexpr const char* kOp = "softmax_forward";
  TE_RETURN_IF_ERROR(CheckFloats(kOp, "x", args.x, 4));
  TE_RETURN_IF_ERROR(CheckDense(kOp, "x", args.x));
  TE_RETURN_IF_ERROR(CheckTensor(kOp, "y", args.y, args.x.dtype(), args.x.shape()));
  TE_RETURN_IF_ERROR(CheckDense(kOp, "y", args.y));
  if (!(args.scale > 0)) return InvalidArgument("{}: scale is {}; expected > 0", kOp, args.scale);
  return ValidateAttentionMask(args.mask, args.x.dim(0), args.x.dim(1), args.x.dim(2),
                               args.x.dim(3));
}

Status ValidateSoftmaxBackward(const SoftmaxBackwardArgs& args) {
  constexpr const char* kOp = "softmax_backward";
  TE_RETURN_IF_ERROR(CheckFloats(kOp, "y", args.y, 4));
  TE_RETURN_IF_ERROR(CheckDense(kOp, "y", args.y));
  TE_RETURN_IF_ERROR(CheckTensor(kOp, "dy", args.dy, args.y.dtype(), args.y.shape()));
  TE_RETURN_IF_ERROR(CheckDense(kOp, "dy", args.dy));
  TE_RETURN_IF_ERROR(CheckTensor(kOp, "dx", args.dx, args.y.dtype(), args.y.shape()));
  return CheckDense(kOp, "dx", args.dx);
}

}  // namespace te
