#include "te_kernels/rms_norm/rms_norm.h"

#include "te_kernels/base/check.h"
#include "te_kernels/base/sink.h"

namespace te {

Status ValidateRmsNormForward(const RmsNormForwardArgs& args) {
  constexpr const char* kOp = "rms_norm_forward";
  TE_RETURN_IF_ERROR(CheckFloats(kOp, "x", args.x, 2));
  const DType dtype = args.x.dtype();
  TE_RETURN_IF_ERROR(CheckParameter(kOp, "gamma", args.gamma, dtype, {args.x.dim(1)}));
  TE_RETURN_IF_ERROR(
      CheckSink(kOp, "y", args.y, dtype, args.x.shape(), args.x.dim(0), args.x.dim(1)));
  if (args.rstd.defined()) {
    TE_RETURN_IF_ERROR(CheckTensor(kOp, "rstd", args.rstd, DType::kFloat32, {args.x.dim(0)}));
  }
  if (!(args.epsilon >= 0)) {
    return InvalidArgument("{}: epsilon is {}; expected >= 0", kOp, args.epsilon);
  }
  return OkStatus();
}

Status ValidateRmsNormBackward(const RmsNormBackwardArgs& args) {
  constexpr const char* kOp = "rms_norm_backward";
  TE_RETURN_IF_ERROR(CheckFloats(kOp, "x", args.x, 2));
  const DType dtype = args.x.dtype();
  const Shape hidden = {args.x.dim(1)};
  TE_RETURN_IF_ERROR(CheckTensor(kOp, "dy", args.dy, dtype, args.x.shape()));
  TE_RETURN_IF_ERROR(CheckParameter(kOp, "gamma", args.gamma, dtype, hidden));
  TE_RETURN_IF_ERROR(CheckTensor(kOp, "rstd", args.rstd, DType::kFloat32, {args.x.dim(0)}));
  TE_RETURN_IF_ERROR(
      CheckSink(kOp, "dx", args.dx, dtype, args.x.shape(), args.x.dim(0), args.x.dim(1)));
  if (args.add.defined()) {
    TE_RETURN_IF_ERROR(CheckTensor(kOp, "add", args.add, dtype, args.x.shape()));
  }
  if (args.dgamma.defined()) {
    TE_RETURN_IF_ERROR(CheckParameter(kOp, "dgamma", args.dgamma, dtype, hidden));
  }
  return OkStatus();
}

}  // namespace te
