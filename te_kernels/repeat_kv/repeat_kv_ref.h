// Both directions on dense row-major tensors: the obvious loops.
#pragma once

#include <cstdint>
#include <vector>

namespace te::ref {

// x [B, g, S, d] -> [B, n, S, d]
template <typename S>
std::vector<S> RepeatKv(const std::vector<S>& x, int64_t batch, int64_t groups, int64_t heads,
                        int64_t length_times_dim) {
  std::vector<S> y;
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t h = 0; h < heads; ++h) {
      const int64_t group = h / (heads / groups);
      for (int64_t i = 0; i < length_times_dim; ++i) {
        y.push_back(x[(b * groups + group) * length_times_dim + i]);
      }
    }
  }
  return y;
}

// dy [B, n, S, d] -> [B, g, S, d]
template <typename S>
std::vector<S> RepeatKvBackward(const std::vector<S>& dy, int64_t batch, int64_t groups,
                                int64_t heads, int64_t length_times_dim) {
  std::vector<S> dx(batch * groups * length_times_dim);
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t h = 0; h < heads; ++h) {
      const int64_t group = h / (heads / groups);
      for (int64_t i = 0; i < length_times_dim; ++i) {
        dx[(b * groups + group) * length_times_dim + i] +=
            dy[(b * heads + h) * length_times_dim + i];
      }
    }
  }
  return dx;
}

}  // namespace te::ref
