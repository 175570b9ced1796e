#include "models/llama/name_map.h"

#include <charconv>
#include <string_view>
#include <utility>

#include "fmt/format.h"

namespace te {
namespace {

constexpr std::string_view kLayerPrefix = "model.layers.";

// The layer number of "model.layers.N.rest", or -1; a number that does not fit 64 bits is one, too.
int64_t LayerNumber(std::string_view name) {
  if (!name.starts_with(kLayerPrefix)) return -1;
  name.remove_prefix(kLayerPrefix.size());
  int64_t number = -1;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
  if (error != std::errc() || end == name.data() + name.size() || *end != '.') return -1;
  return number;
}

}  // namespace

std::string LlamaTensorName::te_name_with_rows() const {
  if (whole()) return te_name;
  return fmt::format("{}[{}:{}]", te_name, row_begin, row_begin + shape[0]);
}

std::vector<LlamaTensorName> LlamaNameMap(const LlamaConfig& config) {
  const int64_t hidden = config.hidden_size;
  const int64_t ffn = config.intermediate_size;
  const int64_t q_rows = config.num_attention_heads * config.head_dim;
  const int64_t kv_rows = config.num_key_value_heads * config.head_dim;
  std::vector<LlamaTensorName> map;
  map.push_back({kLlamaEmbeddingName,
                 kLlamaEmbeddingName,
                 0,
                 config.vocab_size,
                 {config.vocab_size, hidden},
                 -1});
  for (int64_t i = 0; i < config.num_hidden_layers; ++i) {
    const std::string prefix = std::string(kLayerPrefix) + std::to_string(i) + ".";
    const auto add = [&](const std::string& hf, const std::string& te, int64_t row_begin,
                         int64_t te_rows, const Shape& shape) {
      map.push_back({prefix + hf, prefix + te, row_begin, te_rows, shape, static_cast<int>(i)});
    };
    // A projection: Hugging Face's "<hf>.weight" and, when it has one, "<hf>.bias".
    const auto linear = [&](const std::string& hf, const std::string& te, int64_t row_begin,
                            int64_t te_rows, int64_t rows, int64_t columns, bool bias) {
      add(hf + ".weight", te + "weight", row_begin, te_rows, {rows, columns});
      if (bias) add(hf + ".bias", te + "bias", row_begin, te_rows, {rows});
    };
    const std::string qkv = "self_attention.layernorm_qkv.";
    linear("self_attn.q_proj", qkv + "query_", 0, q_rows, q_rows, hidden, config.attention_bias);
    linear("self_attn.k_proj", qkv + "key_", 0, kv_rows, kv_rows, hidden, config.attention_bias);
    linear("self_attn.v_proj", qkv + "value_", 0, kv_rows, kv_rows, hidden, config.attention_bias);
    linear("self_attn.o_proj", "self_attention.proj.", 0, hidden, hidden, q_rows,
           config.attention_bias);
    linear("mlp.gate_proj", "layernorm_mlp.fc1_", 0, 2 * ffn, ffn, hidden, config.mlp_bias);
    linear("mlp.up_proj", "layernorm_mlp.fc1_", ffn, 2 * ffn, ffn, hidden, config.mlp_bias);
    linear("mlp.down_proj", "layernorm_mlp.fc2_", 0, hidden, hidden, ffn, config.mlp_bias);
    add("input_layernorm.weight", qkv + "layer_norm_weight", 0, hidden, {hidden});
    add("post_attention_layernorm.weight", "layernorm_mlp.layer_norm_weight", 0, hidden, {hidden});
  }
  map.push_back({kLlamaNormName, kLlamaNormName, 0, hidden, {hidden}, -1});
  if (!config.tie_word_embeddings) {
    map.push_back(
        {kLlamaHeadName, kLlamaHeadName, 0, config.vocab_size, {config.vocab_size, hidden}, -1});
  }
  return map;
}

LlamaStoredNames::LlamaStoredNames(const LlamaConfig& config) {
  for (LlamaTensorName& entry : LlamaNameMap(config)) names_.insert(std::move(entry.hf_name));
  names_.insert(kLlamaHeadName);
}

std::string LlamaStoredNames::NameOf(const std::string& stored) const {
  constexpr std::string_view kBase = "model";
  if (stored.starts_with(kBase) && stored.size() > kBase.size() && stored[kBase.size()] != '\n') {
    std::string rest = stored.substr(kBase.size() + 1);
    if (names_.contains(rest)) return rest;
  }
  if (std::string based = std::string(kBase) + "." + stored; names_.contains(based)) return based;
  return stored;
}

std::string LlamaShapeMeaning(const std::string& hf_name) {
  constexpr struct {
    std::string_view part;
    const char* meaning;
  } kMeanings[] = {
      {"embed_tokens.weight", "vocab_size, hidden_size"},
      {"lm_head.weight", "vocab_size, hidden_size"},
      {"q_proj.weight", "num_attention_heads * head_dim, hidden_size"},
      {"k_proj.weight", "num_key_value_heads * head_dim, hidden_size"},
      {"v_proj.weight", "num_key_value_heads * head_dim, hidden_size"},
      {"o_proj.weight", "hidden_size, num_attention_heads * head_dim"},
      {"gate_proj.weight", "intermediate_size, hidden_size"},
      {"up_proj.weight", "intermediate_size, hidden_size"},
      {"down_proj.weight", "hidden_size, intermediate_size"},
      {"q_proj.bias", "num_attention_heads * head_dim"},
      {"k_proj.bias", "num_key_value_heads * head_dim"},
      {"v_proj.bias", "num_key_value_heads * head_dim"},
      {"gate_proj.bias", "intermediate_size"},
      {"up_proj.bias", "intermediate_size"},
  };
  for (const auto& row : kMeanings) {
    if (hf_name.ends_with(row.part)) return row.meaning;
  }
  return "hidden_size";
}

LlamaNameKind ClassifyLlamaName(const LlamaConfig& config, const std::string& hf_name) {
  if (hf_name.ends_with(".rotary_emb.inv_freq")) return LlamaNameKind::kIgnored;
  if (hf_name == kLlamaHeadName && config.tie_word_embeddings) return LlamaNameKind::kTiedHead;
  if (LayerNumber(hf_name) >= config.num_hidden_layers) return LlamaNameKind::kExtraLayer;
  // Every layer has the same names, so one layer's table decides for all.
  LlamaConfig one = config;
  one.num_hidden_layers = 1;
  std::string name = hf_name;
  if (const int64_t layer = LayerNumber(hf_name); layer > 0) {
    name = std::string(kLayerPrefix) + "0" +
           name.substr(kLayerPrefix.size() + std::to_string(layer).size());
  }
  for (const LlamaTensorName& entry : LlamaNameMap(one)) {
    if (entry.hf_name == name) return LlamaNameKind::kModelTensor;
  }
  return LlamaNameKind::kUnexpected;
}

}  // namespace te
