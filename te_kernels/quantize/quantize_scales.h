// Scales of the CPU's quantize from maxima of |x|, as quantize.h defines them.
#pragma once

#include <bit>
#include <cmath>
#include <limits>

#include "te_kernels/base/float8.h"
#include "te_kernels/base/quant_spec.h"

namespace te {

inline float ScaleFromAmax(float amax, float largest, bool power_of_2, float epsilon) {
  if (amax < epsilon) amax = epsilon;
  if (amax == 0 || !std::isfinite(amax)) return 1;
  float scale = largest / amax;
  if (std::isinf(scale)) scale = std::numeric_limits<float>::max();
  if (power_of_2) scale = std::bit_cast<float>(std::bit_cast<uint32_t>(scale) & 0xff800000u);
  return scale;
}

inline float Nvfp4TensorScale(float amax) {
  if (amax == 0 || std::isinf(amax)) return 1;
  const float scale = 448.0f * 6.0f / amax;
  return std::isinf(scale) ? std::numeric_limits<float>::max() : scale;
}

// What multiplies the elements of a block, and what is stored for it.
struct BlockScale {
  float multiplier = 1;
  float scale_inv = 1;  // float32 blocks
  uint8_t code = 0;     // E8M0 and E4M3
};

inline BlockScale BlockScaleFromAmax(const QuantSpec& out, float tensor_scale, float amax) {
  constexpr float kLargest = std::numeric_limits<float>::max();
  BlockScale block;
  switch (out.scaling) {
    case QuantScaling::kTensor:
    case QuantScaling::kTensorCurrent:
      block.multiplier = tensor_scale;
      break;
    case QuantScaling::kBlock1x128:
    case QuantScaling::kBlock128x128:
      block.multiplier =
          ScaleFromAmax(amax, QuantMax(out.format), out.power_of_2_scales, out.amax_epsilon);
      block.scale_inv = 1.0f / block.multiplier;
      break;
    case QuantScaling::kMx1x32:
    case QuantScaling::kMx32x32:
      block.code = FloatToE8M0Bits(amax * (1.0f / QuantMax(out.format)));
      block.multiplier = E8M0BitsToFloat(static_cast<uint8_t>(254 - block.code));
      break;
    case QuantScaling::kNvfp4_1x16:
    case QuantScaling::kNvfp4_16x16:
      block.code = FloatToFloat8E4M3Bits(amax * (tensor_scale * (1.0f / 6.0f)));
      block.multiplier = 1.0f / (Float8E4M3BitsToFloat(block.code) * (1.0f / tensor_scale));
      if (block.multiplier > kLargest) block.multiplier = kLargest;
      break;
  }
  return block;
}

}  // namespace te
