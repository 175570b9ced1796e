#include "te_kernels/cuda/cuda_state.h"
#include "te_kernels/cuda/cuda_status.h"
#include "te_kernels/step_update/step_update.h"

namespace te {
namespace {

// One thread: a few numbers, in double as on the CPU.
__global__ void StepUpdateKernel(StepScalars* scalars, StepUpdatePart part, double max_grad_norm,
                                 uint64_t rng_advance) {
  StepScalars& s = *scalars;
  if (part == StepUpdatePart::kAdvance) {
    if (s.skip == 0) s.rng_offset += rng_advance;
    return;
  }
  s.skip = s.token_count == 0 ? 1 : 0;
  if (s.skip != 0) return;
  const double n = static_cast<double>(s.token_count) * s.loss_scale;
  double clip = 1;
  if (max_grad_norm > 0) {
    const double wanted = max_grad_norm / (sqrt(s.grad_square_sum) / n + 1e-6);
    clip = wanted > 1 ? 1 : wanted;  // NaN stays: a broken gradient must show
  }
  s.grad_scale = static_cast<float>(clip / n);
  s.step += 1;
  if (part == StepUpdatePart::kAll) s.rng_offset += rng_advance;
}

}  // namespace

Status StepUpdateCuda(const Exec& exec, const StepUpdateArgs& args) {
  TE_RETURN_IF_ERROR(ValidateStepUpdate(args));
  Record(exec, "step_update", "step_update_cuda", DType::kFloat64, sizeof(StepScalars));
  StepUpdateKernel<<<1, 1, 0, cuda::StreamOf(exec)>>>(args.scalars, args.part, args.max_grad_norm,
                                                      args.rng_advance);
  return cuda::LaunchStatus("step_update");
}

}  // namespace te
