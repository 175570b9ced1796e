#include "models/llama/training_step.h"

#include <cstring>

namespace te {
namespace {

// Lengths are padded to multiples of 16: a run sees some tens of shapes.
constexpr size_t kMaxRecordings = 64;

// Of LlamaTrainingStepOptions (bench/notes.md, section 16).
constexpr int kSmMarginOfRecipes = 12;

}  // namespace

LlamaTrainingStep::LlamaTrainingStep(LlamaModel* model, AdamWOptimizer* optimizer,
                                     const LlamaTrainingStepOptions& options)
    : model_(model), optimizer_(optimizer), options_(options) {
  update_now_ = [optimizer](Parameter& parameter) { return optimizer->UpdateNow(parameter); };
  if (options_.sm_margin < 0)
    options_.sm_margin = options.recipe != nullptr ? kSmMarginOfRecipes : 0;
  update_beside_ = [this](Parameter& parameter) {
    // From the first update on: before it nothing could use what products leave.
    model_->context()->set_sm_margin(options_.sm_margin);
    return recording_ ? optimizer_->UpdateBeside(parameter) : OkStatus();
  };
  sum_beside_ = [optimizer](Parameter& parameter) {
    return optimizer->SumSquaresBeside(parameter);
  };
}

LlamaTrainingStep::~LlamaTrainingStep() {
  // They write to the mirrors. An error has nobody to tell: the next call on the context meets it.
  static_cast<void>(model_->context()->Synchronize());
}

BesideBackward LlamaTrainingStep::RunsBeside(int64_t tokens, float max_grad_norm) const {
  const Context* context = model_->context();
  if (options_.update_beside_tokens < 0 || tokens < options_.update_beside_tokens ||
      options_.update_in_backward || !options_.record || !context->has_queue_beside() ||
      GroupSize(context->groups().data_context) > 1) {
    return BesideBackward::kNothing;
  }
  return max_grad_norm > 0 ? BesideBackward::kGradSquares : BesideBackward::kUpdates;
}

StatusOr<std::unique_ptr<LlamaTrainingStep>> LlamaTrainingStep::Create(
    LlamaModel* model, AdamWOptimizer* optimizer, const LlamaTrainingStepOptions& options) {
  std::unique_ptr<LlamaTrainingStep> step(new LlamaTrainingStep(model, optimizer, options));
  if (options.update_in_backward) TE_RETURN_IF_ERROR(model->ShareGradients());
  Device& device = model->context()->device();
  step->options_.record = options.record && model->context()->can_record();
  for (std::unique_ptr<HostMirror>& mirror : step->results_) {
    TE_ASSIGN_OR_RETURN(mirror, device.NewHostMirror(sizeof(StepScalars)));
  }
  return step;
}

Status LlamaTrainingStep::Check(std::span<const LlamaBatch> micro_batches,
                                const AdamWOptimizer::StepInputs& inputs) const {
  if (micro_batches.empty() || micro_batches.size() >= AdamWOptimizer::kRngAdvance) {
    return InvalidArgument("{} micro-batches; expected 1 to {}", micro_batches.size(),
                           AdamWOptimizer::kRngAdvance - 1);
  }
  if (options_.update_in_backward && micro_batches.size() != 1) {
    return InvalidArgument("update_in_backward with {} micro-batches; expected 1",
                           micro_batches.size());
  }
  // Written so that NaN fails.
  if (!(inputs.max_grad_norm >= 0)) {
    return InvalidArgument("max_grad_norm is {}; expected 0 (off) or more", inputs.max_grad_norm);
  }
  if (options_.update_in_backward && inputs.max_grad_norm > 0) {
    return InvalidArgument(
        "update_in_backward with max_grad_norm {}: the norm needs every gradient before the first "
        "update",
        inputs.max_grad_norm);
  }
  for (const LlamaBatch& batch : micro_batches) {
    TE_RETURN_IF_ERROR(model_->Check(batch));
    if (batch.labels.empty())
      return InvalidArgument("labels are missing; expected one for each token of input_ids");
  }
  return OkStatus();
}

Status LlamaTrainingStep::Run(std::span<const LlamaBatch> micro_batches,
                              const AdamWOptimizer::StepInputs& inputs) {
  TE_RETURN_IF_ERROR(Check(micro_batches, inputs));
  inputs_ = inputs;
  TE_RETURN_IF_ERROR(optimizer_->SetLearningRate(inputs.learning_rate));
  TE_RETURN_IF_ERROR(PrepareGradients(micro_batches.size()));
  Context* context = model_->context();
  // What a caller's scope does at its ends is no part of the step.
  may_record_ = options_.record && !context->in_quantization_scope();
  const LlamaBatch& first = micro_batches.front();
  beside_ = may_record_ && micro_batches.size() == 1
                ? RunsBeside(first.batch * first.sequence, inputs.max_grad_norm)
                : BesideBackward::kNothing;
  const Status status = RunMicroBatches(micro_batches);
  context->set_micro_batch(0);
  TE_RETURN_IF_ERROR(status);
  return results_[++steps_ % 2]->Fetch(context->exec(), context->scalars());
}

Status LlamaTrainingStep::RunMicroBatches(std::span<const LlamaBatch> micro_batches) {
  for (size_t i = 0; i < micro_batches.size(); ++i) {
    model_->context()->set_micro_batch(static_cast<uint32_t>(i));
    TE_ASSIGN_OR_RETURN(LlamaModel::Pass pass, model_->Prepare(micro_batches[i]));
    TE_RETURN_IF_ERROR(RunOrLaunch(&pass, i, i + 1 == micro_batches.size()));
  }
  return OkStatus();
}

StatusOr<StepScalars> LlamaTrainingStep::Result(int steps_ago) {
  if (steps_ago < 0 || steps_ago > 1 || steps_ - steps_ago < 1) {
    return FailedPrecondition("the result of {} steps ago; expected 0 or 1, and that many steps",
                              steps_ago);
  }
  TE_ASSIGN_OR_RETURN(const void* bytes, results_[(steps_ - steps_ago) % 2]->Wait());
  StepScalars scalars;
  std::memcpy(&scalars, bytes, sizeof(scalars));
  return scalars;
}

Status LlamaTrainingStep::PrepareGradients(size_t micro_batches) {
  if (options_.update_in_backward) return OkStatus();
  lending_ = options_.lend_gradients && micro_batches == 1;
  if (lending_) {
    for (Parameter* parameter : model_->parameters())
      if (parameter->grad.owned()) parameter->grad = Tensor();
    return OkStatus();
  }
  for (Parameter* parameter : model_->parameters())
    if (!parameter->grad.owned()) parameter->grad = Tensor();
  return model_->EnsureGradients();
}

Status LlamaTrainingStep::RunMicroBatch(LlamaModel::Pass* pass, bool first, bool last) {
  model_->context()->set_once(Calibrates());
  const Status status = ComputeMicroBatch(pass, first, last);
  model_->context()->set_once(false);
  return status;
}

Status LlamaTrainingStep::ComputeMicroBatch(LlamaModel::Pass* pass, bool first, bool last) {
  if (first) TE_RETURN_IF_ERROR(optimizer_->BeginStep());
  Context* context = model_->context();
  LlamaBackwardOptions backward = {.accumulate_gradients = !first, .lend_gradients = lending_};
  if (options_.update_in_backward) backward.gradient_ready = &update_now_;
  if (beside_ == BesideBackward::kUpdates) backward.gradient_ready = &update_beside_;
  if (beside_ == BesideBackward::kGradSquares) backward.gradient_ready = &sum_beside_;
  const bool before_the_end =
      options_.update_in_backward || (beside_ == BesideBackward::kUpdates && recording_);
  if (before_the_end) {
    TE_RETURN_IF_ERROR(model_->CountLabels(pass));
    TE_RETURN_IF_ERROR(optimizer_->BeginUpdates(inputs_.needs_grad_norm()));
    // The backward pass counts again.
    StepScalars* scalars = context->scalars();
    TE_RETURN_IF_ERROR(context->device().Zero(context->exec(), &scalars->token_count,
                                              sizeof(scalars->token_count)));
  }
  if (options_.recipe != nullptr) {
    context->BeginQuantization(options_.recipe,
                               {.calibrating = Calibrates(), .is_first_microbatch = first});
  }
  const Status forward = model_->RunForward(pass);
  if (options_.recipe != nullptr) TE_RETURN_IF_ERROR(context->EndQuantization());
  TE_RETURN_IF_ERROR(forward);
  const Status backward_status = model_->Backward(pass, backward);
  context->set_sm_margin(0);
  // Whatever has become of the pass: what runs beside it may not be left behind.
  const Status joined = context->JoinBeside();
  TE_RETURN_IF_ERROR(backward_status);
  TE_RETURN_IF_ERROR(joined);
  if (before_the_end) return optimizer_->EndUpdates();
  if (!last) return OkStatus();
  using GradSquares = AdamWOptimizer::GradSquares;
  GradSquares squares = inputs_.needs_grad_norm() ? GradSquares::kMake : GradSquares::kNone;
  if (beside_ == BesideBackward::kGradSquares) squares = GradSquares::kMade;
  return optimizer_->RunStep(inputs_.max_grad_norm, squares);
}

LlamaTrainingStep::Recording* LlamaTrainingStep::Find(const std::string& key) {
  for (auto it = recordings_.begin(); it != recordings_.end(); ++it) {
    if (it->key != key) continue;
    recordings_.splice(recordings_.begin(), recordings_, it);
    return &recordings_.front();
  }
  recordings_.push_front({.key = key});
  if (recordings_.size() > kMaxRecordings) recordings_.pop_back();
  return &recordings_.front();
}

Status LlamaTrainingStep::RunOrLaunch(LlamaModel::Pass* pass, size_t index, bool last) {
  if (!may_record_) return RunMicroBatch(pass, index == 0, last);
  Context* context = model_->context();
  // Addresses are those of the recording as long as nothing has been allocated since.
  const auto generation = [context] { return context->memory_statistics().allocations; };
  // A recorded step renews the weights' quantized copies at its end; what others have written since
  // it must find renewed.
  for (Parameter* parameter : model_->parameters())
    TE_RETURN_IF_ERROR(RefreshQuantizedCopy(context, parameter));
  Recording* recording =
      Find(fmt::format("{} micro-batch {}{}{}{}", model_->KeyOf(*pass), index,
                       lending_ ? " lending" : "", Calibrates() ? " calibrating" : "",
                       last ? fmt::format(" last, norm {}, at most {}", inputs_.needs_grad_norm(),
                                          inputs_.max_grad_norm)
                            : ""));
  const int64_t before = generation();
  if (recording->generation != before) {
    // Not seen since the last allocation: run it once as it is, which sizes the arenas and chooses
    // algorithms.
    recording->work.reset();
    TE_RETURN_IF_ERROR(RunMicroBatch(pass, index == 0, last));
    recording->generation = generation();
    return OkStatus();
  }
  Device& device = context->device();
  if (recording->work == nullptr) {
    TE_RETURN_IF_ERROR(device.BeginRecording(context->exec()));
    recording_ = true;
    const Status status = RunMicroBatch(pass, index == 0, last);
    recording_ = false;
    StatusOr<std::unique_ptr<RecordedWork>> work = device.EndRecording(context->exec());
    TE_RETURN_IF_ERROR(status);
    TE_RETURN_IF_ERROR(work.status());
    if (generation() != before)
      return Internal("recording a step allocated memory: its addresses would not last");
    recording->work = std::move(work).value();
  } else if (last) {
    optimizer_->CountLaunch();
  }
  ++launches_;
  return recording->work->Launch(context->exec());
}

}  // namespace te
