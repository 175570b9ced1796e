#include "models/train/trainer.h"

#include <algorithm>
#include <chrono>
#include <cmath>

namespace te {
namespace {

Status CheckOptions(const TrainerOptions& options) {
  if (options.steps < 0) return InvalidArgument("steps is {}; expected 0 or more", options.steps);
  if (options.untimed_steps < 0) {
    return InvalidArgument("untimed steps is {}; expected 0 or more", options.untimed_steps);
  }
  const int64_t micro_batches = options.gradient_accumulation_steps;
  if (micro_batches < 1 || micro_batches >= static_cast<int64_t>(AdamWOptimizer::kRngAdvance)) {
    return InvalidArgument("gradient accumulation steps is {}; expected 1 to {}", micro_batches,
                           AdamWOptimizer::kRngAdvance - 1);
  }
  if (!(options.max_grad_norm >= 0)) {
    return InvalidArgument("maximum gradient norm is {}; expected 0 (off) or more",
                           options.max_grad_norm);
  }
  return OkStatus();
}

Status RunStep(const TrainableModel& model, AdamWOptimizer* optimizer, const BatchSource& batches,
               const TrainerOptions& options, StepReport* report) {
  TE_RETURN_IF_ERROR(optimizer->BeginStep());
  for (int64_t i = 0; i < options.gradient_accumulation_steps; ++i) {
    TE_ASSIGN_OR_RETURN(const Batch batch,
                        batches((report->step - 1) * options.gradient_accumulation_steps + i));
    report->tokens += batch.AttendedTokens();
    model.context->set_micro_batch(static_cast<uint32_t>(i));
    TE_RETURN_IF_ERROR(model.run_micro_batch(batch, /*accumulate=*/i > 0));
  }
  TE_RETURN_IF_ERROR(optimizer->Step({.learning_rate = static_cast<float>(report->learning_rate),
                                      .max_grad_norm = static_cast<float>(options.max_grad_norm),
                                      .want_grad_norm = true}));
  TE_ASSIGN_OR_RETURN(const StepScalars scalars, model.context->ReadScalars());
  report->counted_tokens = scalars.token_count;
  report->loss = scalars.loss_sum / static_cast<double>(scalars.token_count);
  report->grad_norm = GradNorm(scalars);
  return OkStatus();
}

}  // namespace

StatusOr<TrainingResult> Train(const TrainableModel& model, AdamWOptimizer* optimizer,
                               const BatchSource& batches, const TrainerOptions& options,
                               const std::vector<TrainingObserver*>& observers,
                               const std::function<bool()>& stop) {
  TE_RETURN_IF_ERROR(CheckOptions(options));
  const int64_t untimed = std::min(options.untimed_steps, options.steps - 1);
  TrainingResult result;
  double timed_seconds = 0;
  for (int64_t k = 0; k < options.steps; ++k) {
    if (stop && stop()) {
      result.interrupted = true;
      break;
    }
    StepReport report;
    report.step = k + 1;
    report.steps = options.steps;
    report.learning_rate = options.schedule.At(k);
    report.timed = k >= untimed;
    const auto begin = std::chrono::steady_clock::now();
    TE_RETURN_IF_ERROR(RunStep(model, optimizer, batches, options, &report));
    report.seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    ++result.steps_done;
    if (report.timed) {
      ++result.timed_steps;
      timed_seconds += report.seconds;
    }
    for (TrainingObserver* observer : observers) TE_RETURN_IF_ERROR(observer->OnStep(report));
    if (report.counted_tokens > 0 &&
        !(std::isfinite(report.loss) && std::isfinite(report.grad_norm))) {
      return FailedPrecondition(
          "step {}: the loss is {} and the gradient norm {}: training stopped; try a lower "
          "learning rate, gradient "
          "clipping (--max-grad-norm 1) or --precision fp32",
          report.step, report.loss, report.grad_norm);
    }
  }
  if (result.timed_steps > 0)
    result.seconds_per_step = timed_seconds / static_cast<double>(result.timed_steps);
  return result;
}

}  // namespace te
