#include "te_kernels/rope/rope.h"

#include "te_kernels/base/check.h"
#include "te_kernels/base/sink.h"

namespace te {

Status ValidateRope(const RopeArgs& args) {
  constexpr const char* kOp = "rope";
  TE_RETURN_IF_ERROR(CheckFloats(kOp, "x", args.x, 4));
  const Shape& shape = args.x.shape();
  TE_RETURN_IF_ERROR(
      CheckSink(kOp, "y", args.y, args.x.dtype(), shape, shape[0] * shape[1], shape[2] * shape[3]));
  if (args.num_rotated_heads < -1 || args.num_rotated_heads > shape[2]) {
    return InvalidArgument(
        "{}: num_rotated_heads is {}; x {} has {} heads: expected 0 to {}, or -1 "
        "for all",
        kOp, args.num_rotated_heads, args.x.ToString(), shape[2], shape[2]);
  }
  TE_RETURN_IF_ERROR(CheckFloats(kOp, "cos", args.cos, 2));
  TE_RETURN_IF_ERROR(CheckTensor(kOp, "cos", args.cos, DType::kFloat32, args.cos.shape()));
  TE_RETURN_IF_ERROR(CheckTensor(kOp, "sin", args.sin, DType::kFloat32, args.cos.shape()));
  const int64_t rotated = 2 * args.cos.dim(1);
  if (rotated > args.x.dim(3)) {
    return InvalidArgument("{}: cos is {}, which rotates {} elements; x {} has {} a head", kOp,
                           args.cos.ToString(), rotated, args.x.ToString(), args.x.dim(3));
  }
  if (args.positions.defined()) {
    return CheckTensor(kOp, "positions", args.positions, DType::kInt32,
                       {args.x.dim(0), args.x.dim(1)});
  }
  if (args.start_position < 0 || args.start_position > args.cos.dim(0) - args.x.dim(1)) {
    return InvalidArgument(
        "{}: {} positions from start_position {}; expected within the table's {} rows", kOp,
        args.x.dim(1), args.start_position, args.cos.dim(0));
  }
  return OkStatus();
}

}  // namespace te
