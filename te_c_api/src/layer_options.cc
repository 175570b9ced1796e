#include "te_c_api/src/layer_options.h"

#include <string>

#include "te_c_api/src/handles.h"
#include "te_core/layers/cross_entropy.h"
#include "te_core/layers/embedding.h"
#include "te_core/layers/layer_norm_linear.h"
#include "te_core/layers/layer_norm_mlp.h"
#include "te_core/layers/linear.h"
#include "te_core/layers/multihead_attention.h"
#include "te_core/layers/norm.h"
#include "te_core/layers/transformer_layer.h"

namespace te::c_api {
namespace {

constexpr int32_t kKinds = TE_LAYER_CROSS_ENTROPY + 1;
constexpr const char* kKindNames[kKinds] = {
    "TransformerLayer", "MultiheadAttention", "DotProductAttention",
    "LayerNormMLP",     "LayerNormLinear",    "Linear",
    "RMSNorm",          "LayerNorm",          "Embedding",
    "CrossEntropy"};

constexpr uint32_t Bit(int32_t kind) { return 1u << kind; }
constexpr uint32_t kTransformer = Bit(TE_LAYER_TRANSFORMER_LAYER);
constexpr uint32_t kAttention = Bit(TE_LAYER_MULTIHEAD_ATTENTION);
constexpr uint32_t kCore = Bit(TE_LAYER_DOT_PRODUCT_ATTENTION);
constexpr uint32_t kMlp = Bit(TE_LAYER_LAYERNORM_MLP);
constexpr uint32_t kNormLinear = Bit(TE_LAYER_LAYERNORM_LINEAR);
constexpr uint32_t kLinear = Bit(TE_LAYER_LINEAR);
constexpr uint32_t kNorms = Bit(TE_LAYER_RMSNORM) | Bit(TE_LAYER_LAYERNORM);
constexpr uint32_t kEmbedding = Bit(TE_LAYER_EMBEDDING);
constexpr uint32_t kLoss = Bit(TE_LAYER_CROSS_ENTROPY);

// Refuses a field that this kind of layer does not read, unless it has its default: an option that
// is accepted works.
class UnreadFields {
 public:
  UnreadFields(const te_layer_options& options, const te_layer_options& defaults)
      : options_(options), defaults_(defaults), kind_(Bit(options.kind)) {}

  template <typename T>
  void Check(const char* name, T te_layer_options::*field, uint32_t readers) {
    if ((readers & kind_) != 0 || options_.*field == defaults_.*field || !status_.ok()) return;
    status_ = InvalidArgument("options->{} is {}; {} has no such option: expected the default, {}",
                              name, options_.*field, kKindNames[options_.kind], defaults_.*field);
  }
  const Status& status() const { return status_; }

 private:
  const te_layer_options& options_;
  const te_layer_options& defaults_;
  uint32_t kind_;
  Status status_;
};

Status CheckUnreadFields(const te_layer_options& options) {
  const te_layer_options defaults = DefaultLayerOptions();
  UnreadFields fields(options, defaults);
#define TE_FIELD(name, readers) fields.Check(#name, &te_layer_options::name, readers)
  TE_FIELD(params_dtype, ~(kCore | kLoss));
  TE_FIELD(hidden_size, kTransformer | kAttention | kMlp | kNorms | kEmbedding);
  TE_FIELD(ffn_hidden_size, kTransformer | kMlp);
  TE_FIELD(num_attention_heads, kTransformer | kAttention | kCore);
  TE_FIELD(num_gqa_groups, kTransformer | kAttention | kCore);
  TE_FIELD(kv_channels, kTransformer | kAttention | kCore);
  TE_FIELD(in_features, kLinear | kNormLinear);
  TE_FIELD(out_features, kLinear | kNormLinear);
  TE_FIELD(vocab_size, kEmbedding);
  TE_FIELD(layernorm_epsilon, kTransformer | kAttention | kMlp | kNormLinear | kNorms);
  TE_FIELD(normalization, kTransformer | kAttention | kMlp | kNormLinear);
  TE_FIELD(zero_centered_gamma, kTransformer | kAttention | kMlp | kNormLinear | kNorms);
  TE_FIELD(bias, kTransformer | kAttention | kMlp | kNormLinear | kLinear);
  TE_FIELD(activation, kTransformer | kMlp);
  TE_FIELD(self_attn_mask_type, kTransformer | kAttention | kCore);
  TE_FIELD(attn_input_format, kTransformer | kAttention | kCore);
  TE_FIELD(window_size_left, kTransformer | kAttention | kCore);
  TE_FIELD(window_size_right, kTransformer | kAttention | kCore);
  TE_FIELD(attention_dropout, kTransformer | kAttention | kCore);
  TE_FIELD(softmax_scale, kTransformer | kAttention | kCore);
  TE_FIELD(fuse_qkv_params, kTransformer | kAttention);
  TE_FIELD(qkv_weight_interleaved, kTransformer | kAttention);
  TE_FIELD(input_layernorm, kAttention);
  TE_FIELD(hidden_dropout, kTransformer);
  TE_FIELD(init_method_std, ~(kCore | kNorms | kLoss));
  TE_FIELD(label_smoothing, kLoss);
  TE_FIELD(padding_idx, kEmbedding);
#undef TE_FIELD
  return fields.status();
}

Status CheckRange(int32_t value, int32_t last, const char* name) {
  if (value >= 0 && value <= last) return OkStatus();
  return InvalidArgument("options->{} is {}; expected 0 to {}", name, value, last);
}

Status CheckFields(const te_layer_options& o) {
  TE_RETURN_IF_ERROR(CheckRange(o.kind, kKinds - 1, "kind"));
  TE_RETURN_IF_ERROR(CheckReserved(o.reserved, "options->reserved"));
  const struct {
    const char* name;
    int32_t value;
  } booleans[] = {{"options->zero_centered_gamma", o.zero_centered_gamma},
                  {"options->bias", o.bias},
                  {"options->fuse_qkv_params", o.fuse_qkv_params},
                  {"options->qkv_weight_interleaved", o.qkv_weight_interleaved},
                  {"options->input_layernorm", o.input_layernorm}};
  for (const auto& [name, value] : booleans) TE_RETURN_IF_ERROR(CheckBool(value, name));
  TE_RETURN_IF_ERROR(CheckRange(o.normalization, TE_NORMALIZATION_LAYERNORM, "normalization"));
  TE_RETURN_IF_ERROR(CheckRange(o.activation, TE_ACTIVATION_CLAMPED_SWIGLU, "activation"));
  TE_RETURN_IF_ERROR(CheckRange(o.self_attn_mask_type, TE_MASK_ARBITRARY, "self_attn_mask_type"));
  TE_RETURN_IF_ERROR(CheckRange(o.attn_input_format, TE_FORMAT_SBHD, "attn_input_format"));
  return CheckUnreadFields(o);
}

NormalizationKind ToNormalization(int32_t value) {
  return value == TE_NORMALIZATION_RMSNORM ? NormalizationKind::kRmsNorm
                                           : NormalizationKind::kLayerNorm;
}

// Fields that several of te_core's option structs have in common.
template <typename Options>
void SetNorm(const te_layer_options& o, Options* out) {
  out->layernorm_epsilon = static_cast<float>(o.layernorm_epsilon);
  out->normalization = ToNormalization(o.normalization);
  out->zero_centered_gamma = o.zero_centered_gamma != 0;
}

template <typename Options>
void SetHeads(const te_layer_options& o, Options* out) {
  out->num_attention_heads = o.num_attention_heads;
  out->num_gqa_groups = o.num_gqa_groups;
  out->kv_channels = o.kv_channels;
  out->attention_dropout = static_cast<float>(o.attention_dropout);
  out->softmax_scale = static_cast<float>(o.softmax_scale);
  out->window_size = {o.window_size_left, o.window_size_right};
}

template <typename Options>
void SetQkv(const te_layer_options& o, Options* out) {
  out->fuse_qkv_params = o.fuse_qkv_params != 0;
  out->qkv_weight_interleaved = o.qkv_weight_interleaved != 0;
}

template <typename Options>
void SetWeights(const te_layer_options& o, DType dtype, Options* out) {
  out->bias = o.bias != 0;
  out->params_dtype = dtype;
  out->init_method_std = static_cast<float>(o.init_method_std);
}

template <typename L, typename Options>
StatusOr<std::unique_ptr<Layer>> Make(Context* context, const Options& options,
                                      const std::string& name) {
  TE_ASSIGN_OR_RETURN(std::unique_ptr<L> layer, L::Create(context, options, name));
  return std::unique_ptr<Layer>(std::move(layer));
}

}  // namespace

te_layer_options DefaultLayerOptions() {
  te_layer_options options{};
  options.struct_size = sizeof(options);
  options.kind = TE_LAYER_TRANSFORMER_LAYER;
  options.params_dtype = TE_DTYPE_FLOAT32;
  options.layernorm_epsilon = 1e-5;
  options.normalization = TE_NORMALIZATION_LAYERNORM;
  options.bias = 1;
  options.activation = TE_ACTIVATION_GELU;
  options.self_attn_mask_type = TE_MASK_CAUSAL;
  options.attn_input_format = TE_FORMAT_SBHD;
  options.window_size_left = -1;
  options.window_size_right = -1;
  options.attention_dropout = 0.1;
  options.qkv_weight_interleaved = 1;
  options.hidden_dropout = 0.1;
  options.init_method_std = 0.023;
  options.padding_idx = -1;
  return options;
}

StatusOr<std::unique_ptr<Layer>> MakeLayer(Context* context, const te_layer_options& o) {
  TE_RETURN_IF_ERROR(CheckFields(o));
  TE_ASSIGN_OR_RETURN(const DType dtype, ToDType(o.params_dtype, "options->params_dtype"));
  const std::string name = o.name == nullptr ? kKindNames[o.kind] : o.name;
  const auto mask_type = static_cast<AttentionMaskType>(o.self_attn_mask_type);
  const auto format = static_cast<AttentionFormat>(o.attn_input_format);
  switch (o.kind) {
    case TE_LAYER_TRANSFORMER_LAYER: {
      TransformerLayerOptions options;
      SetNorm(o, &options);
      SetHeads(o, &options);
      SetQkv(o, &options);
      SetWeights(o, dtype, &options);
      options.output_layer_init_method_std = options.init_method_std;
      options.hidden_size = o.hidden_size;
      options.ffn_hidden_size = o.ffn_hidden_size;
      options.hidden_dropout = static_cast<float>(o.hidden_dropout);
      options.activation = static_cast<ActivationKind>(o.activation);
      options.self_attn_mask_type = mask_type;
      options.attn_input_format = format;
      return Make<TransformerLayer>(context, options, name);
    }
    case TE_LAYER_MULTIHEAD_ATTENTION: {
      MultiheadAttentionOptions options;
      SetNorm(o, &options);
      SetHeads(o, &options);
      SetQkv(o, &options);
      SetWeights(o, dtype, &options);
      options.output_layer_init_method_std = options.init_method_std;
      options.hidden_size = o.hidden_size;
      options.input_layernorm = o.input_layernorm != 0;
      options.attn_mask_type = mask_type;
      options.qkv_format = format;
      return Make<MultiheadAttention>(context, options, name);
    }
    case TE_LAYER_DOT_PRODUCT_ATTENTION: {
      DotProductAttentionOptions options;
      SetHeads(o, &options);
      options.attn_mask_type = mask_type;
      options.qkv_format = format;
      return Make<DotProductAttention>(context, options, name);
    }
    case TE_LAYER_LAYERNORM_MLP: {
      LayerNormMLPOptions options;
      SetNorm(o, &options);
      SetWeights(o, dtype, &options);
      options.output_layer_init_method_std = options.init_method_std;
      options.hidden_size = o.hidden_size;
      options.ffn_hidden_size = o.ffn_hidden_size;
      options.activation = static_cast<ActivationKind>(o.activation);
      return Make<LayerNormMLP>(context, options, name);
    }
    case TE_LAYER_LAYERNORM_LINEAR: {
      LayerNormLinearOptions options;
      SetNorm(o, &options);
      SetWeights(o, dtype, &options);
      options.in_features = o.in_features;
      options.out_features = o.out_features;
      return Make<LayerNormLinear>(context, options, name);
    }
    case TE_LAYER_LINEAR: {
      LinearOptions options;
      SetWeights(o, dtype, &options);
      options.in_features = o.in_features;
      options.out_features = o.out_features;
      return Make<Linear>(context, options, name);
    }
    case TE_LAYER_RMSNORM:
    case TE_LAYER_LAYERNORM: {
      NormOptions options;
      options.hidden_size = o.hidden_size;
      options.normalization =
          o.kind == TE_LAYER_RMSNORM ? NormalizationKind::kRmsNorm : NormalizationKind::kLayerNorm;
      options.layernorm_epsilon = static_cast<float>(o.layernorm_epsilon);
      options.zero_centered_gamma = o.zero_centered_gamma != 0;
      options.params_dtype = dtype;
      return Make<Norm>(context, options, name);
    }
    case TE_LAYER_EMBEDDING: {
      EmbeddingOptions options;
      options.vocab_size = o.vocab_size;
      options.hidden_size = o.hidden_size;
      options.params_dtype = dtype;
      options.init_method_std = static_cast<float>(o.init_method_std);
      options.padding_idx = o.padding_idx;
      return Make<Embedding>(context, options, name);
    }
    default: {
      CrossEntropyOptions options;
      options.label_smoothing = static_cast<float>(o.label_smoothing);
      return Make<CrossEntropy>(context, options, name);
    }
  }
}

}  // namespace te::c_api
