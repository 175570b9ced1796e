#include "te_kernels/count_nonfinite/count_nonfinite.h"

namespace te {

Status ValidateCountNonfinite(const CountNonfiniteArgs& args) {
  const DType dtype = args.x.dtype();
  if (dtype != DType::kFloat32 && dtype != DType::kBFloat16) {
    return InvalidArgument("count_nonfinite: x is {}; expected float32 or bfloat16",
                           args.x.ToString());
  }
  if (!args.x.IsDense() || (args.x.elements() != 0 && !args.x.defined())) {
    return InvalidArgument("count_nonfinite: x is {}; expected a dense tensor", args.x.ToString());
  }
  if (args.as != DType::kFloat64 && args.as != DType::kFloat32 && args.as != DType::kBFloat16 &&
      args.as != DType::kFloat16) {
    return InvalidArgument(
        "count_nonfinite: as is {}; expected float64, float32, bfloat16 or float16", Name(args.as));
  }
  if (args.count == nullptr)
    return InvalidArgument("count_nonfinite: count is null; expected its address");
  return OkStatus();
}

uint32_t LeastNonfiniteBits(DType as) {
  switch (as) {
    case DType::kFloat16:
      return 0x477ff000u;  // 65520: halfway from the largest, 65504, to what would be 65536
    case DType::kBFloat16:
      return 0x7f7f8000u;  // halfway from the largest, 0x7f7f, to infinity, 0x7f80
    default:
      return 0x7f800000u;
  }
}

}  // namespace te
