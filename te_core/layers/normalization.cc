#include "te_core/layers/normalization.h"

#include "te_core/layers/layer_support.h"

namespace te {

const char* Name(NormalizationKind kind) {
  switch (kind) {
    case NormalizationKind::kLayerNorm:
      return "LayerNorm";
    case NormalizationKind::kRmsNorm:
      return "RMSNorm";
  }
  return "unknown";
}

StatusOr<NormalizationKind> ParseNormalization(std::string_view name) {
  for (NormalizationKind kind : {NormalizationKind::kLayerNorm, NormalizationKind::kRmsNorm}) {
    if (name == Name(kind)) return kind;
  }
  return InvalidArgument("normalization is '{}'; expected LayerNorm or RMSNorm", name);
}

Status Normalization::Init(Context* context, const NormalizationOptions& options,
                           const std::string& layer) {
  context_ = context;
  options_ = options;
  TE_RETURN_IF_ERROR(CheckParamsDType(layer, options.params_dtype));
  TE_RETURN_IF_ERROR(CheckPositive(layer, "hidden_size", options.hidden_size));
  TE_RETURN_IF_ERROR(CheckEpsilon(layer, options.epsilon));
  if (options.kind != NormalizationKind::kLayerNorm &&
      options.kind != NormalizationKind::kRmsNorm) {
    return InvalidArgument("{}: normalization is {}; expected LayerNorm (0) or RMSNorm (1)", layer,
                           static_cast<int>(options.kind));
  }
  const Shape shape = {options.hidden_size};
  TE_ASSIGN_OR_RETURN(weight_, NewParameter(context, options.parameter_prefix + "weight",
                                            options.params_dtype, shape));
  TE_RETURN_IF_ERROR(FillConstant(context, options.zero_centered_gamma ? 0.0f : 1.0f, &weight_));
  if (!has_bias()) return OkStatus();
  TE_ASSIGN_OR_RETURN(
      bias_, NewParameter(context, options.parameter_prefix + "bias", options.params_dtype, shape));
  return FillConstant(context, 0, &bias_);
}

Status Normalization::Forward(ConstTensorView x, const Sink& y, Arena* arena,
                              Statistics* statistics) const {
  Statistics none;
  Statistics& s = statistics != nullptr ? *statistics : none;
  s = Statistics();
  if (statistics != nullptr) {
    TE_ASSIGN_OR_RETURN(s.rstd, arena->Allocate(DType::kFloat32, {x.dim(0)}));
    if (has_bias()) {
      TE_ASSIGN_OR_RETURN(s.mean, arena->Allocate(DType::kFloat32, {x.dim(0)}));
    }
  }
  const Exec& exec = context_->exec();
  if (options_.kind == NormalizationKind::kRmsNorm) {
    return context_->kernels().rms_norm_forward(
        exec, {.x = x,
               .gamma = weight_.value,
               .epsilon = options_.epsilon,
               .zero_centered_gamma = options_.zero_centered_gamma,
               .y = y,
               .rstd = s.rstd});
  }
  return context_->kernels().layer_norm_forward(
      exec, {.x = x,
             .gamma = weight_.value,
             .beta = bias_.value,
             .epsilon = options_.epsilon,
             .zero_centered_gamma = options_.zero_centered_gamma,
             .y = y,
             .mean = s.mean,
             .rstd = s.rstd});
}

Status Normalization::Backward(ConstTensorView dy, ConstTensorView x, const Statistics& statistics,
                               ConstTensorView add, TensorView dx, const BackwardArgs& args) {
  ArenaScope scope(context_->scratch());
  Sink dx_sink(dx);
  dx_sink.quant = args.dinput.quant;
  if (!dx.defined()) {
    TE_ASSIGN_OR_RETURN(dx_sink.dense, context_->scratch()->Allocate(x.dtype(), x.shape()));
  }
  TensorView dgamma, dbeta;
  bool accumulate = args.accumulate_gradients;
  if (weight_.requires_grad) {
    TE_ASSIGN_OR_RETURN(accumulate, PrepareGradient(context_, &weight_, args.accumulate_gradients));
    dgamma = weight_.grad.view();
  }
  if (has_bias() && bias_.requires_grad) {
    TE_ASSIGN_OR_RETURN(const bool accumulate_bias,
                        PrepareGradient(context_, &bias_, args.accumulate_gradients));
    dbeta = bias_.grad.view();
    // One flag for both: a buffer that is new beside an old one starts from zero.
    if (dgamma.defined() && accumulate && !accumulate_bias)
      TE_RETURN_IF_ERROR(context_->Zero(dbeta));
    if (dgamma.defined() && !accumulate && accumulate_bias)
      TE_RETURN_IF_ERROR(context_->Zero(dgamma));
    accumulate = accumulate_bias || (dgamma.defined() && accumulate);
  }
  const Exec& exec = context_->exec();
  if (options_.kind == NormalizationKind::kRmsNorm) {
    TE_RETURN_IF_ERROR(context_->kernels().rms_norm_backward(
        exec, {.dy = dy,
               .x = x,
               .gamma = weight_.value,
               .rstd = statistics.rstd,
               .zero_centered_gamma = options_.zero_centered_gamma,
               .add = add,
               .dx = dx_sink,
               .dgamma = dgamma,
               .accumulate_dgamma = accumulate}));
  } else {
    TE_RETURN_IF_ERROR(context_->kernels().layer_norm_backward(
        exec, {.dy = dy,
               .x = x,
               .gamma = weight_.value,
               .mean = statistics.mean,
               .rstd = statistics.rstd,
               .zero_centered_gamma = options_.zero_centered_gamma,
               .add = add,
               .dx = dx_sink,
               .dgamma = dgamma,
               .dbeta = dbeta,
               .accumulate_parameter_gradients = accumulate}));
  }
  if (dgamma.defined()) TE_RETURN_IF_ERROR(CallGradientReady(args.gradient_ready, &weight_));
  if (dbeta.defined()) TE_RETURN_IF_ERROR(CallGradientReady(args.gradient_ready, &bias_));
  return OkStatus();
}

void Normalization::VisitParameters(const std::string& prefix, const ParameterVisitor& visit) {
  visit(JoinName(prefix, weight_.name), weight_);
  if (has_bias()) visit(JoinName(prefix, bias_.name), bias_);
}

std::string Normalization::Describe() const {
  std::string out = fmt::format("normalization={}, eps={}", Name(options_.kind), options_.epsilon);
  if (options_.zero_centered_gamma) out += ", zero_centered_gamma=True";
  out += ", " + DescribeParameter(weight_);
  if (has_bias()) out += ", " + DescribeParameter(bias_);
  return out;
}

int64_t Normalization::parameter_count() const {
  return ParameterCount(weight_) + ParameterCount(bias_);
}

}  // namespace te
