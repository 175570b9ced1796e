// Reference of add.h: the obvious loop.
#pragma once

#include <vector>

namespace te {

template <typename Scalar>
std::vector<Scalar> AddRef(const std::vector<Scalar>& a, const std::vector<Scalar>& b) {
  std::vector<Scalar> out(a.size());
  for (size_t i = 0; i < a.size(); ++i) out[i] = a[i] + b[i];
  return out;
}

}  // namespace te
