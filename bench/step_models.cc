#include "bench/step_models.h"

#include <algorithm>

namespace te::bench {

StatusOr<LlamaConfig> BenchModel(const std::string& name) {
  LlamaConfig config;
  config.rms_norm_eps = 1e-5;
  if (name == "110m") {
    config.hidden_size = 768;
    config.intermediate_size = 2048;
    config.num_hidden_layers = 12;
    config.num_attention_heads = 12;
    config.num_key_value_heads = 12;
    config.head_dim = 64;
    return config;
  }
  config.max_position_embeddings = 4096;
  if (name == "llama2-7b") return config;
  if (name == "llama3-8b") {
    config.vocab_size = 128256;
    config.intermediate_size = 14336;
    config.num_key_value_heads = 8;
    config.max_position_embeddings = 8192;
    config.rope.theta = 500000;
    return config;
  }
  if (name == "llama3.2-1b" || name == "llama3.2-3b") {
    const bool one = name == "llama3.2-1b";
    config.vocab_size = 128256;
    config.hidden_size = one ? 2048 : 3072;
    config.intermediate_size = 8192;
    config.num_hidden_layers = one ? 16 : 28;
    config.num_attention_heads = one ? 32 : 24;
    config.num_key_value_heads = 8;
    config.head_dim = one ? 64 : 128;
    config.max_position_embeddings = 8192;
    config.rope.theta = 500000;
    config.tie_word_embeddings = true;
    return config;
  }
  return InvalidArgument(
      "model is \"{}\"; expected 110m, llama2-7b, llama3-8b, llama3.2-1b or llama3.2-3b", name);
}

void SetHiddenSize(int64_t hidden_size, LlamaConfig* config) {
  config->hidden_size = hidden_size;
  config->head_dim = 128;
  config->num_attention_heads = config->num_key_value_heads =
      std::max<int64_t>(hidden_size / 128, 1);
  config->intermediate_size = (hidden_size * 8 / 3 + 255) / 256 * 256;
}

double ModelFlops(const LlamaConfig& config, int64_t batch, int64_t sequence) {
  const double heads = static_cast<double>(config.num_attention_heads * config.head_dim);
  const double groups = static_cast<double>(config.num_key_value_heads * config.head_dim);
  const double hidden = static_cast<double>(config.hidden_size);
  const double layer = hidden * (2 * heads + 2 * groups) +
                       3 * hidden * static_cast<double>(config.intermediate_size);
  const double layers = static_cast<double>(config.num_hidden_layers);
  const double weights = layers * layer + hidden * static_cast<double>(config.vocab_size);
  const double length = static_cast<double>(sequence);
  const double pairs = length * (length + 1) / 2;
  return static_cast<double>(batch) * (6 * weights * length + 3 * 4 * heads * pairs * layers);
}

}  // namespace te::bench
