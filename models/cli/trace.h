// te trace: what a checkpoint computes from one batch, as a safetensors file.
#pragma once

#include <string>

#include "models/cli/open_model.h"
#include "models/quantization/fp8_options.h"

namespace te {

struct TraceFlags {
  ModelFlags model;
  std::string input;
  std::string output;
  bool gradients = false;
  bool hidden_states = false;
  std::string path = "te";
  std::string precision = "fp32";
  Fp8Options fp8;
};

Status Trace(const TraceFlags& flags);

}  // namespace te
