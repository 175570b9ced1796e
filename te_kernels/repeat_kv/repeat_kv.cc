#include "te_kernels/repeat_kv/repeat_kv.h"

#include "te_kernels/base/check.h"

namespace te {
namespace {

Status Validate(const char* op, const char* few_name, const ConstTensorView& few,
                const char* many_name, const ConstTensorView& many) {
  TE_RETURN_IF_ERROR(CheckFloats(op, few_name, few, 4));
  TE_RETURN_IF_ERROR(CheckFloats(op, many_name, many, 4));
  const int64_t groups = few.dim(1);
  TE_RETURN_IF_ERROR(CheckTensor(op, many_name, many, few.dtype(),
                                 {few.dim(0), many.dim(1), few.dim(2), few.dim(3)}));
  if (groups == 0 ? many.dim(1) != 0 : many.dim(1) % groups != 0) {
    return InvalidArgument("{}: {} has {} heads; expected a multiple of {}'s {}", op, many_name,
                           many.dim(1), few_name, groups);
  }
  return OkStatus();
}

}  // namespace

Status ValidateRepeatKvForward(const RepeatKvForwardArgs& args) {
  return Validate("repeat_kv_forward", "x", args.x, "y", args.y);
}

Status ValidateRepeatKvBackward(const RepeatKvBackwardArgs& args) {
  return Validate("repeat_kv_backward", "dx", args.dx, "dy", args.dy);
}

}  // namespace te
