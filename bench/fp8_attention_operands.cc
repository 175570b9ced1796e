#include "bench/fp8_attention_operands.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <utility>

#include "fmt/format.h"

namespace te::bench {

std::string AttentionShape::ToString() const {
  return fmt::format("{}x{} {}/{}", batch, sequence, heads, groups);
}

AttentionOperands::AttentionOperands(Context* context, const AttentionShape& shape)
    : context_(context), shape_(shape), scalar_values_(IndexOf(kAmaxDv) + 4, 0.0f) {}

StatusOr<AttentionOperands> AttentionOperands::Make(OperationTimer* timer,
                                                    const AttentionShape& shape) {
  Context* context = timer->context();
  AttentionOperands out(context, shape);
  TE_ASSIGN_OR_RETURN(
      out.scalars_,
      context->NewTensor(DType::kFloat32, {static_cast<int64_t>(out.scalar_values_.size())}));
  const auto random = [&](int64_t columns) -> StatusOr<Tensor> {
    TE_ASSIGN_OR_RETURN(std::vector<Tensor> one,
                        timer->Random(DType::kBFloat16, {shape.tokens(), columns}, 1));
    return std::move(one.front());
  };
  const auto quantized = [&](const TensorView& x, QuantFormat format) {
    return QuantizedTensor::Make(context, x, format, QuantScaling::kTensorCurrent,
                                 Orientation::kRowwise);
  };
  const auto codes = [&](int64_t columns) {
    return context->NewTensor(DType::kUInt8, {shape.tokens(), columns});
  };
  const int64_t q = shape.q_width(), kv = shape.kv_width();
  const Shape lse = {shape.batch, shape.heads, shape.sequence};
  const int count = OperationTimer::Rotations(2 * shape.tokens() * (q + kv));
  for (int i = 0; i < count; ++i) {
    Buffers b;
    TE_ASSIGN_OR_RETURN(b.qkv, random(q + 2 * kv));
    TE_ASSIGN_OR_RETURN(b.dqkv, random(q + 2 * kv));
    TE_ASSIGN_OR_RETURN(b.out, random(q));
    TE_ASSIGN_OR_RETURN(b.dout, random(q));
    TE_ASSIGN_OR_RETURN(b.lse, context->NewTensor(DType::kFloat32, lse));
    TE_ASSIGN_OR_RETURN(b.statistics, context->NewTensor(DType::kFloat32, lse));
    const AttentionParts rows = out.Rows(b.qkv);
    TE_ASSIGN_OR_RETURN(b.q8, quantized(rows.q, kForwardFormat));
    TE_ASSIGN_OR_RETURN(b.k8, quantized(rows.k, kForwardFormat));
    TE_ASSIGN_OR_RETURN(b.v8, quantized(rows.v, kForwardFormat));
    TE_ASSIGN_OR_RETURN(b.dout8, quantized(b.dout.view(), kGradientFormat));
    TE_ASSIGN_OR_RETURN(b.out8, codes(q));
    TE_ASSIGN_OR_RETURN(b.dq8, codes(q));
    TE_ASSIGN_OR_RETURN(b.dk8, codes(kv));
    TE_ASSIGN_OR_RETURN(b.dv8, codes(kv));
    out.sets_.push_back(std::move(b));
  }
  TE_RETURN_IF_ERROR(context->Synchronize());
  return out;
}

AttentionParts AttentionOperands::Rows(const Tensor& packed) const {
  const TensorView x = packed.view();
  const int64_t q = shape_.q_width(), kv = shape_.kv_width();
  return {x.Slice(1, 0, q), x.Slice(1, q, q + kv), x.Slice(1, q + kv, q + 2 * kv)};
}

AttentionParts AttentionOperands::Heads(const Tensor& packed) const {
  const auto split = [&](const TensorView& rows, int64_t heads) {
    return rows.Split(0, shape_.batch, shape_.sequence).Split(2, heads, AttentionShape::kHeadDim);
  };
  const AttentionParts rows = Rows(packed);
  return {split(rows.q, shape_.heads), split(rows.k, shape_.groups), split(rows.v, shape_.groups)};
}

TensorView AttentionOperands::OfHeads(const Tensor& rows, int64_t heads) const {
  return rows.view().Reshape(HeadsShape(heads));
}

SdpaPointers AttentionOperands::Fp8Pointers(int i, bool backward) const {
  const Buffers& b = at(i);
  SdpaPointers p = {
      {kSdpaQ, b.q8.spec().rowwise_data.data()}, {kSdpaK, b.k8.spec().rowwise_data.data()},
      {kSdpaV, b.v8.spec().rowwise_data.data()}, {kSdpaOut, b.out8.view().data()},
      {kSdpaLse, b.statistics.view().data()},    {kDescaleQ, b.q8.spec().scale_inv},
      {kDescaleK, b.k8.spec().scale_inv},        {kDescaleV, b.v8.spec().scale_inv}};
  const auto add = [&](std::initializer_list<int64_t> scalars) {
    for (const int64_t scalar : scalars) p[scalar] = At(scalar);
  };
  add({kDescaleS, kScaleS});
  if (!backward) {
    add({kScaleO, kAmaxS, kAmaxO});
    return p;
  }
  p[kSdpaDout] = b.dout8.spec().rowwise_data.data();
  p[kSdpaDq] = b.dq8.view().data();
  p[kSdpaDk] = b.dk8.view().data();
  p[kSdpaDv] = b.dv8.view().data();
  p[kDescaleDo] = b.dout8.spec().scale_inv;
  add({kDescaleO, kDescaleDp, kScaleDp, kScaleDq, kScaleDk, kScaleDv});
  add({kAmaxDp, kAmaxDq, kAmaxDk, kAmaxDv});
  return p;
}

SdpaPointers AttentionOperands::Bf16BackwardPointers(int i) const {
  const Buffers& b = at(i);
  const AttentionParts in = Rows(b.qkv), gradients = Rows(b.dqkv);
  return {{kSdpaQ, in.q.data()},
          {kSdpaK, in.k.data()},
          {kSdpaV, in.v.data()},
          {kSdpaOut, b.out.view().data()},
          {kSdpaDout, b.dout.view().data()},
          {kSdpaLse, b.lse.view().data()},
          {kSdpaDq, gradients.q.data()},
          {kSdpaDk, gradients.k.data()},
          {kSdpaDv, gradients.v.data()}};
}

float AttentionOperands::softmax_scale() const {
  return 1.0f / std::sqrt(static_cast<float>(AttentionShape::kHeadDim));
}

Status AttentionOperands::Bf16Forward(int i) const {
  const Buffers& b = at(i);
  const AttentionParts in = Heads(b.qkv);
  return context_->kernels().attention_forward(context_->exec(),
                                               {.q = in.q,
                                                .k = in.k,
                                                .v = in.v,
                                                .softmax_scale = softmax_scale(),
                                                .out = OfHeads(b.out, shape_.heads),
                                                .lse = b.lse.view()});
}

Status AttentionOperands::Bf16Backward(int i) const {
  const Buffers& b = at(i);
  const AttentionParts in = Heads(b.qkv), gradients = Heads(b.dqkv);
  return context_->kernels().attention_backward(context_->exec(),
                                                {.q = in.q,
                                                 .k = in.k,
                                                 .v = in.v,
                                                 .out = OfHeads(b.out, shape_.heads),
                                                 .dout = OfHeads(b.dout, shape_.heads),
                                                 .lse = b.lse.view(),
                                                 .softmax_scale = softmax_scale(),
                                                 .dq = gradients.q,
                                                 .dk = gradients.k,
                                                 .dv = gradients.v});
}

Status AttentionOperands::Upload() const {
  return context_->CopyFromHost(scalar_values_.data(), scalars_.view());
}
Status AttentionOperands::Download() {
  return context_->CopyToHost(scalars_.view(), scalar_values_.data());
}

Status AttentionOperands::SetScale(int64_t scale, int64_t descale, int64_t amax, const char* name,
                                   QuantFormat format) {
  const float largest = Value(amax);
  if (!(largest > 0) || !std::isfinite(largest))
    return Internal("the amax of {} is {}; expected a finite number > 0", name, largest);
  Value(scale) = QuantMax(format) / largest;
  if (descale != 0) Value(descale) = 1.0f / Value(scale);
  return OkStatus();
}

StatusOr<bool> AttentionOperands::Calibrate(Fp8Sdpa* graph, size_t plan, bool backward) {
  const auto run = [&]() -> Status {
    TE_RETURN_IF_ERROR(Upload());
    SdpaPointers pointers = Fp8Pointers(0, backward);
    TE_RETURN_IF_ERROR(graph->Run(plan, pointers));
    return Download();
  };
  // An amax depends a little on the scales of what it is computed from.
  constexpr int kPasses = 3;
  for (int pass = 0; pass < kPasses; ++pass) {
    for (int64_t amax = kAmaxS; amax <= kAmaxDv; ++amax) Value(amax) = 0;
    TE_RETURN_IF_ERROR(run());
    if (!backward) {
      TE_RETURN_IF_ERROR(SetScale(kScaleS, kDescaleS, kAmaxS, "S", kForwardFormat));
      TE_RETURN_IF_ERROR(SetScale(kScaleO, kDescaleO, kAmaxO, "O", kForwardFormat));
    } else {
      TE_RETURN_IF_ERROR(SetScale(kScaleDp, kDescaleDp, kAmaxDp, "dP", kGradientFormat));
      TE_RETURN_IF_ERROR(SetScale(kScaleDq, 0, kAmaxDq, "dQ", kGradientFormat));
      TE_RETURN_IF_ERROR(SetScale(kScaleDk, 0, kAmaxDk, "dK", kGradientFormat));
      TE_RETURN_IF_ERROR(SetScale(kScaleDv, 0, kAmaxDv, "dV", kGradientFormat));
    }
  }
  constexpr float kFar = 1e30f;
  const int64_t probed = backward ? kAmaxDq : kAmaxO;
  const float own = Value(probed);
  Value(probed) = kFar;
  TE_RETURN_IF_ERROR(run());
  const bool accumulated = Value(probed) == kFar;
  Value(probed) = own;
  return accumulated;
}

StatusOr<AttentionResults> AttentionOperands::Reference(bool quantized) const {
  const Buffers& b = at(0);
  if (!quantized) return Attend(Heads(b.qkv), OfHeads(b.dout, shape_.heads));
  const auto values = [&](const QuantizedTensor& x, int64_t columns) -> StatusOr<Tensor> {
    TE_ASSIGN_OR_RETURN(Tensor y,
                        context_->NewTensor(DType::kBFloat16, {shape_.tokens(), columns}));
    TE_RETURN_IF_ERROR(context_->kernels().dequantize(
        context_->exec(), {.x = x.spec(), .orientation = Orientation::kRowwise, .y = y.view()}));
    return y;
  };
  TE_ASSIGN_OR_RETURN(const Tensor q, values(b.q8, shape_.q_width()));
  TE_ASSIGN_OR_RETURN(const Tensor k, values(b.k8, shape_.kv_width()));
  TE_ASSIGN_OR_RETURN(const Tensor v, values(b.v8, shape_.kv_width()));
  TE_ASSIGN_OR_RETURN(const Tensor dout, values(b.dout8, shape_.q_width()));
  return Attend({OfHeads(q, shape_.heads), OfHeads(k, shape_.groups), OfHeads(v, shape_.groups)},
                OfHeads(dout, shape_.heads));
}

StatusOr<AttentionResults> AttentionOperands::Attend(const AttentionParts& in,
                                                     const TensorView& dout) const {
  AttentionResults r;
  const auto dense = [&](int64_t heads) {
    return context_->NewTensor(DType::kBFloat16, HeadsShape(heads));
  };
  TE_ASSIGN_OR_RETURN(r.out, dense(shape_.heads));
  TE_ASSIGN_OR_RETURN(r.dq, dense(shape_.heads));
  TE_ASSIGN_OR_RETURN(r.dk, dense(shape_.groups));
  TE_ASSIGN_OR_RETURN(r.dv, dense(shape_.groups));
  TE_ASSIGN_OR_RETURN(r.lse, context_->NewTensor(DType::kFloat32, at(0).lse.shape()));
  TE_RETURN_IF_ERROR(
      context_->kernels().attention_forward(context_->exec(), {.q = in.q,
                                                               .k = in.k,
                                                               .v = in.v,
                                                               .softmax_scale = softmax_scale(),
                                                               .out = r.out.view(),
                                                               .lse = r.lse.view()}));
  TE_RETURN_IF_ERROR(
      context_->kernels().attention_backward(context_->exec(), {.q = in.q,
                                                                .k = in.k,
                                                                .v = in.v,
                                                                .out = r.out.view(),
                                                                .dout = dout,
                                                                .lse = r.lse.view(),
                                                                .softmax_scale = softmax_scale(),
                                                                .dq = r.dq.view(),
                                                                .dk = r.dk.view(),
                                                                .dv = r.dv.view()}));
  // The inputs may go with the caller's scope.
  TE_RETURN_IF_ERROR(context_->Synchronize());
  return r;
}

StatusOr<std::vector<float>> AttentionOperands::HostValues(const Tensor& tensor) const {
  const size_t count = static_cast<size_t>(tensor.shape().elements());
  std::vector<float> out(count);
  if (tensor.dtype() == DType::kFloat32) {
    TE_RETURN_IF_ERROR(context_->CopyToHost(tensor.view(), out.data()));
    return out;
  }
  std::vector<uint16_t> bits(count);
  TE_RETURN_IF_ERROR(context_->CopyToHost(tensor.view(), bits.data()));
  std::transform(bits.begin(), bits.end(), out.begin(),
                 [](uint16_t b) { return std::bit_cast<float>(static_cast<uint32_t>(b) << 16); });
  return out;
}

StatusOr<std::vector<float>> AttentionOperands::HostValues(const Tensor& codes, float scale,
                                                           QuantFormat format) const {
  TE_ASSIGN_OR_RETURN(const Tensor values, context_->NewTensor(DType::kFloat32, codes.shape()));
  TE_ASSIGN_OR_RETURN(const Tensor scale_inv, context_->NewTensor(DType::kFloat32, {1}));
  const float inverse = 1.0f / scale;
  TE_RETURN_IF_ERROR(context_->CopyFromHost(&inverse, scale_inv.view()));
  QuantSpec spec;
  spec.format = format;
  spec.scale_inv = scale_inv.view().as<float>();
  spec.rowwise_data = codes.view();
  TE_RETURN_IF_ERROR(context_->kernels().dequantize(
      context_->exec(), {.x = spec, .orientation = Orientation::kRowwise, .y = values.view()}));
  return HostValues(values);
}

StatusOr<Tensor> AttentionOperands::DisturbedScaleInv(const QuantizedTensor& x) const {
  TE_ASSIGN_OR_RETURN(Tensor out, context_->NewTensor(DType::kFloat32, {1}));
  float value = 0;
  TE_RETURN_IF_ERROR(
      context_->CopyToHost(ConstTensorView(x.spec().scale_inv, DType::kFloat32, {1}), &value));
  value *= 1.25f;
  TE_RETURN_IF_ERROR(context_->CopyFromHost(&value, out.view()));
  return out;
}

}  // namespace te::bench
