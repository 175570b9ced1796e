// generation_config.json: what Hugging Face's generate takes beside the model's config.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "models/llama/config.h"
#include "te_kernels/base/status.h"

namespace te {

struct GenerationConfig {
  bool present = false;  // the folder has the file
  // Tokens that end the generation. Where there is a file, it alone counts, as in Hugging Face:
  // without an eos_token_id in it nothing ends the text, whatever config.json says.
  std::vector<int64_t> eos_token_ids;
  // "repetition_penalty 1.1": what would change greedy generation and is not applied here.
  // Sampling's parameters (do_sample, temperature, ...) and lengths are no part of it.
  std::vector<std::string> not_applied;
};

// Of a checkpoint's folder; without the file, eos_token_ids are config.json's. kCorruptData,
// kIoError: each names the file, its key, the value and what was expected.
StatusOr<GenerationConfig> ReadGenerationConfig(const std::string& directory,
                                                const LlamaConfig& config);

}  // namespace te
