// A tensor in a quantized format, in device memory: what a GEMM benchmark multiplies.
#pragma once

#include "te_core/context.h"
#include "te_kernels/dequantize/dequantize.h"

namespace te::bench {

class QuantizedTensor {
 public:
  // One orientation of x, quantized with its own scale (kTensorCurrent, which a GEMM reads as it
  // does kTensor) or with float32 blocks.
  static StatusOr<QuantizedTensor> Make(Context* context, ConstTensorView x, QuantFormat format,
                                        QuantScaling scaling, Orientation orientation);
  Operand operand() const;
  const QuantSpec& spec() const { return spec_; }
  // Dequantized, in float32, as the orientation holds it.
  StatusOr<std::vector<float>> Values(Context* context) const;

 private:
  Orientation orientation_ = Orientation::kRowwise;
  Tensor codes_, block_scales_, scale_inv_, amax_;
  QuantSpec spec_;
};

}  // namespace te::bench
