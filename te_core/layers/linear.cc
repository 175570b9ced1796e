#include "te_core/layers/linear.h"

#include "te_core/layers/layer_support.h"

namespace te {

struct Linear::State : SavedState {
  Shape input_shape;
  ProjectionInput x;
  Sink dy;  // gradient of the output: made by BackwardInput, read by BackwardWeight
  bool has_dy = false;
};

StatusOr<std::unique_ptr<Linear>> Linear::Create(Context* context, const LinearOptions& options,
                                                 std::string name) {
  std::unique_ptr<Linear> layer(new Linear(context, std::move(name)));
  layer->options_ = options;
  TE_RETURN_IF_ERROR(
      layer->projection_.Init(context,
                              {.module_type = "linear",
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

Status Linear::Forward(const ForwardArgs& args, Saved* saved) {
  const DType dtype = options_.params_dtype;
  TE_RETURN_IF_ERROR(CheckTaken(name_, {.residual = true, .input_codes = true}, args));
  if (args.input.in_codes()) return ForwardOfCodes(args, saved);
  TE_RETURN_IF_ERROR(CheckFeatures(name_, "input", args.input.dense, dtype, options_.in_features));
  const Shape out = WithLast(args.input.dense.shape(), options_.out_features);
  TE_RETURN_IF_ERROR(CheckShape(name_, "output", args.output, dtype, out));
  TE_RETURN_IF_ERROR(CheckOptional(name_, "residual", args.residual, dtype, out));
  ArenaScope scope(context_->scratch());
  TE_ASSIGN_OR_RETURN(
      const ProjectionInput x,
      projection_.InputOf(ArenaFor(context_, saved), Rows(args.input.dense), saved != nullptr));
  return Multiply(x, args.input.dense.shape(), args, saved);
}

Status Linear::ForwardOfCodes(const ForwardArgs& args, Saved* saved) {
  const DType dtype = options_.params_dtype;
  const QuantSpec& codes = args.input.codes;
  if (args.input.dense.defined()) {
    return InvalidArgument("{}: input is given beside its codes; expected one of them", name_);
  }
  TE_RETURN_IF_ERROR(CheckFeatures(name_, "output", args.output, dtype, options_.out_features));
  TE_RETURN_IF_ERROR(CheckOptional(name_, "residual", args.residual, dtype, args.output.shape()));
  const TensorView y = Rows(args.output);
  if (!(codes.rowwise_data.shape() == Shape{y.dim(0), options_.in_features})) {
    return InvalidArgument("{}: the input's codes are {} of format {}; expected FP8 [{}, {}]",
                           name_, codes.rowwise_data.ToString(), te::Name(codes.format), y.dim(0),
                           options_.in_features);
  }
  ArenaScope scope(context_->scratch());
  TE_ASSIGN_OR_RETURN(const ProjectionInput x,
                      projection_.InputOfCodes(ArenaFor(context_, saved), codes, saved != nullptr));
  return Multiply(x, WithLast(args.output.shape(), options_.in_features), args, saved);
}

Status Linear::Multiply(const ProjectionInput& x, const Shape& shape, const ForwardArgs& args,
                        Saved* saved) {
  if (saved != nullptr) {
    State& state = saved->state<State>();
    state.input_shape = shape;
    state.x = x;
    state.has_dy = false;
  }
  if (!args.output_wanted) return OkStatus();
  return projection_.Forward(x, args.residual.defined() ? Rows(args.residual) : ConstTensorView(),
                             Rows(args.output));
}

StatusOr<QuantSpec> Linear::WantedGradOutput(Saved* saved, Arena* arena) {
  TE_RETURN_IF_ERROR(CheckSaved(name_, saved));
  return projection_.NewGradOutputQuant(arena, saved->state<State>().x);
}

Status Linear::BackwardInput(const BackwardArgs& args, Saved* saved) {
  TE_RETURN_IF_ERROR(CheckTaken(name_, {.residual = true}, args));
  TE_RETURN_IF_ERROR(CheckSaved(name_, saved));
  State& state = saved->state<State>();
  const DType dtype = options_.params_dtype;
  TE_RETURN_IF_ERROR(CheckShape(name_, "doutput", args.doutput.dense, dtype,
                                WithLast(state.input_shape, options_.out_features)));
  TE_RETURN_IF_ERROR(CheckOptional(name_, "dinput", args.dinput.dense, dtype, state.input_shape));
  TE_RETURN_IF_ERROR(CheckOptional(name_, "dresidual", args.dresidual, dtype, state.input_shape));
  TE_ASSIGN_OR_RETURN(state.dy,
                      projection_.GradOutputOf(saved->arena(), state.x, Rows(args.doutput.dense),
                                               args.doutput.codes));
  state.has_dy = true;
  if (!args.dinput.dense.defined()) return OkStatus();
  TE_RETURN_IF_ERROR(projection_.BackwardInput(
      state.x, state.dy, args.dresidual.defined() ? Rows(args.dresidual) : ConstTensorView(),
      Rows(args.dinput.dense)));
  return QuantizeDinput(context_, args);
}

Status Linear::BackwardWeight(const BackwardArgs& args, Saved* saved) {
  TE_RETURN_IF_ERROR(CheckSaved(name_, saved));
  const State& state = saved->state<State>();
  TE_RETURN_IF_ERROR(CheckShape(name_, "doutput", args.doutput.dense, options_.params_dtype,
                                WithLast(state.input_shape, options_.out_features)));
  if (!state.has_dy)
    return FailedPrecondition("{}: BackwardWeight before BackwardInput of the same pass", name_);
  return projection_.BackwardWeight(state.x, state.dy, args);
}

void Linear::VisitOwnParameters(const std::string& prefix, const ParameterVisitor& visit) {
  projection_.VisitParameters(prefix, visit);
}

std::string Linear::Describe(int) const {
  return fmt::format("Linear(in_features={}, out_features={}, bias={}, {}, {} parameters)",
                     options_.in_features, options_.out_features, options_.bias ? "True" : "False",
                     projection_.DescribeParameters(), projection_.parameter_count());
}

}  // namespace te
