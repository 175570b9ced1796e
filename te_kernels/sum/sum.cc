#include "te_kernels/sum/sum.h"

namespace te {

Status ValidateSum(const SumArgs& args) {
  const DType dtype = args.x.dtype();
  if (dtype != DType::kFloat32 && dtype != DType::kBFloat16 && dtype != DType::kFloat64) {
    return InvalidArgument("sum: x is {}; expected float32, bfloat16 or float64",
                           args.x.ToString());
  }
  if (!args.x.IsDense() || (args.x.elements() != 0 && !args.x.defined())) {
    return InvalidArgument("sum: x is {}; expected a dense tensor", args.x.ToString());
  }
  if (args.out == nullptr) return InvalidArgument("sum: out is null; expected one double");
  return OkStatus();
}

}  // namespace te
