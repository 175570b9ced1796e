#include <cmath>
#include <limits>

#include "te_kernels/base/parallel.h"
#include "te_kernels/delayed_scaling/delayed_scaling.h"

namespace te {
namespace {

constexpr int64_t kGrain = 1 << 14;  // entries of the history

// Tensors [begin, end).
void Update(const DelayedScalingArgs& args, int64_t begin, int64_t end) {
  const int64_t length = args.history.dim(0), n = args.history.dim(1);
  float* history = args.history.as<float>();
  float* scale = args.scale.as<float>();
  const float scaled_max = std::ldexp(QuantMax(args.format), -args.margin);
  for (int64_t i = begin; i < end; ++i) {
    const float last = history[i];
    float amax = last;
    if (args.algo == AmaxComputeAlgo::kMax) {
      amax = 0;
      for (int64_t j = 0; last != 0 && j < length; ++j) {
        // A NaN compares false.
        amax = history[j * n + i] > amax ? history[j * n + i] : amax;
      }
    }
    if (last != 0) {
      for (int64_t j = 0; j + 1 < length; ++j) history[j * n + i] = history[(j + 1) * n + i];
      history[(length - 1) * n + i] = last;
    }
    history[i] = 0;
    if (!std::isfinite(amax) || !(amax > 0)) continue;
    const float quotient = scaled_max / amax;
    scale[i] = std::isinf(quotient) ? std::numeric_limits<float>::max() : quotient;
  }
}

}  // namespace

Status DelayedScalingCpu(const Exec& exec, const DelayedScalingArgs& args) {
  TE_RETURN_IF_ERROR(ValidateDelayedScaling(args));
  const int64_t length = args.history.dim(0);
  ParallelFor(exec, args.history.dim(1), kGrain / length + 1,
              [&](int64_t begin, int64_t end) { Update(args, begin, end); });
  return OkStatus();
}

}  // namespace te
