#include "te_kernels/base/quant_spec.h"

namespace te {
namespace {

constexpr int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t CeilTo4(int64_t a) { return CeilDiv(a, 4) * 4; }

bool Has(const TensorView& view, DType dtype, const Shape& shape) {
  return view.dtype() == dtype && view.shape() == shape && view.IsDense();
}

Status CheckOrientation(const char* operation, const char* argument, const char* orientation,
                        const QuantSpec& quant, const TensorView& data, const TensorView& scales,
                        int64_t rows, int64_t columns) {
  const Shape shape = QuantDataShape(quant.format, rows, columns);
  if (!Has(data, DType::kUInt8, shape)) {
    return InvalidArgument("{}: {}'s {} data is {}; expected dense uint8 {}", operation, argument,
                           orientation, data.ToString(), shape.ToString());
  }
  const Shape scale_shape = BlockScaleShape(quant.scaling, rows, columns);
  if (scale_shape.rank() == 0) return OkStatus();
  if (!Has(scales, BlockScaleDType(quant.scaling), scale_shape) ||
      (scales.elements() != 0 && !scales.defined())) {
    return InvalidArgument("{}: {}'s {} block scales are {}; expected dense {} {}", operation,
                           argument, orientation, scales.ToString(),
                           Name(BlockScaleDType(quant.scaling)), scale_shape.ToString());
  }
  return OkStatus();
}

bool IsNvfp4(QuantScaling scaling) {
  return scaling == QuantScaling::kNvfp4_1x16 || scaling == QuantScaling::kNvfp4_16x16;
}

bool TakesFormat(QuantScaling scaling, QuantFormat format) {
  return IsNvfp4(scaling) == (format == QuantFormat::kFloat4E2M1);
}

}  // namespace

const char* Name(QuantFormat format) {
  switch (format) {
    case QuantFormat::kNone:
      return "none";
    case QuantFormat::kFloat8E4M3:
      return "e4m3";
    case QuantFormat::kFloat8E5M2:
      return "e5m2";
    case QuantFormat::kFloat4E2M1:
      return "e2m1";
  }
  return "unknown";
}

const char* Name(FourOverSix mode) {
  switch (mode) {
    case FourOverSix::kOff:
      return "off";
    case FourOverSix::kMAE:
      return "MAE";
    case FourOverSix::kMSE:
      return "MSE";
  }
  return "unknown";
}

const char* Name(QuantScaling scaling) {
  switch (scaling) {
    case QuantScaling::kTensor:
      return "tensor";
    case QuantScaling::kTensorCurrent:
      return "tensor_current";
    case QuantScaling::kBlock1x128:
      return "block_1x128";
    case QuantScaling::kBlock128x128:
      return "block_128x128";
    case QuantScaling::kMx1x32:
      return "mx_1x32";
    case QuantScaling::kMx32x32:
      return "mx_32x32";
    case QuantScaling::kNvfp4_1x16:
      return "nvfp4_1x16";
    case QuantScaling::kNvfp4_16x16:
      return "nvfp4_16x16";
  }
  return "unknown";
}

Shape QuantDataShape(QuantFormat format, int64_t rows, int64_t columns) {
  return {rows, format == QuantFormat::kFloat4E2M1 ? CeilDiv(columns, 2) : columns};
}

Shape BlockScaleShape(QuantScaling scaling, int64_t rows, int64_t columns) {
  switch (scaling) {
    case QuantScaling::kTensor:
    case QuantScaling::kTensorCurrent:
      return {};
    case QuantScaling::kBlock1x128:
      return {CeilDiv(columns, 128), CeilTo4(rows)};
    case QuantScaling::kBlock128x128:
      return {CeilDiv(rows, 128), CeilTo4(CeilDiv(columns, 128))};
    case QuantScaling::kMx1x32:
    case QuantScaling::kMx32x32:
      return {rows, CeilDiv(columns, 32)};
    case QuantScaling::kNvfp4_1x16:
    case QuantScaling::kNvfp4_16x16:
      return {rows, CeilDiv(columns, 16)};
  }
  return {};
}

DType BlockScaleDType(QuantScaling scaling) {
  return scaling == QuantScaling::kBlock1x128 || scaling == QuantScaling::kBlock128x128
             ? DType::kFloat32
             : DType::kUInt8;
}

Status CheckQuantSpec(const char* operation, const char* argument, const QuantSpec& quant,
                      int64_t rows, int64_t columns) {
  if (!TakesFormat(quant.scaling, quant.format)) {
    return InvalidArgument(
        "{}: {} has format {} with scaling {}; expected e2m1 with nvfp4, e4m3 or "
        "e5m2 with the others",
        operation, argument, Name(quant.format), Name(quant.scaling));
  }
  if (quant.row_scaled && quant.scaling != QuantScaling::kNvfp4_1x16) {
    return InvalidArgument("{}: {} has row_scaled true with scaling {}; expected nvfp4_1x16",
                           operation, argument, Name(quant.scaling));
  }
  const bool rowwise = quant.rowwise_data.rank() != 0;
  const bool columnwise = quant.columnwise_data.rank() != 0;
  if (rowwise) {
    TE_RETURN_IF_ERROR(CheckOrientation(operation, argument, "rowwise", quant, quant.rowwise_data,
                                        quant.rowwise_scale_inv, rows, columns));
  }
  if (columnwise) {
    TE_RETURN_IF_ERROR(CheckOrientation(operation, argument, "columnwise", quant,
                                        quant.columnwise_data, quant.columnwise_scale_inv, columns,
                                        rows));
  }
  const bool blocks_hold_all = BlockOf(quant.scaling).rows != 0 && !IsNvfp4(quant.scaling);
  const bool needs_scale_inv = rowwise || (columnwise && !quant.row_scaled);
  if (needs_scale_inv && !blocks_hold_all && quant.scale_inv == nullptr) {
    return InvalidArgument("{}: {} has no scale_inv, which scaling {} needs", operation, argument,
                           Name(quant.scaling));
  }
  if (columnwise && quant.row_scaled && quant.columnwise_tensor_scale_inv == nullptr) {
    return InvalidArgument("{}: {} has no columnwise_tensor_scale_inv, which row_scaled needs",
                           operation, argument);
  }
  return OkStatus();
}

}  // namespace te
