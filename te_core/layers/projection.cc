#include "te_core/layers/projection.h"

#include <utility>

#include "te_core/layers/layer_support.h"
#include "te_core/quantization/fp8_only_weight.h"

namespace te {
namespace {

// "fc1_" of the module "layernorm_mlp" is the module "layernorm_mlp.fc1".
std::string ModuleName(const std::string& layer, const std::string& parameter_prefix) {
  if (parameter_prefix.empty()) return layer;
  return JoinName(layer, parameter_prefix.substr(0, parameter_prefix.size() - 1));
}

}  // namespace

Status Projection::Init(Context* context, const ProjectionOptions& options,
                        const std::string& layer) {
  context_ = context;
  options_ = options;
  quantizers_.Init(context, options.module_type, ModuleName(layer, options.parameter_prefix));
  TE_RETURN_IF_ERROR(CheckParamsDType(layer, options.params_dtype));
  TE_RETURN_IF_ERROR(CheckPositive(layer, "in_features", options.in_features));
  TE_RETURN_IF_ERROR(CheckPositive(layer, "out_features", options.out_features));
  TE_RETURN_IF_ERROR(CheckStd(layer, "init_method_std", options.init_std));
  const std::string weight_name = options.parameter_prefix + "weight";
  TE_ASSIGN_OR_RETURN(const std::unique_ptr<Parameter> fp8_only,
                      quantizers_.NewFp8OnlyWeight(weight_name, options.params_dtype,
                                                   options.out_features, options.in_features));
  if (fp8_only != nullptr) {
    weight_ = std::move(*fp8_only);
  } else {
    TE_ASSIGN_OR_RETURN(weight_, NewParameter(context, weight_name, options.params_dtype,
                                              {options.out_features, options.in_features}));
  }
  if (options.perform_initialization) {
    TE_RETURN_IF_ERROR(BeginWrite(context, &weight_));
    TE_RETURN_IF_ERROR(FillNormal(context, options.init_std, &weight_));
    TE_RETURN_IF_ERROR(EndWrite(context, &weight_));
  }
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

StatusOr<ProjectionInput> Projection::NewInput(Arena* arena, int64_t tokens, TensorView dense,
                                               bool saved) {
  ProjectionInput x = {.pass = quantizers_.NewPass(saved), .tokens = tokens};
  TE_ASSIGN_OR_RETURN(x.sink, quantizers_.InputSink(x.pass, arena, dense, options_.params_dtype,
                                                    tokens, options_.in_features,
                                                    x.pass.training && weight_.requires_grad));
  return x;
}

StatusOr<ProjectionInput> Projection::InputOf(Arena* arena, ConstTensorView dense, bool saved) {
  ProjectionInput x = {.pass = quantizers_.NewPass(saved), .tokens = dense.dim(0)};
  TE_ASSIGN_OR_RETURN(
      x.sink, quantizers_.Input(x.pass, arena, dense, x.pass.training && weight_.requires_grad));
  return x;
}

StatusOr<ProjectionInput> Projection::InputOfCodes(Arena* arena, const QuantSpec& codes,
                                                   bool saved) {
  TE_ASSIGN_OR_RETURN(ProjectionInput x,
                      NewInput(arena, codes.rowwise_data.dim(0), TensorView(), saved));
  TE_RETURN_IF_ERROR(context_->kernels().dequantize(
      context_->exec(), {.x = codes, .y = x.sink, .dtype = options_.params_dtype}));
  return x;
}

StatusOr<Sink> Projection::NewGradOutput(Arena* arena, const ProjectionInput& x) {
  return quantizers_.GradOutputSink(x.pass, arena, bias_wanted(), options_.params_dtype, x.tokens,
                                    options_.out_features, weight_.requires_grad);
}

StatusOr<QuantSpec> Projection::NewGradOutputQuant(Arena* arena, const ProjectionInput& x) {
  return quantizers_.GradOutputSpec(x.pass, arena, x.tokens, options_.out_features,
                                    weight_.requires_grad);
}

StatusOr<Sink> Projection::GradOutputOf(Arena* arena, const ProjectionInput& x,
                                        ConstTensorView dense, const QuantSpec& written) {
  return quantizers_.GradOutput(x.pass, arena, dense, written, weight_.requires_grad);
}

Status Projection::Forward(const ProjectionInput& x, ConstTensorView residual, TensorView y) {
  TE_RETURN_IF_ERROR(quantizers_.CalibrateInput(x.pass, x.sink.dense));
  TE_RETURN_IF_ERROR(quantizers_.CalibrateWeight(x.pass, weight_));
  const ArenaScope scope(context_->scratch());
  TE_ASSIGN_OR_RETURN(const Operand w, quantizers_.Weight(x.pass, GemmKind::kFprop, &weight_));
  return context_->kernels().gemm(context_->exec(),
                                  {.kind = GemmKind::kFprop,
                                   .a = OperandOf(x.sink),
                                   .b = w,
                                   .bias = bias_.value,
                                   .c = residual,
                                   .d = y,
                                   .beta = residual.defined() ? 1.0f : 0.0f,
                                   .split_accumulator = x.pass.Splits(GemmKind::kFprop)});
}

Status Projection::BackwardInput(const ProjectionInput& x, const Sink& dy, ConstTensorView add,
                                 TensorView dx) {
  const ArenaScope scope(context_->scratch());
  TE_ASSIGN_OR_RETURN(const Operand w, quantizers_.Weight(x.pass, GemmKind::kDgrad, &weight_));
  return context_->kernels().gemm(context_->exec(),
                                  {.kind = GemmKind::kDgrad,
                                   .a = OperandOf(dy),
                                   .b = w,
                                   .c = add,
                                   .d = dx,
                                   .beta = add.defined() ? 1.0f : 0.0f,
                                   .split_accumulator = x.pass.Splits(GemmKind::kDgrad)});
}

Status Projection::BackwardWeight(const ProjectionInput& x, const Sink& dy,
                                  const BackwardArgs& args) {
  TE_RETURN_IF_ERROR(quantizers_.CalibrateGradOutput(x.pass, dy.dense));
  if (weight_.requires_grad) {
    TE_ASSIGN_OR_RETURN(const bool accumulate,
                        PrepareGradient(context_, &weight_, args.accumulate_gradients));
    const ArenaScope scope(context_->scratch());
    TE_ASSIGN_OR_RETURN(const Operand input,
                        quantizers_.InputOfBackward(x.pass, x.sink, options_.params_dtype, x.tokens,
                                                    options_.in_features));
    TE_RETURN_IF_ERROR(context_->kernels().gemm(
        context_->exec(), {.kind = GemmKind::kWgrad,
                           .a = OperandOf(dy),
                           .b = input,
                           .d = weight_.grad.view(),
                           .beta = accumulate ? 1.0f : 0.0f,
                           .split_accumulator = x.pass.Splits(GemmKind::kWgrad)}));
    TE_RETURN_IF_ERROR(CallGradientReady(args.gradient_ready, &weight_));
  }
  if (bias_wanted()) {
    TE_ASSIGN_OR_RETURN(const bool accumulate,
                        PrepareGradient(context_, &bias_, args.accumulate_gradients));
    TE_RETURN_IF_ERROR(context_->kernels().bias_gradient(
        context_->exec(), {.dy = dy.dense, .dbias = bias_.grad.view(), .accumulate = accumulate}));
    TE_RETURN_IF_ERROR(CallGradientReady(args.gradient_ready, &bias_));
  }
  return quantizers_.EndBackward(x.pass);
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
