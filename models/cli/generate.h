// te generate: greedy continuation of a prompt.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "models/cli/open_model.h"
#include "models/quantization/fp8_options.h"

namespace te {

struct GenerateFlags {
  ModelFlags model;
  std::optional<std::string> prompt;
  std::optional<std::string> prompt_ids;  // "1,2,3"
  int64_t max_new_tokens = 64;
  std::string precision = "fp32";
  std::string path = "te";
  Fp8Options fp8;
  bool output_ids = false;
  bool ignore_eos = false;
};

Status Generate(const GenerateFlags& flags);

}  // namespace te
