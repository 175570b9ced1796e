#include "te_kernels/delayed_scaling/delayed_scaling.h"

#include <cmath>

#include "te_kernels/base/check.h"

namespace te {

Status ValidateDelayedScaling(const DelayedScalingArgs& args) {
  const TensorView& history = args.history;
  if (history.rank() != 2 || history.dim(0) < 1 || history.dtype() != DType::kFloat32) {
    return InvalidArgument(
        "delayed_scaling: history is {}; expected float32 [amax_history_len >= 1, n]",
        history.ToString());
  }
  TE_RETURN_IF_ERROR(
      CheckTensor("delayed_scaling", "history", history, DType::kFloat32, history.shape()));
  TE_RETURN_IF_ERROR(CheckDense("delayed_scaling", "history", history));
  TE_RETURN_IF_ERROR(
      CheckTensor("delayed_scaling", "scale", args.scale, DType::kFloat32, {history.dim(1)}));
  if (args.algo != AmaxComputeAlgo::kMax && args.algo != AmaxComputeAlgo::kMostRecent) {
    return InvalidArgument("delayed_scaling: algo is {}; expected 0 (max) or 1 (most recent)",
                           static_cast<int32_t>(args.algo));
  }
  const float largest = QuantMax(args.format);
  if (largest == 0) {
    return InvalidArgument("delayed_scaling: format is {}; expected e4m3, e5m2 or e2m1",
                           Name(args.format));
  }
  const float scaled_max = std::ldexp(largest, -args.margin);
  if (!std::isnormal(scaled_max)) {
    return InvalidArgument(
        "delayed_scaling: margin is {}; expected one that keeps {} * 2^-margin a normal float32",
        args.margin, largest);
  }
  return OkStatus();
}

}  // namespace te
