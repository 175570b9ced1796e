// Greedy generation.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "models/llama/llama_model.h"
#include "te_core/layers/rotary_position_embedding.h"

namespace te {

struct LlamaGenerateOptions {
  int64_t max_new_tokens = 16;
  bool ignore_eos = false;
  // Tokens that end the text (GenerationConfig::eos_token_ids). Absent: those of the model's
  // config.
  std::optional<std::vector<int64_t>> eos_token_ids;
};

// The most tokens that a sequence may have: positions beyond are not exact in float32.
inline constexpr int64_t kMaxGeneratedLength = RotaryPositionEmbedding::kMaxLength;

// Called with each new token; false ends the generation.
using TokenCallback = std::function<bool(int32_t token)>;

// The new tokens alone: each the first of the largest logits of the last position. Ends after
// max_new_tokens, or after one of the eos tokens (which is the last token returned, as in Hugging
// Face). te path: a key-value cache of prompt + max_new_tokens positions; hf path: no cache, the
// whole sequence again for every token, with the rotation that a cache would have kept.
// kInvalidArgument: an empty prompt, max_new_tokens < 0, a token outside the vocabulary, logits
// that are not numbers.
StatusOr<std::vector<int32_t>> GenerateGreedy(LlamaModel* model, std::span<const int32_t> prompt,
                                              const LlamaGenerateOptions& options,
                                              const TokenCallback& on_token = {});

}  // namespace te
