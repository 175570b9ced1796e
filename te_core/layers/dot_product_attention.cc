#include "te_core/layers/dot_product_attention.h"

#include <cmath>

#include "te_core/layers/layer_support.h"

namespace te {
namespace {

// The tensor as [B, S, heads, d], whatever the format.
template <typename View>
View BatchFirst(const View& view, AttentionFormat format) {
  return format == AttentionFormat::kSbhd && view.rank() == 4 ? view.Transpose(0, 1) : view;
}

AttentionMaskType WithoutPadding(AttentionMaskType type) {
  switch (type) {
    case AttentionMaskType::kPadding:
      return AttentionMaskType::kNoMask;
    case AttentionMaskType::kPaddingCausal:
      return AttentionMaskType::kCausal;
    case AttentionMaskType::kPaddingCausalBottomRight:
      return AttentionMaskType::kCausalBottomRight;
    default:
      return type;
  }
}

// Strided views are fine; a head's elements must lie together.
Status CheckHeads(const std::string& layer, const char* tensor, const ConstTensorView& view,
                  DType dtype, const Shape& shape) {
  const bool present = view.defined() || (view.rank() == 4 && view.elements() == 0);
  if (present && view.dtype() == dtype && view.shape() == shape &&
      (shape[3] == 1 || view.stride(3) == 1))
    return OkStatus();
  return InvalidArgument(
      "{}: {} is {} in [batch, sequence, heads, head_dim] order; expected {} {}, inner stride 1",
      layer, tensor, view.ToString(), Name(dtype), shape.ToString());
}

bool QuantizedPass(const GemmPass& pass) { return pass.quantizes() && pass.training; }

}  // namespace

const char* Name(AttentionFormat format) {
  switch (format) {
    case AttentionFormat::kBshd:
      return "bshd";
    case AttentionFormat::kSbhd:
      return "sbhd";
  }
  return "unknown";
}

StatusOr<AttentionFormat> ParseAttentionFormat(std::string_view name) {
  for (AttentionFormat format : {AttentionFormat::kBshd, AttentionFormat::kSbhd}) {
    if (name == Name(format)) return format;
  }
  return InvalidArgument("attention format is '{}'; expected bshd or sbhd", name);
}

struct DotProductAttention::State : SavedState {
  ConstTensorView q, k, v, out;  // batch first
  TensorView lse;
  AttentionMask mask;
  RandomState random;
  GemmPass pass;
  Float8AttentionState float8;  // of a pass that quantizes: instead of q, k, v and out
  // Of a packed pass.
  bool packed = false;
  PackedHeads heads;
  QuantSpec codes;  // of q, k and v
};

StatusOr<std::unique_ptr<DotProductAttention>> DotProductAttention::Create(
    Context* context, const DotProductAttentionOptions& options, std::string name) {
  std::unique_ptr<DotProductAttention> layer(new DotProductAttention(context, std::move(name)));
  DotProductAttentionOptions& o = layer->options_ = options;
  const std::string& n = layer->name();
  TE_RETURN_IF_ERROR(CheckPositive(n, "num_attention_heads", o.num_attention_heads));
  TE_RETURN_IF_ERROR(CheckPositive(n, "kv_channels", o.kv_channels));
  if (o.num_gqa_groups == 0) o.num_gqa_groups = o.num_attention_heads;
  TE_RETURN_IF_ERROR(CheckPositive(n, "num_gqa_groups", o.num_gqa_groups));
  if (o.num_attention_heads % o.num_gqa_groups != 0) {
    return InvalidArgument(
        "{}: num_gqa_groups is {}; expected a divisor of num_attention_heads = {}", n,
        o.num_gqa_groups, o.num_attention_heads);
  }
  TE_RETURN_IF_ERROR(CheckProbability(n, "attention_dropout", o.attention_dropout));
  if (o.qkv_format != AttentionFormat::kBshd && o.qkv_format != AttentionFormat::kSbhd) {
    return InvalidArgument("{}: qkv_format is {}; expected bshd (0) or sbhd (1)", n,
                           static_cast<int>(o.qkv_format));
  }
  if (o.attn_mask_type < AttentionMaskType::kNoMask ||
      o.attn_mask_type > AttentionMaskType::kArbitrary) {
    return InvalidArgument("{}: attn_mask_type is {}; expected 0 (no_mask) to 6 (arbitrary)", n,
                           static_cast<int>(o.attn_mask_type));
  }
  if (o.window_size.left < -1 || o.window_size.right < -1) {
    return InvalidArgument("{}: window_size is ({}, {}); expected -1 (infinite) or more", n,
                           o.window_size.left, o.window_size.right);
  }
  if (!std::isfinite(o.softmax_scale)) {
    return InvalidArgument(
        "{}: softmax_scale is {}; expected a finite number, or 0 for 1 / sqrt(kv_channels)", n,
        o.softmax_scale);
  }
  if (o.softmax_scale == 0) o.softmax_scale = 1.0f / std::sqrt(static_cast<float>(o.kv_channels));
  if (GroupSize(context->groups().context) > 1) {
    return Unsupported(
        "{}: attention over a context-parallel group of {} ranks is not built yet; expected "
        "groups.context of size 1",
        n, GroupSize(context->groups().context));
  }
  layer->dropout_stream_ = context->NewRandomStream();
  layer->float8_.Init(context, n);
  return layer;
}

Capabilities DotProductAttention::capabilities() const {
  const bool quantizes = context_->QuantizesAttention(name_);
  return {.wants_codes = quantizes,
          .leaves_codes = quantizes,
          .frees_input = quantizes,
          .recordable = true};
}

Status DotProductAttention::Forward(const ForwardArgs& args, Saved* saved) {
  TE_RETURN_IF_ERROR(CheckTaken(
      name_, {.key_value = true, .masks = true, .input_codes = true, .output_codes = true}, args));
  if (args.input.in_codes()) return ForwardCodes(args, saved);
  if (args.output_codes != nullptr) {
    return InvalidArgument("{}: output_codes is given with a dense input; expected its codes",
                           name_);
  }
  const ConstTensorView q = BatchFirst(args.input.dense, options_.qkv_format);
  const ConstTensorView k = BatchFirst(args.attention.key, options_.qkv_format);
  const ConstTensorView v = BatchFirst(args.attention.value, options_.qkv_format);
  const TensorView out = BatchFirst(args.output, options_.qkv_format);
  const DType dtype = q.dtype();
  if (q.rank() != 4 || k.rank() != 4 || (dtype != DType::kFloat32 && dtype != DType::kBFloat16)) {
    return InvalidArgument(
        "{}: input (query) is {} and key {}; expected float32 or bfloat16 of rank 4", name_,
        args.input.dense.ToString(), args.attention.key.ToString());
  }
  const int64_t batch = q.dim(0), queries = q.dim(1), keys = k.dim(1);
  const Shape q_shape = {batch, queries, options_.num_attention_heads, options_.kv_channels};
  const Shape k_shape = {batch, keys, options_.num_gqa_groups, options_.kv_channels};
  TE_RETURN_IF_ERROR(CheckHeads(name_, "input (query)", q, dtype, q_shape));
  TE_RETURN_IF_ERROR(CheckHeads(name_, "key", k, dtype, k_shape));
  TE_RETURN_IF_ERROR(CheckHeads(name_, "value", v, dtype, k_shape));
  TE_RETURN_IF_ERROR(CheckHeads(name_, "output", out, dtype, q_shape));
  TE_ASSIGN_OR_RETURN(const AttentionMask mask, MaskOf(args.attention, keys));
  const bool training = saved != nullptr;
  TensorView lse;
  if (training) {
    TE_RETURN_IF_ERROR(
        CheckDropoutOverRanks(context_, name_, "attention_dropout", options_.attention_dropout));
    TE_ASSIGN_OR_RETURN(
        lse, saved->Allocate(DType::kFloat32, {batch, options_.num_attention_heads, queries}));
  }
  const RandomState random = context_->Random(dropout_stream_);
  const AttentionForwardArgs forward = {.q = q,
                                        .k = k,
                                        .v = v,
                                        .mask = mask,
                                        .softmax_scale = options_.softmax_scale,
                                        .dropout = training ? options_.attention_dropout : 0.0f,
                                        .random = random,
                                        .out = out,
                                        .lse = lse};
  if (!training) return context_->kernels().attention_forward(context_->exec(), forward);
  State& state = saved->state<State>();
  state.pass = float8_.NewPass();
  TE_RETURN_IF_ERROR(CheckFloat8Pass(state.pass));
  state.q = q;
  state.k = k;
  state.v = v;
  state.out = out;
  state.lse = lse;
  state.mask = mask;
  state.random = random;
  state.packed = false;
  if (QuantizedPass(state.pass))
    return float8_.Forward(state.pass, forward, saved->arena(), &state.float8);
  TE_RETURN_IF_ERROR(context_->kernels().attention_forward(context_->exec(), forward));
  return float8_.CalibrateForward(state.pass, forward);
}

StatusOr<AttentionMask> DotProductAttention::MaskOf(const AttentionArgs& masks,
                                                    int64_t keys) const {
  const AttentionMaskType type = masks.mask_type.value_or(options_.attn_mask_type);
  AttentionMask mask = {.type = type,
                        .padding = masks.padding_mask,
                        .padding_on_the_right = masks.padding_on_the_right,
                        .arbitrary = masks.arbitrary_mask,
                        .window_left = options_.window_size.left,
                        .window_right = options_.window_size.right};
  if (mask.padding.defined() && !UsesPadding(type)) {
    return InvalidArgument("{}: padding_mask is given, but attn_mask_type {} does not use it",
                           name_, Name(type));
  }
  if (mask.arbitrary.defined() && type != AttentionMaskType::kArbitrary) {
    return InvalidArgument("{}: arbitrary_mask is given, but attn_mask_type {} does not use it",
                           name_, Name(type));
  }
  if (!mask.padding.defined() && keys != 0) mask.type = WithoutPadding(type);
  return mask;
}

StatusOr<QuantSpec> DotProductAttention::WantedInput(const TokenLayout& layout, Saved* saved) {
  TE_RETURN_IF_ERROR(CheckSaved(name_, saved));
  if (!context_->QuantizesAttention(name_)) return QuantSpec();
  State& state = saved->state<State>();
  state.pass = float8_.NewPass();
  TE_RETURN_IF_ERROR(CheckFloat8Pass(state.pass));
  state.packed = true;
  state.heads = {.batch = layout.batch,
                 .sequence = layout.sequence,
                 .heads = options_.num_attention_heads,
                 .groups = options_.num_gqa_groups,
                 .head_dim = options_.kv_channels,
                 .sequence_first = layout.sequence_first};
  TE_ASSIGN_OR_RETURN(state.codes, float8_.NewPacked(state.pass, state.heads, saved->arena()));
  return state.codes;
}

Status DotProductAttention::ForwardCodes(const ForwardArgs& args, Saved* saved) {
  if (args.output_codes == nullptr) {
    return InvalidArgument("{}: codes of the input without output_codes; expected both", name_);
  }
  if (saved == nullptr || !saved->state<State>().packed ||
      saved->state<State>().codes.rowwise_data.data() != args.input.codes.rowwise_data.data()) {
    return FailedPrecondition("{}: codes of the input that are not of WantedInput of the same pass",
                              name_);
  }
  State& state = saved->state<State>();
  const PackedHeads& heads = state.heads;
  AttentionForwardArgs forward = {.softmax_scale = options_.softmax_scale};
  TE_ASSIGN_OR_RETURN(forward.mask, MaskOf(args.attention, heads.sequence));
  TE_ASSIGN_OR_RETURN(forward.lse,
                      saved->Allocate(DType::kFloat32, {heads.batch, heads.heads, heads.sequence}));
  state.mask = forward.mask;
  TE_ASSIGN_OR_RETURN(*args.output_codes,
                      float8_.ForwardPacked(state.pass, state.codes, heads, forward, saved->arena(),
                                            &state.float8));
  return OkStatus();
}

Status DotProductAttention::BackwardCodes(const BackwardArgs& args, Saved* saved) {
  const State& state = saved->state<State>();
  const PackedHeads& heads = state.heads;
  const ConstTensorView& doutput = args.doutput.dense;
  if (doutput.dtype() != DType::kFloat32 && doutput.dtype() != DType::kBFloat16) {
    return InvalidArgument("{}: doutput is {}; expected float32 or bfloat16", name_,
                           doutput.ToString());
  }
  TE_RETURN_IF_ERROR(CheckHeads(name_, "doutput", doutput, doutput.dtype(),
                                {heads.batch, heads.sequence, heads.heads, heads.head_dim}));
  TE_ASSIGN_OR_RETURN(
      *args.dinput_codes,
      float8_.BackwardPacked(
          state.pass, heads,
          {.dout = doutput, .mask = state.mask, .softmax_scale = options_.softmax_scale},
          state.float8, context_->scratch()));
  return OkStatus();
}

// Of a pass that quantizes, now or after calibration.
Status DotProductAttention::CheckFloat8Pass(const GemmPass& pass) const {
  if (pass.recipe == nullptr || !pass.training || options_.attention_dropout == 0)
    return OkStatus();
  return Unsupported("{}: fp8_dpa with attention_dropout {}; expected 0", name_,
                     options_.attention_dropout);
}

Status DotProductAttention::BackwardInput(const BackwardArgs& args, Saved* saved) {
  TE_RETURN_IF_ERROR(CheckTaken(name_, {.key_value = true, .output_codes = true}, args));
  TE_RETURN_IF_ERROR(CheckSaved(name_, saved));
  const State& s = saved->state<State>();
  if (s.packed != (args.dinput_codes != nullptr)) {
    return FailedPrecondition("{}: dinput_codes is {}given after a forward pass of {}", name_,
                              s.packed ? "not " : "", s.packed ? "codes" : "dense tensors");
  }
  if (s.packed) return BackwardCodes(args, saved);
  const auto& [dkey, dvalue] = args.attention;
  if (!args.dinput.dense.defined() && !dkey.defined() && !dvalue.defined()) return OkStatus();
  const ConstTensorView dout = BatchFirst(args.doutput.dense, options_.qkv_format);
  const TensorView dq = BatchFirst(args.dinput.dense, options_.qkv_format);
  const TensorView dk = BatchFirst(dkey, options_.qkv_format);
  const TensorView dv = BatchFirst(dvalue, options_.qkv_format);
  TE_RETURN_IF_ERROR(CheckHeads(name_, "doutput", dout, s.q.dtype(), s.q.shape()));
  TE_RETURN_IF_ERROR(CheckHeads(name_, "dinput (of the query)", dq, s.q.dtype(), s.q.shape()));
  TE_RETURN_IF_ERROR(CheckHeads(name_, "dkey", dk, s.q.dtype(), s.k.shape()));
  TE_RETURN_IF_ERROR(CheckHeads(name_, "dvalue", dv, s.q.dtype(), s.v.shape()));
  const AttentionBackwardArgs backward = {.q = s.q,
                                          .k = s.k,
                                          .v = s.v,
                                          .out = s.out,
                                          .dout = dout,
                                          .lse = s.lse,
                                          .mask = s.mask,
                                          .softmax_scale = options_.softmax_scale,
                                          .dropout = options_.attention_dropout,
                                          .random = s.random,
                                          .dq = dq,
                                          .dk = dk,
                                          .dv = dv};
  if (QuantizedPass(s.pass)) return float8_.Backward(s.pass, backward, s.float8);
  TE_RETURN_IF_ERROR(context_->kernels().attention_backward(context_->exec(), backward));
  return float8_.CalibrateBackward(s.pass, backward);
}

Status DotProductAttention::BackwardWeight(const BackwardArgs&, Saved* saved) {
  TE_RETURN_IF_ERROR(CheckSaved(name_, saved));
  return float8_.EndBackward(saved->state<State>().pass);
}

std::string DotProductAttention::Describe(int) const {
  std::string out = fmt::format(
      "DotProductAttention(num_attention_heads={}, num_gqa_groups={}, kv_channels={}, "
      "attn_mask_type={}",
      options_.num_attention_heads, options_.num_gqa_groups, options_.kv_channels,
      Name(options_.attn_mask_type));
  if (options_.window_size.left >= 0 || options_.window_size.right >= 0) {
    out += fmt::format(", window_size=({}, {})", options_.window_size.left,
                       options_.window_size.right);
  }
  return out + fmt::format(", softmax_scale={:.6g}, attention_dropout={})", options_.softmax_scale,
                           options_.attention_dropout);
}

}  // namespace te
