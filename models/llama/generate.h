// Greedy generation.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "models/llama/llama_model.h"

namespace te {

struct LlamaGenerateOptions {
  int64_t max_new_tokens = 16;
  bool ignore_eos = false;
};

// Called with each new token; false ends the generation.
using TokenCallback = std::function<bool(int32_t token)>;

// The new tokens alone: each the first of the largest logits of the last position. Ends after
// max_new_tokens, or after one of the config's eos_token_id (which is the last token returned, as
// in Hugging Face). te path: a key-value cache of prompt + max_new_tokens positions; hf path: no
// cache, the whole sequence again for every token. kInvalidArgument: an empty prompt,
// max_new_tokens < 0, a token outside the vocabulary, logits that are not numbers.
StatusOr<std::vector<int32_t>> GenerateGreedy(LlamaModel* model, std::span<const int32_t> prompt,
                                              const LlamaGenerateOptions& options,
                                              const TokenCallback& on_token = {});

}  // namespace te
