#include "te_core/layers/norm.h"

#include "te_core/layers/layer_support.h"

namespace te {

struct Norm::State : SavedState {
  ConstTensorView x;
  Normalization::Statistics statistics;
};

StatusOr<std::unique_ptr<Norm>> Norm::Create(Context* context, const NormOptions& options,
                                             std::string name) {
  std::unique_ptr<Norm> layer(new Norm(context, std::move(name)));
  layer->options_ = options;
  TE_RETURN_IF_ERROR(layer->norm_.Init(context,
                                       {.hidden_size = options.hidden_size,
                                        .kind = options.normalization,
                                        .epsilon = options.layernorm_epsilon,
                                        .zero_centered_gamma = options.zero_centered_gamma,
                                        .params_dtype = options.params_dtype},
                                       layer->name()));
  return layer;
}

Status Norm::Forward(const ForwardArgs& args, Saved* saved) {
  const DType dtype = options_.params_dtype;
  TE_RETURN_IF_ERROR(CheckTaken(name_, {}, args));
  TE_RETURN_IF_ERROR(CheckFeatures(name_, "input", args.input.dense, dtype, options_.hidden_size));
  TE_RETURN_IF_ERROR(CheckShape(name_, "output", args.output, dtype, args.input.dense.shape()));
  State* state = nullptr;
  if (saved != nullptr) {
    state = &saved->state<State>();
    state->x = args.input.dense;
  }
  return norm_.Forward(Rows(args.input.dense), Rows(args.output), ArenaFor(context_, saved),
                       state != nullptr ? &state->statistics : nullptr);
}

Status Norm::BackwardInput(const BackwardArgs& args, Saved* saved) {
  TE_RETURN_IF_ERROR(CheckTaken(name_, {.residual = true}, args));
  TE_RETURN_IF_ERROR(CheckSaved(name_, saved));
  const State& state = saved->state<State>();
  const DType dtype = options_.params_dtype;
  TE_RETURN_IF_ERROR(CheckShape(name_, "doutput", args.doutput.dense, dtype, state.x.shape()));
  TE_RETURN_IF_ERROR(CheckOptional(name_, "dinput", args.dinput.dense, dtype, state.x.shape()));
  TE_RETURN_IF_ERROR(CheckOptional(name_, "dresidual", args.dresidual, dtype, state.x.shape()));
  if (!args.dinput.dense.defined() && !norm_.requires_grad()) return OkStatus();
  return norm_.Backward(Rows(args.doutput.dense), Rows(state.x), state.statistics,
                        args.dresidual.defined() ? Rows(args.dresidual) : ConstTensorView(),
                        args.dinput.dense.defined() ? Rows(args.dinput.dense) : TensorView(), args);
}

Status Norm::BackwardWeight(const BackwardArgs&, Saved* saved) { return CheckSaved(name_, saved); }

void Norm::VisitOwnParameters(const std::string& prefix, const ParameterVisitor& visit) {
  norm_.VisitParameters(prefix, visit);
}

std::string Norm::Describe(int) const {
  return fmt::format("{}({}, eps={}{}, {} parameters)", Name(options_.normalization),
                     options_.hidden_size, options_.layernorm_epsilon,
                     options_.zero_centered_gamma ? ", zero_centered_gamma=True" : "",
                     norm_.parameter_count());
}

}  // namespace te
