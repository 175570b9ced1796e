#include "te_kernels/dequantize/dequantize.h"

#include "te_kernels/base/check.h"

namespace te {
namespace {

bool IsNvfp4(QuantScaling scaling) {
  return scaling == QuantScaling::kNvfp4_1x16 || scaling == QuantScaling::kNvfp4_16x16;
}

}  // namespace

Status ValidateDequantize(const DequantizeArgs& args) {
  TE_RETURN_IF_ERROR(CheckFloats("dequantize", "y", args.y, 2));
  const QuantSpec& x = args.x;
  if (x.format == QuantFormat::kNone) {
    return InvalidArgument("dequantize: x's format is none; expected e4m3, e5m2 or e2m1");
  }
  const bool rowwise = args.orientation == Orientation::kRowwise;
  // Only the orientation that is read is checked; x need not hold the other.
  QuantSpec one = x;
  (rowwise ? one.columnwise_data : one.rowwise_data) = TensorView();
  const int64_t rows = args.y.dim(0), columns = args.y.dim(1);
  TE_RETURN_IF_ERROR(
      CheckQuantSpec("dequantize", "x", one, rowwise ? rows : columns, rowwise ? columns : rows));
  const TensorView& data = rowwise ? x.rowwise_data : x.columnwise_data;
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
