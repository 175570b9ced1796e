// Reference of random_fill.h: element i of the two distributions.
#pragma once

#include <cmath>
#include <numbers>

#include "te_kernels/base/philox.h"

namespace te {

// Box and Muller (1958) from numbers 2j and 2j + 1, j = i / 2.
inline double RandomNormalRef(const RandomState& state, uint64_t i, double mean, double deviation) {
  const RandomState resolved = state.Resolved();
  const uint64_t first = i / 2 * 2;
  const double u1 = (Philox::At(resolved, first) + 0.5) * 0x1p-32;
  const double u2 = (Philox::At(resolved, first + 1) + 0.5) * 0x1p-32;
  const double radius = std::sqrt(-2 * std::log(u1));
  const double angle = 2 * std::numbers::pi * u2;
  return mean + deviation * radius * (i % 2 == 0 ? std::cos(angle) : std::sin(angle));
}

inline double RandomUniformRef(const RandomState& state, uint64_t i, double low, double high) {
  return low + (high - low) * Philox::ToUniform(Philox::At(state.Resolved(), i));
}

}  // namespace te
