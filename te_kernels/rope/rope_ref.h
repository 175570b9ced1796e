// One head's rotation, the obvious loop, for any scalar.
#pragma once

#include <vector>

namespace te::ref {

// cos, sin: of one position, R each; elements from 2R on are copied.
template <typename S>
std::vector<S> Rope(const std::vector<S>& x, const std::vector<double>& cos,
                    const std::vector<double>& sin, bool interleaved) {
  std::vector<S> y = x;
  const size_t pairs = cos.size();
  for (size_t r = 0; r < pairs; ++r) {
    const size_t first = interleaved ? 2 * r : r;
    const size_t second = interleaved ? 2 * r + 1 : r + pairs;
    y[first] = x[first] * cos[r] - x[second] * sin[r];
    y[second] = x[first] * sin[r] + x[second] * cos[r];
  }
  return y;
}

}  // namespace te::ref
