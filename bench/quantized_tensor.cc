#include "bench/quantized_tensor.h"

namespace te::bench {

StatusOr<QuantizedTensor> QuantizedTensor::Make(Context* context, ConstTensorView x,
                                                QuantFormat format, QuantScaling scaling,
                                                Orientation orientation,
                                                std::optional<float> scale) {
  QuantizedTensor out;
  const bool columnwise = orientation == Orientation::kColumnwise;
  const int64_t rows = x.dim(columnwise ? 1 : 0), columns = x.dim(columnwise ? 0 : 1);
  out.orientation_ = orientation;
  out.shape_ = {rows, columns};
  TE_ASSIGN_OR_RETURN(out.codes_,
                      context->NewTensor(DType::kUInt8, QuantDataShape(format, rows, columns)));
  out.spec_.format = format;
  out.spec_.scaling = scaling;
  (columnwise ? out.spec_.columnwise_data : out.spec_.rowwise_data) = out.codes_.view();
  const Shape blocks = BlockScaleShape(scaling, rows, columns);
  if (blocks.rank() != 0) {
    TE_ASSIGN_OR_RETURN(out.block_scales_, context->NewTensor(BlockScaleDType(scaling), blocks));
    (columnwise ? out.spec_.columnwise_scale_inv : out.spec_.rowwise_scale_inv) =
        out.block_scales_.view();
  }
  if (blocks.rank() == 0 || format == QuantFormat::kFloat4E2M1) {
    TE_ASSIGN_OR_RETURN(out.scale_inv_, context->NewZeroTensor(DType::kFloat32, {1}));
    TE_ASSIGN_OR_RETURN(out.amax_, context->NewZeroTensor(DType::kFloat32, {2}));
    out.spec_.scale_inv = out.scale_inv_.view().as<float>();
    out.spec_.amax = out.amax_.view().as<float>();
  }
  if (scale) {
    TE_ASSIGN_OR_RETURN(out.scale_, context->NewTensor(DType::kFloat32, {1}));
    TE_RETURN_IF_ERROR(context->CopyFromHost(&*scale, out.scale_.view()));
    out.spec_.scale = out.scale_.view().as<float>();
  }
  TE_RETURN_IF_ERROR(context->kernels().quantize(context->exec(), {.x = x, .out = out.spec_}));
  return out;
}

Operand QuantizedTensor::operand() const {
  Operand out;
  out.quant = spec_;
  return out;
}

StatusOr<std::vector<float>> QuantizedTensor::Values(Context* context) const {
  return Decode(context, spec_);
}

StatusOr<std::vector<float>> QuantizedTensor::LargestValues(Context* context) const {
  // E4M3 448, E5M2 57344, E2M1 6 twice.
  const uint8_t code = spec_.format == QuantFormat::kFloat8E4M3   ? 0x7e
                       : spec_.format == QuantFormat::kFloat8E5M2 ? 0x7b
                                                                  : 0x77;
  const std::vector<uint8_t> host(static_cast<size_t>(codes_.shape().elements()), code);
  TE_ASSIGN_OR_RETURN(const Tensor codes, context->NewTensor(DType::kUInt8, codes_.shape()));
  TE_RETURN_IF_ERROR(context->CopyFromHost(host.data(), codes.view()));
  QuantSpec spec = spec_;
  (orientation_ == Orientation::kColumnwise ? spec.columnwise_data : spec.rowwise_data) =
      codes.view();
  return Decode(context, spec);
}

StatusOr<std::vector<float>> QuantizedTensor::Decode(Context* context,
                                                     const QuantSpec& spec) const {
  TE_ASSIGN_OR_RETURN(const Tensor values, context->NewTensor(DType::kFloat32, shape_));
  TE_RETURN_IF_ERROR(context->kernels().dequantize(
      context->exec(), {.x = spec, .orientation = orientation_, .y = values.view()}));
  std::vector<float> out(static_cast<size_t>(values.shape().elements()));
  TE_RETURN_IF_ERROR(context->CopyToHost(values.view(), out.data()));
  return out;
}

}  // namespace te::bench
