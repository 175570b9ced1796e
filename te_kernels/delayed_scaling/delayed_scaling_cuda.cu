#include "te_kernels/delayed_scaling/delayed_scaling.h"

namespace te {

Status DelayedScalingCuda(const Exec&, const DelayedScalingArgs& args) {
  TE_RETURN_IF_ERROR(ValidateDelayedScaling(args));
  return Unsupported("delayed_scaling: not built yet");
}

}  // namespace te
