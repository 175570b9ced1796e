// The CPU backend's attention in float32 with its inner tensors rounded to FP8.
#pragma once

#include <algorithm>
#include <cmath>

#include "te_kernels/attention/attention.h"
#include "te_kernels/base/float8.h"

namespace te {

// x -> cast(x * scale) / scale, and the largest |x| that was seen.
struct Float8Rounding {
  QuantFormat format = QuantFormat::kFloat8E4M3;
  float scale = 1;

  void Row(float* x, int64_t count, float* amax) const {
    const bool e4m3 = format == QuantFormat::kFloat8E4M3;
    const float scale_inv = 1.0f / scale;
    float largest = *amax;
    for (int64_t j = 0; j < count; ++j) {
      largest = std::fmax(largest, std::fabs(x[j]));
      const float scaled = x[j] * scale;
      x[j] = (e4m3 ? kFloat8E4M3Values[FloatToFloat8E4M3Bits(scaled)]
                   : kFloat8E5M2Values[FloatToFloat8E5M2Bits(scaled)]) *
             scale_inv;
    }
    *amax = largest;
  }
};

// As AttentionForwardCpu and AttentionBackwardCpu of float32 tensors, with p (and ds) rounded in
// place of a rounding to the tensors' dtype. Their amaxes are max-accumulated.
Status AttentionForwardRoundedCpu(const Exec& exec, const AttentionForwardArgs& args,
                                  const Float8Rounding& p, float* amax_p);
Status AttentionBackwardRoundedCpu(const Exec& exec, const AttentionBackwardArgs& args,
                                   const Float8Rounding& p, const Float8Rounding& ds,
                                   float* amax_ds);

}  // namespace te
