// Compiled without contraction of products and sums: the choice is that of separate roundings.
#include "te_kernels/quantize/four_over_six.h"

#include <cmath>

#include "te_kernels/base/dtype.h"
#include "te_kernels/base/simd.h"

namespace te::quantize_internal {
namespace {

constexpr int64_t kSide = 16;
constexpr float kLargestCode = 6;
constexpr float kLargestScale = 448;

BlockScale ScaleOf(float wanted, float tensor_scale) {
  BlockScale block;
  block.code = FloatToFloat8E4M3Bits(std::fmin(wanted, kLargestScale));
  block.multiplier = Nvfp4Multiplier(block.code, tensor_scale);
  return block;
}

template <typename T>
float ErrorOf(const QuantSpec& out, float tensor_amax, const BlockScale& scale,
              const Block<T>& block) {
  const float decoding = Float8E4M3BitsToFloat(scale.code);
  const float denominator = kLargestCode * Nvfp4LargestBlockScale(out);
  float rows[kSide] = {};
  for (int64_t r = 0; r < block.rows; ++r) {
    for (int64_t c = 0; c < block.columns; ++c) {
      const float x = LoadFloat(block.x + r * block.row_stride + c * block.column_stride);
      const float code = kFloat4E2M1Values[FloatToFloat4E2M1Bits(x * scale.multiplier)];
      const float difference = code * decoding * tensor_amax / denominator - x;
      rows[r] +=
          out.four_over_six == FourOverSix::kMSE ? difference * difference : std::fabs(difference);
    }
  }
  for (int64_t apart = kSide / 2; apart > 0; apart /= 2) {
    for (int64_t r = 0; r < apart; ++r) rows[r] += rows[r + apart];
  }
  return rows[0];
}

}  // namespace

template <typename T>
BlockScale FourOverSixScale(const QuantSpec& out, TensorScale tensor, float amax,
                            const Block<T>& block) {
  constexpr float kExpansion = 1.5f;  // what is 6 under the one scale is 4 under the other
  const float wanted = amax / kLargestCode * tensor.scale;
  const BlockScale four = ScaleOf(wanted * kExpansion, tensor.scale);
  const BlockScale six = ScaleOf(wanted, tensor.scale);
  return ErrorOf(out, tensor.amax, four, block) < ErrorOf(out, tensor.amax, six, block) ? four
                                                                                        : six;
}

template BlockScale FourOverSixScale(const QuantSpec&, TensorScale, float, const Block<float>&);
template BlockScale FourOverSixScale(const QuantSpec&, TensorScale, float, const Block<bfloat16>&);

}  // namespace te::quantize_internal
