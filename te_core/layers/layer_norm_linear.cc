#include "te_core/layers/layer_norm_linear.h"

#include "te_core/layers/layer_support.h"

namespace te {

struct LayerNormLinear::State : SavedState {
  ConstTensorView x;
  Normalization::Statistics statistics;
  ProjectionInput normed;
  Sink dy;  // gradient of the output: made by BackwardInput, read by BackwardWeight
  bool has_dy = false;
};

StatusOr<std::unique_ptr<LayerNormLinear>> LayerNormLinear::Create(
    Context* context, const LayerNormLinearOptions& options, std::string name) {
  std::unique_ptr<LayerNormLinear> layer(new LayerNormLinear(context, std::move(name)));
  layer->options_ = options;
  TE_RETURN_IF_ERROR(CheckPositive(layer->name(), "in_features", options.in_features));
  TE_RETURN_IF_ERROR(layer->norm_.Init(context,
                                       {.hidden_size = options.in_features,
                                        .kind = options.normalization,
                                        .epsilon = options.layernorm_epsilon,
                                        .zero_centered_gamma = options.zero_centered_gamma,
                                        .params_dtype = options.params_dtype,
                                        .parameter_prefix = "layer_norm_"},
                                       layer->name()));
  TE_RETURN_IF_ERROR(
      layer->projection_.Init(context,
                              {.module_type = "layernorm_linear",
                               .in_features = options.in_features,
                               .out_features = options.out_features,
                               .bias = options.bias,
                               .parameters_split = options.parameters_split,
                               .init_std = options.init_method_std,
                               .perform_initialization = options.perform_initialization,
                               .params_dtype = options.params_dtype},
                              layer->name()));
  return layer;
}

Status LayerNormLinear::Forward(const ForwardArgs& args, Saved* saved) {
  const DType dtype = options_.params_dtype;
  TE_RETURN_IF_ERROR(CheckTaken(name_, {.residual = true, .norm_output = true}, args));
  TE_RETURN_IF_ERROR(CheckFeatures(name_, "input", args.input.dense, dtype, options_.in_features));
  const Shape out = WithLast(args.input.dense.shape(), options_.out_features);
  TE_RETURN_IF_ERROR(CheckShape(name_, "output", args.output, dtype, out));
  TE_RETURN_IF_ERROR(CheckOptional(name_, "residual", args.residual, dtype, out));
  TE_RETURN_IF_ERROR(
      CheckOptional(name_, "norm_output", args.norm_output, dtype, args.input.dense.shape()));
  ArenaScope scope(context_->scratch());
  Arena* arena = ArenaFor(context_, saved);
  const ConstTensorView x = Rows(args.input.dense);
  TE_ASSIGN_OR_RETURN(
      const ProjectionInput normed,
      projection_.NewInput(arena, x.dim(0),
                           args.norm_output.defined() ? Rows(args.norm_output) : TensorView(),
                           saved != nullptr));
  Normalization::Statistics statistics;
  TE_RETURN_IF_ERROR(
      norm_.Forward(x, normed.sink, arena, saved != nullptr ? &statistics : nullptr));
  if (saved != nullptr) {
    State& state = saved->state<State>();
    state.x = args.input.dense;
    state.statistics = statistics;
    state.normed = normed;
    state.has_dy = false;
  }
  if (!args.output_wanted) return OkStatus();
  return projection_.Forward(
      normed, args.residual.defined() ? Rows(args.residual) : ConstTensorView(), Rows(args.output));
}

StatusOr<QuantSpec> LayerNormLinear::WantedGradOutput(Saved* saved, Arena* arena) {
  TE_RETURN_IF_ERROR(CheckSaved(name_, saved));
  return projection_.NewGradOutputQuant(arena, saved->state<State>().normed);
}

Status LayerNormLinear::BackwardInput(const BackwardArgs& args, Saved* saved) {
  TE_RETURN_IF_ERROR(CheckTaken(name_, {.residual = true, .norm_output = true}, args));
  TE_RETURN_IF_ERROR(CheckSaved(name_, saved));
  State& state = saved->state<State>();
  const DType dtype = options_.params_dtype;
  const Shape& shape = state.x.shape();
  TE_RETURN_IF_ERROR(CheckShape(name_, "doutput", args.doutput.dense, dtype,
                                WithLast(shape, options_.out_features)));
  TE_RETURN_IF_ERROR(CheckOptional(name_, "dinput", args.dinput.dense, dtype, shape));
  TE_RETURN_IF_ERROR(CheckOptional(name_, "dresidual", args.dresidual, dtype, shape));
  TE_RETURN_IF_ERROR(CheckOptional(name_, "dnorm_output", args.dnorm_output, dtype, shape));
  TE_ASSIGN_OR_RETURN(
      state.dy, projection_.GradOutputOf(saved->arena(), state.normed, Rows(args.doutput.dense),
                                         args.doutput.codes));
  state.has_dy = true;
  if (!args.dinput.dense.defined() && !norm_.requires_grad()) return OkStatus();
  ArenaScope scope(context_->scratch());
  TE_ASSIGN_OR_RETURN(const TensorView dnormed,
                      context_->scratch()->Allocate(dtype, Rows(state.x).shape()));
  TE_RETURN_IF_ERROR(projection_.BackwardInput(
      state.normed, state.dy,
      args.dnorm_output.defined() ? Rows(args.dnorm_output) : ConstTensorView(), dnormed));
  return norm_.Backward(dnormed, Rows(state.x), state.statistics,
                        args.dresidual.defined() ? Rows(args.dresidual) : ConstTensorView(),
                        args.dinput.dense.defined() ? Rows(args.dinput.dense) : TensorView(), args);
}

Status LayerNormLinear::BackwardWeight(const BackwardArgs& args, Saved* saved) {
  TE_RETURN_IF_ERROR(CheckSaved(name_, saved));
  const State& state = saved->state<State>();
  TE_RETURN_IF_ERROR(CheckShape(name_, "doutput", args.doutput.dense, options_.params_dtype,
                                WithLast(state.x.shape(), options_.out_features)));
  if (!state.has_dy)
    return FailedPrecondition("{}: BackwardWeight before BackwardInput of the same pass", name_);
  return projection_.BackwardWeight(state.normed, state.dy, args);
}

void LayerNormLinear::VisitOwnParameters(const std::string& prefix, const ParameterVisitor& visit) {
  norm_.VisitParameters(prefix, visit);
  projection_.VisitParameters(prefix, visit);
}

std::string LayerNormLinear::Describe(int) const {
  return fmt::format(
      "LayerNormLinear(in_features={}, out_features={}, bias={}, {}, {}, {} parameters)",
      options_.in_features, options_.out_features, options_.bias ? "True" : "False",
      norm_.Describe(), projection_.DescribeParameters(),
      norm_.parameter_count() + projection_.parameter_count());
}

}  // namespace te
