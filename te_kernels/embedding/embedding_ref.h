// Reference of embedding.h: the obvious loops.
#pragma once

#include <cstdint>
#include <vector>

namespace te {

template <typename Scalar>
std::vector<Scalar> EmbeddingForwardRef(const std::vector<int32_t>& ids,
                                        const std::vector<Scalar>& table, int64_t hidden) {
  std::vector<Scalar> out;
  for (int32_t id : ids) {
    for (int64_t h = 0; h < hidden; ++h) out.push_back(table[id * hidden + h]);
  }
  return out;
}

// `dtable` is what is there before: zeros unless gradients accumulate. padding_idx -1: none.
template <typename Scalar>
std::vector<Scalar> EmbeddingBackwardRef(const std::vector<int32_t>& ids,
                                         const std::vector<Scalar>& dout, int64_t hidden,
                                         std::vector<Scalar> dtable, int64_t padding_idx = -1) {
  for (size_t t = 0; t < ids.size(); ++t) {
    if (ids[t] == padding_idx) continue;
    for (int64_t h = 0; h < hidden; ++h) dtable[ids[t] * hidden + h] += dout[t * hidden + h];
  }
  return dtable;
}

}  // namespace te
