#include "te_kernels/dequantize/dequantize.h"

#include "te_kernels/base/check.h"
#include "te_kernels/base/sink.h"
#include "te_kernels/dequantize/dequantize_sink.h"

namespace te {
namespace {

using dequantize::Codes;

// A dense y without elements needs no address, but has a shape.
bool HasDense(const DequantizeArgs& args) { return args.y.dense.rank() != 0; }

// y.dense, or what suits x where y is wanted quantized alone.
Status CheckY(const DequantizeArgs& args) {
  constexpr const char* kOp = "dequantize";
  if (!args.y.quantized() || HasDense(args))
    TE_RETURN_IF_ERROR(CheckFloats(kOp, "y", args.y.dense, 2));
  if (!args.y.quantized()) return OkStatus();
  if (args.x.format == QuantFormat::kFloat4E2M1) {
    return Unsupported("{}: x is e2m1 and y quantized; expected codes of e4m3 or e5m2", kOp);
  }
  if (!HasDense(args)) {
    if (args.dtype != DType::kFloat32 && args.dtype != DType::kBFloat16) {
      return InvalidArgument("{}: dtype is {}; expected float32 or bfloat16", kOp,
                             Name(args.dtype));
    }
    if (Codes(args).rank() != 2) {
      return InvalidArgument("{}: x's {} data is {}; expected codes of rank 2", kOp,
                             args.orientation == Orientation::kRowwise ? "rowwise" : "columnwise",
                             Codes(args).ToString());
    }
  }
  const Shape shape = DequantizedShape(args);
  return CheckSink(kOp, "y", args.y, DequantizedDType(args), shape, shape[0], shape[1]);
}

bool IsNvfp4(QuantScaling scaling) {
  return scaling == QuantScaling::kNvfp4_1x16 || scaling == QuantScaling::kNvfp4_16x16;
}

}  // namespace

Shape DequantizedShape(const DequantizeArgs& args) {
  return HasDense(args) ? args.y.dense.shape() : Codes(args).shape();
}
DType DequantizedDType(const DequantizeArgs& args) {
  return HasDense(args) ? args.y.dense.dtype() : args.dtype;
}

Status ValidateDequantize(const DequantizeArgs& args) {
  const QuantSpec& x = args.x;
  if (x.format == QuantFormat::kNone) {
    return InvalidArgument("dequantize: x's format is none; expected e4m3, e5m2 or e2m1");
  }
  TE_RETURN_IF_ERROR(CheckY(args));
  const bool rowwise = args.orientation == Orientation::kRowwise;
  // Only the orientation that is read is checked; x need not hold the other.
  QuantSpec one = x;
  (rowwise ? one.columnwise_data : one.rowwise_data) = TensorView();
  const Shape shape = DequantizedShape(args);
  const int64_t rows = shape[0], columns = shape[1];
  TE_RETURN_IF_ERROR(
      CheckQuantSpec("dequantize", "x", one, rowwise ? rows : columns, rowwise ? columns : rows));
  const TensorView& data = Codes(args);
  if (data.rank() == 0 || (data.elements() != 0 && !data.defined())) {
    return InvalidArgument("dequantize: x has no {} data", rowwise ? "rowwise" : "columnwise");
  }
  if (!rowwise && IsNvfp4(x.scaling) && x.columnwise_has_own_scale() &&
      x.columnwise_tensor_scale_inv == nullptr) {
    return InvalidArgument(
        "dequantize: x has no columnwise_tensor_scale_inv, which random_hadamard needs");
  }
  return OkStatus();
}

}  // namespace te
