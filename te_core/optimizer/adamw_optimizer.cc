#include "te_core/optimizer/adamw_optimizer.h"

#include <algorithm>
#include <cmath>

namespace te {
namespace {

bool IsFloat32OrBFloat16(DType dtype) {
  return dtype == DType::kFloat32 || dtype == DType::kBFloat16;
}

Status CheckOptions(const AdamWOptions& options) {
  // Written so that NaN fails.
  if (!(options.beta1 >= 0 && options.beta1 < 1)) {
    return InvalidArgument("AdamW: beta1 is {}; expected a number in [0, 1)", options.beta1);
  }
  if (!(options.beta2 >= 0 && options.beta2 < 1)) {
    return InvalidArgument("AdamW: beta2 is {}; expected a number in [0, 1)", options.beta2);
  }
  if (!(options.epsilon >= 0) || !std::isfinite(options.epsilon)) {
    return InvalidArgument("AdamW: epsilon is {}; expected 0 or more", options.epsilon);
  }
  if (!(options.weight_decay >= 0) || !std::isfinite(options.weight_decay)) {
    return InvalidArgument("AdamW: weight_decay is {}; expected 0 or more", options.weight_decay);
  }
  if (!IsFloat32OrBFloat16(options.moments)) {
    return InvalidArgument("AdamW: moments are {}; expected float32 or bfloat16",
                           Name(options.moments));
  }
  if (options.master_weights != MasterWeights::kNone &&
      options.master_weights != MasterWeights::kFloat32) {
    return InvalidArgument("AdamW: master_weights is {}; expected none (0) or float32 (1)",
                           static_cast<int>(options.master_weights));
  }
  if (options.rounding != Rounding::kNearest && options.rounding != Rounding::kStochastic) {
    return InvalidArgument("AdamW: rounding is {}; expected nearest (0) or stochastic (1)",
                           static_cast<int>(options.rounding));
  }
  return OkStatus();
}

// Over the ranks of these groups weights are divided: the norm of all gradients is then no sum over
// this rank's, and experts' gradients belong to other ranks.
Status CheckGroups(const ProcessGroups& groups) {
  const struct {
    const char* name;
    const Communicator* group;
  } dividing[] = {{"tensor", groups.tensor},
                  {"pipeline", groups.pipeline},
                  {"expert", groups.expert},
                  {"expert_tensor", groups.expert_tensor}};
  for (const auto& [name, group] : dividing) {
    if (GroupSize(group) == 1) continue;
    return Unsupported("AdamW: over groups.{} of {} ranks it is not built yet; expected size 1",
                       name, group->size());
  }
  return OkStatus();
}

Status CheckParameter(const Parameter& parameter, const AdamWOptions& options) {
  if (parameter.fp8_only()) {
    if (options.master_weights == MasterWeights::kNone) return OkStatus();
    return InvalidArgument(
        "AdamW: master_weights is float32 and parameter '{}' exists in FP8 alone; expected none",
        parameter.name);
  }
  const Tensor& value = parameter.value;
  if (value.defined() && IsFloat32OrBFloat16(value.dtype()) && value.view().IsDense())
    return OkStatus();
  return InvalidArgument(
      "AdamW: parameter '{}' is {}; expected a dense tensor of float32 or bfloat16", parameter.name,
      value.view().ToString());
}

}  // namespace

StatusOr<std::unique_ptr<AdamWOptimizer>> AdamWOptimizer::Create(
    Context* context, const std::vector<Parameter*>& parameters, const AdamWOptions& options) {
  if (context == nullptr) return InvalidArgument("AdamW: context is null");
  TE_RETURN_IF_ERROR(CheckOptions(options));
  TE_RETURN_IF_ERROR(CheckGroups(context->groups()));
  std::unique_ptr<AdamWOptimizer> optimizer(new AdamWOptimizer(context, options));
  TE_ASSIGN_OR_RETURN(optimizer->step_, context->NewZeroTensor(DType::kInt64, {1}));
  for (size_t i = 0; i < parameters.size(); ++i) {
    Parameter* parameter = parameters[i];
    if (parameter == nullptr)
      return InvalidArgument("AdamW: parameter {} of {} is null", i, parameters.size());
    if (std::find(parameters.begin(), parameters.begin() + i, parameter) !=
        parameters.begin() + i) {
      return InvalidArgument("AdamW: parameter {} ('{}') is in the list twice", i, parameter->name);
    }
    if (!parameter->requires_grad) continue;
    TE_RETURN_IF_ERROR(CheckParameter(*parameter, options));
    State state;
    state.parameter = parameter;
    TE_ASSIGN_OR_RETURN(state.m, context->NewZeroTensor(options.moments, parameter->shape()));
    TE_ASSIGN_OR_RETURN(state.v, context->NewZeroTensor(options.moments, parameter->shape()));
    if (options.master_weights == MasterWeights::kFloat32 &&
        parameter->dtype() != DType::kFloat32) {
      TE_ASSIGN_OR_RETURN(state.master, context->NewTensor(DType::kFloat32, parameter->shape()));
      TE_RETURN_IF_ERROR(context->kernels().cast(
          context->exec(), {.x = parameter->value, .y = state.master.view()}));
    }
    state.random_stream = context->NewRandomStream();
    optimizer->state_of_[parameter] = optimizer->states_.size();
    optimizer->states_.push_back(std::move(state));
  }
  TE_ASSIGN_OR_RETURN(
      optimizer->square_sums_,
      context->NewZeroTensor(DType::kFloat64, {static_cast<int64_t>(optimizer->states_.size())}));
  return optimizer;
}

Status AdamWOptimizer::BeginStep() { return context_->BeginStep(); }

Status AdamWOptimizer::Step(const StepInputs& inputs) {
  TE_RETURN_IF_ERROR(SetLearningRate(inputs.learning_rate));
  return RunStep(inputs.max_grad_norm,
                 inputs.needs_grad_norm() ? GradSquares::kMake : GradSquares::kNone);
}

Status AdamWOptimizer::SetLearningRate(float learning_rate) {
  if (!std::isfinite(learning_rate) || learning_rate < 0) {
    return InvalidArgument("AdamW: learning_rate is {}; expected 0 or more", learning_rate);
  }
  return context_->device().CopyFromHost(context_->exec(), &learning_rate,
                                         &context_->scalars()->learning_rate, sizeof(float));
}

Status AdamWOptimizer::RunStep(float max_grad_norm, GradSquares squares) {
  if (!(max_grad_norm >= 0)) {
    return InvalidArgument("AdamW: max_grad_norm is {}; expected 0 (off) or more", max_grad_norm);
  }
  if (max_grad_norm > 0 && squares == GradSquares::kNone)
    return InvalidArgument("AdamW: max_grad_norm is {} without the gradients' squares",
                           max_grad_norm);
  TE_RETURN_IF_ERROR(CheckGradients());
  TE_RETURN_IF_ERROR(ReduceOverRanks());
  if (squares == GradSquares::kMake) {
    for (const State& state : states_) TE_RETURN_IF_ERROR(SumSquares(context_->exec(), state));
  }
  if (squares != GradSquares::kNone) TE_RETURN_IF_ERROR(AddSquares());
  TE_RETURN_IF_ERROR(UpdateScalars({.max_grad_norm = max_grad_norm, .rng_advance = kRngAdvance}));
  // All before the first update: updates follow one another without a gap.
  for (const State& state : states_)
    TE_RETURN_IF_ERROR(KeepScaleInv(context_->exec(), *state.parameter));
  for (const State& state : states_) {
    TE_RETURN_IF_ERROR(
        Update(context_->exec(), state, 0, /*follows_update=*/&state != &states_.front()));
  }
  return OkStatus();
}

Status AdamWOptimizer::SumSquaresBeside(Parameter& parameter) {
  const auto found = state_of_.find(&parameter);
  if (found == state_of_.end()) return OkStatus();  // frozen when the optimizer was made
  TE_RETURN_IF_ERROR(CheckAlone("sums of squares inside the backward pass"));
  return context_->RunBeside(
      [&](const Exec& exec) { return SumSquares(exec, states_[found->second]); });
}

// What uses a gradient before the ranks' ones have been summed.
Status AdamWOptimizer::CheckAlone(const char* what) const {
  const Communicator* const group = context_->groups().data_context;
  if (GroupSize(group) == 1) return OkStatus();
  return Unsupported("AdamW: {} over group '{}' of {} ranks; expected one rank", what,
                     group->name(), group->size());
}

Status AdamWOptimizer::BeginUpdates(bool want_grad_norm) {
  TE_RETURN_IF_ERROR(CheckAlone("updates inside the backward pass"));
  sums_squares_ = want_grad_norm;
  return UpdateScalars({.part = StepUpdatePart::kScale});
}

Status AdamWOptimizer::UpdateNow(Parameter& parameter) {
  return UpdateBeforeTheEnd(context_->exec(), parameter);
}

Status AdamWOptimizer::UpdateBeside(Parameter& parameter) {
  return context_->RunBeside([&](const Exec& exec) { return UpdateBeforeTheEnd(exec, parameter); });
}

Status AdamWOptimizer::UpdateBeforeTheEnd(const Exec& exec, Parameter& parameter) {
  const auto found = state_of_.find(&parameter);
  if (found == state_of_.end()) return OkStatus();  // frozen when the optimizer was made
  const State& state = states_[found->second];
  if (sums_squares_) TE_RETURN_IF_ERROR(SumSquares(exec, state));
  TE_RETURN_IF_ERROR(KeepScaleInv(exec, parameter));
  return Update(exec, state, kRngAdvance, /*follows_update=*/false);
}

Status AdamWOptimizer::EndUpdates() {
  if (sums_squares_) TE_RETURN_IF_ERROR(AddSquares());
  return context_->kernels().step_update(context_->exec(), {.scalars = context_->scalars(),
                                                            .part = StepUpdatePart::kAdvance,
                                                            .rng_advance = kRngAdvance});
}

void AdamWOptimizer::CountLaunch() {
  for (const State& state : states_) {
    Parameter& parameter = *state.parameter;
    ++parameter.version;
    if (parameter.quantized.valid) parameter.quantized.MarkWritten(parameter.version);
  }
}

// The context's scalars serve whichever optimizer steps: each brings its own count of steps.
Status AdamWOptimizer::UpdateScalars(const StepUpdateArgs& args) {
  const KernelTable& kernels = context_->kernels();
  const Exec& exec = context_->exec();
  const TensorView step(&context_->scalars()->step, DType::kInt64, {1});
  TE_RETURN_IF_ERROR(kernels.cast(exec, {.x = step_, .y = step}));
  StepUpdateArgs update = args;
  update.scalars = context_->scalars();
  TE_RETURN_IF_ERROR(kernels.step_update(exec, update));
  return kernels.cast(exec, {.x = step, .y = step_.view()});
}

Status AdamWOptimizer::CheckGradients() const {
  for (const State& state : states_) {
    const Parameter& parameter = *state.parameter;
    if (!parameter.grad.defined()) {
      return FailedPrecondition(
          "AdamW: parameter '{}' has no gradient; expected one after backward", parameter.name);
    }
    if (parameter.grad.shape() != parameter.shape()) {
      return FailedPrecondition("AdamW: the gradient of '{}' is {}; expected the shape {}",
                                parameter.name, parameter.grad.view().ToString(),
                                parameter.shape().ToString());
    }
  }
  return OkStatus();
}

Status AdamWOptimizer::ReduceOverRanks() {
  // The ranks of a context-parallel group hold the same weights, as those of a data-parallel one.
  Communicator* const group = context_->groups().data_context;
  if (GroupSize(group) == 1) return OkStatus();
  const Exec& exec = context_->exec();
  StepScalars* scalars = context_->scalars();
  const TensorView loss(&scalars->loss_sum, DType::kFloat64, {1});
  const TensorView count(&scalars->token_count, DType::kInt64, {1});
  TE_RETURN_IF_ERROR(group->AllReduce(exec, loss, ReduceOp::kSum));
  TE_RETURN_IF_ERROR(group->AllReduce(exec, count, ReduceOp::kSum));
  for (const State& state : states_) {
    TE_RETURN_IF_ERROR(group->AllReduce(exec, state.parameter->grad.view(), ReduceOp::kSum));
  }
  return OkStatus();
}

Status AdamWOptimizer::SumSquares(const Exec& exec, const State& state) {
  double* place = square_sums_.view().as<double>() + (&state - states_.data());
  return context_->kernels().sum(exec, {.x = state.parameter->grad, .out = place});
}

Status AdamWOptimizer::AddSquares() {
  return context_->kernels().sum(
      context_->exec(),
      {.x = square_sums_, .squared = false, .out = &context_->scalars()->grad_square_sum});
}

Status AdamWOptimizer::KeepScaleInv(const Exec& exec, const Parameter& parameter) {
  if (!parameter.fp8_only()) return OkStatus();
  const QuantizedCopy& copy = parameter.quantized;
  const ConstTensorView scale_inv(copy.spec.scale_inv, DType::kFloat32, {1});
  const TensorView previous(copy.previous_scale_inv, DType::kFloat32, {1});
  return context_->kernels().cast(exec, {.x = scale_inv, .y = previous});
}

Status AdamWOptimizer::Update(const Exec& exec, const State& state, uint64_t offset,
                              bool follows_update) {
  Parameter& parameter = *state.parameter;
  // The step's offset alone: an update belongs to no micro-batch.
  const RandomState random = {.seed = context_->options().seed,
                              .stream = state.random_stream,
                              .offset = offset,
                              .step_offset = &context_->scalars()->rng_offset};
  TE_RETURN_IF_ERROR(
      context_->kernels()
          .adamw(exec, {.param = parameter.MutableValue(),
                        .grad = parameter.grad,
                        .m = state.m.view(),
                        .v = state.v.view(),
                        .master = state.master.view(),
                        .beta1 = options_.beta1,
                        .beta2 = options_.beta2,
                        .epsilon = options_.epsilon,
                        .weight_decay = options_.weight_decay,
                        .rounding = options_.rounding,
                        .random = random,
                        .scalars = context_->scalars(),
                        .follows_update = follows_update,
                        .quantized_param = parameter.quantized.spec,
                        .previous_scale_inv = parameter.quantized.previous_scale_inv})
          .WithContext(parameter.name));
  // Its write is the cast of the next forward pass.
  if (parameter.quantized.valid) parameter.quantized.MarkWritten(parameter.version);
  return OkStatus();
}

StatusOr<AdamWOptimizer::Progress> AdamWOptimizer::ReadProgress() {
  Progress progress;
  TE_RETURN_IF_ERROR(context_->CopyToHost(step_.view(), &progress.step));
  TE_ASSIGN_OR_RETURN(const StepScalars scalars, context_->ReadScalars());
  progress.rng_offset = scalars.rng_offset;
  for (const State& state : states_) progress.random_streams.push_back(state.random_stream);
  return progress;
}

Status AdamWOptimizer::WriteProgress(const Progress& progress) {
  if (progress.step < 0) {
    return InvalidArgument("AdamW: step is {}; expected 0 or more", progress.step);
  }
  if (progress.random_streams.size() != states_.size()) {
    return InvalidArgument("AdamW: {} random streams; expected {}, one a trained parameter",
                           progress.random_streams.size(), states_.size());
  }
  TE_ASSIGN_OR_RETURN(StepScalars scalars, context_->ReadScalars());
  scalars.rng_offset = progress.rng_offset;
  TE_RETURN_IF_ERROR(context_->WriteScalars(scalars));
  TE_RETURN_IF_ERROR(context_->CopyFromHost(&progress.step, step_.view()));
  for (size_t i = 0; i < states_.size(); ++i) states_[i].random_stream = progress.random_streams[i];
  return OkStatus();
}

std::vector<AdamWOptimizer::StateTensor> AdamWOptimizer::StateTensors() const {
  std::vector<StateTensor> out;
  for (const State& state : states_) {
    Parameter* parameter = state.parameter;
    out.push_back({parameter->name + ".exp_avg", parameter, state.m.view()});
    out.push_back({parameter->name + ".exp_avg_sq", parameter, state.v.view()});
    if (state.master.defined())
      out.push_back({parameter->name + ".master", parameter, state.master.view()});
  }
  return out;
}

}  // namespace te
