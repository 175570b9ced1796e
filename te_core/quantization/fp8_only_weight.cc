#include "te_core/quantization/fp8_only_weight.h"

namespace te {
namespace {

// A saved scale for these values: their largest stays within the codes' normal range. Rounding to
// bfloat16 in the file, and back, may move it by 2^-8.
Status CheckSavedScale(Context* context, const Parameter& p) {
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
  constexpr float kMost = 448.0f * (1 + 0x1p-8f), kLeast = 0x1p-6f;
  const float scaled = largest * scale;
  if (largest == 0 || (scaled <= kMost && scaled >= kLeast)) return OkStatus();
  return CorruptData(
      "the saved scale of {} is {}, but its largest value is {}: the FP8 state is that of other "
      "weights; expected the largest value times the scale from {} to 448",
      copy.slot->name, scale, largest, kLeast);
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
  if (copy.slot->imported && !copy.valid) {
    TE_RETURN_IF_ERROR(CheckSavedScale(context, *p));
  } else {
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
