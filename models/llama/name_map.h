// The one table between Hugging Face's tensor names and ours: loader, writer, trace and `te
// inspect` all read it.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_set>
#include <vector>

#include "models/llama/config.h"
#include "te_kernels/base/view.h"

namespace te {

// One tensor of a Hugging Face checkpoint and where it lies here.
struct LlamaTensorName {
  std::string hf_name;    // "model.layers.0.mlp.up_proj.weight"
  std::string te_name;    // "model.layers.0.layernorm_mlp.fc1_weight": Transformer Engine's
                          // state-dict key, full
  int64_t row_begin = 0;  // the rows of te_name that it is: [row_begin, row_begin + shape[0])
  int64_t te_rows = 0;    // all rows of te_name; equal to shape[0] when it is the whole
  Shape shape;            // Hugging Face's: [rows, columns], or [rows] of a bias or norm
  int layer = -1;         // decoder layer; -1: none

  bool whole() const { return row_begin == 0 && te_rows == shape[0]; }
  // "model.layers.0.layernorm_mlp.fc1_weight[8:16]", or the bare name of a whole tensor.
  std::string te_name_with_rows() const;
};

// In the order of Hugging Face's state dict. With tied embeddings lm_head.weight has no entry of
// its own.
std::vector<LlamaTensorName> LlamaNameMap(const LlamaConfig& config);

inline constexpr char kLlamaEmbeddingName[] = "model.embed_tokens.weight";
inline constexpr char kLlamaNormName[] = "model.norm.weight";
inline constexpr char kLlamaHeadName[] = "lm_head.weight";

// Hugging Face's rule for the names in a file (base_model_prefix "model"): one that is no tensor of
// the model is one without a leading "model." if that is one, or with it added: the base model was
// saved alone (LlamaModel), or once more within another. As there, any character may stand for the
// point.
class LlamaStoredNames {
 public:
  explicit LlamaStoredNames(const LlamaConfig& config);
  // The model's name for what a file calls `stored`; `stored` itself if it means no tensor of it.
  std::string NameOf(const std::string& stored) const;

 private:
  std::unordered_set<std::string> names_;  // lm_head.weight, too, when it is tied
};

// The config's keys that a tensor's shape comes from: "vocab_size, hidden_size". For messages.
std::string LlamaShapeMeaning(const std::string& hf_name);

// What an unknown tensor name of a checkpoint is to a model of this config.
enum class LlamaNameKind {
  kModelTensor,  // has an entry in the map
  kIgnored,      // *.rotary_emb.inv_freq: a constant that old hub files carry
  kExtraLayer,   // a decoder layer beyond num_hidden_layers: loading into fewer layers
  kTiedHead,     // lm_head.weight while tie_word_embeddings: must equal model.embed_tokens.weight
  kUnexpected,
};
LlamaNameKind ClassifyLlamaName(const LlamaConfig& config, const std::string& hf_name);

}  // namespace te
