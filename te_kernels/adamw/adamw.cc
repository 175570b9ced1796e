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

// What an optimizer's step of FP8-only weights needs of quantized_param, and excludes.
Status CheckFloat8Param(const AdamWArgs& args) {
  const QuantSpec& quant = args.quantized_param;
  if (quant.format != QuantFormat::kFloat8E4M3 || quant.scaling != QuantScaling::kTensor) {
    return InvalidArgument(
        "adamw: quantized_param has format {} with scaling {}; expected e4m3 with tensor beside a "
        "previous_scale_inv",
        Name(quant.format), Name(quant.scaling));
  }
  if (args.param.defined() || args.master.defined()) {
    return InvalidArgument(
        "adamw: param is {}, master is {}; expected neither beside a previous_scale_inv",
        args.param.ToString(), args.master.ToString());
  }
  const TensorView& codes = quant.rowwise_data;
  if (codes.rank() != 2 || (!codes.defined() && codes.elements() != 0)) {
    return InvalidArgument(
        "adamw: quantized_param's rowwise data is {}; expected the parameter's codes, rank 2",
        codes.ToString());
  }
  if (quant.scale == nullptr) {
    return InvalidArgument("adamw: quantized_param has no scale, which scaling tensor needs");
  }
  if (quant.scale_inv == args.previous_scale_inv) {
    return InvalidArgument("adamw: previous_scale_inv is scale_inv itself; expected a copy");
  }
  return CheckQuantSpec("adamw", "quantized_param", quant, codes.dim(0), codes.dim(1));
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
  return ValidateQuantize({.x = args.param, .out = quant});
}

}  // namespace

Status ValidateAdamW(const AdamWArgs& args) {
  const bool float8 = args.previous_scale_inv != nullptr;
  if (float8) TE_RETURN_IF_ERROR(CheckFloat8Param(args));
  const int64_t elements =
      float8 ? args.quantized_param.rowwise_data.elements() : args.param.elements();
  if (!float8) TE_RETURN_IF_ERROR(CheckTensor("param", args.param, elements));
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
  return float8 ? OkStatus() : CheckQuantizedParam(args);
}

}  // namespace te
