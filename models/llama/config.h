// config.json of LlamaForCausalLM, in both spellings that the hub holds, and the checks that it
// passes before any memory is asked for.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "te_kernels/base/dtype.h"
#include "te_kernels/base/status.h"

namespace te {

class JsonValue;

enum class LlamaRopeType { kDefault, kLinear, kDynamic, kLlama3, kYarn };

// "default" and so on, as in config.json.
const char* Name(LlamaRopeType type);

// rope_parameters, or rope_theta + rope_scaling. Which members count depends on the type;
// equations: rope_frequencies.h.
struct LlamaRopeConfig {
  LlamaRopeType type = LlamaRopeType::kDefault;
  double theta = 10000.0;
  double factor = 1.0;                           // all but default
  double low_freq_factor = 1.0;                  // llama3
  double high_freq_factor = 4.0;                 // llama3
  int64_t original_max_position_embeddings = 0;  // llama3, yarn
  std::optional<double> attention_factor;  // yarn; absent: from factor, mscale, mscale_all_dim
  double beta_fast = 32.0;                 // yarn
  double beta_slow = 1.0;                  // yarn
  double mscale = 0.0;                     // yarn; 0: not given
  double mscale_all_dim = 0.0;             // yarn; 0: not given
  bool truncate = true;                    // yarn
};

// A plain value. The member defaults are those of Hugging Face's LlamaConfig (transformers 5).
struct LlamaConfig {
  int64_t vocab_size = 32000;
  int64_t hidden_size = 4096;
  int64_t intermediate_size = 11008;
  int64_t num_hidden_layers = 32;
  int64_t num_attention_heads = 32;
  int64_t num_key_value_heads = 32;
  int64_t head_dim = 128;
  int64_t max_position_embeddings = 2048;
  double rms_norm_eps = 1e-6;
  double initializer_range = 0.02;
  double attention_dropout = 0.0;
  bool attention_bias = false;
  bool mlp_bias = false;
  bool tie_word_embeddings = false;
  LlamaRopeConfig rope;
  std::optional<DType> dtype;  // dtype or torch_dtype: what the checkpoint says of its weights
  std::optional<int64_t> bos_token_id = 1;
  std::vector<int64_t> eos_token_ids = {2};
  // As the file has it: from -vocab_size on, counted from the end where it is negative.
  std::optional<int64_t> pad_token_id;

  // Of one file's text. Every failure names the key, its value and what was expected; an unknown
  // hidden_act, rope type or architecture is kUnsupported and lists what there is. Keys that do not
  // change what the model computes are ignored.
  static StatusOr<LlamaConfig> FromJson(std::string_view json);
  static StatusOr<LlamaConfig> FromJson(const JsonValue& json);
  // `path`: config.json itself. kNotFound, kIoError, kCorruptData, or what FromJson says, with the
  // path in front.
  static StatusOr<LlamaConfig> FromFile(const std::string& path);

  // The relations between the values (FromJson has called it). For a config made in code.
  Status Validate() const;

  // The row of the embedding that gets no gradient through it (Hugging Face: nn.Embedding's
  // padding_idx is pad_token_id); -1: there is none.
  int64_t PaddingIndex() const;
  // Elements of all parameters; a tied lm_head counts once.
  int64_t ParameterCount() const;
  // A config.json that FromJson and Hugging Face read back as this value.
  std::string ToJson() const;
};

}  // namespace te
