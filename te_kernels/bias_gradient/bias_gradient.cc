#include "te_kernels/bias_gradient/bias_gradient.h"

namespace te {

Status ValidateBiasGradient(const BiasGradientArgs& args) {
  const DType dtype = args.dy.dtype();
  if (dtype != DType::kFloat32 && dtype != DType::kBFloat16) {
    return InvalidArgument("bias gradient: dy is {}; expected float32 or bfloat16",
                           args.dy.ToString());
  }
  if (args.dy.rank() != 2 || (args.dy.dim(1) > 1 && args.dy.stride(1) != 1)) {
    return InvalidArgument("bias gradient: dy is {}; expected [T, N] with inner stride 1",
                           args.dy.ToString());
  }
  const Shape expected = {args.dy.dim(1)};
  if (args.dbias.shape() != expected || !args.dbias.IsDense()) {
    return InvalidArgument("bias gradient: dbias is {}; expected dense {}", args.dbias.ToString(),
                           expected.ToString());
  }
  if (args.dbias.dtype() != dtype && args.dbias.dtype() != DType::kFloat32) {
    return InvalidArgument("bias gradient: dbias is {}; expected {} or float32",
                           args.dbias.ToString(), Name(dtype));
  }
  if (args.dbias.elements() != 0 && !args.dbias.defined()) {
    return InvalidArgument("bias gradient: dbias is nothing; expected {}", expected.ToString());
  }
  if (args.dy.elements() != 0 && !args.dy.defined()) {
    return InvalidArgument("bias gradient: dy is nothing; expected {}", args.dy.shape().ToString());
  }
  return OkStatus();
}

}  // namespace te
