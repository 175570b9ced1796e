// The training loop: batches, micro-batches, one AdamW update a step. Knows no model: a model is
// its parameters and a function.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "models/data/batch.h"
#include "models/train/lr_schedule.h"
#include "te_kernels/base/status.h"
#include "te_kernels/base/step_scalars.h"

namespace te {

struct TrainableModel {
  // Enqueues one optimizer step over the micro-batches; need not wait for it.
  std::function<Status(std::span<const Batch> micro_batches, float learning_rate)> run_step;
  // Waits for the last step (0) or the one before it (1): its scalars.
  std::function<StatusOr<StepScalars>(int steps_ago)> result;
  // Steps run beside the host: each is reported while the next one runs.
  bool asynchronous = false;
  // Called after every TrainerOptions::save_every steps with the number of steps that the run has
  // made, those before first_step included. None is in flight then.
  std::function<Status(int64_t steps)> save;
};

struct TrainerOptions {
  int64_t steps = 15;         // optimizer updates in all
  int64_t first_step = 0;     // of them, those that an earlier part of the run has made
  int64_t save_every = 0;     // steps from one TrainableModel::save to the next; 0: none
  int64_t untimed_steps = 5;  // at the beginning, out of the average; at least one step is timed
  int64_t gradient_accumulation_steps =
      1;  // micro-batches an update: the count of their tokens divides once
  LrSchedule schedule;
};

struct StepReport {
  int64_t step = 0;  // 1 for the first
  int64_t steps = 0;
  double loss = 0;  // mean over the counted tokens of all micro-batches, before the update
  double learning_rate = 0;
  double grad_norm = 0;  // 2-norm of the gradient of that mean, before clipping
  int64_t tokens = 0;    // positions that are no padding
  int64_t counted_tokens =
      0;  // behind the loss; 0: the update was skipped, loss and grad_norm mean nothing
  double seconds = 0;  // of the whole step: data, forward, backward, update; of asynchronous steps
                       // the time from one step's end to the next one's
  bool timed = false;
};

// Is told of every step, in order.
class TrainingObserver {
 public:
  virtual ~TrainingObserver() = default;
  virtual Status OnStep(const StepReport& report) = 0;
};

struct TrainingResult {
  int64_t steps_done = 0;  // since first_step
  int64_t timed_steps = 0;
  double seconds_per_step = 0;  // mean over the timed steps; 0 without any
  bool interrupted = false;
};

// Batch `index` counts micro-batches from 0.
using BatchSource = std::function<StatusOr<Batch>(int64_t index)>;

// Runs the updates from options.first_step to options.steps: what they read and their learning
// rates depend on their number alone. `stop` (may be empty) is asked before every step; true ends
// the run there. A loss or gradient norm that is not finite ends it with kFailedPrecondition, after
// the observers have seen the step: the parameters are then worthless. kInvalidArgument: options
// out of range.
StatusOr<TrainingResult> Train(const TrainableModel& model, const BatchSource& batches,
                               const TrainerOptions& options,
                               const std::vector<TrainingObserver*>& observers,
                               const std::function<bool()>& stop);

}  // namespace te
