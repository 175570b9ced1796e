#include "models/train/trainer.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <deque>
#include <utility>

#include "te_core/optimizer/adamw_optimizer.h"
#include "te_kernels/base/step_scalars.h"

namespace te {
namespace {

Status CheckOptions(const TrainerOptions& options) {
  if (options.steps < 0) return InvalidArgument("steps is {}; expected 0 or more", options.steps);
  if (options.first_step < 0 || options.first_step > options.steps) {
    return InvalidArgument("first step is {}; expected 0 to the number of steps, {}",
                           options.first_step, options.steps);
  }
  if (options.save_every < 0) {
    return InvalidArgument("steps between saves are {}; expected 0 (none) or more",
                           options.save_every);
  }
  if (options.untimed_steps < 0) {
    return InvalidArgument("untimed steps is {}; expected 0 or more", options.untimed_steps);
  }
  const int64_t micro_batches = options.gradient_accumulation_steps;
  if (micro_batches < 1 || micro_batches >= static_cast<int64_t>(AdamWOptimizer::kRngAdvance)) {
    return InvalidArgument("gradient accumulation steps is {}; expected 1 to {}", micro_batches,
                           AdamWOptimizer::kRngAdvance - 1);
  }
  return OkStatus();
}

using Clock = std::chrono::steady_clock;

// The steps of one run, in order: enqueued, then finished.
class Run {
 public:
  Run(const TrainableModel& model, const BatchSource& batches, const TrainerOptions& options,
      const std::vector<TrainingObserver*>& observers)
      : model_(model), batches_(batches), options_(options), observers_(observers) {}

  Status Enqueue(int64_t k) {
    StepReport report;
    report.step = k + 1;
    report.steps = options_.steps;
    report.learning_rate = options_.schedule.At(k);
    report.timed = k >= std::min(options_.first_step + options_.untimed_steps, options_.steps - 1);
    std::vector<Batch> micro_batches;
    for (int64_t i = 0; i < options_.gradient_accumulation_steps; ++i) {
      TE_ASSIGN_OR_RETURN(Batch batch, batches_(k * options_.gradient_accumulation_steps + i));
      report.tokens += batch.AttendedTokens();
      micro_batches.push_back(std::move(batch));
    }
    TE_RETURN_IF_ERROR(model_.run_step(micro_batches, static_cast<float>(report.learning_rate)));
    in_flight_.push_back(report);
    return OkStatus();
  }

  // Of the steps in flight, the first one.
  Status Finish() {
    TE_ASSIGN_OR_RETURN(const StepScalars scalars,
                        model_.result(static_cast<int>(in_flight_.size()) - 1));
    StepReport report = in_flight_.front();
    in_flight_.pop_front();
    const auto now = Clock::now();
    report.seconds = std::chrono::duration<double>(now - last_end_).count();
    last_end_ = now;
    report.counted_tokens = scalars.token_count;
    report.loss = scalars.loss_sum / static_cast<double>(scalars.token_count);
    report.grad_norm = GradNorm(scalars);
    ++result_.steps_done;
    if (report.timed) {
      ++result_.timed_steps;
      timed_seconds_ += report.seconds;
    }
    for (TrainingObserver* observer : observers_) TE_RETURN_IF_ERROR(observer->OnStep(report));
    if (report.counted_tokens > 0 &&
        !(std::isfinite(report.loss) && std::isfinite(report.grad_norm))) {
      return FailedPrecondition(
          "step {}: the loss is {} and the gradient norm {}: training stopped; try a lower "
          "learning rate, gradient "
          "clipping (--max-grad-norm 1) or --precision fp32",
          report.step, report.loss, report.grad_norm);
    }
    // What the observers did is no part of a step that has not begun.
    if (in_flight_.empty()) last_end_ = Clock::now();
    return OkStatus();
  }

  // After update k.
  Status Save(int64_t k) {
    while (in_flight() > 0) TE_RETURN_IF_ERROR(Finish());
    TE_RETURN_IF_ERROR(model_.save(k + 1));
    last_end_ = Clock::now();
    return OkStatus();
  }

  size_t in_flight() const { return in_flight_.size(); }
  void Interrupt() { result_.interrupted = true; }
  TrainingResult Result() const {
    TrainingResult result = result_;
    if (result.timed_steps > 0)
      result.seconds_per_step = timed_seconds_ / static_cast<double>(result.timed_steps);
    return result;
  }

 private:
  const TrainableModel& model_;
  const BatchSource& batches_;
  const TrainerOptions& options_;
  const std::vector<TrainingObserver*>& observers_;
  std::deque<StepReport> in_flight_;
  Clock::time_point last_end_ = Clock::now();
  double timed_seconds_ = 0;
  TrainingResult result_;
};

}  // namespace

StatusOr<TrainingResult> Train(const TrainableModel& model, const BatchSource& batches,
                               const TrainerOptions& options,
                               const std::vector<TrainingObserver*>& observers,
                               const std::function<bool()>& stop) {
  TE_RETURN_IF_ERROR(CheckOptions(options));
  if (options.save_every > 0 && !model.save)
    return InvalidArgument("steps between saves are {}, but the model has no save",
                           options.save_every);
  Run run(model, batches, options, observers);
  for (int64_t k = options.first_step; k < options.steps; ++k) {
    if (stop && stop()) {
      run.Interrupt();
      break;
    }
    TE_RETURN_IF_ERROR(run.Enqueue(k));
    // An asynchronous step is read while the next one runs.
    while (run.in_flight() > (model.asynchronous ? 1 : 0)) TE_RETURN_IF_ERROR(run.Finish());
    // The last one's result is saved by who asked for the run.
    if (options.save_every > 0 && (k + 1) % options.save_every == 0 && k + 1 < options.steps)
      TE_RETURN_IF_ERROR(run.Save(k));
  }
  while (run.in_flight() > 0) TE_RETURN_IF_ERROR(run.Finish());
  return run.Result();
}

}  // namespace te
