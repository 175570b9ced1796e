#include "te_kernels/layer_norm/layer_norm.h"

#include "te_kernels/base/check.h"
#include "te_kernels/base/sink.h"

namespace te {

Status ValidateLayerNormForward(const LayerNormForwardArgs& args) {
  constexpr const char* kOp = "layer_norm_forward";
  TE_RETURN_IF_ERROR(CheckFloats(kOp, "x", args.x, 2));
  const DType dtype = args.x.dtype();
  const Shape hidden = {args.x.dim(1)};
  const Shape tokens = {args.x.dim(0)};
  TE_RETURN_IF_ERROR(CheckParameter(kOp, "gamma", args.gamma, dtype, hidden));
  TE_RETURN_IF_ERROR(CheckParameter(kOp, "beta", args.beta, dtype, hidden));
  TE_RETURN_IF_ERROR(
      CheckSink(kOp, "y", args.y, dtype, args.x.shape(), args.x.dim(0), args.x.dim(1)));
  if (args.mean.defined() || args.rstd.defined()) {
    TE_RETURN_IF_ERROR(CheckTensor(kOp, "mean", args.mean, DType::kFloat32, tokens));
    TE_RETURN_IF_ERROR(CheckTensor(kOp, "rstd", args.rstd, DType::kFloat32, tokens));
  }
  if (!(args.epsilon >= 0)) {
    return InvalidArgument("{}: epsilon is {}; expected >= 0", kOp, args.epsilon);
  }
  return OkStatus();
}

Status ValidateLayerNormBackward(const LayerNormBackwardArgs& args) {
  constexpr const char* kOp = "layer_norm_backward";
  TE_RETURN_IF_ERROR(CheckFloats(kOp, "x", args.x, 2));
  const DType dtype = args.x.dtype();
  const Shape hidden = {args.x.dim(1)};
  const Shape tokens = {args.x.dim(0)};
  TE_RETURN_IF_ERROR(CheckTensor(kOp, "dy", args.dy, dtype, args.x.shape()));
  TE_RETURN_IF_ERROR(CheckParameter(kOp, "gamma", args.gamma, dtype, hidden));
  TE_RETURN_IF_ERROR(CheckTensor(kOp, "mean", args.mean, DType::kFloat32, tokens));
  TE_RETURN_IF_ERROR(CheckTensor(kOp, "rstd", args.rstd, DType::kFloat32, tokens));
  TE_RETURN_IF_ERROR(
      CheckSink(kOp, "dx", args.dx, dtype, args.x.shape(), args.x.dim(0), args.x.dim(1)));
  if (args.add.defined()) {
    TE_RETURN_IF_ERROR(CheckTensor(kOp, "add", args.add, dtype, args.x.shape()));
  }
  if (args.dgamma.defined()) {
    TE_RETURN_IF_ERROR(CheckParameter(kOp, "dgamma", args.dgamma, dtype, hidden));
  }
  if (args.dbeta.defined()) {
    TE_RETURN_IF_ERROR(CheckParameter(kOp, "dbeta", args.dbeta, dtype, hidden));
  }
  return OkStatus();
}

}  // namespace te
