#include "te_core/layers/float8_attention.h"

#include <optional>
#include <utility>

#include "fmt/format.h"
#include "te_core/repeated_forward.h"

namespace te {
namespace {

constexpr QuantFormat kForwardFormat = QuantFormat::kFloat8E4M3;

// [B, S, heads, d] as a matrix of tokens.
template <typename View>
struct TokenRows {
  View matrix;          // [B S, heads d]
  bool sequence_first;  // its rows go by [S, B]
};

// None when the tokens have no single stride.
template <typename View>
std::optional<TokenRows<View>> RowsOf(const View& x) {
  const int64_t batch = x.dim(0), sequence = x.dim(1), heads = x.dim(2), d = x.dim(3);
  if (heads > 1 && x.stride(2) != d) return std::nullopt;
  const auto matrix = [&](int64_t row_stride) {
    return View(x.data(), x.dtype(), {batch * sequence, heads * d},
                std::array<int64_t, kMaxRank>{row_stride, 1});
  };
  if (batch == 1 || x.stride(0) == sequence * x.stride(1))
    return TokenRows<View>{matrix(sequence == 1 ? x.stride(0) : x.stride(1)), false};
  if (sequence == 1) return TokenRows<View>{matrix(x.stride(0)), false};
  if (x.stride(1) == batch * x.stride(0)) return TokenRows<View>{matrix(x.stride(0)), true};
  return std::nullopt;
}

// Memory for codes of [B, S, heads, d], in one order of tokens or the other.
StatusOr<TensorView> NewCodes(Arena* arena, const Shape& shape, bool sequence_first) {
  if (!sequence_first) return arena->Allocate(DType::kUInt8, shape);
  TE_ASSIGN_OR_RETURN(const TensorView codes,
                      arena->Allocate(DType::kUInt8, {shape[1], shape[0], shape[2], shape[3]}));
  return codes.Transpose(0, 1);
}

// The same; a copy in scratch of the caller's ArenaScope where they have none.
StatusOr<TokenRows<ConstTensorView>> CopyOrRowsOf(Context* context, const ConstTensorView& x) {
  if (const auto rows = RowsOf(x)) return *rows;
  TE_ASSIGN_OR_RETURN(const TensorView dense, context->scratch()->Allocate(x.dtype(), x.shape()));
  TE_RETURN_IF_ERROR(context->kernels().cast(context->exec(), {.x = x, .y = dense}));
  return *RowsOf(ConstTensorView(dense));
}

}  // namespace

Float8Attention::~Float8Attention() {
  if (context_ != nullptr) context_->delayed_scaling().RemoveModule(name_);
}

void Float8Attention::Init(Context* context, std::string name) {
  context_ = context;
  name_ = std::move(name);
  context_->delayed_scaling().AddModule(name_);
}

StatusOr<Float8Attention::Scaling> Float8Attention::ScalingOf(AttentionTensor tensor,
                                                              const GemmPass& pass) {
  const TensorQuantization quantization = pass.recipe->ForAttention(tensor);
  TE_ASSIGN_OR_RETURN(
      const DelayedScalingState::Slot* slot,
      slots_[static_cast<int>(tensor)].For(
          &context_->delayed_scaling(), context_->exec(), fmt::format("{}.{}", name_, Name(tensor)),
          quantization,
          IsGradient(tensor) ? ScalingDirection::kBackward : ScalingDirection::kForward));
  TE_ASSIGN_OR_RETURN(const CastScaling scaling, CastScalingOf(*context_, *slot, true));
  return Scaling{.format = quantization.format, .scale = scaling.scale, .amax = scaling.amax};
}

StatusOr<float*> Float8Attention::NewScalar(Arena* arena) const {
  constexpr int64_t kStride = 4;
  TE_ASSIGN_OR_RETURN(const TensorView scalar, arena->Allocate(DType::kFloat32, {kStride}));
  return scalar.as<float>();
}

StatusOr<Float8Input> Float8Attention::Quantize(const ConstTensorView& x, QuantFormat format,
                                                const Scaling* scaling, float* scale_inv,
                                                Arena* arena) const {
  const auto own_rows = RowsOf(x);
  // Before the scope: the arena may be scratch itself.
  TE_ASSIGN_OR_RETURN(const TensorView codes,
                      NewCodes(arena, x.shape(), own_rows.has_value() && own_rows->sequence_first));
  const ArenaScope scope(context_->scratch());
  TE_ASSIGN_OR_RETURN(const auto rows, CopyOrRowsOf(context_, x));
  QuantSpec spec;
  spec.format = format;
  spec.scale_inv = scale_inv;
  spec.rowwise_data = TensorView(codes.data(), DType::kUInt8, rows.matrix.shape());
  if (scaling != nullptr) {
    spec.scale = scaling->scale;
    spec.amax = scaling->amax;
  } else {
    spec.scaling = QuantScaling::kTensorCurrent;
    TE_ASSIGN_OR_RETURN(spec.amax, NewScalar(context_->scratch()));
  }
  TE_RETURN_IF_ERROR(
      context_->kernels().quantize(context_->exec(), {.x = rows.matrix, .out = spec}));
  return Float8Input{.codes = codes, .scale_inv = scale_inv};
}

Status Float8Attention::AddAmax(const ConstTensorView& x, const Scaling& scaling) const {
  const ArenaScope scope(context_->scratch());
  TE_ASSIGN_OR_RETURN(const auto rows, CopyOrRowsOf(context_, x));
  QuantSpec spec;
  spec.format = scaling.format;
  spec.scale = scaling.scale;
  spec.amax = scaling.amax;
  return context_->kernels().quantize(context_->exec(), {.x = rows.matrix, .out = spec});
}

StatusOr<Float8Output> Float8Attention::NewOutput(const TensorView& y, const Scaling& scaling,
                                                  float* scale_inv, Arena* arena) const {
  const auto rows = RowsOf(y);
  TE_ASSIGN_OR_RETURN(const TensorView codes,
                      NewCodes(arena, y.shape(), rows.has_value() && rows->sequence_first));
  return Float8Output{
      .codes = codes, .scale = scaling.scale, .scale_inv = scale_inv, .amax = scaling.amax};
}

Status Float8Attention::Dequantize(const Float8Output& codes, QuantFormat format,
                                   const TensorView& y) const {
  const ArenaScope scope(context_->scratch());
  std::optional<TokenRows<TensorView>> rows = RowsOf(y);
  TensorView dense = y;
  if (!rows.has_value()) {
    TE_ASSIGN_OR_RETURN(dense, context_->scratch()->Allocate(y.dtype(), y.shape()));
    rows = RowsOf(dense);
  }
  QuantSpec spec;
  spec.format = format;
  spec.scale_inv = codes.scale_inv;
  spec.rowwise_data = TensorView(codes.codes.data(), DType::kUInt8, rows->matrix.shape());
  TE_RETURN_IF_ERROR(context_->kernels().dequantize(
      context_->exec(), {.x = spec, .orientation = Orientation::kRowwise, .y = rows->matrix}));
  if (dense.data() == y.data()) return OkStatus();
  return context_->kernels().cast(context_->exec(), {.x = dense, .y = y});
}

Status Float8Attention::Explained(const Status& status) const {
  return status.WithContext(name_ + ": fp8_dpa");
}

Status Float8Attention::Forward(const GemmPass& pass, const AttentionForwardArgs& args,
                                Arena* arena, Float8AttentionState* state) {
  TE_ASSIGN_OR_RETURN(const Scaling qkv, ScalingOf(AttentionTensor::kQkv, pass));
  TE_ASSIGN_OR_RETURN(const Scaling s, ScalingOf(AttentionTensor::kS, pass));
  TE_ASSIGN_OR_RETURN(const Scaling o, ScalingOf(AttentionTensor::kO, pass));
  TE_ASSIGN_OR_RETURN(float* const scale_inv, NewScalar(arena));
  TE_ASSIGN_OR_RETURN(state->q, Quantize(args.q, qkv.format, &qkv, scale_inv, arena));
  TE_ASSIGN_OR_RETURN(state->k, Quantize(args.k, qkv.format, &qkv, scale_inv, arena));
  TE_ASSIGN_OR_RETURN(state->v, Quantize(args.v, qkv.format, &qkv, scale_inv, arena));
  TE_ASSIGN_OR_RETURN(float* const out_scale_inv, NewScalar(arena));
  TE_ASSIGN_OR_RETURN(const Float8Output out, NewOutput(args.out, o, out_scale_inv, arena));
  state->out = {.codes = out.codes, .scale_inv = out.scale_inv};
  state->lse = args.lse;
  TE_RETURN_IF_ERROR(Explained(context_->kernels().attention_fp8_forward(
      context_->exec(), {.q = state->q,
                         .k = state->k,
                         .v = state->v,
                         .mask = args.mask,
                         .softmax_scale = args.softmax_scale,
                         .s = {.scale = s.scale, .amax = s.amax},
                         .out = out,
                         .lse = args.lse})));
  return Dequantize(out, o.format, args.out);
}

Status Float8Attention::Backward(const GemmPass& pass, const AttentionBackwardArgs& args,
                                 const Float8AttentionState& state) {
  TE_ASSIGN_OR_RETURN(const Scaling s, ScalingOf(AttentionTensor::kS, pass));
  TE_ASSIGN_OR_RETURN(const Scaling dout_scaling, ScalingOf(AttentionTensor::kDo, pass));
  TE_ASSIGN_OR_RETURN(const Scaling dp, ScalingOf(AttentionTensor::kDp, pass));
  TE_ASSIGN_OR_RETURN(const Scaling dqkv, ScalingOf(AttentionTensor::kDqkv, pass));
  Arena* const scratch = context_->scratch();
  const ArenaScope scope(scratch);
  TE_ASSIGN_OR_RETURN(float* const dout_scale_inv, NewScalar(scratch));
  TE_ASSIGN_OR_RETURN(const Float8Input dout, Quantize(args.dout, dout_scaling.format,
                                                       &dout_scaling, dout_scale_inv, scratch));
  TE_ASSIGN_OR_RETURN(float* const scale_inv, NewScalar(scratch));
  TE_ASSIGN_OR_RETURN(const Float8Output dq, NewOutput(args.dq, dqkv, scale_inv, scratch));
  TE_ASSIGN_OR_RETURN(const Float8Output dk, NewOutput(args.dk, dqkv, scale_inv, scratch));
  TE_ASSIGN_OR_RETURN(const Float8Output dv, NewOutput(args.dv, dqkv, scale_inv, scratch));
  TE_RETURN_IF_ERROR(Explained(context_->kernels().attention_fp8_backward(
      context_->exec(), {.q = state.q,
                         .k = state.k,
                         .v = state.v,
                         .out = state.out,
                         .dout = dout,
                         .lse = state.lse,
                         .mask = args.mask,
                         .softmax_scale = args.softmax_scale,
                         .gradient_format = dqkv.format,
                         .s = {.scale = s.scale},
                         .dp = {.scale = dp.scale, .amax = dp.amax},
                         .dq = dq,
                         .dk = dk,
                         .dv = dv})));
  TE_RETURN_IF_ERROR(Dequantize(dq, dqkv.format, args.dq));
  TE_RETURN_IF_ERROR(Dequantize(dk, dqkv.format, args.dk));
  return Dequantize(dv, dqkv.format, args.dv);
}

Status Float8Attention::CalibrateForward(const GemmPass& pass, const AttentionForwardArgs& args) {
  if (pass.recipe == nullptr || !pass.calibrating || !pass.training) return OkStatus();
  if (context_->repeated() != nullptr) return OkStatus();  // the first run has measured them
  TE_ASSIGN_OR_RETURN(const Scaling qkv, ScalingOf(AttentionTensor::kQkv, pass));
  TE_ASSIGN_OR_RETURN(const Scaling s, ScalingOf(AttentionTensor::kS, pass));
  TE_ASSIGN_OR_RETURN(const Scaling o, ScalingOf(AttentionTensor::kO, pass));
  Arena* const scratch = context_->scratch();
  const ArenaScope scope(scratch);
  Float8Input inputs[3];
  const ConstTensorView* const tensors[3] = {&args.q, &args.k, &args.v};
  for (int i = 0; i < 3; ++i) {
    TE_RETURN_IF_ERROR(AddAmax(*tensors[i], qkv));
    TE_ASSIGN_OR_RETURN(float* const scale_inv, NewScalar(scratch));
    TE_ASSIGN_OR_RETURN(inputs[i], Quantize(*tensors[i], qkv.format, nullptr, scale_inv, scratch));
  }
  TE_RETURN_IF_ERROR(AddAmax(args.out, o));
  TE_ASSIGN_OR_RETURN(float* const out_scale_inv, NewScalar(scratch));
  const Scaling unmeasured = {.format = o.format, .scale = o.scale};
  TE_ASSIGN_OR_RETURN(const Float8Output out,
                      NewOutput(args.out, unmeasured, out_scale_inv, scratch));
  TE_ASSIGN_OR_RETURN(const TensorView lse, scratch->Allocate(DType::kFloat32, args.lse.shape()));
  return Explained(context_->kernels().attention_fp8_forward(
      context_->exec(), {.q = inputs[0],
                         .k = inputs[1],
                         .v = inputs[2],
                         .mask = args.mask,
                         .softmax_scale = args.softmax_scale,
                         .s = {.scale = s.scale, .amax = s.amax},
                         .out = out,
                         .lse = lse}));
}

Status Float8Attention::CalibrateBackward(const GemmPass& pass, const AttentionBackwardArgs& args) {
  if (pass.recipe == nullptr || !pass.calibrating || !pass.training) return OkStatus();
  TE_ASSIGN_OR_RETURN(const Scaling s, ScalingOf(AttentionTensor::kS, pass));
  TE_ASSIGN_OR_RETURN(const Scaling dout, ScalingOf(AttentionTensor::kDo, pass));
  TE_ASSIGN_OR_RETURN(const Scaling dp, ScalingOf(AttentionTensor::kDp, pass));
  TE_ASSIGN_OR_RETURN(const Scaling dqkv, ScalingOf(AttentionTensor::kDqkv, pass));
  Arena* const scratch = context_->scratch();
  const ArenaScope scope(scratch);
  TE_RETURN_IF_ERROR(AddAmax(args.dout, dout));
  const TensorView* const gradients[3] = {&args.dq, &args.dk, &args.dv};
  const ConstTensorView* const tensors[5] = {&args.q, &args.k, &args.v, &args.out, &args.dout};
  Float8Input inputs[5];
  for (int i = 0; i < 5; ++i) {
    TE_ASSIGN_OR_RETURN(float* const scale_inv, NewScalar(scratch));
    TE_ASSIGN_OR_RETURN(inputs[i], Quantize(*tensors[i], i < 4 ? kForwardFormat : dout.format,
                                            nullptr, scale_inv, scratch));
  }
  const Scaling unmeasured = {.format = dqkv.format, .scale = dqkv.scale};
  Float8Output outputs[3];
  for (int i = 0; i < 3; ++i) {
    TE_RETURN_IF_ERROR(AddAmax(*gradients[i], dqkv));
    TE_ASSIGN_OR_RETURN(float* const scale_inv, NewScalar(scratch));
    TE_ASSIGN_OR_RETURN(outputs[i], NewOutput(*gradients[i], unmeasured, scale_inv, scratch));
  }
  return Explained(context_->kernels().attention_fp8_backward(
      context_->exec(), {.q = inputs[0],
                         .k = inputs[1],
                         .v = inputs[2],
                         .out = inputs[3],
                         .dout = inputs[4],
                         .lse = args.lse,
                         .mask = args.mask,
                         .softmax_scale = args.softmax_scale,
                         .gradient_format = dqkv.format,
                         .s = {.scale = s.scale},
                         .dp = {.scale = dp.scale, .amax = dp.amax},
                         .dq = outputs[0],
                         .dk = outputs[1],
                         .dv = outputs[2]}));
}

Status Float8Attention::EndBackward(const GemmPass& pass) {
  if (!pass.first || !pass.training) return OkStatus();
  return context_->delayed_scaling().Update(context_->exec(), ScalingDirection::kBackward);
}

}  // namespace te
