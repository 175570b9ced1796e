#include "te_kernels/rope/rope.h"

#include "te_kernels/base/check.h"
#include "te_kernels/base/sink.h"

namespace te {
namespace {

Status CheckX(const char* op, const RopeArgs& args) {
  if (!args.codes()) return CheckFloats(op, "x", args.x, 4);
  if (args.x_format != QuantFormat::kFloat8E4M3 && args.x_format != QuantFormat::kFloat8E5M2) {
    return InvalidArgument("{}: x_format is {}; expected e4m3, e5m2 or none", op,
                           Name(args.x_format));
  }
  if (args.x.rank() != 4 || args.x.dtype() != DType::kUInt8 ||
      (args.x.elements() != 0 && !(args.x.defined() && args.x.IsDense()))) {
    return InvalidArgument("{}: x is {}; expected dense uint8 codes of rank 4", op,
                           args.x.ToString());
  }
  if (args.x_scale_inv == nullptr)
    return InvalidArgument("{}: x holds codes and x_scale_inv is null", op);
  if (args.x_dtype != DType::kFloat32 && args.x_dtype != DType::kBFloat16) {
    return InvalidArgument("{}: x_dtype is {}; expected float32 or bfloat16", op,
                           Name(args.x_dtype));
  }
  return OkStatus();
}

}  // namespace

Status ValidateRope(const RopeArgs& args) {
  constexpr const char* kOp = "rope";
  TE_RETURN_IF_ERROR(CheckX(kOp, args));
  const Shape& shape = args.x.shape();
  TE_RETURN_IF_ERROR(
      CheckSink(kOp, "y", args.y, args.dtype(), shape, shape[0] * shape[1], shape[2] * shape[3]));
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
  const int64_t batch = shape[args.sequence_first ? 1 : 0];
  const int64_t length = shape[args.sequence_first ? 0 : 1];
  if (args.positions.defined())
    return CheckTensor(kOp, "positions", args.positions, DType::kInt32, {batch, length});
  if (args.start_position < 0 || args.start_position > args.cos.dim(0) - length) {
    return InvalidArgument(
        "{}: {} positions from start_position {}; expected within the table's {} rows", kOp, length,
        args.start_position, args.cos.dim(0));
  }
  return OkStatus();
}

}  // namespace te
