#include "te_kernels/cast/cast.h"

namespace te {
namespace {

bool IsWideFloating(DType dtype) {
  return dtype == DType::kFloat32 || dtype == DType::kBFloat16 || dtype == DType::kFloat16 ||
         dtype == DType::kFloat64;
}

bool IsInteger(DType dtype) { return dtype == DType::kInt32 || dtype == DType::kInt64; }

}  // namespace

Status ValidateCast(const CastArgs& args) {
  if (args.x.shape() != args.y.shape()) {
    return InvalidArgument("cast: y is {}; expected the shape of x, {}", args.y.ToString(),
                           args.x.ToString());
  }
  const DType from = args.x.dtype();
  const DType to = args.y.dtype();
  const bool floating = IsWideFloating(from) && IsWideFloating(to);
  if (!floating && from != to && !(IsInteger(from) && IsInteger(to))) {
    return Unsupported(
        "cast: from {} to {}; expected float32, bfloat16, float16 and float64, or "
        "int32 and int64, or equal types",
        Name(from), Name(to));
  }
  if (!floating && args.scale != 1) {
    return InvalidArgument("cast: scale is {} from {} to {}; expected 1", args.scale, Name(from),
                           Name(to));
  }
  if (args.x.elements() == 0) return OkStatus();
  if (!args.x.defined() || !args.y.defined()) {
    return InvalidArgument("cast: x is {}, y is {}; expected both", args.x.ToString(),
                           args.y.ToString());
  }
  if (args.x.data() == args.y.data()) {
    bool same = from == to;
    for (int i = 0; i < args.x.rank(); ++i) {
      same &= args.x.dim(i) == 1 || args.x.stride(i) == args.y.stride(i);
    }
    if (!same) {
      return InvalidArgument("cast: x, {}, and y, {}, share memory; expected one layout and dtype",
                             args.x.ToString(), args.y.ToString());
    }
  }
  return OkStatus();
}

}  // namespace te
