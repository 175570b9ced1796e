// Reference of count_nonfinite.h: convert, then ask.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "te_kernels/base/dtype.h"

namespace te {

inline int64_t CountNonfiniteRef(const std::vector<float>& x, DType as) {
  int64_t count = 0;
  for (const float value : x) {
    double converted = value;
    if (as == DType::kFloat16) converted = static_cast<float>(float16(value));
    if (as == DType::kBFloat16) converted = static_cast<float>(bfloat16(value));
    if (!std::isfinite(converted)) ++count;
  }
  return count;
}

}  // namespace te
