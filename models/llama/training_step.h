// One optimizer step of a Llama: micro-batches forward and backward, and AdamW behind, beside or
// inside the backward pass. On a device that can record, each shape's work is recorded at its third
// step and launched from then on: the host does nothing a layer. The numbers are the same bit for
// bit in all cases.
#pragma once

#include <algorithm>
#include <list>
#include <memory>
#include <span>
#include <string>

#include "models/llama/llama_model.h"
#include "te_core/optimizer/adamw_optimizer.h"

namespace te {

struct LlamaTrainingStepOptions {
  // Gradients are never all resident: see AdamWOptimizer::BeginUpdates for what that excludes.
  bool update_in_backward = false;
  // Recorded steps of one micro-batch of at least so many tokens, without data-parallel groups,
  // update each parameter beside the rest of the backward pass, on a queue that gets what the pass
  // leaves over (Context::RunBeside); the first steps of a shape, which are not recorded and may
  // fail in the middle, behind it. With clipping, whose factor every update waits for, the
  // gradients' squares are summed there instead. Where there are fewer tokens the products are too
  // short for it to pay (bench/notes.md, section 16). -1: never. Without effect where the device
  // has no such queue, and with update_in_backward.
  int64_t update_beside_tokens = 4096;
  // Multiprocessors that the backward pass's products leave to those updates; -1: as many as were
  // best (12 of an H200's 132 with a recipe, none without).
  int sm_margin = -1;
  // A step of one micro-batch takes its gradient buffers from the activations that have gone
  // (LlamaBackwardOptions::lend_gradients); false, or several micro-batches: from memory of their
  // own.
  bool lend_gradients = true;
  bool record = true;  // where the device can
  // Of the layers' GEMMs; null: none. Must outlive the step.
  const Recipe* recipe = nullptr;
  // The first steps that compute in the parameters' own dtype, forward and backward, while their
  // amaxes enter the histories of delayed scaling: scale 1 never meets a real tensor. 0 when a
  // saved state has been imported.
  int64_t calibration_steps = 1;
};

// What runs beside a recorded step's backward pass.
enum class BesideBackward { kNothing, kGradSquares, kUpdates };

// Thread-compatible. Model and optimizer (of the model's parameters) must outlive it.
class LlamaTrainingStep {
 public:
  static StatusOr<std::unique_ptr<LlamaTrainingStep>> Create(
      LlamaModel* model, AdamWOptimizer* optimizer, const LlamaTrainingStepOptions& options);
  ~LlamaTrainingStep();  // waits for the steps in flight
  LlamaTrainingStep(const LlamaTrainingStep&) = delete;
  LlamaTrainingStep& operator=(const LlamaTrainingStep&) = delete;

  // Enqueues one step and does not wait for it. kInvalidArgument before anything is enqueued:
  // batches that the model does not take, or without labels; numbers out of range; clipping or
  // several micro-batches with update_in_backward. A recording is of one max_grad_norm: another
  // one is recorded anew. Nothing is recorded within a quantization scope of the caller's.
  Status Run(std::span<const LlamaBatch> micro_batches, const AdamWOptimizer::StepInputs& inputs);
  // Waits for the last step (0) or the one before it (1) and returns its scalars: loss_sum,
  // token_count, grad_square_sum.
  StatusOr<StepScalars> Result(int steps_ago);

  // How many of the steps' parts were launched as recorded work so far.
  int64_t launches() const { return launches_; }
  // Of recorded steps of one micro-batch of so many tokens.
  BesideBackward RunsBeside(int64_t tokens, float max_grad_norm) const;
  // Of LlamaTrainingStepOptions::calibration_steps, those that are still to come.
  int64_t calibration_steps_left() const {
    return std::max<int64_t>(0, options_.calibration_steps - steps_);
  }

 private:
  struct Recording {
    std::string key;
    int64_t generation = -1;  // of the context's memory when it was seen last
    std::unique_ptr<RecordedWork> work;
  };

  LlamaTrainingStep(LlamaModel* model, AdamWOptimizer* optimizer,
                    const LlamaTrainingStepOptions& options);
  Status Check(std::span<const LlamaBatch> micro_batches,
               const AdamWOptimizer::StepInputs& inputs) const;
  Status PrepareGradients(size_t micro_batches);
  Status RunMicroBatches(std::span<const LlamaBatch> micro_batches);
  Status RunMicroBatch(LlamaModel::Pass* pass, bool first, bool last);
  Status ComputeMicroBatch(LlamaModel::Pass* pass, bool first, bool last);
  Status RunOrLaunch(LlamaModel::Pass* pass, size_t index, bool last);
  bool Calibrates() const {
    return options_.recipe != nullptr && options_.recipe->calibrates() &&
           calibration_steps_left() > 0;
  }
  Recording* Find(const std::string& key);

  LlamaModel* model_;
  AdamWOptimizer* optimizer_;
  LlamaTrainingStepOptions options_;
  GradientReady update_now_;
  GradientReady update_beside_;
  GradientReady sum_beside_;
  std::list<Recording> recordings_;  // the one used last comes first
  std::unique_ptr<HostMirror> results_[2];
  // Of the current step.
  AdamWOptimizer::StepInputs inputs_;
  bool lending_ = false;
  bool may_record_ = false;
  BesideBackward beside_ = BesideBackward::kNothing;
  bool recording_ = false;  // now
  int64_t steps_ = 0;
  int64_t launches_ = 0;
};

}  // namespace te
