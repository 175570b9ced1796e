// Dropout of one element, by its number in the sequence.
#pragma once

#include "te_kernels/base/philox.h"

namespace te::ref {

inline bool Keeps(const RandomState& random, uint64_t index, float p) {
  return Philox::ToUniform(Philox::At(random, index)) >= p;
}

template <typename S>
S Dropout(const S& value, bool keep, float p) {
  return keep ? value / (1.0 - static_cast<double>(p)) : S(0);
}

}  // namespace te::ref
