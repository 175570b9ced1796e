// The models of bench/step and what one of their steps computes.
#pragma once

#include <string>

#include "models/llama/config.h"

namespace te::bench {

// "110m" (a Llama of 110M parameters), "llama2-7b" or "llama3-8b"; kInvalidArgument lists them.
StatusOr<LlamaConfig> BenchModel(const std::string& name);

// The proportions of Llama 2 at another width: heads of 128, all of them keys' as well, and a
// feed-forward of 8/3 of it, rounded up to a multiple of 256.
void SetHiddenSize(int64_t hidden_size, LlamaConfig* config);

// FLOP of the model itself for one step of `batch` sequences (recomputation does not count): 6 a
// matmul weight and token, lm_head in and embedding out, and three forward passes of causal
// attention, S (S + 1) / 2 pairs of 4 * heads * head_dim FLOP each.
double ModelFlops(const LlamaConfig& config, int64_t batch, int64_t sequence);

}  // namespace te::bench
