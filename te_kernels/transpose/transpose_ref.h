// The obvious loop (transpose.h).
#pragma once

#include <cstdint>
#include <vector>

namespace te {

inline std::vector<uint8_t> TransposeRef(const std::vector<uint8_t>& x, int64_t rows,
                                         int64_t columns) {
  std::vector<uint8_t> y;
  for (int64_t c = 0; c < columns; ++c) {
    for (int64_t r = 0; r < rows; ++r) y.push_back(x[static_cast<size_t>(r * columns + c)]);
  }
  return y;
}

}  // namespace te
