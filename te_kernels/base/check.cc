#include "te_kernels/base/check.h"

namespace te {
namespace {

bool HasInnerStrideOne(const ConstTensorView& view) {
  const int inner = view.rank() - 1;
  return inner < 0 || view.dim(inner) <= 1 || view.stride(inner) == 1;
}

bool Present(const ConstTensorView& view) {
  return view.defined() || (view.rank() > 0 && view.elements() == 0);
}

}  // namespace

Status CheckFloats(const char* operation, const char* argument, const ConstTensorView& view,
                   int rank) {
  const bool dtype_fits = view.dtype() == DType::kFloat32 || view.dtype() == DType::kBFloat16;
  if (!Present(view) || view.rank() != rank || !dtype_fits || !HasInnerStrideOne(view)) {
    return InvalidArgument("{}: {} is {}; expected float32 or bfloat16 of rank {}, inner stride 1",
                           operation, argument, view.ToString(), rank);
  }
  return OkStatus();
}

Status CheckTensor(const char* operation, const char* argument, const ConstTensorView& view,
                   DType dtype, const Shape& shape) {
  if (!Present(view) || view.dtype() != dtype || view.shape() != shape ||
      !HasInnerStrideOne(view)) {
    return InvalidArgument("{}: {} is {}; expected {} {}, inner stride 1", operation, argument,
                           view.ToString(), Name(dtype), shape.ToString());
  }
  return OkStatus();
}

Status CheckParameter(const char* operation, const char* argument, const ConstTensorView& view,
                      DType dtype, const Shape& shape) {
  if (view.dtype() == DType::kFloat32) dtype = DType::kFloat32;
  return CheckTensor(operation, argument, view, dtype, shape);
}

Status CheckDense(const char* operation, const char* argument, const ConstTensorView& view) {
  if (view.elements() != 0 && !view.IsDense()) {
    return InvalidArgument("{}: {} is {}; expected a dense tensor", operation, argument,
                           view.ToString());
  }
  return OkStatus();
}

}  // namespace te
