// One tensor's history, newest amax first, as delayed_scaling.h has it.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "te_kernels/delayed_scaling/delayed_scaling.h"

namespace te {

struct DelayedScalingState {
  std::vector<float> history;
  float scale = 1;
};

inline DelayedScalingState DelayedScalingRef(const DelayedScalingState& before,
                                             AmaxComputeAlgo algo, int margin, QuantFormat format) {
  DelayedScalingState after = before;
  const float last = before.history[0];
  float amax = last;
  if (algo == AmaxComputeAlgo::kMax) {
    amax = 0;
    for (float entry : before.history) amax = std::fmax(amax, entry);  // fmax skips NaN
    if (last == 0) amax = 0;
  }
  if (last != 0) std::rotate(after.history.begin(), after.history.begin() + 1, after.history.end());
  after.history[0] = 0;
  if (std::isfinite(amax) && amax > 0) {
    const float largest = static_cast<float>(QuantMax(format) * std::pow(2.0, -margin));
    after.scale = std::min(largest / amax, std::numeric_limits<float>::max());
  }
  return after;
}

}  // namespace te
