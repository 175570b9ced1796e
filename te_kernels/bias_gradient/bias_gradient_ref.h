// Reference of bias_gradient.h: the obvious loop.
#pragma once

#include <cstdint>
#include <vector>

namespace te {

// dy [T, N], row-major. `dbias` is what is there before: zeros unless gradients accumulate.
template <typename Scalar>
std::vector<Scalar> BiasGradientRef(const std::vector<Scalar>& dy, int64_t rows,
                                    std::vector<Scalar> dbias) {
  const auto columns = static_cast<int64_t>(dbias.size());
  for (int64_t t = 0; t < rows; ++t) {
    for (int64_t n = 0; n < columns; ++n) dbias[n] += dy[t * columns + n];
  }
  return dbias;
}

}  // namespace te
