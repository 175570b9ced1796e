// The scalars of one optimizer step, computed where they live, so that no number makes a round trip
// to the host:
//
//   skip = (token_count == 0); when it is 0, and only then:
//   n = token_count * loss_scale
//   clip = min(1, max_grad_norm / (sqrt(grad_square_sum) / n + 1e-6)), or 1 when max_grad_norm is 0
//   grad_scale = clip / n;  step += 1;  rng_offset += rng_advance
// Gradients are sums over tokens, times loss_scale: grad_scale makes them means, clipped as by
// torch.nn.utils.clip_grad_norm_ (a norm that is not finite clips to 0 or NaN there and here).
// Arithmetic in double.
#pragma once

#include "te_kernels/base/exec.h"
#include "te_kernels/base/step_scalars.h"

namespace te {

enum class StepUpdatePart : int32_t {
  kAll = 0,
  kScale = 1,    // all but rng_offset: before the backward pass, when updates happen inside it
  kAdvance = 2,  // rng_offset alone (unless skip != 0): after it
};

struct StepUpdateArgs {
  StepScalars* scalars = nullptr;  // device memory
  StepUpdatePart part = StepUpdatePart::kAll;
  float max_grad_norm = 0;   // 0: no clipping; else grad_square_sum must be there
  uint64_t rng_advance = 0;  // more than any offset that the step has used
};

Status ValidateStepUpdate(const StepUpdateArgs& args);
Status StepUpdateCpu(const Exec& exec, const StepUpdateArgs& args);
Status StepUpdateCuda(const Exec& exec, const StepUpdateArgs& args);

}  // namespace te
