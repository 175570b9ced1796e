// The training loop: batches, micro-batches, one AdamW update a step. Knows no model: a model is
// its parameters and a function.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "models/data/batch.h"
#include "models/train/lr_schedule.h"
#include "te_core/context.h"
#include "te_core/optimizer/adamw_optimizer.h"
#include "te_core/parameter.h"

namespace te {

struct TrainableModel {
  Context* context = nullptr;
  // Forward and backward of one micro-batch: adds to StepScalars::loss_sum and ::token_count, and
  // writes the gradients of the sum of the losses, or with `accumulate` adds to them.
  std::function<Status(const Batch& batch, bool accumulate)> run_micro_batch;
};

struct TrainerOptions {
  int64_t steps = 15;         // optimizer updates in all
  int64_t untimed_steps = 5;  // at the beginning, out of the average; at least one step is timed
  int64_t gradient_accumulation_steps =
      1;                     // micro-batches an update: the count of their tokens divides once
  double max_grad_norm = 0;  // 0: no clipping
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
  double seconds = 0;  // of the whole step: data, forward, backward, update
  bool timed = false;
};

// Is told of every step, in order.
class TrainingObserver {
 public:
  virtual ~TrainingObserver() = default;
  virtual Status OnStep(const StepReport& report) = 0;
};

struct TrainingResult {
  int64_t steps_done = 0;
  int64_t timed_steps = 0;
  double seconds_per_step = 0;  // mean over the timed steps; 0 without any
  bool interrupted = false;
};

// Batch `index` counts micro-batches from 0.
using BatchSource = std::function<StatusOr<Batch>(int64_t index)>;

// Runs options.steps updates. `stop` (may be empty) is asked before every step; true ends the run
// there. A loss or gradient norm that is not finite ends it with kFailedPrecondition, after the
// observers have seen the step: the parameters are then worthless. kInvalidArgument: options out of
// range.
StatusOr<TrainingResult> Train(const TrainableModel& model, AdamWOptimizer* optimizer,
                               const BatchSource& batches, const TrainerOptions& options,
                               const std::vector<TrainingObserver*>& observers,
                               const std::function<bool()>& stop);

}  // namespace te
