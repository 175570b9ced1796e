// Reference of cast.h: rounding to nearest even by arithmetic in double, without looking at bits.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "te_kernels/base/dtype.h"

namespace te {

// `value` rounded once to a binary format of `precision` significant bits (the hidden one
// included), smallest normal exponent `min_exponent` (of 2^e), largest `max_exponent`.
inline double RoundRef(double value, int precision, int min_exponent, int max_exponent) {
  if (!std::isfinite(value) || value == 0) return value;
  const int exponent = std::max(std::ilogb(value), min_exponent);
  const int ulp = exponent - (precision - 1);
  // Scaling by a power of two is exact; nearbyint rounds to even.
  const double rounded = std::ldexp(std::nearbyint(std::ldexp(value, -ulp)), ulp);
  const double largest = std::ldexp(2 - std::ldexp(1, 1 - precision), max_exponent);
  if (std::abs(rounded) > largest) return std::copysign(HUGE_VAL, value);
  return rounded;
}

inline double CastRef(double value, DType to) {
  switch (to) {
    case DType::kFloat32:
      return RoundRef(value, 24, -126, 127);
    case DType::kBFloat16:
      return RoundRef(value, 8, -126, 127);
    case DType::kFloat16:
      return RoundRef(value, 11, -14, 15);
    default:
      return value;
  }
}

}  // namespace te
