#include "te_core/layers/multihead_attention.h"

#include "te_core/layers/layer_support.h"

namespace te {

struct MultiheadAttention::Heads {
  TensorView
      query;  // [B, S, n, d]; undefined where an interleaved buffer's queries have no single stride
  TensorView key;  // [B, S, g, d]
  TensorView value;
};

struct MultiheadAttention::State : SavedState {
  Shape input_shape;
  Shape qkv_shape;  // of the packed buffer, in hidden states' order
  RotaryTable rotary;
  ConstTensorView positions;
  int64_t start_position = 0;
  bool in_codes = false;  // core attention reads and leaves codes
  // Written by BackwardInput, read by BackwardWeight. Its values are those of the rotated heads'
  // gradients, or undefined, where only the quantized copies are read.
  TensorView dqkv;
};

namespace {

AttentionMaskType BottomRight(AttentionMaskType type) {
  switch (type) {
    case AttentionMaskType::kCausal:
      return AttentionMaskType::kCausalBottomRight;
    case AttentionMaskType::kPaddingCausal:
      return AttentionMaskType::kPaddingCausalBottomRight;
    default:
      return type;
  }
}

// What core attention gets of the layer's arguments.
AttentionArgs MasksOf(const AttentionArgs& args) {
  AttentionArgs masks;
  masks.padding_mask = args.padding_mask;
  masks.padding_on_the_right = args.padding_on_the_right;
  masks.arbitrary_mask = args.arbitrary_mask;
  return masks;
}

}  // namespace

StatusOr<std::unique_ptr<MultiheadAttention>> MultiheadAttention::Create(
    Context* context, const MultiheadAttentionOptions& options, std::string name) {
  std::unique_ptr<MultiheadAttention> layer(new MultiheadAttention(context, std::move(name)));
  MultiheadAttentionOptions& o = layer->options_ = options;
  const std::string& n = layer->name();
  TE_RETURN_IF_ERROR(CheckParamsDType(n, o.params_dtype));
  TE_RETURN_IF_ERROR(CheckPositive(n, "hidden_size", o.hidden_size));
  TE_RETURN_IF_ERROR(CheckPositive(n, "num_attention_heads", o.num_attention_heads));
  if (o.kv_channels == 0) {
    if (o.hidden_size % o.num_attention_heads != 0) {
      return InvalidArgument(
          "{}: hidden_size is {}; expected a multiple of num_attention_heads = {}, or kv_channels "
          "given",
          n, o.hidden_size, o.num_attention_heads);
    }
    o.kv_channels = o.hidden_size / o.num_attention_heads;
  }
  if (o.num_gqa_groups == 0) o.num_gqa_groups = o.num_attention_heads;
  TE_ASSIGN_OR_RETURN(std::unique_ptr<DotProductAttention> core_attention,
                      DotProductAttention::Create(
                          context,
                          {.num_attention_heads = o.num_attention_heads,
                           .kv_channels = o.kv_channels,
                           .num_gqa_groups = o.num_gqa_groups,
                           .attention_dropout = o.attention_dropout,
                           .qkv_format = AttentionFormat::kBshd,  // it is given batch-first views
                           .attn_mask_type = o.attn_mask_type,
                           .window_size = o.window_size,
                           .softmax_scale = o.softmax_scale},
                          JoinName(n, "core_attention")));
  if (o.qkv_format != AttentionFormat::kBshd && o.qkv_format != AttentionFormat::kSbhd) {
    return InvalidArgument("{}: qkv_format is {}; expected bshd (0) or sbhd (1)", n,
                           static_cast<int>(o.qkv_format));
  }
  std::vector<ParameterSplit> split;
  if (!o.fuse_qkv_params) {
    const int64_t query = o.num_attention_heads * o.kv_channels,
                  key = o.num_gqa_groups * o.kv_channels;
    split = {{"query_", query}, {"key_", key}, {"value_", key}};
  }
  const bool qkv_bias = o.qkv_bias.value_or(o.bias);
  std::unique_ptr<Layer> qkv;
  if (o.input_layernorm) {
    TE_ASSIGN_OR_RETURN(
        qkv, LayerNormLinear::Create(context,
                                     {.in_features = o.hidden_size,
                                      .out_features = layer->qkv_features(),
                                      .layernorm_epsilon = o.layernorm_epsilon,
                                      .bias = qkv_bias,
                                      .normalization = o.normalization,
                                      .zero_centered_gamma = o.zero_centered_gamma,
                                      .parameters_split = split,
                                      .params_dtype = o.params_dtype,
                                      .init_method_std = o.init_method_std,
                                      .perform_initialization = o.perform_initialization},
                                     JoinName(n, "layernorm_qkv")));
  } else {
    TE_ASSIGN_OR_RETURN(qkv, Linear::Create(context,
                                            {.in_features = o.hidden_size,
                                             .out_features = layer->qkv_features(),
                                             .bias = qkv_bias,
                                             .parameters_split = split,
                                             .params_dtype = o.params_dtype,
                                             .init_method_std = o.init_method_std,
                                             .perform_initialization = o.perform_initialization},
                                            JoinName(n, "qkv")));
  }
  TE_ASSIGN_OR_RETURN(std::unique_ptr<Layer> proj,
                      Linear::Create(context,
                                     {.in_features = o.num_attention_heads * o.kv_channels,
                                      .out_features = o.hidden_size,
                                      .bias = o.proj_bias.value_or(o.bias),
                                      .params_dtype = o.params_dtype,
                                      .init_method_std = o.output_layer_init_method_std,
                                      .perform_initialization = o.perform_initialization},
                                     JoinName(n, "proj")));
  layer->core_attention_stream_ = core_attention->dropout_stream();
  layer->AddChild(o.input_layernorm ? "layernorm_qkv" : "qkv", std::move(qkv));
  layer->AddChild("core_attention", std::move(core_attention));
  layer->AddChild("proj", std::move(proj));
  return layer;
}

Capabilities MultiheadAttention::capabilities() const {
  const Capabilities qkv = child(kQkv)->capabilities(), proj = child(kProj)->capabilities();
  return {
      .takes_residual = proj.takes_residual && qkv.takes_residual,
      .gives_norm_output = options_.input_layernorm && qkv.gives_norm_output,
      .quantizes_dinput = qkv.quantizes_dinput,
      .frees_output = proj.frees_output,
      .recordable = qkv.recordable && child(kCore)->capabilities().recordable && proj.recordable};
}

MultiheadAttention::Heads MultiheadAttention::SplitHeads(TensorView packed) const {
  const int64_t n = options_.num_attention_heads, g = options_.num_gqa_groups,
                d = options_.kv_channels;
  if (options_.qkv_format == AttentionFormat::kSbhd) packed = packed.Transpose(0, 1);
  Heads heads;
  if (one_block()) {
    heads.query = packed.Slice(2, 0, n * d).Split(2, n, d);
    heads.key = packed.Slice(2, n * d, (n + g) * d).Split(2, g, d);
    heads.value = packed.Slice(2, (n + g) * d, (n + 2 * g) * d).Split(2, g, d);
    return heads;
  }
  const int64_t r = n / g;
  const TensorView groups = packed.Split(2, g, (r + 2) * d);  // [B, S, g, (r + 2) d]
  if (r == 1) heads.query = groups.Slice(3, 0, d);
  heads.key = groups.Slice(3, r * d, (r + 1) * d);
  heads.value = groups.Slice(3, (r + 1) * d, (r + 2) * d);
  return heads;
}

TensorView MultiheadAttention::GroupedQueries(TensorView packed) const {
  const int64_t r = options_.num_attention_heads / options_.num_gqa_groups,
                d = options_.kv_channels;
  if (options_.qkv_format == AttentionFormat::kSbhd) packed = packed.Transpose(0, 1);
  return packed.Split(2, options_.num_gqa_groups, (r + 2) * d).Slice(3, 0, r * d);
}

Status MultiheadAttention::Rotate(TensorView packed, const RotaryTable& rotary,
                                  ConstTensorView positions, int64_t start_position,
                                  bool inverse) const {
  if (!rotary.cos.defined()) return OkStatus();
  const int64_t n = options_.num_attention_heads, g = options_.num_gqa_groups,
                d = options_.kv_channels;
  if (options_.qkv_format == AttentionFormat::kSbhd) packed = packed.Transpose(0, 1);
  // Queries and keys lie side by side: all of them, or those of one group.
  const int64_t blocks = interleaved() ? g : 1;
  const int64_t stride = packed.dim(2) / blocks, rotated = (n + g) / blocks;
  for (int64_t i = 0; i < blocks; ++i) {
    const TensorView heads =
        packed.Slice(2, i * stride, i * stride + rotated * d).Split(2, rotated, d);
    TE_RETURN_IF_ERROR(
        context_->kernels().rope(context_->exec(), {.x = heads,
                                                    .cos = rotary.cos,
                                                    .sin = rotary.sin,
                                                    .positions = positions,
                                                    .start_position = start_position,
                                                    .interleaved = rotary.interleaved,
                                                    .inverse = inverse,
                                                    .y = heads}));
  }
  return OkStatus();
}

RopeArgs MultiheadAttention::PackedRotation(const State& state, bool inverse) const {
  return {.cos = state.rotary.cos,
          .sin = state.rotary.sin,
          .positions = state.positions,
          .start_position = state.start_position,
          .interleaved = state.rotary.interleaved,
          .inverse = inverse,
          .num_rotated_heads = options_.num_attention_heads + options_.num_gqa_groups,
          .sequence_first = options_.qkv_format == AttentionFormat::kSbhd};
}

TensorView MultiheadAttention::AllHeads(const TensorView& packed) const {
  return packed.Split(2, options_.num_attention_heads + 2 * options_.num_gqa_groups,
                      options_.kv_channels);
}

// In place, or, where the QKV product reads quantized copies alone, into these in one pass over
// queries, keys and values.
StatusOr<QuantSpec> MultiheadAttention::RotateGradient(State* state, Saved* saved) const {
  QuantSpec quant;
  if (state->rotary.cos.defined() && one_block()) {
    TE_ASSIGN_OR_RETURN(quant, child(kQkv)->WantedGradOutput(saved->child(kQkv), saved->arena()));
  }
  if (quant.format == QuantFormat::kNone) {
    TE_RETURN_IF_ERROR(
        Rotate(state->dqkv, state->rotary, state->positions, state->start_position, true));
    return quant;
  }
  RopeArgs rope = PackedRotation(*state, true);
  rope.x = AllHeads(state->dqkv);
  if (options_.qkv_bias.value_or(options_.bias)) rope.y.dense = AllHeads(state->dqkv);
  rope.y.quant = quant;
  TE_RETURN_IF_ERROR(context_->kernels().rope(context_->exec(), rope));
  return quant;
}

Status MultiheadAttention::ForwardCodes(const TensorView& qkv, const ForwardArgs& args,
                                        Saved* saved) {
  State& state = saved->state<State>();
  const bool sbhd = options_.qkv_format == AttentionFormat::kSbhd;
  TE_ASSIGN_OR_RETURN(const QuantSpec codes,
                      child(kCore)->WantedInput({.batch = qkv.dim(sbhd ? 1 : 0),
                                                 .sequence = qkv.dim(sbhd ? 0 : 1),
                                                 .sequence_first = sbhd},
                                                saved->child(kCore)));
  if (state.rotary.cos.defined()) {
    RopeArgs rope = PackedRotation(state, false);
    rope.x = AllHeads(qkv);
    rope.y.quant = codes;
    TE_RETURN_IF_ERROR(context_->kernels().rope(context_->exec(), rope));
  } else {
    TE_RETURN_IF_ERROR(
        context_->kernels().quantize(context_->exec(), {.x = Rows(qkv), .out = codes}));
  }
  ForwardArgs core, proj;
  core.input.codes = codes;
  core.output_codes = &proj.input.codes;
  core.attention = MasksOf(args.attention);
  TE_RETURN_IF_ERROR(child(kCore)->Forward(core, saved->child(kCore)));
  proj.output = args.output;
  proj.residual = args.residual;
  proj.output_wanted = args.output_wanted;
  return child(kProj)->Forward(proj, saved->child(kProj));
}

StatusOr<QuantSpec> MultiheadAttention::BackwardCodes(const ConstTensorView& dcontext, State* state,
                                                      Saved* saved) {
  QuantSpec codes;
  BackwardArgs core;
  core.doutput = dcontext;
  core.dinput_codes = &codes;
  TE_RETURN_IF_ERROR(child(kCore)->BackwardInput(core, saved->child(kCore)));
  Sink sink;
  TE_ASSIGN_OR_RETURN(sink.quant,
                      child(kQkv)->WantedGradOutput(saved->child(kQkv), saved->arena()));
  const bool dense = !sink.quantized() || options_.qkv_bias.value_or(options_.bias);
  if (!state->rotary.cos.defined()) {
    if (dense) sink.dense = Rows(state->dqkv);
    TE_RETURN_IF_ERROR(context_->kernels().dequantize(
        context_->exec(), {.x = codes, .y = sink, .dtype = options_.params_dtype}));
    return sink.quant;
  }
  if (dense) sink.dense = AllHeads(state->dqkv);
  RopeArgs rope = PackedRotation(*state, true);
  rope.x = AllHeads(codes.rowwise_data.Reshape(state->qkv_shape));
  rope.x_format = codes.format;
  rope.x_scale_inv = codes.scale_inv;
  rope.x_dtype = options_.params_dtype;
  rope.y = sink;
  TE_RETURN_IF_ERROR(context_->kernels().rope(context_->exec(), rope));
  return sink.quant;
}

StatusOr<QuantSpec> MultiheadAttention::WantedGradOutput(Saved* saved, Arena* arena) {
  TE_RETURN_IF_ERROR(CheckSaved(name_, saved));
  return child(kProj)->WantedGradOutput(saved->child(kProj), arena);
}

Status MultiheadAttention::CheckCache(const AttentionArgs& attention, int64_t batch,
                                      int64_t sequence, const Saved* saved) const {
  const KeyValueCache& cache = *attention.cache;
  if (saved != nullptr)
    return InvalidArgument(
        "{}: a key-value cache is given in training; expected it in inference alone", name_);
  if (cache.key.shape().rank() != 4 || cache.length < 0 ||
      cache.length + sequence > cache.key.shape()[1]) {
    return InvalidArgument(
        "{}: the cache's key is {} and holds {} tokens; expected room for {} more", name_,
        ConstTensorView(cache.key).ToString(), cache.length, sequence);
  }
  const Shape expected = {batch, cache.key.shape()[1], options_.num_gqa_groups,
                          options_.kv_channels};
  TE_RETURN_IF_ERROR(CheckShape(name_, "cache's key", cache.key, options_.params_dtype, expected));
  TE_RETURN_IF_ERROR(
      CheckShape(name_, "cache's value", cache.value, options_.params_dtype, expected));
  if (attention.start_position != 0 && attention.start_position != cache.length) {
    return InvalidArgument("{}: start_position is {}; expected 0 or the cache's length {}", name_,
                           attention.start_position, cache.length);
  }
  const bool windowed = options_.window_size.left >= 0 || options_.window_size.right >= 0;
  if (windowed && !IsBottomRight(BottomRight(options_.attn_mask_type))) {
    return Unsupported(
        "{}: window_size with attn_mask_type {} and a key-value cache; expected a causal type",
        name_, Name(options_.attn_mask_type));
  }
  return OkStatus();
}

Status MultiheadAttention::Forward(const ForwardArgs& args, Saved* saved) {
  const DType dtype = options_.params_dtype;
  const bool sbhd = options_.qkv_format == AttentionFormat::kSbhd;
  const AttentionArgs& attention = args.attention;
  TE_RETURN_IF_ERROR(CheckTaken(
      name_,
      {.residual = true, .norm_output = options_.input_layernorm, .masks = true, .rotary = true},
      args));
  TE_RETURN_IF_ERROR(CheckFeatures(name_, "input", args.input.dense, dtype, options_.hidden_size));
  const Shape& shape = args.input.dense.shape();
  if (shape.rank() != 3) {
    return InvalidArgument("{}: input is {}; expected [{}, {}]", name_, args.input.dense.ToString(),
                           sbhd ? "sequence, batch" : "batch, sequence", options_.hidden_size);
  }
  if (attention.rotary.cos.defined() != attention.rotary.sin.defined()) {
    return InvalidArgument("{}: rotary needs both cos and sin; one is missing", name_);
  }
  if (!attention.rotary.cos.defined() && attention.positions.defined()) {
    return InvalidArgument("{}: positions are given without rotary tables", name_);
  }
  const int64_t batch = shape[sbhd ? 1 : 0], sequence = shape[sbhd ? 0 : 1];
  int64_t start_position = attention.start_position;
  if (attention.cache != nullptr) {
    TE_RETURN_IF_ERROR(CheckCache(attention, batch, sequence, saved));
    start_position = attention.cache->length;
  }
  ArenaScope scope(context_->scratch());
  Arena* arena = ArenaFor(context_, saved);

  const Capabilities core_attention = child(kCore)->capabilities();
  // Core attention alone would read it again.
  Arena* const qkv_arena = core_attention.frees_input ? context_->scratch() : arena;
  TE_ASSIGN_OR_RETURN(const TensorView qkv,
                      qkv_arena->Allocate(dtype, WithLast(shape, qkv_features())));
  ForwardArgs qkv_args;
  qkv_args.input = args.input;
  qkv_args.output = qkv;
  qkv_args.norm_output = args.norm_output;
  TE_RETURN_IF_ERROR(
      child(kQkv)->Forward(qkv_args, saved != nullptr ? saved->child(kQkv) : nullptr));
  if (saved != nullptr) {
    State& state = saved->state<State>();
    state.input_shape = shape;
    state.qkv_shape = qkv.shape();
    state.rotary = attention.rotary;
    state.positions = attention.positions;
    state.start_position = start_position;
    state.in_codes = core_attention.wants_codes && core_attention.leaves_codes &&
                     child(kProj)->capabilities().takes_codes && one_block();
    state.dqkv = TensorView();
    if (state.in_codes) return ForwardCodes(qkv, args, saved);
  }
  TE_RETURN_IF_ERROR(Rotate(qkv, attention.rotary, attention.positions, start_position, false));
  Heads heads = SplitHeads(qkv);
  const int64_t n = options_.num_attention_heads, d = options_.kv_channels;
  if (!heads.query.defined()) {
    TE_ASSIGN_OR_RETURN(heads.query, qkv_arena->Allocate(dtype, {batch, sequence, n, d}));
    const TensorView grouped = GroupedQueries(qkv);
    TE_RETURN_IF_ERROR(context_->kernels().cast(
        context_->exec(), {.x = grouped, .y = heads.query.Reshape(grouped.shape())}));
  }

  TE_ASSIGN_OR_RETURN(const TensorView context, arena->Allocate(dtype, WithLast(shape, n * d)));
  const TensorView context_heads = (sbhd ? context.Transpose(0, 1) : context).Split(2, n, d);
  ForwardArgs core;
  core.input = heads.query;
  core.output = context_heads;
  core.attention = MasksOf(attention);
  core.attention.key = heads.key;
  core.attention.value = heads.value;
  if (KeyValueCache* cache = attention.cache; cache != nullptr) {
    const int64_t end = cache->length + sequence;
    const Exec& exec = context_->exec();
    TE_RETURN_IF_ERROR(context_->kernels().cast(
        exec, {.x = heads.key, .y = cache->key.view().Slice(1, cache->length, end)}));
    TE_RETURN_IF_ERROR(context_->kernels().cast(
        exec, {.x = heads.value, .y = cache->value.view().Slice(1, cache->length, end)}));
    core.attention.key = cache->key.view().Slice(1, 0, end);
    core.attention.value = cache->value.view().Slice(1, 0, end);
    core.attention.mask_type = BottomRight(options_.attn_mask_type);
  }
  TE_RETURN_IF_ERROR(child(kCore)->Forward(core, saved != nullptr ? saved->child(kCore) : nullptr));
  ForwardArgs proj;
  proj.input = context;
  proj.output = args.output;
  proj.residual = args.residual;
  proj.output_wanted = args.output_wanted;
  TE_RETURN_IF_ERROR(child(kProj)->Forward(proj, saved != nullptr ? saved->child(kProj) : nullptr));
  if (attention.cache != nullptr) attention.cache->length += sequence;
  return OkStatus();
}

Status MultiheadAttention::BackwardInput(const BackwardArgs& args, Saved* saved) {
  TE_RETURN_IF_ERROR(
      CheckTaken(name_, {.residual = true, .norm_output = options_.input_layernorm}, args));
  TE_RETURN_IF_ERROR(CheckSaved(name_, saved));
  State& state = saved->state<State>();
  const DType dtype = options_.params_dtype;
  const bool sbhd = options_.qkv_format == AttentionFormat::kSbhd;
  const int64_t n = options_.num_attention_heads, d = options_.kv_channels;
  TE_RETURN_IF_ERROR(CheckShape(name_, "doutput", args.doutput.dense, dtype, state.input_shape));

  TE_ASSIGN_OR_RETURN(state.dqkv, saved->Allocate(dtype, state.qkv_shape));
  BackwardArgs qkv = args;
  qkv.doutput = state.dqkv;
  {
    ArenaScope scope(context_->scratch());
    TE_ASSIGN_OR_RETURN(const TensorView dcontext,
                        context_->scratch()->Allocate(dtype, WithLast(state.input_shape, n * d)));
    BackwardArgs proj;
    proj.doutput = args.doutput;
    proj.dinput = dcontext;
    TE_RETURN_IF_ERROR(child(kProj)->BackwardInput(proj, saved->child(kProj)));

    const TensorView dheads = (sbhd ? dcontext.Transpose(0, 1) : dcontext).Split(2, n, d);
    if (state.in_codes) {
      TE_ASSIGN_OR_RETURN(qkv.doutput.codes, BackwardCodes(dheads, &state, saved));
    } else {
      TE_RETURN_IF_ERROR(BackwardCore(dheads, state.dqkv, saved->child(kCore)));
    }
  }
  if (!state.in_codes) {
    TE_ASSIGN_OR_RETURN(qkv.doutput.codes, RotateGradient(&state, saved));
  }
  return child(kQkv)->BackwardInput(qkv, saved->child(kQkv));
}

Status MultiheadAttention::BackwardCore(const ConstTensorView& dcontext, const TensorView& dqkv,
                                        Saved* core) {
  const Heads heads = SplitHeads(dqkv);
  BackwardArgs args;
  args.doutput = dcontext;
  args.dinput = heads.query;
  args.attention = {.dkey = heads.key, .dvalue = heads.value};
  if (heads.query.defined()) return child(kCore)->BackwardInput(args, core);
  TE_ASSIGN_OR_RETURN(args.dinput, context_->scratch()->Allocate(dqkv.dtype(), dcontext.shape()));
  TE_RETURN_IF_ERROR(child(kCore)->BackwardInput(args, core));
  const TensorView grouped = GroupedQueries(dqkv);
  return context_->kernels().cast(context_->exec(),
                                  {.x = args.dinput.dense.Reshape(grouped.shape()), .y = grouped});
}

Status MultiheadAttention::BackwardWeight(const BackwardArgs& args, Saved* saved) {
  TE_RETURN_IF_ERROR(CheckSaved(name_, saved));
  const State& state = saved->state<State>();
  if (!state.dqkv.defined())
    return FailedPrecondition("{}: BackwardWeight before BackwardInput of the same pass", name_);
  BackwardArgs part;
  part.accumulate_gradients = args.accumulate_gradients;
  part.gradient_ready = args.gradient_ready;
  part.doutput = args.doutput;
  TE_RETURN_IF_ERROR(child(kProj)->BackwardWeight(part, saved->child(kProj)));
  TE_RETURN_IF_ERROR(child(kCore)->BackwardWeight(BackwardArgs(), saved->child(kCore)));
  part.doutput = state.dqkv;
  return child(kQkv)->BackwardWeight(part, saved->child(kQkv));
}

std::string MultiheadAttention::Describe(int indent) const {
  return DescribeTree("MultiheadAttention", indent);
}

StatusOr<KeyValueCache> MultiheadAttention::NewCache(int64_t batch, int64_t capacity) const {
  KeyValueCache cache;
  const Shape shape = {batch, capacity, options_.num_gqa_groups, options_.kv_channels};
  TE_ASSIGN_OR_RETURN(cache.key, context_->NewTensor(options_.params_dtype, shape));
  TE_ASSIGN_OR_RETURN(cache.value, context_->NewTensor(options_.params_dtype, shape));
  return cache;
}

}  // namespace te
