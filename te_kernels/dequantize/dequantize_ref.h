// Element by element, after quantize.h.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "te_kernels/base/float8.h"
#include "te_kernels/base/quant_spec.h"

namespace te {

// One orientation [rows, columns] of codes and block scales (of the shapes that quant_spec.h says);
// tensor_scale_inv: of kTensor, kTensorCurrent and NVFP4, one or one a row.
inline std::vector<float> DequantizeRef(QuantFormat format, QuantScaling scaling, int64_t rows,
                                        int64_t columns, const std::vector<uint8_t>& codes,
                                        const std::vector<float>& float_scales,
                                        const std::vector<uint8_t>& byte_scales,
                                        const std::vector<float>& tensor_scale_inv) {
  const Shape data = QuantDataShape(format, rows, columns);
  const Shape scales = BlockScaleShape(scaling, rows, columns);
  std::vector<float> out;
  for (int64_t r = 0; r < rows; ++r) {
    const float of_tensor = tensor_scale_inv[tensor_scale_inv.size() == 1 ? 0 : r];
    for (int64_t c = 0; c < columns; ++c) {
      float value = 0;
      if (format == QuantFormat::kFloat4E2M1) {
        const uint8_t pair = codes[r * data[1] + c / 2];
        value = Float4E2M1BitsToFloat(c % 2 == 0 ? pair % 16 : pair / 16);
      } else if (format == QuantFormat::kFloat8E4M3) {
        value = Float8E4M3BitsToFloat(codes[r * data[1] + c]);
      } else {
        value = Float8E5M2BitsToFloat(codes[r * data[1] + c]);
      }
      switch (scaling) {
        case QuantScaling::kTensor:
        case QuantScaling::kTensorCurrent:
          value *= of_tensor;
          break;
        case QuantScaling::kBlock1x128:
          value *= float_scales[c / 128 * scales[1] + r];
          break;
        case QuantScaling::kBlock128x128:
          value *= float_scales[r / 128 * scales[1] + c / 128];
          break;
        case QuantScaling::kMx1x32:
        case QuantScaling::kMx32x32: {
          const int exponent = byte_scales[r * scales[1] + c / 32];
          value = exponent == 255 ? std::nanf("") : std::ldexp(value, exponent - 127);
          break;
        }
        case QuantScaling::kNvfp4_1x16:
        case QuantScaling::kNvfp4_16x16:
          value *= Float8E4M3BitsToFloat(byte_scales[r * scales[1] + c / 16]);
          value *= of_tensor;
          break;
      }
      out.push_back(value);
    }
  }
  return out;
}

}  // namespace te
