// A tensor in a quantized format, in device memory: what a GEMM benchmark multiplies.
#pragma once

#include <optional>

#include "te_core/context.h"
#include "te_kernels/dequantize/dequantize.h"

namespace te::bench {

class QuantizedTensor {
 public:
  // One orientation of x. scale: of kTensor, which needs it; kTensorCurrent, which a GEMM reads as
  // it does kTensor, takes its own.
  static StatusOr<QuantizedTensor> Make(Context* context, ConstTensorView x, QuantFormat format,
                                        QuantScaling scaling, Orientation orientation,
                                        std::optional<float> scale = std::nullopt);
  Operand operand() const;
  const QuantSpec& spec() const { return spec_; }
  // Dequantized, in float32, as the orientation holds it.
  StatusOr<std::vector<float>> Values(Context* context) const;
  // The largest values that the same scales can hold, element by element.
  StatusOr<std::vector<float>> LargestValues(Context* context) const;

 private:
  StatusOr<std::vector<float>> Decode(Context* context, const QuantSpec& spec) const;

  Orientation orientation_ = Orientation::kRowwise;
  Shape shape_;  // of the orientation
  Tensor codes_, block_scales_, scale_, scale_inv_, amax_;
  QuantSpec spec_;
};

}  // namespace te::bench
