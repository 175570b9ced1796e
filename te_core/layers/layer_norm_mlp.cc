#include "te_core/layers/layer_norm_mlp.h"

#include "te_core/layers/layer_support.h"

namespace te {

struct LayerNormMLP::State : SavedState {
  ConstTensorView x;
  Normalization::Statistics statistics;
  ProjectionInput normed;     // fc1's input
  TensorView fc1_out;         // [T, F] or [T, 2F]
  ProjectionInput activated;  // fc2's input
  // Gradients of fc1_out and of the output: made by BackwardInput, read by BackwardWeight.
  Sink dfc1;
  Sink dy;
  bool has_dy = false;
  bool has_dfc1 = false;
};

StatusOr<std::unique_ptr<LayerNormMLP>> LayerNormMLP::Create(Context* context,
                                                             const LayerNormMLPOptions& options,
                                                             std::string name) {
  std::unique_ptr<LayerNormMLP> layer(new LayerNormMLP(context, std::move(name)));
  layer->options_ = options;
  TE_RETURN_IF_ERROR(CheckPositive(layer->name(), "hidden_size", options.hidden_size));
  TE_RETURN_IF_ERROR(CheckPositive(layer->name(), "ffn_hidden_size", options.ffn_hidden_size));
  TE_RETURN_IF_ERROR(layer->norm_.Init(context,
                                       {.hidden_size = options.hidden_size,
                                        .kind = options.normalization,
                                        .epsilon = options.layernorm_epsilon,
                                        .zero_centered_gamma = options.zero_centered_gamma,
                                        .params_dtype = options.params_dtype,
                                        .parameter_prefix = "layer_norm_"},
                                       layer->name()));
  TE_RETURN_IF_ERROR(layer->fc1_.Init(
      context,
      {.module_type = "layernorm_mlp.fc1",
       .parameter_prefix = "fc1_",
       .in_features = options.hidden_size,
       .out_features = options.ffn_hidden_size * (IsGated(options.activation) ? 2 : 1),
       .bias = options.bias,
       .init_std = options.init_method_std,
       .perform_initialization = options.perform_initialization,
       .params_dtype = options.params_dtype},
      layer->name()));
  TE_RETURN_IF_ERROR(layer->fc2_.Init(context,
                                      {.module_type = "layernorm_mlp.fc2",
                                       .parameter_prefix = "fc2_",
                                       .in_features = options.ffn_hidden_size,
                                       .out_features = options.hidden_size,
                                       .bias = options.bias,
                                       .init_std = options.output_layer_init_method_std,
                                       .perform_initialization = options.perform_initialization,
                                       .params_dtype = options.params_dtype},
                                      layer->name()));
  return layer;
}

Status LayerNormMLP::Forward(const ForwardArgs& args, Saved* saved) {
  const DType dtype = options_.params_dtype;
  const Shape& shape = args.input.dense.shape();
  TE_RETURN_IF_ERROR(CheckTaken(name_, {.residual = true, .norm_output = true}, args));
  TE_RETURN_IF_ERROR(CheckFeatures(name_, "input", args.input.dense, dtype, options_.hidden_size));
  TE_RETURN_IF_ERROR(CheckShape(name_, "output", args.output, dtype, shape));
  TE_RETURN_IF_ERROR(CheckOptional(name_, "residual", args.residual, dtype, shape));
  TE_RETURN_IF_ERROR(CheckOptional(name_, "norm_output", args.norm_output, dtype, shape));
  ArenaScope scope(context_->scratch());
  Arena* arena = ArenaFor(context_, saved);
  const ConstTensorView x = Rows(args.input.dense);
  const int64_t tokens = x.dim(0);
  TE_ASSIGN_OR_RETURN(
      const ProjectionInput normed,
      fc1_.NewInput(arena, tokens,
                    args.norm_output.defined() ? Rows(args.norm_output) : TensorView(),
                    saved != nullptr));
  Normalization::Statistics statistics;
  TE_RETURN_IF_ERROR(
      norm_.Forward(x, normed.sink, arena, saved != nullptr ? &statistics : nullptr));

  TE_ASSIGN_OR_RETURN(const TensorView fc1_out,
                      arena->Allocate(dtype, {tokens, fc1_.options().out_features}));
  TE_RETURN_IF_ERROR(fc1_.Forward(normed, ConstTensorView(), fc1_out));

  TE_ASSIGN_OR_RETURN(const ProjectionInput activated,
                      fc2_.NewInput(arena, tokens, TensorView(), saved != nullptr));
  TE_RETURN_IF_ERROR(context_->kernels().activation_forward(context_->exec(),
                                                            {.kind = options_.activation,
                                                             .params = options_.activation_params,
                                                             .x = fc1_out,
                                                             .y = activated.sink}));
  if (saved != nullptr) {
    State& state = saved->state<State>();
    state.x = args.input.dense;
    state.statistics = statistics;
    state.normed = normed;
    state.fc1_out = fc1_out;
    state.activated = activated;
    state.has_dy = state.has_dfc1 = false;
  }
  if (!args.output_wanted) return OkStatus();
  return fc2_.Forward(activated, args.residual.defined() ? Rows(args.residual) : ConstTensorView(),
                      Rows(args.output));
}

StatusOr<QuantSpec> LayerNormMLP::WantedGradOutput(Saved* saved, Arena* arena) {
  TE_RETURN_IF_ERROR(CheckSaved(name_, saved));
  return fc2_.NewGradOutputQuant(arena, saved->state<State>().activated);
}

Status LayerNormMLP::BackwardInput(const BackwardArgs& args, Saved* saved) {
  TE_RETURN_IF_ERROR(CheckTaken(name_, {.residual = true, .norm_output = true}, args));
  TE_RETURN_IF_ERROR(CheckSaved(name_, saved));
  State& state = saved->state<State>();
  const DType dtype = options_.params_dtype;
  const Shape& shape = state.x.shape();
  TE_RETURN_IF_ERROR(CheckShape(name_, "doutput", args.doutput.dense, dtype, shape));
  TE_RETURN_IF_ERROR(CheckOptional(name_, "dinput", args.dinput.dense, dtype, shape));
  TE_RETURN_IF_ERROR(CheckOptional(name_, "dresidual", args.dresidual, dtype, shape));
  TE_RETURN_IF_ERROR(CheckOptional(name_, "dnorm_output", args.dnorm_output, dtype, shape));
  const bool norm_wanted = args.dinput.dense.defined() || norm_.requires_grad();
  const bool fc1_wanted =
      fc1_.weight().requires_grad || (options_.bias && fc1_.bias().requires_grad);
  TE_ASSIGN_OR_RETURN(state.dy, fc2_.GradOutputOf(saved->arena(), state.activated,
                                                  Rows(args.doutput.dense), args.doutput.codes));
  state.has_dy = true;
  if (!norm_wanted && !fc1_wanted) return OkStatus();

  TE_ASSIGN_OR_RETURN(state.dfc1, fc1_.NewGradOutput(saved->arena(), state.normed));
  state.has_dfc1 = true;
  {
    ArenaScope scope(context_->scratch());
    const Shape activated = {state.fc1_out.dim(0), options_.ffn_hidden_size};
    TE_ASSIGN_OR_RETURN(const TensorView dactivated,
                        context_->scratch()->Allocate(dtype, activated));
    TE_RETURN_IF_ERROR(
        fc2_.BackwardInput(state.activated, state.dy, ConstTensorView(), dactivated));
    TE_RETURN_IF_ERROR(context_->kernels().activation_backward(
        context_->exec(), {.kind = options_.activation,
                           .params = options_.activation_params,
                           .x = state.fc1_out,
                           .dy = dactivated,
                           .dx = state.dfc1}));
  }
  if (!norm_wanted) return OkStatus();
  ArenaScope scope(context_->scratch());
  TE_ASSIGN_OR_RETURN(const TensorView dnormed,
                      context_->scratch()->Allocate(dtype, Rows(state.x).shape()));
  TE_RETURN_IF_ERROR(fc1_.BackwardInput(
      state.normed, state.dfc1,
      args.dnorm_output.defined() ? Rows(args.dnorm_output) : ConstTensorView(), dnormed));
  return norm_.Backward(dnormed, Rows(state.x), state.statistics,
                        args.dresidual.defined() ? Rows(args.dresidual) : ConstTensorView(),
                        args.dinput.dense.defined() ? Rows(args.dinput.dense) : TensorView(), args);
}

Status LayerNormMLP::BackwardWeight(const BackwardArgs& args, Saved* saved) {
  TE_RETURN_IF_ERROR(CheckSaved(name_, saved));
  const State& state = saved->state<State>();
  TE_RETURN_IF_ERROR(
      CheckShape(name_, "doutput", args.doutput.dense, options_.params_dtype, state.x.shape()));
  const bool fc1_wanted =
      fc1_.weight().requires_grad || (options_.bias && fc1_.bias().requires_grad);
  if (!state.has_dy || (fc1_wanted && !state.has_dfc1)) {
    return FailedPrecondition("{}: BackwardWeight before BackwardInput of the same pass", name_);
  }
  TE_RETURN_IF_ERROR(fc2_.BackwardWeight(state.activated, state.dy, args));
  if (!state.has_dfc1) return OkStatus();
  return fc1_.BackwardWeight(state.normed, state.dfc1, args);
}

void LayerNormMLP::VisitOwnParameters(const std::string& prefix, const ParameterVisitor& visit) {
  norm_.VisitParameters(prefix, visit);
  fc1_.VisitParameters(prefix, visit);
  fc2_.VisitParameters(prefix, visit);
}

std::string LayerNormMLP::Describe(int) const {
  return fmt::format(
      "LayerNormMLP(hidden_size={}, ffn_hidden_size={}, activation={}, bias={}, {}, {}, {}, {} "
      "parameters)",
      options_.hidden_size, options_.ffn_hidden_size, Name(options_.activation),
      options_.bias ? "True" : "False", norm_.Describe(), fc1_.DescribeParameters(),
      fc2_.DescribeParameters(),
      norm_.parameter_count() + fc1_.parameter_count() + fc2_.parameter_count());
}

}  // namespace te
