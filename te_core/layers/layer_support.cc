#include "te_core/layers/layer_support.h"

#include <cmath>

namespace te {
namespace {

bool Present(const ConstTensorView& view) {
  return view.defined() || (view.rank() > 0 && view.elements() == 0);
}

bool Dense(const ConstTensorView& view) { return view.elements() == 0 || view.IsDense(); }

Status Refuse(const std::string& layer, const char* argument) {
  return InvalidArgument("{}: {} is given; this layer does not take it", layer, argument);
}

}  // namespace

Status CheckParamsDType(const std::string& layer, DType dtype) {
  if (dtype == DType::kFloat32 || dtype == DType::kBFloat16) return OkStatus();
  return Unsupported("{}: params_dtype is {}; expected float32 or bfloat16", layer, Name(dtype));
}

Status CheckPositive(const std::string& layer, const char* option, int64_t value) {
  if (value >= 1) return OkStatus();
  return InvalidArgument("{}: {} is {}; expected 1 or more", layer, option, value);
}

Status CheckProbability(const std::string& layer, const char* option, double p) {
  if (p >= 0 && p <= 1) return OkStatus();
  return InvalidArgument("{}: {} is {}; expected a probability from 0 to 1", layer, option, p);
}

Status CheckDropoutOverRanks(const Context* context, const std::string& layer, const char* option,
                             double p) {
  const Communicator* const group = context->groups().data_context;
  if (!(p > 0) || GroupSize(group) == 1) return OkStatus();
  return Unsupported(
      "{}: {} is {} in training over group '{}' of {} ranks, which would draw the same numbers for "
      "other tokens: not built yet; expected 0",
      layer, option, p, group->name(), group->size());
}

Status CheckEpsilon(const std::string& layer, double epsilon) {
  if (std::isfinite(epsilon) && epsilon >= 0) return OkStatus();
  return InvalidArgument("{}: layernorm_epsilon is {}; expected a finite number, 0 or more", layer,
                         epsilon);
}

Status CheckStd(const std::string& layer, const char* option, double std) {
  if (std::isfinite(std) && std >= 0) return OkStatus();
  return InvalidArgument("{}: {} is {}; expected a finite standard deviation, 0 or more", layer,
                         option, std);
}

Status CheckFeatures(const std::string& layer, const char* tensor, const ConstTensorView& view,
                     DType dtype, int64_t features) {
  if (Present(view) && view.rank() >= 2 && view.dtype() == dtype &&
      view.dim(view.rank() - 1) == features && Dense(view)) {
    return OkStatus();
  }
  return InvalidArgument("{}: {} is {}; expected dense {} [..., {}]", layer, tensor,
                         view.ToString(), Name(dtype), features);
}

Status CheckShape(const std::string& layer, const char* tensor, const ConstTensorView& view,
                  DType dtype, const Shape& shape) {
  if (Present(view) && view.dtype() == dtype && view.shape() == shape && Dense(view))
    return OkStatus();
  return InvalidArgument("{}: {} is {}; expected dense {} {}", layer, tensor, view.ToString(),
                         Name(dtype), shape.ToString());
}

Status CheckOptional(const std::string& layer, const char* tensor, const ConstTensorView& view,
                     DType dtype, const Shape& shape) {
  return view.defined() ? CheckShape(layer, tensor, view, dtype, shape) : OkStatus();
}

Status CheckTaken(const std::string& layer, const TakenArgs& taken, const ForwardArgs& args) {
  if (!taken.residual && args.residual.defined()) return Refuse(layer, "residual");
  if (!taken.norm_output && args.norm_output.defined()) return Refuse(layer, "norm_output");
  if (!taken.input_codes && args.input.in_codes()) return Refuse(layer, "codes of the input");
  if (!taken.output_codes && args.output_codes != nullptr) return Refuse(layer, "output_codes");
  if (!taken.labels && args.labels.defined()) return Refuse(layer, "labels");
  const AttentionArgs& attention = args.attention;
  if (!taken.key_value && attention.key.defined()) return Refuse(layer, "key");
  if (!taken.key_value && attention.value.defined()) return Refuse(layer, "value");
  if (!taken.key_value && attention.mask_type) return Refuse(layer, "mask_type");
  if (!taken.masks && attention.padding_mask.defined()) return Refuse(layer, "padding_mask");
  if (!taken.masks && attention.arbitrary_mask.defined()) return Refuse(layer, "arbitrary_mask");
  if (!taken.rotary) {
    if (attention.rotary.cos.defined() || attention.rotary.sin.defined())
      return Refuse(layer, "rotary");
    if (attention.positions.defined()) return Refuse(layer, "positions");
    if (attention.start_position != 0) return Refuse(layer, "start_position");
    if (attention.cache != nullptr) return Refuse(layer, "cache");
  }
  return OkStatus();
}

Status CheckTaken(const std::string& layer, const TakenArgs& taken, const BackwardArgs& args) {
  if (!taken.residual && args.dresidual.defined()) return Refuse(layer, "dresidual");
  if (!taken.norm_output && args.dnorm_output.defined()) return Refuse(layer, "dnorm_output");
  if (!taken.key_value && args.attention.dkey.defined()) return Refuse(layer, "dkey");
  if (!taken.key_value && args.attention.dvalue.defined()) return Refuse(layer, "dvalue");
  if (!taken.output_codes && args.dinput_codes != nullptr) return Refuse(layer, "dinput_codes");
  if (args.dinput.quantized() && !args.dinput.dense.defined()) {
    return InvalidArgument("{}: dinput.quant is given without dinput, whose values it holds",
                           layer);
  }
  if (args.dresidual.defined() && !args.dinput.dense.defined()) {
    return InvalidArgument("{}: dresidual is given without dinput, to which it is added", layer);
  }
  return OkStatus();
}

Status CheckSaved(const std::string& layer, const Saved* saved) {
  if (saved != nullptr) return OkStatus();
  return FailedPrecondition(
      "{}: backward without saved state; expected that of a forward pass in training", layer);
}

Shape WithLast(const Shape& shape, int64_t features) {
  Shape out = shape;
  out[out.rank() - 1] = features;
  return out;
}

namespace {

template <typename View>
View RowsOf(const View& view) {
  int64_t rows = 1;
  for (int i = 0; i + 1 < view.rank(); ++i) rows *= view.dim(i);
  return view.Reshape({rows, view.dim(view.rank() - 1)});
}

}  // namespace

ConstTensorView Rows(const ConstTensorView& view) { return RowsOf(view); }
TensorView Rows(const TensorView& view) { return RowsOf(view); }

StatusOr<Parameter> NewParameter(Context* context, std::string name, DType dtype,
                                 const Shape& shape) {
  Parameter parameter;
  parameter.name = std::move(name);
  parameter.global_shape = shape;
  TE_ASSIGN_OR_RETURN(parameter.value, context->NewTensor(dtype, shape));
  return parameter;
}

Status FillNormal(Context* context, float std, Parameter* parameter) {
  return context->kernels().random_fill(context->exec(),
                                        {.distribution = RandomDistribution::kNormal,
                                         .a = 0,
                                         .b = std,
                                         .random = context->Random(context->NewRandomStream()),
                                         .out = parameter->MutableValue()});
}

Status FillConstant(Context* context, float value, Parameter* parameter) {
  // low == high: every element is low.
  return context->kernels().random_fill(context->exec(),
                                        {.distribution = RandomDistribution::kUniform,
                                         .a = value,
                                         .b = value,
                                         .out = parameter->MutableValue()});
}

StatusOr<bool> PrepareGradient(Context* context, Parameter* parameter, bool accumulate) {
  if (parameter->grad.defined()) return accumulate;
  TE_RETURN_IF_ERROR(parameter->EnsureGrad(context->memory()));
  return false;
}

Status CallGradientReady(const GradientReady* ready, Parameter* parameter) {
  return ready != nullptr && *ready ? (*ready)(*parameter) : OkStatus();
}

Status QuantizeDinput(Context* context, const BackwardArgs& args) {
  if (!args.dinput.quantized()) return OkStatus();
  return context->kernels().quantize(context->exec(),
                                     {.x = Rows(args.dinput.dense), .out = args.dinput.quant});
}

Arena* ArenaFor(Context* context, Saved* saved) {
  return saved != nullptr ? saved->arena() : context->scratch();
}

std::string DescribeParameter(const Parameter& parameter) {
  if (parameter.slices.empty()) return parameter.name + "=" + parameter.shape().ToString();
  std::string out;
  for (const ParameterSlice& slice : parameter.slices) {
    Shape shape = parameter.shape();
    shape[0] = slice.rows;
    out += (out.empty() ? "" : ", ") + slice.name + "=" + shape.ToString();
  }
  return out;
}

int64_t ParameterCount(const Parameter& parameter) {
  return parameter.fp8_only() || parameter.value.defined() ? parameter.shape().elements() : 0;
}

}  // namespace te
