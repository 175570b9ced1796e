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

// Of a matrix of codes, batch first.
struct HeadViews {
  TensorView q, k, v;
};
Float8Output OutputOf(const QuantSpec& spec, const TensorView& codes) {
  return {.codes = codes, .scale = spec.scale, .scale_inv = spec.scale_inv, .amax = spec.amax};
}
HeadViews Split(const TensorView& packed, const PackedHeads& h) {
  const TensorView tokens = h.sequence_first ? packed.Split(0, h.sequence, h.batch).Transpose(0, 1)
                                             : packed.Split(0, h.batch, h.sequence);
  const auto part = [&](int64_t begin, int64_t heads) {
    return tokens.Slice(2, begin * h.head_dim, (begin + heads) * h.head_dim)
        .Split(2, heads, h.head_dim);
  };
  return {part(0, h.heads), part(h.heads, h.groups), part(h.heads + h.groups, h.groups)};
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

StatusOr<Float8Attention::ForwardScaling> Float8Attention::ForwardScalingOf(const GemmPass& pass) {
  ForwardScaling out;
  TE_ASSIGN_OR_RETURN(out.qkv, ScalingOf(AttentionTensor::kQkv, pass));
  TE_ASSIGN_OR_RETURN(out.s, ScalingOf(AttentionTensor::kS, pass));
  TE_ASSIGN_OR_RETURN(out.o, ScalingOf(AttentionTensor::kO, pass));
  return out;
}

StatusOr<Float8Attention::BackwardScaling> Float8Attention::BackwardScalingOf(
    const GemmPass& pass) {
  BackwardScaling out;
  TE_ASSIGN_OR_RETURN(out.s, ScalingOf(AttentionTensor::kS, pass));
  TE_ASSIGN_OR_RETURN(out.dout, ScalingOf(AttentionTensor::kDo, pass));
  TE_ASSIGN_OR_RETURN(out.dp, ScalingOf(AttentionTensor::kDp, pass));
  TE_ASSIGN_OR_RETURN(out.dqkv, ScalingOf(AttentionTensor::kDqkv, pass));
  return out;
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

StatusOr<Float8Input> Float8Attention::QuantizeDout(const ConstTensorView& dout,
                                                    const Scaling& scaling) const {
  TE_ASSIGN_OR_RETURN(float* const scale_inv, NewScalar(context_->scratch()));
  return Quantize(dout, scaling.format, &scaling, scale_inv, context_->scratch());
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

Status Float8Attention::RunForward(const ForwardScaling& scaling, const AttentionForwardArgs& args,
                                   const Float8Output& out, Float8AttentionState* state) {
  state->out = {.codes = out.codes, .scale_inv = out.scale_inv};
  state->lse = args.lse;
  return Explained(context_->kernels().attention_fp8_forward(
      context_->exec(), {.q = state->q,
                         .k = state->k,
                         .v = state->v,
                         .mask = args.mask,
                         .softmax_scale = args.softmax_scale,
                         .s = {.scale = scaling.s.scale, .amax = scaling.s.amax},
                         .out = out,
                         .lse = args.lse}));
}

Status Float8Attention::RunBackward(const BackwardScaling& scaling,
                                    const AttentionBackwardArgs& args, const Float8Input& dout,
                                    const Float8AttentionState& state, const Gradients& gradients) {
  return Explained(context_->kernels().attention_fp8_backward(
      context_->exec(), {.q = state.q,
                         .k = state.k,
                         .v = state.v,
                         .out = state.out,
                         .dout = dout,
                         .lse = state.lse,
                         .mask = args.mask,
                         .softmax_scale = args.softmax_scale,
                         .gradient_format = scaling.dqkv.format,
                         .s = {.scale = scaling.s.scale},
                         .dp = {.scale = scaling.dp.scale, .amax = scaling.dp.amax},
                         .dq = gradients.dq,
                         .dk = gradients.dk,
                         .dv = gradients.dv}));
}

Status Float8Attention::Forward(const GemmPass& pass, const AttentionForwardArgs& args,
                                Arena* arena, Float8AttentionState* state) {
  TE_ASSIGN_OR_RETURN(const ForwardScaling scaling, ForwardScalingOf(pass));
  const Scaling& qkv = scaling.qkv;
  TE_ASSIGN_OR_RETURN(float* const scale_inv, NewScalar(arena));
  TE_ASSIGN_OR_RETURN(state->q, Quantize(args.q, qkv.format, &qkv, scale_inv, arena));
  TE_ASSIGN_OR_RETURN(state->k, Quantize(args.k, qkv.format, &qkv, scale_inv, arena));
  TE_ASSIGN_OR_RETURN(state->v, Quantize(args.v, qkv.format, &qkv, scale_inv, arena));
  TE_ASSIGN_OR_RETURN(float* const out_scale_inv, NewScalar(arena));
  TE_ASSIGN_OR_RETURN(const Float8Output out, NewOutput(args.out, scaling.o, out_scale_inv, arena));
  TE_RETURN_IF_ERROR(RunForward(scaling, args, out, state));
  return Dequantize(out, scaling.o.format, args.out);
}

Status Float8Attention::Backward(const GemmPass& pass, const AttentionBackwardArgs& args,
                                 const Float8AttentionState& state) {
  TE_ASSIGN_OR_RETURN(const BackwardScaling scaling, BackwardScalingOf(pass));
  const Scaling& dqkv = scaling.dqkv;
  Arena* const scratch = context_->scratch();
  const ArenaScope scope(scratch);
  TE_ASSIGN_OR_RETURN(const Float8Input dout, QuantizeDout(args.dout, scaling.dout));
  TE_ASSIGN_OR_RETURN(float* const scale_inv, NewScalar(scratch));
  Gradients gradients;
  TE_ASSIGN_OR_RETURN(gradients.dq, NewOutput(args.dq, dqkv, scale_inv, scratch));
  TE_ASSIGN_OR_RETURN(gradients.dk, NewOutput(args.dk, dqkv, scale_inv, scratch));
  TE_ASSIGN_OR_RETURN(gradients.dv, NewOutput(args.dv, dqkv, scale_inv, scratch));
  TE_RETURN_IF_ERROR(RunBackward(scaling, args, dout, state, gradients));
  TE_RETURN_IF_ERROR(Dequantize(gradients.dq, dqkv.format, args.dq));
  TE_RETURN_IF_ERROR(Dequantize(gradients.dk, dqkv.format, args.dk));
  return Dequantize(gradients.dv, dqkv.format, args.dv);
}

StatusOr<QuantSpec> Float8Attention::NewScaledCodes(const Scaling& scaling, int64_t rows,
                                                    int64_t columns, Arena* arena) const {
  QuantSpec spec;
  spec.format = scaling.format;
  spec.scale = scaling.scale;
  spec.amax = scaling.amax;
  TE_ASSIGN_OR_RETURN(spec.scale_inv, NewScalar(arena));
  TE_ASSIGN_OR_RETURN(spec.rowwise_data, arena->Allocate(DType::kUInt8, {rows, columns}));
  return spec;
}

StatusOr<QuantSpec> Float8Attention::NewPacked(const GemmPass& pass, const PackedHeads& heads,
                                               Arena* arena) {
  TE_ASSIGN_OR_RETURN(const Scaling qkv, ScalingOf(AttentionTensor::kQkv, pass));
  return NewScaledCodes(qkv, heads.tokens(), heads.columns(), arena);
}

StatusOr<QuantSpec> Float8Attention::ForwardPacked(const GemmPass& pass, const QuantSpec& qkv,
                                                   const PackedHeads& heads,
                                                   const AttentionForwardArgs& args, Arena* arena,
                                                   Float8AttentionState* state) {
  TE_ASSIGN_OR_RETURN(const ForwardScaling scaling, ForwardScalingOf(pass));
  const HeadViews in = Split(qkv.rowwise_data, heads);
  state->q = {.codes = in.q, .scale_inv = qkv.scale_inv};
  state->k = {.codes = in.k, .scale_inv = qkv.scale_inv};
  state->v = {.codes = in.v, .scale_inv = qkv.scale_inv};
  TE_ASSIGN_OR_RETURN(const QuantSpec out, NewScaledCodes(scaling.o, heads.tokens(),
                                                          heads.heads * heads.head_dim, arena));
  PackedHeads of_out = heads;
  of_out.groups = 0;
  TE_RETURN_IF_ERROR(
      RunForward(scaling, args, OutputOf(out, Split(out.rowwise_data, of_out).q), state));
  return out;
}

StatusOr<QuantSpec> Float8Attention::BackwardPacked(const GemmPass& pass, const PackedHeads& heads,
                                                    const AttentionBackwardArgs& args,
                                                    const Float8AttentionState& state,
                                                    Arena* arena) {
  TE_ASSIGN_OR_RETURN(const BackwardScaling scaling, BackwardScalingOf(pass));
  TE_ASSIGN_OR_RETURN(const QuantSpec dqkv,
                      NewScaledCodes(scaling.dqkv, heads.tokens(), heads.columns(), arena));
  const HeadViews out = Split(dqkv.rowwise_data, heads);
  const ArenaScope scope(context_->scratch());
  TE_ASSIGN_OR_RETURN(const Float8Input dout, QuantizeDout(args.dout, scaling.dout));
  TE_RETURN_IF_ERROR(RunBackward(
      scaling, args, dout, state,
      {.dq = OutputOf(dqkv, out.q), .dk = OutputOf(dqkv, out.k), .dv = OutputOf(dqkv, out.v)}));
  return dqkv;
}

Status Float8Attention::CalibrateForward(const GemmPass& pass, const AttentionForwardArgs& args) {
  if (pass.recipe == nullptr || !pass.calibrating || !pass.training) return OkStatus();
  if (context_->repeated() != nullptr) return OkStatus();  // the first run has measured them
  TE_ASSIGN_OR_RETURN(const ForwardScaling scaling, ForwardScalingOf(pass));
  Arena* const scratch = context_->scratch();
  const ArenaScope scope(scratch);
  Float8AttentionState state;
  const struct {
    const ConstTensorView& x;
    Float8Input& codes;
  } inputs[] = {{args.q, state.q}, {args.k, state.k}, {args.v, state.v}};
  for (const auto& input : inputs) {
    TE_RETURN_IF_ERROR(AddAmax(input.x, scaling.qkv));
    TE_ASSIGN_OR_RETURN(float* const scale_inv, NewScalar(scratch));
    TE_ASSIGN_OR_RETURN(input.codes,
                        Quantize(input.x, scaling.qkv.format, nullptr, scale_inv, scratch));
  }
  TE_RETURN_IF_ERROR(AddAmax(args.out, scaling.o));
  TE_ASSIGN_OR_RETURN(float* const out_scale_inv, NewScalar(scratch));
  const Scaling unmeasured = {.format = scaling.o.format, .scale = scaling.o.scale};
  TE_ASSIGN_OR_RETURN(const Float8Output out,
                      NewOutput(args.out, unmeasured, out_scale_inv, scratch));
  AttentionForwardArgs run = args;
  TE_ASSIGN_OR_RETURN(run.lse, scratch->Allocate(DType::kFloat32, args.lse.shape()));
  return RunForward(scaling, run, out, &state);
}

Status Float8Attention::CalibrateBackward(const GemmPass& pass, const AttentionBackwardArgs& args) {
  if (pass.recipe == nullptr || !pass.calibrating || !pass.training) return OkStatus();
  TE_ASSIGN_OR_RETURN(const BackwardScaling scaling, BackwardScalingOf(pass));
  Arena* const scratch = context_->scratch();
  const ArenaScope scope(scratch);
  TE_RETURN_IF_ERROR(AddAmax(args.dout, scaling.dout));
  const TensorView* const gradients[3] = {&args.dq, &args.dk, &args.dv};
  const ConstTensorView* const tensors[5] = {&args.q, &args.k, &args.v, &args.out, &args.dout};
  Float8Input inputs[5];
  for (int i = 0; i < 5; ++i) {
    TE_ASSIGN_OR_RETURN(float* const scale_inv, NewScalar(scratch));
    TE_ASSIGN_OR_RETURN(inputs[i],
                        Quantize(*tensors[i], i < 4 ? kForwardFormat : scaling.dout.format, nullptr,
                                 scale_inv, scratch));
  }
  const Scaling unmeasured = {.format = scaling.dqkv.format, .scale = scaling.dqkv.scale};
  Float8Output outputs[3];
  for (int i = 0; i < 3; ++i) {
    TE_RETURN_IF_ERROR(AddAmax(*gradients[i], scaling.dqkv));
    TE_ASSIGN_OR_RETURN(float* const scale_inv, NewScalar(scratch));
    TE_ASSIGN_OR_RETURN(outputs[i], NewOutput(*gradients[i], unmeasured, scale_inv, scratch));
  }
  return RunBackward(
      scaling, args, inputs[4],
      {.q = inputs[0], .k = inputs[1], .v = inputs[2], .out = inputs[3], .lse = args.lse},
      {.dq = outputs[0], .dk = outputs[1], .dv = outputs[2]});
}

Status Float8Attention::EndBackward(const GemmPass& pass) {
  if (!pass.first || !pass.training) return OkStatus();
  return context_->delayed_scaling().Update(context_->exec(), ScalingDirection::kBackward);
}

}  // namespace te
