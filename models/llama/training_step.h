// One optimizer step of a Llama: micro-batches forward and backward, then AdamW, or AdamW inside
// the backward pass. On a device that can record, each shape's work is recorded at its third step
// and launched from then on: the host does nothing a layer, and the numbers are the same bit for
// bit.
#pragma once

#include <list>
#include <memory>
#include <span>
#include <string>

#include "models/llama/llama_model.h"
#include "te_core/optimizer/adamw_optimizer.h"

namespace te {

struct LlamaTrainingStepOptions {
  float max_grad_norm = 0;      // 0: no clipping
  bool want_grad_norm = false;  // StepScalars::grad_square_sum without clipping, too
  // Gradients are never all resident: see AdamWOptimizer::BeginUpdates for what that excludes.
  bool update_in_backward = false;
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
  int calibration_steps = 1;
};

// Thread-compatible. Model and optimizer (of the model's parameters) must outlive it.
class LlamaTrainingStep {
 public:
  // kInvalidArgument: options that exclude each other.
  static StatusOr<std::unique_ptr<LlamaTrainingStep>> Create(
      LlamaModel* model, AdamWOptimizer* optimizer, const LlamaTrainingStepOptions& options);

  // Enqueues one step and does not wait for it.
  Status Run(std::span<const LlamaBatch> micro_batches, float learning_rate);
  // Waits for the last step (0) or the one before it (1) and returns its scalars: loss_sum,
  // token_count, grad_square_sum.
  StatusOr<StepScalars> Result(int steps_ago);

  // How many of the steps' parts were launched as recorded work so far.
  int64_t launches() const { return launches_; }

 private:
  struct Recording {
    std::string key;
    int64_t generation = -1;  // of the context's memory when it was seen last
    std::unique_ptr<RecordedWork> work;
  };

  LlamaTrainingStep(LlamaModel* model, AdamWOptimizer* optimizer,
                    const LlamaTrainingStepOptions& options);
  Status PrepareGradients(size_t micro_batches);
  Status RunMicroBatch(LlamaModel::Pass* pass, bool first, bool last);
  Status ComputeMicroBatch(LlamaModel::Pass* pass, bool first, bool last);
  Status RunOrLaunch(LlamaModel::Pass* pass, size_t index, bool last);
  bool Calibrates() const {
    return options_.recipe != nullptr && options_.recipe->calibrates() &&
           steps_ < options_.calibration_steps;
  }
  Recording* Find(const std::string& key);

  LlamaModel* model_;
  AdamWOptimizer* optimizer_;
  LlamaTrainingStepOptions options_;
  GradientReady update_now_;
  std::list<Recording> recordings_;  // the one used last comes first
  std::unique_ptr<HostMirror> results_[2];
  bool lending_ = false;  // in the current step
  int64_t steps_ = 0;
  int64_t launches_ = 0;
};

}  // namespace te
