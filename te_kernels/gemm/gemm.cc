#include "te_kernels/gemm/gemm.h"

#include "te_kernels/base/check.h"
#include "te_kernels/gemm/gemm_quantized.h"

namespace te {
namespace {

// What the operands' shapes say: the extents that are summed over, which must agree, and d's shape.
struct Extents {
  int64_t in_a = 0, in_b = 0;
  Shape d;
};

Extents DenseExtents(const GemmArgs& args) {
  const ConstTensorView& a = args.a.dense;
  const ConstTensorView& b = args.b.dense;
  switch (args.kind) {
    case GemmKind::kFprop:
      return {a.dim(1), b.dim(1), {a.dim(0), b.dim(0)}};
    case GemmKind::kDgrad:
      return {a.dim(1), b.dim(0), {a.dim(0), b.dim(1)}};
    case GemmKind::kWgrad:
      break;
  }
  return {a.dim(0), b.dim(0), {a.dim(1), b.dim(1)}};
}

// d, bias and c of a product whose operands have passed.
Status CheckResult(const GemmArgs& args, DType d_dtype, const Shape& d_shape) {
  const auto [op, a_name, b_name, d_name] = NamesOf(args.kind);
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

Status CheckDense(const GemmArgs& args) {
  const auto [op, a_name, b_name, d_name] = NamesOf(args.kind);
  const ConstTensorView& a = args.a.dense;
  const ConstTensorView& b = args.b.dense;
  TE_RETURN_IF_ERROR(CheckFloats(op, a_name, a, 2));
  TE_RETURN_IF_ERROR(CheckFloats(op, b_name, b, 2));
  if (a.dtype() != b.dtype()) {
    return InvalidArgument("{}: {} is {} but {} is {}; expected one dtype", op, a_name,
                           Name(a.dtype()), b_name, Name(b.dtype()));
  }
  const Extents extents = DenseExtents(args);
  if (extents.in_a != extents.in_b) {
    return InvalidArgument("{}: {} is {} and {} is {}: the dimensions {} and {} must agree", op,
                           a_name, a.ToString(), b_name, b.ToString(), extents.in_a, extents.in_b);
  }
  const DType d_dtype = args.d.dtype() == DType::kFloat32 ? DType::kFloat32 : a.dtype();
  return CheckResult(args, d_dtype, extents.d);
}

bool TwoElementsAByte(const QuantSpec& quant) { return quant.format == QuantFormat::kFloat4E2M1; }

// The orientation that the product reads, checked, and whatever else the operand holds.
Status CheckQuantizedOperand(const char* op, const char* name, const QuantizedOperand& operand) {
  const QuantSpec& quant = *operand.quant;
  const bool columnwise = operand.orientation == Orientation::kColumnwise;
  const TensorView& other = columnwise ? quant.rowwise_data : quant.columnwise_data;
  if (operand.data.rank() != 2 || (operand.data.elements() != 0 && !operand.data.defined())) {
    return InvalidArgument("{}: {} has no {} data, which this product reads; its {} data is {}", op,
                           name, columnwise ? "columnwise" : "rowwise",
                           columnwise ? "rowwise" : "columnwise",
                           other.rank() == 2 ? other.ToString() : "not there, either");
  }
  // Of codes that share bytes the other orientation tells whether the last one counts; alone it
  // does, and is zero where it is padding.
  int64_t columns = operand.data.dim(1);
  if (TwoElementsAByte(quant)) columns = other.rank() == 2 ? other.dim(0) : 2 * columns;
  const int64_t rows = operand.data.dim(0);
  return columnwise ? CheckQuantSpec(op, name, quant, columns, rows)
                    : CheckQuantSpec(op, name, quant, rows, columns);
}

// Scalings that one product takes together.
enum class Family { kTensor, kBlock, kMx, kNvfp4 };
Family FamilyOf(QuantScaling scaling) {
  switch (scaling) {
    case QuantScaling::kTensor:
    case QuantScaling::kTensorCurrent:
      break;
    case QuantScaling::kBlock1x128:
    case QuantScaling::kBlock128x128:
      return Family::kBlock;
    case QuantScaling::kMx1x32:
    case QuantScaling::kMx32x32:
      return Family::kMx;
    case QuantScaling::kNvfp4_1x16:
    case QuantScaling::kNvfp4_16x16:
      return Family::kNvfp4;
  }
  return Family::kTensor;
}

Status CheckQuantized(const GemmArgs& args) {
  const auto [op, a_name, b_name, d_name] = NamesOf(args.kind);
  const QuantSpec& qa = args.a.quant;
  const QuantSpec& qb = args.b.quant;
  if (!args.a.quantized() || !args.b.quantized()) {
    return InvalidArgument(
        "{}: {} has format {} and {} has format {}; expected both quantized or "
        "neither",
        op, a_name, Name(qa.format), b_name, Name(qb.format));
  }
  const QuantizedOperand a = QuantizedA(args), b = QuantizedB(args);
  TE_RETURN_IF_ERROR(CheckQuantizedOperand(op, a_name, a));
  TE_RETURN_IF_ERROR(CheckQuantizedOperand(op, b_name, b));
  if (TwoElementsAByte(qa) != TwoElementsAByte(qb) ||
      (qa.format == QuantFormat::kFloat8E5M2 && qb.format == QuantFormat::kFloat8E5M2)) {
    return InvalidArgument(
        "{}: {} has format {} and {} has format {}; expected e4m3 with e4m3 or e5m2, or e2m1 twice",
        op, a_name, Name(qa.format), b_name, Name(qb.format));
  }
  if (FamilyOf(qa.scaling) != FamilyOf(qb.scaling) ||
      (qa.scaling == QuantScaling::kBlock128x128 && qb.scaling == QuantScaling::kBlock128x128)) {
    return InvalidArgument(
        "{}: {} has scaling {} and {} has scaling {}; expected both for whole tensors, both mx, "
        "both nvfp4, or block_1x128 with block_1x128 or block_128x128",
        op, a_name, Name(qa.scaling), b_name, Name(qb.scaling));
  }
  // The transform leaves a product as it was when both sides have it: H D D^T H^T / 16 = 1.
  if (a.transformed() != b.transformed()) {
    return InvalidArgument(
        "{}: {} is {} and {} is {}; expected random_hadamard for both or neither", op, a_name,
        a.transformed() ? "transformed" : "not transformed", b_name,
        b.transformed() ? "transformed" : "not transformed");
  }
  if (a.data.dim(1) != b.data.dim(1)) {
    return InvalidArgument(
        "{}: the {} data of {} is {} and the {} data of {} is {}: their rows "
        "must have one length",
        op, Name(a.orientation), a_name, a.data.ToString(), Name(b.orientation), b_name,
        b.data.ToString());
  }
  const DType d_dtype = args.d.dtype() == DType::kFloat32 ? DType::kFloat32 : DType::kBFloat16;
  return CheckResult(args, d_dtype, {a.data.dim(0), b.data.dim(0)});
}

QuantizedOperand Read(const QuantSpec& quant, Orientation orientation) {
  const bool columnwise = orientation == Orientation::kColumnwise;
  return {.quant = &quant,
          .orientation = orientation,
          .data = columnwise ? quant.columnwise_data : quant.rowwise_data,
          .block_scale_inv = columnwise ? quant.columnwise_scale_inv : quant.rowwise_scale_inv};
}

}  // namespace

GemmNames NamesOf(GemmKind kind) {
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

QuantizedOperand QuantizedA(const GemmArgs& args) {
  return Read(args.a.quant,
              args.kind == GemmKind::kWgrad ? Orientation::kColumnwise : Orientation::kRowwise);
}

QuantizedOperand QuantizedB(const GemmArgs& args) {
  return Read(args.b.quant,
              args.kind == GemmKind::kFprop ? Orientation::kRowwise : Orientation::kColumnwise);
}

Status ValidateGemm(const GemmArgs& args) {
  return args.a.quantized() || args.b.quantized() ? CheckQuantized(args) : CheckDense(args);
}

}  // namespace te
