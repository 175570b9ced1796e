// What a LlamaModel is made of: layers with the config's options, and the checkpoint's tensors in
// their buffers.
#include <map>
#include <utility>

#include "models/llama/hf_decoder_layer.h"
#include "models/llama/llama_model.h"
#include "te_core/layers/recomputed_layer.h"
#include "te_core/layers/transformer_layer.h"

namespace te {
namespace {

RotaryOptions RotaryOptionsOf(const LlamaConfig& config) {
  const LlamaRopeConfig& rope = config.rope;
  RotaryOptions out;
  out.dim = config.head_dim;
  out.rotary_base = rope.theta;
  out.max_position_embeddings = config.max_position_embeddings;
  switch (rope.type) {
    case LlamaRopeType::kDefault:
      out.scaling.type = RopeType::kDefault;
      break;
    case LlamaRopeType::kLinear:
      out.scaling.type = RopeType::kLinear;
      break;
    case LlamaRopeType::kDynamic:
      out.scaling.type = RopeType::kDynamic;
      break;
    case LlamaRopeType::kLlama3:
      out.scaling.type = RopeType::kLlama3;
      break;
    case LlamaRopeType::kYarn:
      out.scaling.type = RopeType::kYarn;
      break;
  }
  out.scaling.factor = rope.factor;
  out.scaling.low_freq_factor = rope.low_freq_factor;
  out.scaling.high_freq_factor = rope.high_freq_factor;
  out.scaling.original_max_position_embeddings = rope.original_max_position_embeddings;
  out.scaling.beta_fast = rope.beta_fast;
  out.scaling.beta_slow = rope.beta_slow;
  out.scaling.attention_factor = rope.attention_factor;
  // Python's truth: 0 is as good as absent.
  if (rope.mscale != 0) out.scaling.mscale = rope.mscale;
  if (rope.mscale_all_dim != 0) out.scaling.mscale_all_dim = rope.mscale_all_dim;
  out.scaling.truncate = rope.truncate;
  return out;
}

// The tutorial's TELlamaDecoderLayer, and what it leaves out: head_dim, biases, padding.
TransformerLayerOptions DecoderOptions(const LlamaConfig& config, DType params_dtype,
                                       int64_t index) {
  TransformerLayerOptions out;
  out.hidden_size = config.hidden_size;
  out.ffn_hidden_size = config.intermediate_size;
  out.num_attention_heads = config.num_attention_heads;
  out.num_gqa_groups = config.num_key_value_heads;
  out.kv_channels = config.head_dim;
  out.layernorm_epsilon = static_cast<float>(config.rms_norm_eps);
  out.hidden_dropout = 0;
  out.attention_dropout = static_cast<float>(config.attention_dropout);
  out.self_attn_mask_type = AttentionMaskType::kPaddingCausal;
  out.fuse_qkv_params = false;
  out.bias = false;
  out.qkv_bias = config.attention_bias;
  out.proj_bias = config.attention_bias;
  out.mlp_bias = config.mlp_bias;
  out.normalization = NormalizationKind::kRmsNorm;
  out.activation = ActivationKind::kSwiglu;
  out.attn_input_format = AttentionFormat::kBshd;
  out.layer_number = static_cast<int>(index) + 1;
  out.params_dtype = params_dtype;
  out.perform_initialization = false;
  return out;
}

Status CheckRecompute(const LlamaModelOptions& options, int64_t layers) {
  if (options.recompute_num_layers == 0) return OkStatus();
  if (options.recompute_granularity == RecomputeGranularity::kNone) {
    return InvalidArgument(
        "recompute_num_layers is {} without recompute_granularity full; expected 0",
        options.recompute_num_layers);
  }
  if (options.recompute_num_layers > layers) {
    return InvalidArgument("recompute_num_layers is {}; expected {} (num_hidden_layers) or less",
                           options.recompute_num_layers, layers);
  }
  if (options.recompute_num_layers > 0) return OkStatus();
  return InvalidArgument("recompute_num_layers is {}; expected 0 (all) or more",
                         options.recompute_num_layers);
}

// The weights of one decoder layer as Hugging Face cuts them.
LlamaDecoderWeights DecoderWeights(const std::map<std::string, NamedParameter>& by_name,
                                   int64_t ffn) {
  const auto find = [&](const std::string& name) {
    const auto it = by_name.find(name);
    return it == by_name.end() ? NamedParameter() : it->second;
  };
  const auto rows = [](NamedParameter p, int64_t begin, int64_t count) {
    p.row_begin += begin;
    p.rows = count;
    return p;
  };
  const std::string qkv = "self_attention.layernorm_qkv.";
  LlamaDecoderWeights w;
  w.input_layernorm = find(qkv + "layer_norm_weight");
  w.q = find(qkv + "query_weight");
  w.k = find(qkv + "key_weight");
  w.v = find(qkv + "value_weight");
  w.q_bias = find(qkv + "query_bias");
  w.k_bias = find(qkv + "key_bias");
  w.v_bias = find(qkv + "value_bias");
  w.o = find("self_attention.proj.weight");
  w.o_bias = find("self_attention.proj.bias");
  w.post_attention_layernorm = find("layernorm_mlp.layer_norm_weight");
  const NamedParameter fc1 = find("layernorm_mlp.fc1_weight"),
                       fc1_bias = find("layernorm_mlp.fc1_bias");
  w.gate = rows(fc1, 0, ffn);
  w.up = rows(fc1, ffn, ffn);
  w.gate_bias = rows(fc1_bias, 0, ffn);
  w.up_bias = rows(fc1_bias, ffn, ffn);
  w.down = find("layernorm_mlp.fc2_weight");
  w.down_bias = find("layernorm_mlp.fc2_bias");
  return w;
}

// A model is whole on every rank, and its batches are whole sequences.
Status CheckGroups(const ProcessGroups& groups) {
  const struct {
    const char* name;
    const Communicator* group;
  } refused[] = {{"tensor", groups.tensor},
                 {"context", groups.context},
                 {"pipeline", groups.pipeline},
                 {"expert", groups.expert}};
  for (const auto& [name, group] : refused) {
    if (GroupSize(group) == 1) continue;
    return Unsupported("a model over groups.{} of {} ranks is not built yet; expected size 1", name,
                       group->size());
  }
  return OkStatus();
}

}  // namespace

StatusOr<std::unique_ptr<LlamaModel>> LlamaModel::Create(Context* context,
                                                         const LlamaConfig& config,
                                                         const LlamaModelOptions& options) {
  TE_RETURN_IF_ERROR(config.Validate());
  if (options.params_dtype != DType::kFloat32 && options.params_dtype != DType::kBFloat16) {
    return Unsupported("params_dtype is {}; supported: float32, bfloat16",
                       te::Name(options.params_dtype));
  }
  if (options.path == LlamaPath::kHf && context->quantized_init() != nullptr) {
    return Unsupported(
        "the hf path with weights in FP8 alone ({}); expected the te path: Hugging Face's "
        "operations "
        "know no recipe",
        context->quantized_init()->name());
  }
  TE_RETURN_IF_ERROR(CheckGroups(context->groups()));
  if (config.attention_dropout > 0 && GroupSize(context->groups().data) > 1) {
    return Unsupported(
        "attention_dropout is {} over groups.data of {} ranks, which would draw the same numbers "
        "for other tokens: not built yet; expected 0",
        config.attention_dropout, GroupSize(context->groups().data));
  }
  TE_RETURN_IF_ERROR(CheckRecompute(options, config.num_hidden_layers));
  std::unique_ptr<LlamaModel> model(new LlamaModel(context, config, options));
  TE_RETURN_IF_ERROR(model->Build());
  return model;
}

Status LlamaModel::Build() {
  TE_ASSIGN_OR_RETURN(rotary_, RotaryPositionEmbedding::Create(context_, RotaryOptionsOf(config_)));
  std::map<std::string, NamedParameter> by_name;
  const auto collect = [&](Layer* layer) {
    for (const NamedParameter& p : layer->NamedParameters())
      by_name[JoinName(layer->name(), p.name)] = p;
    layer->VisitParameters(layer->name(), [&](const std::string& full_name, Parameter& parameter) {
      parameters_.push_back(&parameter);
      parameter_names_.push_back(full_name);
    });
  };
  TE_ASSIGN_OR_RETURN(embedding_, Embedding::Create(context_,
                                                    {.vocab_size = config_.vocab_size,
                                                     .hidden_size = config_.hidden_size,
                                                     .params_dtype = options_.params_dtype,
                                                     .perform_initialization = false,
                                                     .padding_idx = config_.PaddingIndex()},
                                                    "model.embed_tokens"));
  collect(embedding_.get());
  std::vector<std::unique_ptr<Layer>> layers;
  for (int64_t i = 0; i < config_.num_hidden_layers; ++i) {
    const std::string name = "model.layers." + std::to_string(i);
    TE_ASSIGN_OR_RETURN(std::unique_ptr<Layer> layer,
                        TransformerLayer::Create(
                            context_, DecoderOptions(config_, options_.params_dtype, i), name));
    const auto recomputed = [&](std::unique_ptr<Layer> whole) -> std::unique_ptr<Layer> {
      if (i >= recomputed_layers()) return whole;
      return std::make_unique<RecomputedLayer>(std::move(whole));
    };
    collect(layer.get());
    if (options_.path == LlamaPath::kHf) {
      std::map<std::string, NamedParameter> own;
      for (const NamedParameter& p : layer->NamedParameters()) own[p.name] = p;
      layers.push_back(recomputed(std::make_unique<LlamaHfDecoderLayer>(
          context_, name, config_, DecoderWeights(own, config_.intermediate_size))));
      hf_owners_.push_back(std::move(layer));
    } else {
      layers.push_back(recomputed(std::move(layer)));
    }
  }
  decoder_ = std::make_unique<TransformerBlock>(context_, std::move(layers));
  TE_ASSIGN_OR_RETURN(norm_,
                      Norm::Create(context_,
                                   {.hidden_size = config_.hidden_size,
                                    .layernorm_epsilon = static_cast<float>(config_.rms_norm_eps),
                                    .params_dtype = options_.params_dtype},
                                   "model.norm"));
  collect(norm_.get());
  LinearCrossEntropyOptions head = {.hidden_size = config_.hidden_size,
                                    .vocab_size = config_.vocab_size,
                                    .params_dtype = options_.params_dtype,
                                    .perform_initialization = false};
  if (options_.max_logits_bytes != 0) head.max_logits_bytes = options_.max_logits_bytes;
  TE_ASSIGN_OR_RETURN(head_, LinearCrossEntropy::Create(
                                 context_, head, "lm_head",
                                 config_.tie_word_embeddings ? &embedding_->weight() : nullptr));
  if (!config_.tie_word_embeddings) collect(head_.get());

  for (LlamaTensorName& name : LlamaNameMap(config_)) {
    const auto it = by_name.find(name.te_name);
    if (it == by_name.end() || it->second.rows != name.te_rows) {
      return Internal("{}: no layer has the tensor {} of {} rows", name.hf_name, name.te_name,
                      name.te_rows);
    }
    const NamedParameter& p = it->second;
    tensors_.push_back({std::move(name), p.parameter, p.row_begin});
    tensors_.back().row_begin += tensors_.back().name.row_begin;
    Shape place = p.parameter->shape();
    place[0] = tensors_.back().name.shape[0];
    if (!(place == tensors_.back().name.shape)) {
      return Internal("{}: its place is {}; expected {}", tensors_.back().name.hf_name,
                      place.ToString(), tensors_.back().name.shape.ToString());
    }
    random_streams_.push_back(context_->NewRandomStream());
  }
  return OkStatus();
}

}  // namespace te
