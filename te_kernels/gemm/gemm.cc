#include "te_kernels/gemm/gemm.h"

#include "te_kernels/base/check.h"

namespace te {
namespace {

struct Names {
  const char* operation;
  const char* a;
  const char* b;
  const char* d;
};

Names NamesOf(GemmKind kind) {
  switch (kind) {
    case GemmKind::kFprop:
      return {"gemm fprop", "x", "w", "y"};
    case GemmKind::kDgrad:
      return {"gemm dgrad", "dy", "w", "dx"};
    case GemmKind::kWgrad:
      return {"gemm wgrad", "dy", "x", "dw"};
  }
  return {"gemm", "a", "b", "d"};
}

}  // namespace

Status ValidateGemm(const GemmArgs& args) {
  const auto [op, a_name, b_name, d_name] = NamesOf(args.kind);
  TE_RETURN_IF_ERROR(RequireDense(op, a_name, args.a.quant.format));
  TE_RETURN_IF_ERROR(RequireDense(op, b_name, args.b.quant.format));
  const ConstTensorView& a = args.a.dense;
  const ConstTensorView& b = args.b.dense;
  TE_RETURN_IF_ERROR(CheckFloats(op, a_name, a, 2));
  TE_RETURN_IF_ERROR(CheckFloats(op, b_name, b, 2));
  if (a.dtype() != b.dtype()) {
    return InvalidArgument("{}: {} is {} but {} is {}; expected one dtype", op, a_name,
                           Name(a.dtype()), b_name, Name(b.dtype()));
  }
  // The dimension that the operands share, and the result's shape.
  int64_t in_a = 0, in_b = 0;
  Shape d_shape;
  switch (args.kind) {
    case GemmKind::kFprop:
      in_a = a.dim(1), in_b = b.dim(1), d_shape = {a.dim(0), b.dim(0)};
      break;
    case GemmKind::kDgrad:
      in_a = a.dim(1), in_b = b.dim(0), d_shape = {a.dim(0), b.dim(1)};
      break;
    case GemmKind::kWgrad:
      in_a = a.dim(0), in_b = b.dim(0), d_shape = {a.dim(1), b.dim(1)};
      break;
  }
  if (in_a != in_b) {
    return InvalidArgument("{}: {} is {} and {} is {}: the dimensions {} and {} must agree", op,
                           a_name, a.ToString(), b_name, b.ToString(), in_a, in_b);
  }
  const DType d_dtype = args.d.dtype() == DType::kFloat32 ? DType::kFloat32 : a.dtype();
  TE_RETURN_IF_ERROR(CheckTensor(op, d_name, args.d, d_dtype, d_shape));
  if (args.bias.defined()) {
    if (args.kind != GemmKind::kFprop)
      return InvalidArgument("{}: bias is given; only fprop takes one", op);
    TE_RETURN_IF_ERROR(CheckTensor(op, "bias", args.bias, d_dtype, {d_shape[1]}));
  }
  if (args.beta != 0 && args.beta != 1)
    return InvalidArgument("{}: beta is {}; expected 0 or 1", op, args.beta);
  if (args.beta != 0 && args.c.defined())
    TE_RETURN_IF_ERROR(CheckTensor(op, "c", args.c, d_dtype, d_shape));
  return OkStatus();
}

}  // namespace te
