#include "te_kernels/step_update/step_update.h"

namespace te {

Status ValidateStepUpdate(const StepUpdateArgs& args) {
  if (args.scalars == nullptr) {
    return InvalidArgument("step update: scalars is null; expected the step's scalars");
  }
  if (!(args.max_grad_norm >= 0)) {
    return InvalidArgument("step update: max_grad_norm is {}; expected 0 (off) or more",
                           args.max_grad_norm);
  }
  return OkStatus();
}

}  // namespace te
