// The text of `te inspect`.
#pragma once

#include <string>

#include "models/llama/llama_model.h"

namespace te {

// The module tree with shapes and parameter counts, then the table Hugging Face name -> our name,
// one tensor a line:
//   model.layers.0.mlp.up_proj.weight  [176, 64]  model.layers.0.layernorm_mlp.fc1_weight[176:352]
std::string InspectLlama(const LlamaModel& model);

}  // namespace te
