// Single floats of FP8 attention in device memory, several in one kernel.
#pragma once

#include <array>

#include "te_kernels/base/exec.h"
#include "te_kernels/base/status.h"

namespace te {

struct ScalarPair {
  const float* from = nullptr;
  float* to = nullptr;
};
inline constexpr int kMaxScalarPairs = 8;
using ScalarPairs = std::array<ScalarPair, kMaxScalarPairs>;

// *to = 1 / *from, rounded to nearest, of each pair that has a `to`. Asynchronous.
Status InvertScalarsCuda(const Exec& exec, const ScalarPairs& pairs);
// *to = max(*to, *from) by fmaxf's rule, one pair after the other: several may share `to`.
Status AccumulateAmaxesCuda(const Exec& exec, const ScalarPairs& pairs);

}  // namespace te
