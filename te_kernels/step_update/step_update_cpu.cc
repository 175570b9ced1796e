#include "te_kernels/step_update/step_update.h"

namespace te {

Status StepUpdateCpu(const Exec&, const StepUpdateArgs& args) {
  TE_RETURN_IF_ERROR(ValidateStepUpdate(args));
  StepScalars& scalars = *args.scalars;
  if (args.part == StepUpdatePart::kAdvance) {
    if (scalars.skip == 0) scalars.rng_offset += args.rng_advance;
    return OkStatus();
  }
  scalars.skip = scalars.token_count == 0 ? 1 : 0;
  if (scalars.skip != 0) return OkStatus();
  const double n = static_cast<double>(scalars.token_count) * scalars.loss_scale;
  double clip = 1;
  if (args.max_grad_norm > 0) {
    const double wanted = args.max_grad_norm / (GradNorm(scalars) + 1e-6);
    clip = wanted > 1 ? 1 : wanted;  // NaN stays: a broken gradient must show
  }
  scalars.grad_scale = static_cast<float>(clip / n);
  scalars.step += 1;
  if (args.part == StepUpdatePart::kAll) scalars.rng_offset += args.rng_advance;
  return OkStatus();
}

}  // namespace te
