// Scales of the CPU's quantize from maxima of |x|, as quantize.h defines them.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <type_traits>

#include "te_kernels/base/dtype.h"
#include "te_kernels/base/float8.h"
#include "te_kernels/base/quant_spec.h"

namespace te {

// `if_infinite`: the scale where the quotient is beyond float32.
inline float ScaleFromAmax(float amax, float largest, bool power_of_2, float epsilon,
                           float if_infinite = std::numeric_limits<float>::max()) {
  if (amax < epsilon) amax = epsilon;
  if (amax == 0 || !std::isfinite(amax)) return 1;
  float scale = largest / amax;
  if (std::isinf(scale)) scale = if_infinite;
  if (power_of_2) scale = std::bit_cast<float>(std::bit_cast<uint32_t>(scale) & 0xff800000u);
  return scale;
}

// The largest block scale that the tensor's scale provides for.
inline float Nvfp4LargestBlockScale(const QuantSpec& out) {
  return out.e4m3_use_256 ? 256.0f : 448.0f;
}

// What all blocks of a tensor (row_scaled: of a row) share.
struct TensorScale {
  float scale = 1;
  float amax = 0;  // of NVFP4
};

inline TensorScale Nvfp4TensorScale(const QuantSpec& out, float amax) {
  if (amax == 0 || std::isinf(amax)) return {.scale = 1, .amax = amax};
  const float scale = Nvfp4LargestBlockScale(out) * 6.0f / amax;
  return {.scale = std::isinf(scale) ? std::numeric_limits<float>::max() : scale, .amax = amax};
}

// What multiplies the elements of a block, and what is stored for it.
struct BlockScale {
  float multiplier = 1;
  float scale_inv = 1;  // float32 blocks
  uint8_t code = 0;     // E8M0 and E4M3
};

// What multiplies the elements of an NVFP4 block whose stored scale is `code`.
inline float Nvfp4Multiplier(uint8_t code, float tensor_scale) {
  const float multiplier = 1.0f / (Float8E4M3BitsToFloat(code) * (1.0f / tensor_scale));
  return std::min(multiplier, std::numeric_limits<float>::max());
}

// The largest number of a tensor's dtype.
template <typename T>
inline constexpr float kLargest = std::is_same_v<T, bfloat16> ? std::bit_cast<float>(0x7f7f0000u)
                                                              : std::numeric_limits<float>::max();

// NVFP4 without four_over_six, which needs the elements (four_over_six.h). T: x's elements.
template <typename T>
inline BlockScale BlockScaleFromAmax(const QuantSpec& out, float tensor_scale, float amax) {
  BlockScale block;
  switch (out.scaling) {
    case QuantScaling::kTensor:
    case QuantScaling::kTensorCurrent:
      block.multiplier = tensor_scale;
      break;
    case QuantScaling::kBlock1x128:
    case QuantScaling::kBlock128x128:
      block.multiplier = ScaleFromAmax(amax, QuantMax(out.format), out.power_of_2_scales,
                                       out.amax_epsilon, kLargest<T>);
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
      block.multiplier = Nvfp4Multiplier(block.code, tensor_scale);
      break;
  }
  return block;
}

}  // namespace te
