// Reference of sum.h: the obvious loop.
#pragma once

#include <vector>

namespace te {

template <typename Scalar>
Scalar SumRef(const std::vector<Scalar>& x, bool squared, Scalar before = Scalar(0)) {
  for (const Scalar& value : x) before += squared ? value * value : value;
  return before;
}

}  // namespace te
