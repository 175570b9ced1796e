// te_layer_*, te_forward, te_backward.
#include <cstring>

#include "te_c_api/src/error.h"
#include "te_c_api/src/handles.h"
#include "te_c_api/src/layer_options.h"
#include "te_c_api/src/options.h"
#include "te_core/quantization/fp8_only_weight.h"

namespace te::c_api {
namespace {

constexpr size_t kForwardArgsV1 = offsetof(te_forward_args, reserved) + sizeof(int32_t);
constexpr size_t kBackwardArgsV1 = offsetof(te_backward_args, user_data) + sizeof(void*);

te_forward_args DefaultForwardArgs() {
  te_forward_args args{};
  args.struct_size = sizeof(args);
  return args;
}

te_backward_args DefaultBackwardArgs() {
  te_backward_args args{};
  args.struct_size = sizeof(args);
  return args;
}

Status CheckIndex(const te_layer* layer, int64_t index) {
  const auto count = static_cast<int64_t>(layer->box->parameters.size());
  if (index >= 0 && index < count) return OkStatus();
  return InvalidArgument("index is {}; {} has {} parameters: expected 0 to {}", index,
                         layer->box->layer->name(), count, count - 1);
}

Status ReadForwardArgs(const te_layer* layer, const te_forward_args* in, ForwardArgs* out) {
  te_forward_args args = DefaultForwardArgs();
  TE_RETURN_IF_ERROR(CheckNotNull(in, "args"));
  TE_RETURN_IF_ERROR(ReadOptions(in, "args", kForwardArgsV1, &args));
  TE_RETURN_IF_ERROR(CheckReserved(args.reserved, "args->reserved"));
  TE_RETURN_IF_ERROR(CheckBool(args.rotary_interleaved, "args->rotary_interleaved"));
  const Context* context = layer->box->context;
  TensorView input, key, value, labels, padding, arbitrary, cos, sin, positions;
  TE_RETURN_IF_ERROR(ReadRequiredTensor(args.input, "args->input", context, &input));
  TE_RETURN_IF_ERROR(ReadRequiredTensor(args.output, "args->output", context, &out->output));
  if (args.output->read_only) return InvalidArgument("args->output is a read-only view");
  TE_RETURN_IF_ERROR(ReadTensor(args.key, "args->key", context, &key));
  TE_RETURN_IF_ERROR(ReadTensor(args.value, "args->value", context, &value));
  TE_RETURN_IF_ERROR(ReadTensor(args.labels, "args->labels", context, &labels));
  TE_RETURN_IF_ERROR(ReadTensor(args.padding_mask, "args->padding_mask", context, &padding));
  TE_RETURN_IF_ERROR(ReadTensor(args.arbitrary_mask, "args->arbitrary_mask", context, &arbitrary));
  TE_RETURN_IF_ERROR(ReadTensor(args.rotary_cos, "args->rotary_cos", context, &cos));
  TE_RETURN_IF_ERROR(ReadTensor(args.rotary_sin, "args->rotary_sin", context, &sin));
  TE_RETURN_IF_ERROR(ReadTensor(args.positions, "args->positions", context, &positions));
  if (cos.defined() != sin.defined()) {
    return InvalidArgument(
        "args->rotary_cos and args->rotary_sin: one of them is NULL; expected both or neither");
  }
  out->input = input;
  out->attention.key = key;
  out->attention.value = value;
  out->labels = labels;
  out->attention.padding_mask = padding;
  out->attention.arbitrary_mask = arbitrary;
  out->attention.rotary = {cos, sin, args.rotary_interleaved != 0};
  out->attention.positions = positions;
  out->attention.start_position = args.start_position;
  return OkStatus();
}

// BackwardArgs from the C struct, with what its callback needs.
struct BackwardCall {
  te_backward_args args = DefaultBackwardArgs();
  BackwardArgs core;
  GradientReady gradient_ready;
};

Status ReadGradient(te_tensor* tensor, const char* argument, const Context* context,
                    TensorView* out) {
  TE_RETURN_IF_ERROR(ReadTensor(tensor, argument, context, out));
  if (tensor != nullptr && tensor->read_only)
    return InvalidArgument("{} is a read-only view", argument);
  return OkStatus();
}

Status ReadBackwardArgs(const te_layer* layer, const te_backward_args* in, BackwardCall* call) {
  TE_RETURN_IF_ERROR(CheckNotNull(in, "args"));
  te_backward_args& args = call->args;
  TE_RETURN_IF_ERROR(ReadOptions(in, "args", kBackwardArgsV1, &args));
  TE_RETURN_IF_ERROR(CheckBool(args.accumulate_gradients, "args->accumulate_gradients"));
  TE_RETURN_IF_ERROR(CheckBool(args.delay_weight_gradients, "args->delay_weight_gradients"));
  const std::shared_ptr<LayerBox>& box = layer->box;
  TensorView doutput;
  TE_RETURN_IF_ERROR(ReadTensor(args.doutput, "args->doutput", box->context, &doutput));
  call->core.doutput = doutput;
  TE_RETURN_IF_ERROR(
      ReadGradient(args.dinput, "args->dinput", box->context, &call->core.dinput.dense));
  TE_RETURN_IF_ERROR(
      ReadGradient(args.dkey, "args->dkey", box->context, &call->core.attention.dkey));
  TE_RETURN_IF_ERROR(
      ReadGradient(args.dvalue, "args->dvalue", box->context, &call->core.attention.dvalue));
  call->core.accumulate_gradients = args.accumulate_gradients != 0;
  if (args.gradient_ready != nullptr) {
    call->gradient_ready = [call, box](Parameter& parameter) {
      for (size_t i = 0; i < box->parameters.size(); ++i) {
        if (box->parameters[i].parameter == &parameter)
          call->args.gradient_ready(call->args.user_data, static_cast<int64_t>(i));
      }
      return OkStatus();
    };
    call->core.gradient_ready = &call->gradient_ready;
  }
  return OkStatus();
}

Status CheckSavedOf(const te_layer* layer, const te_saved* saved, te_saved::Stage stage) {
  TE_RETURN_IF_ERROR(Check(saved, "saved"));
  if (saved->box != layer->box)
    return InvalidArgument("saved comes from another layer's te_forward");
  if (saved->stage == stage) return OkStatus();
  switch (saved->stage) {
    case te_saved::Stage::kForwardDone:
      return FailedPrecondition(
          "te_backward with args->delay_weight_gradients comes before te_backward_weight");
    case te_saved::Stage::kInputDone:
      return FailedPrecondition(
          "te_backward has run for this saved already: te_backward_weight comes next");
    case te_saved::Stage::kDone:
      return FailedPrecondition(
          "the backward pass of this saved is done: it can only be destroyed");
  }
  return OkStatus();
}

StatusOr<te_tensor*> ReadOnlyView(const te_layer* layer, TensorView view) {
  auto handle = std::make_unique<te_tensor>(layer->box->context, view);
  handle->read_only = true;
  handle->memory = layer->box;
  return handle.release();
}

}  // namespace
}  // namespace te::c_api

using namespace te;         // NOLINT: the whole file is one thin layer over te
using namespace te::c_api;  // NOLINT

// In parentheses, because te.h has a macro of this name.
te_status(te_layer_options_init)(te_layer_options* options) {
  return te_layer_options_init_sized(options, kLayerOptionsV1);
}

te_status te_layer_options_init_sized(te_layer_options* options, size_t struct_size) {
  return Guard([&] {
    return InitSizedOptions(options, "options", struct_size, kLayerOptionsV1,
                            DefaultLayerOptions());
  });
}

te_status te_layer_create(te_context* context, const te_layer_options* options, te_layer** out) {
  return Guard([&]() -> Status {
    TE_RETURN_IF_ERROR(Check(context, "context"));
    TE_RETURN_IF_ERROR(CheckNotNull(options, "options"));
    TE_RETURN_IF_ERROR(CheckNotNull(out, "out"));
    te_layer_options read = DefaultLayerOptions();
    TE_RETURN_IF_ERROR(ReadOptions(options, "options", kLayerOptionsV1, &read));
    TE_ASSIGN_OR_RETURN(std::unique_ptr<Layer> layer, MakeLayer(context->core.get(), read));
    *out = new te_layer(
        std::make_shared<LayerBox>(context->core.get(), context->scopes, std::move(layer)));
    return OkStatus();
  });
}

void te_layer_destroy(te_layer* layer) {
  if (Check(layer, "layer").ok()) delete layer;
}

te_status te_layer_describe(te_layer* layer, const char** out) {
  return Guard([&]() -> Status {
    TE_RETURN_IF_ERROR(Check(layer, "layer"));
    TE_RETURN_IF_ERROR(CheckNotNull(out, "out"));
    layer->description = layer->box->layer->Describe(0);
    *out = layer->description.c_str();
    return OkStatus();
  });
}

te_status te_layer_parameter_count(te_layer* layer, int64_t* out) {
  return Guard([&]() -> Status {
    TE_RETURN_IF_ERROR(Check(layer, "layer"));
    TE_RETURN_IF_ERROR(CheckNotNull(out, "out"));
    *out = static_cast<int64_t>(layer->box->parameters.size());
    return OkStatus();
  });
}

te_status te_layer_parameter_name(te_layer* layer, int64_t index, const char** out) {
  return Guard([&]() -> Status {
    TE_RETURN_IF_ERROR(Check(layer, "layer"));
    TE_RETURN_IF_ERROR(CheckIndex(layer, index));
    TE_RETURN_IF_ERROR(CheckNotNull(out, "out"));
    *out = layer->box->parameters[index].name.c_str();
    return OkStatus();
  });
}

te_status te_layer_parameter_index(te_layer* layer, const char* name, int64_t* out) {
  return Guard([&]() -> Status {
    TE_RETURN_IF_ERROR(Check(layer, "layer"));
    TE_RETURN_IF_ERROR(CheckNotNull(name, "name"));
    TE_RETURN_IF_ERROR(CheckNotNull(out, "out"));
    std::string names;
    for (size_t i = 0; i < layer->box->parameters.size(); ++i) {
      if (layer->box->parameters[i].name == name) {
        *out = static_cast<int64_t>(i);
        return OkStatus();
      }
      names += (names.empty() ? "" : ", ") + layer->box->parameters[i].name;
    }
    return NotFound("name is '{}'; {} has: {}", name, layer->box->layer->name(),
                    names.empty() ? "no parameters" : names);
  });
}

te_status te_layer_parameter(te_layer* layer, int64_t index, te_tensor** out) {
  return Guard([&]() -> Status {
    TE_RETURN_IF_ERROR(Check(layer, "layer"));
    TE_RETURN_IF_ERROR(CheckIndex(layer, index));
    TE_RETURN_IF_ERROR(CheckNotNull(out, "out"));
    const NamedParameter& parameter = layer->box->parameters[index];
    if (!parameter.parameter->fp8_only()) {
      TE_ASSIGN_OR_RETURN(*out, ReadOnlyView(layer, parameter.value()));
      return OkStatus();
    }
    TE_ASSIGN_OR_RETURN(Tensor values, DequantizedRows(layer->box->context, *parameter.parameter,
                                                       parameter.row_begin, parameter.rows,
                                                       parameter.parameter->dtype()));
    auto memory = std::make_shared<Tensor>(std::move(values));
    auto handle = std::make_unique<te_tensor>(layer->box->context, memory->view());
    handle->read_only = true;
    handle->memory = std::move(memory);
    *out = handle.release();
    return OkStatus();
  });
}

te_status te_layer_gradient(te_layer* layer, int64_t index, te_tensor** out) {
  return Guard([&]() -> Status {
    TE_RETURN_IF_ERROR(Check(layer, "layer"));
    TE_RETURN_IF_ERROR(CheckIndex(layer, index));
    TE_RETURN_IF_ERROR(CheckNotNull(out, "out"));
    const NamedParameter& parameter = layer->box->parameters[index];
    if (!parameter.parameter->grad.defined()) {
      return FailedPrecondition(
          "parameter {} has no gradient: te_backward has not run since it was made or frozen",
          parameter.name);
    }
    TE_ASSIGN_OR_RETURN(*out, ReadOnlyView(layer, parameter.grad()));
    return OkStatus();
  });
}

te_status te_layer_set_parameter(te_layer* layer, int64_t index, const te_tensor* value) {
  return Guard([&]() -> Status {
    TE_RETURN_IF_ERROR(Check(layer, "layer"));
    TE_RETURN_IF_ERROR(CheckIndex(layer, index));
    Context* context = layer->box->context;
    TensorView from;
    TE_RETURN_IF_ERROR(ReadRequiredTensor(value, "value", context, &from));
    const NamedParameter& parameter = layer->box->parameters[index];
    if (from.shape() != parameter.shape() || !IsFloating(from.dtype()) ||
        SizeOf(from.dtype()) == 1) {
      return InvalidArgument(
          "value is {}; parameter {} expects float32, float16, bfloat16 or float64 {}",
          from.ToString(), parameter.name, parameter.shape().ToString());
    }
    TE_RETURN_IF_ERROR(BeginWrite(context, parameter.parameter));
    TE_RETURN_IF_ERROR(
        context->kernels().cast(context->exec(), {.x = from, .y = parameter.value()}));
    return EndWrite(context, parameter.parameter);
  });
}

te_status te_layer_set_requires_grad(te_layer* layer, int64_t index, int32_t requires_grad) {
  return Guard([&]() -> Status {
    TE_RETURN_IF_ERROR(Check(layer, "layer"));
    TE_RETURN_IF_ERROR(CheckIndex(layer, index));
    TE_RETURN_IF_ERROR(CheckBool(requires_grad, "requires_grad"));
    Parameter* parameter = layer->box->parameters[index].parameter;
    parameter->requires_grad = requires_grad != 0;
    if (requires_grad == 0) parameter->grad = Tensor();
    return OkStatus();
  });
}

te_status te_forward_args_init(te_forward_args* args) {
  return Guard([&] { return InitOptions(args, "args", DefaultForwardArgs()); });
}

te_status te_forward(te_layer* layer, const te_forward_args* args, te_saved** saved) {
  return Guard([&]() -> Status {
    TE_RETURN_IF_ERROR(Check(layer, "layer"));
    ForwardArgs core;
    TE_RETURN_IF_ERROR(ReadForwardArgs(layer, args, &core));
    if (saved == nullptr) return layer->box->layer->Forward(core, nullptr);
    const QuantizationScopes& scopes = *layer->box->scopes;
    if (!scopes.empty() && scopes.back().recipe != nullptr && !scopes.back().training) {
      return FailedPrecondition(
          "saved is not NULL in a quantization scope whose training is 0: quantized tensors of "
          "evaluation are not those that a backward pass reads");
    }
    TE_ASSIGN_OR_RETURN(SavedPool::Handle slot, layer->box->pool.Acquire());
    auto handle = std::make_unique<te_saved>(layer->box, std::move(slot));
    TE_RETURN_IF_ERROR(layer->box->layer->Forward(core, &handle->slot->root));
    *saved = handle.release();
    return OkStatus();
  });
}

void te_saved_destroy(te_saved* saved) {
  if (Check(saved, "saved").ok()) delete saved;
}

te_status te_backward_args_init(te_backward_args* args) {
  return Guard([&] { return InitOptions(args, "args", DefaultBackwardArgs()); });
}

te_status te_backward(te_layer* layer, te_saved* saved, const te_backward_args* args) {
  return Guard([&]() -> Status {
    TE_RETURN_IF_ERROR(Check(layer, "layer"));
    TE_RETURN_IF_ERROR(CheckSavedOf(layer, saved, te_saved::Stage::kForwardDone));
    BackwardCall call;
    TE_RETURN_IF_ERROR(ReadBackwardArgs(layer, args, &call));
    TE_RETURN_IF_ERROR(layer->box->layer->EnsureGradients());
    TE_RETURN_IF_ERROR(layer->box->layer->BackwardInput(call.core, &saved->slot->root));
    saved->stage = te_saved::Stage::kInputDone;
    if (call.args.delay_weight_gradients != 0) return OkStatus();
    TE_RETURN_IF_ERROR(layer->box->layer->BackwardWeight(call.core, &saved->slot->root));
    saved->stage = te_saved::Stage::kDone;
    return OkStatus();
  });
}

te_status te_backward_weight(te_layer* layer, te_saved* saved, const te_backward_args* args) {
  return Guard([&]() -> Status {
    TE_RETURN_IF_ERROR(Check(layer, "layer"));
    TE_RETURN_IF_ERROR(CheckSavedOf(layer, saved, te_saved::Stage::kInputDone));
    BackwardCall call;
    TE_RETURN_IF_ERROR(ReadBackwardArgs(layer, args, &call));
    TE_RETURN_IF_ERROR(layer->box->layer->BackwardWeight(call.core, &saved->slot->root));
    saved->stage = te_saved::Stage::kDone;
    return OkStatus();
  });
}
