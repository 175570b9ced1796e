#include "te_core/layers/projection.h"

#include "te_core/layers/layer_support.h"

namespace te {
namespace {

// A recipe's OperandFor reads alone; Sink's view is writable because producers share it.
Sink ReadOnly(ConstTensorView dense) {
  return Sink(
      TensorView(const_cast<void*>(dense.data()), dense.dtype(), dense.shape(), dense.strides()));
}

}  // namespace

Status Projection::Init(Context* context, const ProjectionOptions& options,
                        const std::string& layer) {
  context_ = context;
  options_ = options;
  layer_ = layer;
  TE_RETURN_IF_ERROR(CheckParamsDType(layer, options.params_dtype));
  TE_RETURN_IF_ERROR(CheckPositive(layer, "in_features", options.in_features));
  TE_RETURN_IF_ERROR(CheckPositive(layer, "out_features", options.out_features));
  TE_RETURN_IF_ERROR(CheckStd(layer, "init_method_std", options.init_std));
  TE_ASSIGN_OR_RETURN(
      weight_, NewParameter(context, options.parameter_prefix + "weight", options.params_dtype,
                            {options.out_features, options.in_features}));
  if (options.perform_initialization)
    TE_RETURN_IF_ERROR(FillNormal(context, options.init_std, &weight_));
  if (options.bias) {
    TE_ASSIGN_OR_RETURN(bias_, NewParameter(context, options.parameter_prefix + "bias",
                                            options.params_dtype, {options.out_features}));
    TE_RETURN_IF_ERROR(FillConstant(context, 0, &bias_));
  }
  int64_t rows = 0;
  for (const ParameterSplit& split : options.parameters_split) {
    TE_RETURN_IF_ERROR(
        CheckPositive(layer, ("rows of parameters_split " + split.prefix).c_str(), split.rows));
    weight_.slices.push_back({split.prefix + "weight", rows, split.rows});
    if (options.bias) bias_.slices.push_back({split.prefix + "bias", rows, split.rows});
    rows += split.rows;
  }
  if (!options.parameters_split.empty() && rows != options.out_features) {
    return InvalidArgument("{}: parameters_split has {} rows; expected out_features = {}", layer,
                           rows, options.out_features);
  }
  return OkStatus();
}

StatusOr<Sink> Projection::InputSink(TensorView dense) const {
  return context_->recipe().SinkFor(Role("input"), dense);
}
StatusOr<Operand> Projection::InputOperand(const Sink& written) const {
  return context_->recipe().OperandFor(Role("input"), written);
}
StatusOr<Operand> Projection::InputOperand(ConstTensorView dense) const {
  return InputOperand(ReadOnly(dense));
}
StatusOr<Sink> Projection::GradOutputSink(TensorView dense) const {
  return context_->recipe().SinkFor(Role("grad_output"), dense);
}
StatusOr<Operand> Projection::GradOutputOperand(const Sink& written) const {
  return context_->recipe().OperandFor(Role("grad_output"), written);
}
StatusOr<Operand> Projection::GradOutputOperand(ConstTensorView dense) const {
  return GradOutputOperand(ReadOnly(dense));
}
StatusOr<Operand> Projection::WeightOperand() const {
  return context_->recipe().OperandFor(Role("weight"), Sink(weight_.value.view()));
}

Status Projection::Forward(const Operand& x, ConstTensorView residual, TensorView y) const {
  TE_ASSIGN_OR_RETURN(const Operand w, WeightOperand());
  return context_->kernels().gemm(context_->exec(), {.kind = GemmKind::kFprop,
                                                     .a = x,
                                                     .b = w,
                                                     .bias = bias_.value,
                                                     .c = residual,
                                                     .d = y,
                                                     .beta = residual.defined() ? 1.0f : 0.0f});
}

Status Projection::BackwardInput(const Operand& dy, ConstTensorView add, TensorView dx) const {
  TE_ASSIGN_OR_RETURN(const Operand w, WeightOperand());
  return context_->kernels().gemm(context_->exec(), {.kind = GemmKind::kDgrad,
                                                     .a = dy,
                                                     .b = w,
                                                     .c = add,
                                                     .d = dx,
                                                     .beta = add.defined() ? 1.0f : 0.0f});
}

Status Projection::BackwardWeight(const Operand& dy, ConstTensorView dense_dy, const Operand& x,
                                  const BackwardArgs& args) {
  if (weight_.requires_grad) {
    TE_ASSIGN_OR_RETURN(const bool accumulate,
                        PrepareGradient(context_, &weight_, args.accumulate_gradients));
    TE_RETURN_IF_ERROR(
        context_->kernels().gemm(context_->exec(), {.kind = GemmKind::kWgrad,
                                                    .a = dy,
                                                    .b = x,
                                                    .d = weight_.grad.view(),
                                                    .beta = accumulate ? 1.0f : 0.0f}));
    TE_RETURN_IF_ERROR(CallGradientReady(args.gradient_ready, &weight_));
  }
  if (options_.bias && bias_.requires_grad) {
    TE_ASSIGN_OR_RETURN(const bool accumulate,
                        PrepareGradient(context_, &bias_, args.accumulate_gradients));
    TE_RETURN_IF_ERROR(context_->kernels().bias_gradient(
        context_->exec(), {.dy = dense_dy, .dbias = bias_.grad.view(), .accumulate = accumulate}));
    TE_RETURN_IF_ERROR(CallGradientReady(args.gradient_ready, &bias_));
  }
  return OkStatus();
}

void Projection::VisitParameters(const std::string& prefix, const ParameterVisitor& visit) {
  visit(JoinName(prefix, weight_.name), weight_);
  if (options_.bias) visit(JoinName(prefix, bias_.name), bias_);
}

std::string Projection::DescribeParameters() const {
  return DescribeParameter(weight_) + (options_.bias ? ", " + DescribeParameter(bias_) : "");
}

int64_t Projection::parameter_count() const {
  return ParameterCount(weight_) + ParameterCount(bias_);
}

}  // namespace te
