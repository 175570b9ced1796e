#include "models/llama/hf_decoder_layer.h"

#include <cmath>
#include <utility>

#include "fmt/format.h"

namespace te {

// Every tensor that autograd would keep. [T, ...] with T = B * S unless said otherwise.
struct LlamaHfDecoderLayer::State : SavedState {
  int64_t batch = 0, sequence = 0;
  AttentionMask mask;
  RotaryTable rotary;
  ConstTensorView positions;
  int64_t start_position = 0;
  RandomState random;
  ConstTensorView x;
  TensorView rstd1, h1;
  TensorView q, k, v;       // [T, n d], [T, g d]; q and k rotated
  TensorView k_rep, v_rep;  // [B, n, S, d]; views of k and v when n == g
  TensorView p, p_dropped;  // [B, n, S, S]; the same tensor without dropout
  TensorView attention;     // [T, n d]
  TensorView x2, rstd2, h2;
  TensorView gate, up, act, product;
  // From BackwardInput, for BackwardWeight.
  TensorView dx2, dq, dk, dv, dgate, dup;
};

namespace {

// [T, heads d] as [B, heads, S, d]: Hugging Face's view(...).transpose(1, 2).
TensorView Heads(const TensorView& x, int64_t batch, int64_t sequence, int64_t heads) {
  return x.Reshape({batch, sequence, heads, x.dim(1) / heads}).Transpose(1, 2);
}

ConstTensorView Bias(const NamedParameter& bias) {
  return bias.parameter == nullptr ? ConstTensorView() : ConstTensorView(bias.value());
}

// The gradient to write: undefined for a frozen parameter, or one that does not exist.
TensorView Grad(const NamedParameter& p) {
  return p.parameter == nullptr || !p.parameter->requires_grad ? TensorView() : p.grad();
}

// Alone in its buffer.
bool IsWhole(const NamedParameter& p) { return p.rows == p.parameter->value.shape()[0]; }

}  // namespace

LlamaHfDecoderLayer::LlamaHfDecoderLayer(Context* context, std::string name,
                                         const LlamaConfig& config,
                                         const LlamaDecoderWeights& weights)
    : Layer(context, std::move(name)), config_(config), w_(weights) {
  if (config_.attention_dropout > 0) dropout_stream_ = context->NewRandomStream();
}

AttentionMask LlamaHfDecoderLayer::Mask(ConstTensorView padding) const {
  AttentionMask mask;
  mask.type = padding.defined() ? AttentionMaskType::kPaddingCausal : AttentionMaskType::kCausal;
  mask.padding = padding;
  mask.window_right = 0;
  return mask;
}

Status LlamaHfDecoderLayer::Forward(const ForwardArgs& args, Saved* saved) {
  const ConstTensorView& x = args.input.dense;
  const DType dtype = w_.q.parameter->value.dtype();
  if (x.rank() != 3 || x.dim(2) != config_.hidden_size || x.dtype() != dtype || !x.IsDense()) {
    return InvalidArgument("{}: input is {}; expected dense {} [B, S, {}]", name_, x.ToString(),
                           te::Name(dtype), config_.hidden_size);
  }
  if (!(args.output.shape() == x.shape()) || args.output.dtype() != dtype ||
      !args.output.IsDense()) {
    return InvalidArgument("{}: output is {}; expected the input's shape and dtype, {}", name_,
                           args.output.ToString(), x.ToString());
  }
  if (args.attention.cache != nullptr) {
    return Unsupported("{}: the hf path has no key-value cache; use the te path", name_);
  }
  // Inference keeps the layer's tensors only as long as the call: in scratch.
  ArenaScope scope(context_->scratch());
  State local;
  State* state = saved != nullptr ? &saved->state<State>() : &local;
  Arena* arena = saved != nullptr ? saved->arena() : context_->scratch();
  state->batch = x.dim(0);
  state->sequence = x.dim(1);
  state->mask = Mask(args.attention.padding_mask);
  state->rotary = args.attention.rotary;
  state->positions = args.attention.positions;
  state->start_position = args.attention.start_position;
  state->random = context_->Random(dropout_stream_);
  const int64_t tokens = x.dim(0) * x.dim(1);
  state->x = x.Reshape({tokens, x.dim(2)});
  // Dropout belongs to training.
  const bool dropout = saved != nullptr && config_.attention_dropout > 0;
  state->p_dropped = TensorView();
  if (dropout) {
    TE_ASSIGN_OR_RETURN(state->p_dropped,
                        arena->Allocate(dtype, {state->batch, config_.num_attention_heads,
                                                state->sequence, state->sequence}));
  }
  TE_RETURN_IF_ERROR(ForwardAttention(args, state, arena));
  return ForwardMlp(args.output.Reshape({tokens, x.dim(2)}), state, arena);
}

Status LlamaHfDecoderLayer::ForwardAttention(const ForwardArgs& args, State* s, Arena* arena) {
  const KernelTable& run = context_->kernels();
  const Exec& exec = context_->exec();
  const DType dtype = s->x.dtype();
  const int64_t tokens = s->x.dim(0), hidden = s->x.dim(1), B = s->batch, S = s->sequence;
  const int64_t n = config_.num_attention_heads, g = config_.num_key_value_heads,
                d = config_.head_dim;
  TE_ASSIGN_OR_RETURN(s->rstd1, arena->Allocate(DType::kFloat32, {tokens}));
  TE_ASSIGN_OR_RETURN(s->h1, arena->Allocate(dtype, {tokens, hidden}));
  TE_RETURN_IF_ERROR(
      run.rms_norm_forward(exec, {.x = s->x,
                                  .gamma = w_.input_layernorm.value(),
                                  .epsilon = static_cast<float>(config_.rms_norm_eps),
                                  .y = s->h1,
                                  .rstd = s->rstd1}));
  const struct {
    const NamedParameter &weight, &bias;
    TensorView* out;
  } projections[] = {{w_.q, w_.q_bias, &s->q}, {w_.k, w_.k_bias, &s->k}, {w_.v, w_.v_bias, &s->v}};
  for (const auto& p : projections) {
    TE_ASSIGN_OR_RETURN(*p.out, arena->Allocate(dtype, {tokens, p.weight.rows}));
    TE_RETURN_IF_ERROR(run.gemm(exec, {.kind = GemmKind::kFprop,
                                       .a = s->h1,
                                       .b = p.weight.value(),
                                       .bias = Bias(p.bias),
                                       .d = *p.out}));
  }
  for (TensorView* head : {&s->q, &s->k}) {
    const TensorView view = head->Reshape({B, S, head->dim(1) / d, d});
    TE_RETURN_IF_ERROR(run.rope(exec, {.x = view,
                                       .cos = args.attention.rotary.cos,
                                       .sin = args.attention.rotary.sin,
                                       .positions = args.attention.positions,
                                       .start_position = args.attention.start_position,
                                       .y = view}));
  }
  s->k_rep = Heads(s->k, B, S, g);
  s->v_rep = Heads(s->v, B, S, g);
  if (n != g) {
    for (TensorView* kv : {&s->k_rep, &s->v_rep}) {
      TE_ASSIGN_OR_RETURN(const TensorView repeated, arena->Allocate(dtype, {B, n, S, d}));
      TE_RETURN_IF_ERROR(run.repeat_kv_forward(exec, {.x = *kv, .y = repeated}));
      *kv = repeated;
    }
  }
  TE_ASSIGN_OR_RETURN(s->p, arena->Allocate(dtype, {B, n, S, S}));
  TE_RETURN_IF_ERROR(run.batched_gemm(
      exec, {.a = Heads(s->q, B, S, n), .b = s->k_rep.Transpose(2, 3), .d = s->p}));
  TE_RETURN_IF_ERROR(run.softmax_forward(
      exec,
      {.x = s->p, .mask = s->mask, .scale = 1.0f / std::sqrt(static_cast<float>(d)), .y = s->p}));
  if (s->p_dropped.defined()) {
    TE_RETURN_IF_ERROR(
        run.dropout_forward(exec, {.x = s->p.Reshape({B * n * S, S}),
                                   .p = static_cast<float>(config_.attention_dropout),
                                   .random = s->random,
                                   .out = s->p_dropped.Reshape({B * n * S, S})}));
  } else {
    s->p_dropped = s->p;
  }
  TE_ASSIGN_OR_RETURN(s->attention, arena->Allocate(dtype, {tokens, n * d}));
  TE_RETURN_IF_ERROR(run.batched_gemm(
      exec, {.a = s->p_dropped, .b = s->v_rep, .d = Heads(s->attention, B, S, n)}));
  TE_ASSIGN_OR_RETURN(s->x2, arena->Allocate(dtype, {tokens, hidden}));
  TE_RETURN_IF_ERROR(run.gemm(exec, {.kind = GemmKind::kFprop,
                                     .a = s->attention,
                                     .b = w_.o.value(),
                                     .bias = Bias(w_.o_bias),
                                     .d = s->x2}));
  return run.add(exec, {.a = s->x, .b = s->x2, .out = s->x2});
}

Status LlamaHfDecoderLayer::ForwardMlp(TensorView output, State* s, Arena* arena) {
  const KernelTable& run = context_->kernels();
  const Exec& exec = context_->exec();
  const DType dtype = s->x2.dtype();
  const int64_t tokens = s->x2.dim(0), ffn = config_.intermediate_size;
  TE_ASSIGN_OR_RETURN(s->rstd2, arena->Allocate(DType::kFloat32, {tokens}));
  TE_ASSIGN_OR_RETURN(s->h2, arena->Allocate(dtype, s->x2.shape()));
  TE_RETURN_IF_ERROR(
      run.rms_norm_forward(exec, {.x = s->x2,
                                  .gamma = w_.post_attention_layernorm.value(),
                                  .epsilon = static_cast<float>(config_.rms_norm_eps),
                                  .y = s->h2,
                                  .rstd = s->rstd2}));
  for (TensorView* t : {&s->gate, &s->up, &s->act, &s->product}) {
    TE_ASSIGN_OR_RETURN(*t, arena->Allocate(dtype, {tokens, ffn}));
  }
  const auto project = [&](const NamedParameter& w, const NamedParameter& bias, TensorView in,
                           TensorView out) {
    return run.gemm(
        exec, {.kind = GemmKind::kFprop, .a = in, .b = w.value(), .bias = Bias(bias), .d = out});
  };
  TE_RETURN_IF_ERROR(project(w_.gate, w_.gate_bias, s->h2, s->gate));
  TE_RETURN_IF_ERROR(project(w_.up, w_.up_bias, s->h2, s->up));
  TE_RETURN_IF_ERROR(
      run.activation_forward(exec, {.kind = ActivationKind::kSilu, .x = s->gate, .y = s->act}));
  TE_RETURN_IF_ERROR(run.multiply(exec, {.a = s->act, .b = s->up, .out = s->product}));
  TE_RETURN_IF_ERROR(project(w_.down, w_.down_bias, s->product, output));
  return run.add(exec, {.a = s->x2, .b = output, .out = output});
}

Status LlamaHfDecoderLayer::BackwardInput(const BackwardArgs& args, Saved* saved) {
  State* state = &saved->state<State>();
  const Shape shape = {state->batch, state->sequence, config_.hidden_size};
  for (const ConstTensorView& t : {args.doutput.dense, ConstTensorView(args.dinput.dense)}) {
    if (!(t.shape() == shape) || t.dtype() != state->x.dtype() || !t.IsDense()) {
      return InvalidArgument("{}: doutput and dinput are {} and {}; expected dense {} {}", name_,
                             args.doutput.dense.ToString(), args.dinput.dense.ToString(),
                             te::Name(state->x.dtype()), shape.ToString());
    }
  }
  const Shape flat = state->x.shape();
  ArenaScope scope(context_->scratch());
  TE_RETURN_IF_ERROR(BackwardMlp(args.doutput.dense.Reshape(flat), args.accumulate_gradients, state,
                                 saved->arena()));
  TE_RETURN_IF_ERROR(BackwardAttention(args.dinput.dense.Reshape(flat), args.accumulate_gradients,
                                       state, saved->arena()));
  if (args.gradient_ready != nullptr) {
    for (const NamedParameter* p : {&w_.post_attention_layernorm, &w_.input_layernorm}) {
      if (p->parameter->requires_grad) TE_RETURN_IF_ERROR((*args.gradient_ready)(*p->parameter));
    }
  }
  return OkStatus();
}

// With y = x2 + down(silu(gate(h2)) * up(h2)), h2 = norm(x2).
Status LlamaHfDecoderLayer::BackwardMlp(ConstTensorView dy, bool accumulate, State* s,
                                        Arena* arena) {
  const KernelTable& run = context_->kernels();
  const Exec& exec = context_->exec();
  const DType dtype = s->x2.dtype();
  const Shape wide = s->gate.shape();
  TE_ASSIGN_OR_RETURN(s->dx2, arena->Allocate(dtype, s->x2.shape()));
  TE_ASSIGN_OR_RETURN(s->dgate, arena->Allocate(dtype, wide));
  TE_ASSIGN_OR_RETURN(s->dup, arena->Allocate(dtype, wide));
  ArenaScope scope(context_->scratch());
  TE_ASSIGN_OR_RETURN(TensorView dproduct, context_->scratch()->Allocate(dtype, wide));
  TE_ASSIGN_OR_RETURN(TensorView dh2, context_->scratch()->Allocate(dtype, s->x2.shape()));
  TE_RETURN_IF_ERROR(
      run.gemm(exec, {.kind = GemmKind::kDgrad, .a = dy, .b = w_.down.value(), .d = dproduct}));
  TE_RETURN_IF_ERROR(run.multiply(exec, {.a = dproduct, .b = s->act, .out = s->dup}));
  TE_RETURN_IF_ERROR(run.multiply(exec, {.a = dproduct, .b = s->up, .out = dproduct}));
  TE_RETURN_IF_ERROR(run.activation_backward(
      exec, {.kind = ActivationKind::kSilu, .x = s->gate, .dy = dproduct, .dx = s->dgate}));
  TE_RETURN_IF_ERROR(
      run.gemm(exec, {.kind = GemmKind::kDgrad, .a = s->dgate, .b = w_.gate.value(), .d = dh2}));
  TE_RETURN_IF_ERROR(run.gemm(
      exec, {.kind = GemmKind::kDgrad, .a = s->dup, .b = w_.up.value(), .d = dh2, .beta = 1}));
  return run.rms_norm_backward(exec, {.dy = dh2,
                                      .x = s->x2,
                                      .gamma = w_.post_attention_layernorm.value(),
                                      .rstd = s->rstd2,
                                      .add = dy,
                                      .dx = s->dx2,
                                      .dgamma = Grad(w_.post_attention_layernorm),
                                      .accumulate_dgamma = accumulate});
}

// With x2 = x + o(attention(q(h1), k(h1), v(h1))), h1 = norm(x).
Status LlamaHfDecoderLayer::BackwardAttention(TensorView dx, bool accumulate, State* s,
                                              Arena* arena) {
  const KernelTable& run = context_->kernels();
  const Exec& exec = context_->exec();
  Arena* scratch = context_->scratch();
  const DType dtype = s->x.dtype();
  const int64_t tokens = s->x.dim(0), B = s->batch, S = s->sequence;
  const int64_t n = config_.num_attention_heads, g = config_.num_key_value_heads,
                d = config_.head_dim;
  const float scale = 1.0f / std::sqrt(static_cast<float>(d));
  TE_ASSIGN_OR_RETURN(s->dq, arena->Allocate(dtype, {tokens, n * d}));
  TE_ASSIGN_OR_RETURN(s->dk, arena->Allocate(dtype, {tokens, g * d}));
  TE_ASSIGN_OR_RETURN(s->dv, arena->Allocate(dtype, {tokens, g * d}));
  {
    ArenaScope scope(scratch);
    TE_ASSIGN_OR_RETURN(TensorView dattention, scratch->Allocate(dtype, {tokens, n * d}));
    TE_ASSIGN_OR_RETURN(TensorView dp, scratch->Allocate(dtype, s->p.shape()));
    TensorView dk_rep = Heads(s->dk, B, S, g), dv_rep = Heads(s->dv, B, S, g);
    if (n != g) {
      TE_ASSIGN_OR_RETURN(dk_rep, scratch->Allocate(dtype, {B, n, S, d}));
      TE_ASSIGN_OR_RETURN(dv_rep, scratch->Allocate(dtype, {B, n, S, d}));
    }
    TE_RETURN_IF_ERROR(run.gemm(
        exec, {.kind = GemmKind::kDgrad, .a = s->dx2, .b = w_.o.value(), .d = dattention}));
    const TensorView da = Heads(dattention, B, S, n);
    TE_RETURN_IF_ERROR(run.batched_gemm(exec, {.a = da, .b = s->v_rep.Transpose(2, 3), .d = dp}));
    TE_RETURN_IF_ERROR(
        run.batched_gemm(exec, {.a = s->p_dropped.Transpose(2, 3), .b = da, .d = dv_rep}));
    if (s->p_dropped.data() != s->p.data()) {
      const TensorView rows = dp.Reshape({B * n * S, S});
      TE_RETURN_IF_ERROR(
          run.dropout_backward(exec, {.dout = rows,
                                      .p = static_cast<float>(config_.attention_dropout),
                                      .random = s->random,
                                      .dx = rows}));
    }
    TE_RETURN_IF_ERROR(run.softmax_backward(exec, {.y = s->p, .dy = dp, .scale = scale, .dx = dp}));
    TE_RETURN_IF_ERROR(
        run.batched_gemm(exec, {.a = dp, .b = s->k_rep, .d = Heads(s->dq, B, S, n)}));
    TE_RETURN_IF_ERROR(
        run.batched_gemm(exec, {.a = dp.Transpose(2, 3), .b = Heads(s->q, B, S, n), .d = dk_rep}));
    if (n != g) {
      TE_RETURN_IF_ERROR(run.repeat_kv_backward(exec, {.dy = dk_rep, .dx = Heads(s->dk, B, S, g)}));
      TE_RETURN_IF_ERROR(run.repeat_kv_backward(exec, {.dy = dv_rep, .dx = Heads(s->dv, B, S, g)}));
    }
  }
  for (const TensorView& head : {s->dq, s->dk}) {
    const TensorView view = head.Reshape({B, S, head.dim(1) / d, d});
    TE_RETURN_IF_ERROR(run.rope(exec, {.x = view,
                                       .cos = s->rotary.cos,
                                       .sin = s->rotary.sin,
                                       .positions = s->positions,
                                       .start_position = s->start_position,
                                       .inverse = true,
                                       .y = view}));
  }
  TE_ASSIGN_OR_RETURN(TensorView dh1, scratch->Allocate(dtype, s->x.shape()));
  float beta = 0;
  for (const auto& [grad, weight] :
       {std::pair(s->dq, &w_.q), std::pair(s->dk, &w_.k), std::pair(s->dv, &w_.v)}) {
    TE_RETURN_IF_ERROR(run.gemm(
        exec, {.kind = GemmKind::kDgrad, .a = grad, .b = weight->value(), .d = dh1, .beta = beta}));
    beta = 1;
  }
  return run.rms_norm_backward(exec, {.dy = dh1,
                                      .x = s->x,
                                      .gamma = w_.input_layernorm.value(),
                                      .rstd = s->rstd1,
                                      .add = s->dx2,
                                      .dx = dx,
                                      .dgamma = Grad(w_.input_layernorm),
                                      .accumulate_dgamma = accumulate});
}

Status LlamaHfDecoderLayer::BackwardWeight(const BackwardArgs& args, Saved* saved) {
  const KernelTable& run = context_->kernels();
  const Exec& exec = context_->exec();
  State* s = &saved->state<State>();
  const ConstTensorView dy = args.doutput.dense.Reshape(s->x.shape());
  const bool accumulate = args.accumulate_gradients;
  const struct {
    const NamedParameter &weight, &bias;
    ConstTensorView dy, x;
    bool last;  // of its parameter: gate and up share one buffer; so do q, k and v
  } wgrads[] = {{w_.down, w_.down_bias, dy, s->product, true},
                {w_.gate, w_.gate_bias, s->dgate, s->h2, false},
                {w_.up, w_.up_bias, s->dup, s->h2, true},
                {w_.o, w_.o_bias, s->dx2, s->attention, true},
                {w_.q, w_.q_bias, s->dq, s->h1, false},
                {w_.k, w_.k_bias, s->dk, s->h1, false},
                {w_.v, w_.v_bias, s->dv, s->h1, true}};
  for (const auto& wgrad : wgrads) {
    if (const TensorView dw = Grad(wgrad.weight); dw.defined()) {
      TE_RETURN_IF_ERROR(run.gemm(exec, {.kind = GemmKind::kWgrad,
                                         .a = wgrad.dy,
                                         .b = wgrad.x,
                                         .d = dw,
                                         .beta = accumulate ? 1.0f : 0.0f}));
    }
    if (const TensorView db = Grad(wgrad.bias); db.defined()) {
      TE_RETURN_IF_ERROR(
          run.bias_gradient(exec, {.dy = wgrad.dy, .dbias = db, .accumulate = accumulate}));
    }
    if (args.gradient_ready == nullptr) continue;
    for (const NamedParameter* p : {&wgrad.weight, &wgrad.bias}) {
      if (p->parameter == nullptr || !p->parameter->requires_grad) continue;
      if (wgrad.last || IsWhole(*p)) TE_RETURN_IF_ERROR((*args.gradient_ready)(*p->parameter));
    }
  }
  return OkStatus();
}

std::string LlamaHfDecoderLayer::Describe(int indent) const {
  const std::string pad(static_cast<size_t>(indent), ' ');
  const int64_t h = config_.hidden_size, d = config_.head_dim, f = config_.intermediate_size;
  const int64_t q = config_.num_attention_heads * d, kv = config_.num_key_value_heads * d;
  const auto linear = [](int64_t in, int64_t out, bool bias) {
    return fmt::format("Linear(in_features={}, out_features={}, bias={})", in, out,
                       bias ? "True" : "False");
  };
  const bool ab = config_.attention_bias, mb = config_.mlp_bias;
  std::string out = "LlamaDecoderLayer(\n";
  const auto line = [&](int extra, const std::string& text) {
    out += pad + std::string(static_cast<size_t>(extra), ' ') + text + "\n";
  };
  line(2, "(self_attn): LlamaAttention(");
  line(4, "(q_proj): " + linear(h, q, ab));
  line(4, "(k_proj): " + linear(h, kv, ab));
  line(4, "(v_proj): " + linear(h, kv, ab));
  line(4, "(o_proj): " + linear(q, h, ab));
  line(2, ")");
  line(2, "(mlp): LlamaMLP(");
  line(4, "(gate_proj): " + linear(h, f, mb));
  line(4, "(up_proj): " + linear(h, f, mb));
  line(4, "(down_proj): " + linear(f, h, mb));
  line(4, "(act_fn): SiLU()");
  line(2, ")");
  line(2, fmt::format("(input_layernorm): LlamaRMSNorm(({},), eps={})", h, config_.rms_norm_eps));
  line(2, fmt::format("(post_attention_layernorm): LlamaRMSNorm(({},), eps={})", h,
                      config_.rms_norm_eps));
  return out + pad + ")";
}

}  // namespace te
