#include "te_kernels/multiply/multiply.h"

namespace te {

Status ValidateMultiply(const MultiplyArgs& args) {
  const struct {
    const char* name;
    ConstTensorView view;
  } tensors[] = {{"a", args.a}, {"b", args.b}, {"out", args.out}};
  for (const auto& [name, view] : tensors) {
    if (view.shape() != args.a.shape() || view.dtype() != args.a.dtype()) {
      return InvalidArgument("multiply: {} is {}; expected the shape and dtype of a, {}", name,
                             view.ToString(), args.a.ToString());
    }
    if (view.dtype() != DType::kFloat32 && view.dtype() != DType::kBFloat16) {
      return InvalidArgument("multiply: {} is {}; expected float32 or bfloat16", name,
                             view.ToString());
    }
    if (view.elements() != 0 && !view.defined()) {
      return InvalidArgument("multiply: {} is nothing; expected {} {}", name, Name(view.dtype()),
                             view.shape().ToString());
    }
    if (!view.IsDense()) {
      return InvalidArgument("multiply: {} is {}; expected a dense tensor", name, view.ToString());
    }
  }
  return OkStatus();
}

}  // namespace te
