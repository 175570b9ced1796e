#include "te_core/quantization/fp8_only_weight.h"

#include <cmath>

namespace te {
namespace {

// Whether a saved scale suits these values: the largest does not clip, but rounds to 448 at most
// (below 464, half a step more), and has lost no more than 4 of its 15 octaves to zero.
StatusOr<bool> SavedScaleFits(Context* context, const Parameter& p) {
  const QuantizedCopy& copy = p.quantized;
  TE_ASSIGN_OR_RETURN(const Tensor amax, context->NewZeroTensor(DType::kFloat32, {1}));
  QuantSpec amax_alone;
  amax_alone.format = copy.spec.format;
  amax_alone.scaling = copy.spec.scaling;
  amax_alone.scale = copy.spec.scale;
  amax_alone.amax = amax.view().as<float>();
  TE_RETURN_IF_ERROR(
      context->kernels().quantize(context->exec(), {.x = p.value, .out = amax_alone}));
  float largest = 0, scale = 0;
  TE_RETURN_IF_ERROR(context->CopyToHost(amax, &largest));
  TE_RETURN_IF_ERROR(
      context->CopyToHost(ConstTensorView(copy.spec.scale, DType::kFloat32, {1}), &scale));
  const double scaled = static_cast<double>(largest) * scale;
  return largest == 0 || (scaled < 464 && scaled >= std::ldexp(448, -copy.quantization.margin - 4));
}

}  // namespace

Status BeginWrite(Context* context, Parameter* p) {
  if (!p->fp8_only() || p->value.defined()) return OkStatus();
  TE_ASSIGN_OR_RETURN(p->value, context->NewTensor(p->dtype(), p->shape()));
  if (!p->quantized.valid) return OkStatus();
  return context->kernels().dequantize(context->exec(),
                                       {.x = p->quantized.spec, .y = p->value.view()});
}

Status EndWrite(Context* context, Parameter* p) {
  ++p->version;
  if (!p->fp8_only()) return OkStatus();
  if (!p->value.defined())
    return FailedPrecondition("the end of a write of parameter '{}' that was not begun", p->name);
  QuantizedCopy& copy = p->quantized;
  bool keep = copy.slot->imported && !copy.valid;
  if (keep) {
    TE_ASSIGN_OR_RETURN(keep, SavedScaleFits(context, *p));
  }
  if (!keep) {
    TE_RETURN_IF_ERROR(context->delayed_scaling().Restart(context->exec(), copy.slot, p->value));
  }
  QuantSpec spec = copy.spec;
  spec.amax = nullptr;  // is in the history
  TE_RETURN_IF_ERROR(context->kernels().quantize(context->exec(), {.x = p->value, .out = spec}));
  p->value = Tensor();
  copy.MarkWritten(p->version);
  return OkStatus();
}

StatusOr<Tensor> DequantizedRows(Context* context, const Parameter& p, int64_t begin, int64_t rows,
                                 DType dtype) {
  if (!p.fp8_only() || !p.quantized.valid) {
    return FailedPrecondition("parameter '{}' {}; expected a written weight in FP8 alone", p.name,
                              p.fp8_only() ? "was not written" : "is dense");
  }
  QuantSpec spec = p.quantized.spec;
  spec.rowwise_data = spec.rowwise_data.Slice(0, begin, begin + rows);
  TE_ASSIGN_OR_RETURN(Tensor out, context->NewTensor(dtype, spec.rowwise_data.shape()));
  TE_RETURN_IF_ERROR(context->kernels().dequantize(context->exec(), {.x = spec, .y = out.view()}));
  return out;
}

}  // namespace te
