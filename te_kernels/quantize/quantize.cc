#include "te_kernels/quantize/quantize.h"

#include <cmath>

#include "te_kernels/base/check.h"

namespace te {
namespace {

bool IsNvfp4(QuantScaling scaling) {
  return scaling == QuantScaling::kNvfp4_1x16 || scaling == QuantScaling::kNvfp4_16x16;
}

bool TakesScaleOptions(QuantScaling scaling) {
  return scaling == QuantScaling::kTensorCurrent || scaling == QuantScaling::kBlock1x128 ||
         scaling == QuantScaling::kBlock128x128;
}

// What Transformer Engine's kernels do not take together, either.
Status CheckNvfp4Options(const QuantSpec& out) {
  const bool chooses = out.four_over_six != FourOverSix::kOff;
  if (out.four_over_six != FourOverSix::kOff && out.four_over_six != FourOverSix::kMAE &&
      out.four_over_six != FourOverSix::kMSE) {
    return InvalidArgument(
        "quantize: out's four_over_six is {}; expected off (0), MAE (1) or MSE (2)",
        static_cast<int>(out.four_over_six));
  }
  if (!IsNvfp4(out.scaling) && (chooses || out.e4m3_use_256)) {
    return InvalidArgument(
        "quantize: out has four_over_six {} and e4m3_use_256 {}; expected neither with scaling {}",
        Name(out.four_over_six), out.e4m3_use_256, Name(out.scaling));
  }
  if (out.e4m3_use_256 && !chooses)
    return InvalidArgument("quantize: out has e4m3_use_256 true; expected it with four_over_six");
  if ((chooses || out.row_scaled) && (out.stochastic_rounding || out.random_hadamard)) {
    return InvalidArgument(
        "quantize: out has stochastic_rounding {} and random_hadamard {}; expected neither with "
        "four_over_six or row_scaled",
        out.stochastic_rounding, out.random_hadamard);
  }
  return OkStatus();
}

Status CheckOptions(const QuantSpec& out) {
  if (!TakesScaleOptions(out.scaling) && (out.power_of_2_scales || out.amax_epsilon != 0)) {
    return InvalidArgument(
        "quantize: out has power_of_2_scales {} and amax_epsilon {}; expected neither with scaling "
        "{}",
        out.power_of_2_scales, out.amax_epsilon, Name(out.scaling));
  }
  if (!(out.amax_epsilon >= 0) || std::isinf(out.amax_epsilon)) {
    return InvalidArgument("quantize: out's amax_epsilon is {}; expected a finite number >= 0",
                           out.amax_epsilon);
  }
  if (!IsNvfp4(out.scaling) && (out.stochastic_rounding || out.random_hadamard)) {
    return InvalidArgument(
        "quantize: out has stochastic_rounding {} and random_hadamard {}; expected neither with "
        "scaling {}",
        out.stochastic_rounding, out.random_hadamard, Name(out.scaling));
  }
  return CheckNvfp4Options(out);
}

Status CheckPresent(const char* orientation, const TensorView& data) {
  if (data.elements() != 0 && !data.defined()) {
    return InvalidArgument("quantize: out's {} data is {} without an address", orientation,
                           data.ToString());
  }
  return OkStatus();
}

}  // namespace

Status ValidateQuantize(const QuantizeArgs& args) {
  const QuantSpec& out = args.out;
  TE_RETURN_IF_ERROR(CheckFloats("quantize", "x", args.x, 2));
  if (out.format == QuantFormat::kNone) {
    return InvalidArgument("quantize: out's format is none; expected e4m3, e5m2 or e2m1");
  }
  TE_RETURN_IF_ERROR(CheckQuantSpec("quantize", "out", out, args.x.dim(0), args.x.dim(1)));
  TE_RETURN_IF_ERROR(CheckOptions(out));
  const bool rowwise = out.rowwise_data.rank() != 0;
  const bool columnwise = out.columnwise_data.rank() != 0;
  if (rowwise) TE_RETURN_IF_ERROR(CheckPresent("rowwise", out.rowwise_data));
  if (columnwise) TE_RETURN_IF_ERROR(CheckPresent("columnwise", out.columnwise_data));
  if (out.scaling == QuantScaling::kTensor && (rowwise || columnwise) && out.scale == nullptr) {
    return InvalidArgument("quantize: out has no scale, which scaling tensor reads");
  }
  if (out.random_hadamard && columnwise && out.columnwise_tensor_scale_inv == nullptr) {
    return InvalidArgument(
        "quantize: out has no columnwise_tensor_scale_inv, which random_hadamard needs");
  }
  return OkStatus();
}

}  // namespace te
