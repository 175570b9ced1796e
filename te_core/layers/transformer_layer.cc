#include "te_core/layers/transformer_layer.h"

#include "te_core/layers/layer_support.h"

namespace te {

struct TransformerLayer::State : SavedState {
  Shape shape;
  RandomState attention_random, mlp_random;
  TensorView dmlp;  // gradient of the MLP's output: undefined where it is doutput itself
  TensorView dh;    // gradient of h
  TensorView
      dattn;  // gradient of self_attention's output: undefined where it is dh (or doutput) itself
  TensorView dy;  // with output_layernorm: gradient of y
};

StatusOr<std::unique_ptr<TransformerLayer>> TransformerLayer::Create(
    Context* context, const TransformerLayerOptions& options, std::string name) {
  if (options.layer_number < 0) {
    return InvalidArgument("{}: layer_number is {}; expected 0 (none) or more", name,
                           options.layer_number);
  }
  std::unique_ptr<TransformerLayer> layer(new TransformerLayer(context, std::move(name)));
  TransformerLayerOptions& o = layer->options_ = options;
  const std::string& n = layer->name();
  TE_RETURN_IF_ERROR(CheckProbability(n, "hidden_dropout", o.hidden_dropout));
  if (o.apply_residual_connection_post_layernorm && o.parallel_attention_mlp) {
    return Unsupported(
        "{}: apply_residual_connection_post_layernorm with parallel_attention_mlp; expected one of "
        "them",
        n);
  }
  TE_ASSIGN_OR_RETURN(
      std::unique_ptr<MultiheadAttention> self_attention,
      MultiheadAttention::Create(context,
                                 {.hidden_size = o.hidden_size,
                                  .num_attention_heads = o.num_attention_heads,
                                  .kv_channels = o.kv_channels,
                                  .num_gqa_groups = o.num_gqa_groups,
                                  .attention_dropout = o.attention_dropout,
                                  .layernorm_epsilon = o.layernorm_epsilon,
                                  .attn_mask_type = o.self_attn_mask_type,
                                  .window_size = o.window_size,
                                  .softmax_scale = o.softmax_scale,
                                  .input_layernorm = !o.output_layernorm,
                                  .normalization = o.normalization,
                                  .zero_centered_gamma = o.zero_centered_gamma,
                                  .bias = o.bias,
                                  .qkv_bias = o.qkv_bias,
                                  .proj_bias = o.proj_bias,
                                  .fuse_qkv_params = o.fuse_qkv_params,
                                  .qkv_weight_interleaved = o.qkv_weight_interleaved,
                                  .qkv_format = o.attn_input_format,
                                  .params_dtype = o.params_dtype,
                                  .init_method_std = o.init_method_std,
                                  .output_layer_init_method_std = o.output_layer_init_method_std,
                                  .perform_initialization = o.perform_initialization},
                                 JoinName(n, "self_attention")));
  TE_ASSIGN_OR_RETURN(
      std::unique_ptr<Layer> layernorm_mlp,
      LayerNormMLP::Create(context,
                           {.hidden_size = o.hidden_size,
                            .ffn_hidden_size = o.ffn_hidden_size,
                            .layernorm_epsilon = o.layernorm_epsilon,
                            .bias = o.mlp_bias.value_or(o.bias),
                            .normalization = o.normalization,
                            .activation = o.activation,
                            .activation_params = o.activation_params,
                            .zero_centered_gamma = o.zero_centered_gamma,
                            .params_dtype = o.params_dtype,
                            .init_method_std = o.init_method_std,
                            .output_layer_init_method_std = o.output_layer_init_method_std,
                            .perform_initialization = o.perform_initialization},
                           JoinName(n, "layernorm_mlp")));
  o.kv_channels = self_attention->options().kv_channels;
  o.num_gqa_groups = self_attention->options().num_gqa_groups;
  layer->core_attention_stream_ = self_attention->core_attention_stream();
  layer->AddChild("self_attention", std::move(self_attention));
  layer->AddChild("layernorm_mlp", std::move(layernorm_mlp));
  if (o.output_layernorm) {
    TE_ASSIGN_OR_RETURN(std::unique_ptr<Layer> layernorm,
                        Norm::Create(context,
                                     {.hidden_size = o.hidden_size,
                                      .normalization = o.normalization,
                                      .layernorm_epsilon = o.layernorm_epsilon,
                                      .zero_centered_gamma = o.zero_centered_gamma,
                                      .params_dtype = o.params_dtype},
                                     JoinName(n, "layernorm")));
    layer->AddChild("layernorm", std::move(layernorm));
  }
  layer->attention_dropout_stream_ = context->NewRandomStream();
  layer->mlp_dropout_stream_ = context->NewRandomStream();
  return layer;
}

Capabilities TransformerLayer::capabilities() const {
  Capabilities out = {.quantizes_dinput = child(kAttention)->capabilities().quantizes_dinput,
                      .frees_output = true,
                      .recordable = true};
  for (const Child& part : children()) {
    const Capabilities of_part = part.layer->capabilities();
    out.frees_output = out.frees_output && of_part.frees_output;
    out.recordable = out.recordable && of_part.recordable;
  }
  return out;
}

// out = residual + dropout(layer(args)); `args.output` and `args.residual` are set here. Without
// dropout the layer's last GEMM adds the residual, if it can.
Status TransformerLayer::AddLayer(Layer* layer, ForwardArgs args, ConstTensorView residual,
                                  const RandomState& random, TensorView out, Saved* saved) {
  args.output = out;
  const bool dropout = saved != nullptr && options_.hidden_dropout > 0 && args.output_wanted;
  if (!dropout && layer->capabilities().takes_residual) {
    args.residual = residual;
    return layer->Forward(args, saved);
  }
  // The residual may be `out` itself: the layer writes elsewhere.
  ArenaScope scope(context_->scratch());
  TE_ASSIGN_OR_RETURN(args.output, context_->scratch()->Allocate(out.dtype(), out.shape()));
  TE_RETURN_IF_ERROR(layer->Forward(args, saved));
  if (!dropout) {
    if (!args.output_wanted) return OkStatus();
    return context_->kernels().add(context_->exec(), {.a = args.output, .b = residual, .out = out});
  }
  return context_->kernels().dropout_forward(context_->exec(), {.x = Rows(args.output),
                                                                .residual = Rows(residual),
                                                                .p = options_.hidden_dropout,
                                                                .random = random,
                                                                .out = Rows(out)});
}

// Errors say which of a model's layers it was.
Status TransformerLayer::Located(Status status) const {
  return options_.layer_number > 0
             ? status.WithContext(fmt::format("layer {}", options_.layer_number))
             : status;
}

Status TransformerLayer::Forward(const ForwardArgs& args, Saved* saved) {
  return Located(ForwardBlock(args, saved));
}

StatusOr<QuantSpec> TransformerLayer::WantedGradOutput(Saved* saved, Arena* arena) {
  TE_RETURN_IF_ERROR(CheckSaved(name_, saved));
  // Behind dropout or a norm, fc2 reads another gradient than doutput.
  if (options_.output_layernorm || options_.hidden_dropout > 0) return QuantSpec();
  return child(kMlp)->WantedGradOutput(saved->child(kMlp), arena);
}

Status TransformerLayer::BackwardInput(const BackwardArgs& args, Saved* saved) {
  return Located(BackwardInputBlock(args, saved));
}

Status TransformerLayer::BackwardWeight(const BackwardArgs& args, Saved* saved) {
  return Located(BackwardWeightBlock(args, saved));
}

Status TransformerLayer::ForwardBlock(const ForwardArgs& args, Saved* saved) {
  const DType dtype = options_.params_dtype;
  TE_RETURN_IF_ERROR(CheckTaken(name_, {.masks = true, .rotary = true}, args));
  TE_RETURN_IF_ERROR(CheckFeatures(name_, "input", args.input.dense, dtype, options_.hidden_size));
  TE_RETURN_IF_ERROR(CheckShape(name_, "output", args.output, dtype, args.input.dense.shape()));
  if (saved != nullptr) {
    TE_RETURN_IF_ERROR(
        CheckDropoutOverRanks(context_, name_, "hidden_dropout", options_.hidden_dropout));
  }
  const Shape& shape = args.input.dense.shape();
  ArenaScope scope(context_->scratch());
  Arena* arena = ArenaFor(context_, saved);
  const RandomState attention_random = context_->Random(attention_dropout_stream_);
  const RandomState mlp_random = context_->Random(mlp_dropout_stream_);
  const bool post = options_.apply_residual_connection_post_layernorm;

  TE_ASSIGN_OR_RETURN(const TensorView h, arena->Allocate(dtype, shape));
  ForwardArgs attention;
  attention.input = args.input;
  attention.attention = args.attention;
  ConstTensorView residual = args.input.dense;
  if (post && !options_.output_layernorm) {
    TE_ASSIGN_OR_RETURN(attention.norm_output, arena->Allocate(dtype, shape));
    residual = attention.norm_output;
  }
  TE_RETURN_IF_ERROR(AddLayer(child(kAttention), attention, residual, attention_random, h,
                              saved != nullptr ? saved->child(kAttention) : nullptr));

  TensorView y = args.output;
  if (options_.output_layernorm) {
    TE_ASSIGN_OR_RETURN(y, arena->Allocate(dtype, shape));
  }
  ForwardArgs mlp;
  mlp.input = options_.parallel_attention_mlp ? args.input.dense : h;
  mlp.output_wanted = args.output_wanted || options_.output_layernorm;  // that norm's input
  residual = h;
  if (post) {
    TE_ASSIGN_OR_RETURN(mlp.norm_output, arena->Allocate(dtype, shape));
    residual = mlp.norm_output;
  }
  TE_RETURN_IF_ERROR(AddLayer(child(kMlp), mlp, residual, mlp_random, y,
                              saved != nullptr ? saved->child(kMlp) : nullptr));
  if (options_.output_layernorm) {
    ForwardArgs norm;
    norm.input = y;
    norm.output = args.output;
    TE_RETURN_IF_ERROR(
        child(kNorm)->Forward(norm, saved != nullptr ? saved->child(kNorm) : nullptr));
  }
  if (saved != nullptr) {
    State& state = saved->state<State>();
    state.shape = shape;
    state.attention_random = attention_random;
    state.mlp_random = mlp_random;
    state.dmlp = state.dh = state.dattn = state.dy = TensorView();
  }
  return OkStatus();
}

// Gradient of dropout's input; `dout` itself without dropout. Saved: BackwardWeight reads it.
StatusOr<TensorView> TransformerLayer::DropoutBackward(ConstTensorView dout,
                                                       const RandomState& random, Saved* saved) {
  TensorView dx;
  if (options_.hidden_dropout == 0) return dx;
  TE_ASSIGN_OR_RETURN(dx, saved->Allocate(dout.dtype(), dout.shape()));
  TE_RETURN_IF_ERROR(context_->kernels().dropout_backward(
      context_->exec(),
      {.dout = Rows(dout), .p = options_.hidden_dropout, .random = random, .dx = Rows(dx)}));
  return dx;
}

Status TransformerLayer::BackwardInputBlock(const BackwardArgs& args, Saved* saved) {
  TE_RETURN_IF_ERROR(CheckTaken(name_, {}, args));
  TE_RETURN_IF_ERROR(CheckSaved(name_, saved));
  State& state = saved->state<State>();
  const DType dtype = options_.params_dtype;
  TE_RETURN_IF_ERROR(CheckShape(name_, "doutput", args.doutput.dense, dtype, state.shape));
  TE_RETURN_IF_ERROR(CheckOptional(name_, "dinput", args.dinput.dense, dtype, state.shape));
  const bool post = options_.apply_residual_connection_post_layernorm;
  const bool parallel = options_.parallel_attention_mlp;

  BackwardArgs part;
  part.accumulate_gradients = args.accumulate_gradients;
  part.gradient_ready = args.gradient_ready;
  ConstTensorView dy = args.doutput.dense;
  if (options_.output_layernorm) {
    TE_ASSIGN_OR_RETURN(state.dy, saved->Allocate(dtype, state.shape));
    part.doutput = args.doutput.dense;
    part.dinput = state.dy;
    TE_RETURN_IF_ERROR(child(kNorm)->BackwardInput(part, saved->child(kNorm)));
    dy = state.dy;
  }

  // y = residual + dropout(mlp(h)); in parallel, h's place is taken by x, whose gradient is dinput.
  TE_ASSIGN_OR_RETURN(state.dmlp, DropoutBackward(dy, state.mlp_random, saved));
  TE_ASSIGN_OR_RETURN(state.dh, saved->Allocate(dtype, state.shape));
  part.doutput = state.dmlp.defined() ? ConstTensorView(state.dmlp) : dy;
  part.doutput.codes = args.doutput.codes;
  part.dinput = state.dh;
  const bool attention_reads_dh = !parallel && options_.hidden_dropout == 0;
  if (attention_reads_dh && child(kMlp)->capabilities().quantizes_dinput) {
    TE_ASSIGN_OR_RETURN(
        part.dinput.quant,
        child(kAttention)->WantedGradOutput(saved->child(kAttention), saved->arena()));
  }
  const QuantSpec dh_quant = part.dinput.quant;
  if (post) {
    part.dnorm_output = dy;
    TE_RETURN_IF_ERROR(child(kMlp)->BackwardInput(part, saved->child(kMlp)));
  } else {
    TE_RETURN_IF_ERROR(BackwardResidual(child(kMlp), part, dy, saved->child(kMlp)));
  }

  // h = residual + dropout(self_attention(x))
  const ConstTensorView dattn_sum = parallel ? dy : state.dh;
  TE_ASSIGN_OR_RETURN(state.dattn, DropoutBackward(dattn_sum, state.attention_random, saved));
  part.doutput = state.dattn.defined() ? ConstTensorView(state.dattn) : dattn_sum;
  part.doutput.codes = dh_quant;
  part.dinput = args.dinput;
  part.dnorm_output = ConstTensorView();
  if (post && !options_.output_layernorm) {
    part.dnorm_output = dattn_sum;
    return child(kAttention)->BackwardInput(part, saved->child(kAttention));
  }
  // In parallel dh holds the residual's dy and the MLP's path, both reaching x.
  return BackwardResidual(child(kAttention), part, state.dh, saved->child(kAttention));
}

// args.dinput = the layer's dinput + dresidual, if it is wanted: in the layer's own last operation,
// or in one behind it.
Status TransformerLayer::BackwardResidual(Layer* layer, BackwardArgs args,
                                          ConstTensorView dresidual, Saved* saved) {
  const TensorView& dinput = args.dinput.dense;
  if (!dinput.defined()) return layer->BackwardInput(args, saved);
  if (layer->capabilities().takes_residual) {
    args.dresidual = dresidual;
    return layer->BackwardInput(args, saved);
  }
  const QuantSpec quant = args.dinput.quant;
  args.dinput.quant = QuantSpec();
  TE_RETURN_IF_ERROR(layer->BackwardInput(args, saved));
  TE_RETURN_IF_ERROR(
      context_->kernels().add(context_->exec(), {.a = dinput, .b = dresidual, .out = dinput}));
  args.dinput.quant = quant;
  return QuantizeDinput(context_, args);
}

Status TransformerLayer::BackwardWeightBlock(const BackwardArgs& args, Saved* saved) {
  TE_RETURN_IF_ERROR(CheckSaved(name_, saved));
  const State& state = saved->state<State>();
  if (!state.dh.defined())
    return FailedPrecondition("{}: BackwardWeight before BackwardInput of the same pass", name_);
  const ConstTensorView dy =
      options_.output_layernorm ? ConstTensorView(state.dy) : args.doutput.dense;
  BackwardArgs part;
  part.accumulate_gradients = args.accumulate_gradients;
  part.gradient_ready = args.gradient_ready;
  part.doutput = state.dmlp.defined() ? ConstTensorView(state.dmlp) : dy;
  TE_RETURN_IF_ERROR(child(kMlp)->BackwardWeight(part, saved->child(kMlp)));
  const ConstTensorView dattn_sum =
      options_.parallel_attention_mlp ? dy : ConstTensorView(state.dh);
  part.doutput = state.dattn.defined() ? ConstTensorView(state.dattn) : dattn_sum;
  return child(kAttention)->BackwardWeight(part, saved->child(kAttention));
}

std::string TransformerLayer::Describe(int indent) const {
  return DescribeTree("TransformerLayer", indent);
}

}  // namespace te
