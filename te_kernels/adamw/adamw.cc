#include "te_kernels/adamw/adamw.h"

#include "te_kernels/quantize/quantize.h"

namespace te {
namespace {

bool IsFloat32OrBFloat16(DType dtype) {
  return dtype == DType::kFloat32 || dtype == DType::kBFloat16;
}

Status CheckTensor(const char* name, const ConstTensorView& view, int64_t elements) {
  if (view.elements() != elements || !view.IsDense() || !IsFloat32OrBFloat16(view.dtype()) ||
      (!view.defined() && elements != 0)) {
    return InvalidArgument("adamw: {} is {}; expected {} elements, dense, float32 or bfloat16",
                           name, view.ToString(), elements);
  }
  return OkStatus();
}

Status CheckQuantizedParam(const AdamWArgs& args) {
  const QuantSpec& quant = args.quantized_param;
  if (quant.format == QuantFormat::kNone) return OkStatus();
  if (args.param.rank() != 2) {
    return InvalidArgument("adamw: param is {}; expected rank 2 beside a quantized_param",
                           args.param.ToString());
  }
  TE_RETURN_IF_ERROR(
      CheckQuantSpec("adamw", "quantized_param", quant, args.param.dim(0), args.param.dim(1)));
  if (quant.scaling == QuantScaling::kTensor && quant.scale == nullptr) {
    return InvalidArgument("adamw: quantized_param has no scale, which scaling tensor needs");
  }
  return ValidateQuantize({.x = args.param, .out = quant});
}

}  // namespace

Status ValidateAdamW(const AdamWArgs& args) {
  const int64_t elements = args.param.elements();
  TE_RETURN_IF_ERROR(CheckTensor("param", args.param, elements));
  TE_RETURN_IF_ERROR(CheckTensor("grad", args.grad, elements));
  TE_RETURN_IF_ERROR(CheckTensor("m", args.m, elements));
  TE_RETURN_IF_ERROR(CheckTensor("v", args.v, elements));
  if (args.m.dtype() != args.v.dtype()) {
    return InvalidArgument("adamw: m is {}, v is {}; expected one dtype", Name(args.m.dtype()),
                           Name(args.v.dtype()));
  }
  if (args.master.defined()) {
    TE_RETURN_IF_ERROR(CheckTensor("master", args.master, elements));
    if (args.master.dtype() != DType::kFloat32) {
      return InvalidArgument("adamw: master is {}; expected float32", args.master.ToString());
    }
  }
  // Written so that NaN fails.
  if (!(args.beta1 >= 0 && args.beta1 < 1) || !(args.beta2 >= 0 && args.beta2 < 1)) {
    return InvalidArgument("adamw: beta1 is {}, beta2 is {}; expected both in [0, 1)", args.beta1,
                           args.beta2);
  }
  if (!(args.epsilon >= 0) || !(args.weight_decay >= 0)) {
    return InvalidArgument("adamw: epsilon is {}, weight_decay is {}; expected 0 or more",
                           args.epsilon, args.weight_decay);
  }
  if (args.rounding != Rounding::kNearest && args.rounding != Rounding::kStochastic) {
    return InvalidArgument("adamw: rounding is {}; expected nearest (0) or stochastic (1)",
                           static_cast<int>(args.rounding));
  }
  if (args.scalars == nullptr) {
    return InvalidArgument("adamw: scalars is null; expected the step's scalars");
  }
  return CheckQuantizedParam(args);
}

}  // namespace te
