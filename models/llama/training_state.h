// What a fine-tune leaves beside a Llama's weights so that a later one goes on from it bit for bit:
// the files of models/train/optimizer_state_file.h and models/quantization/fp8_state_file.h.
#pragma once

#include "models/llama/pretrained.h"
#include "models/quantization/fp8_state_file.h"
#include "models/train/optimizer_state_file.h"
#include "te_core/quantization/recipe.h"

namespace te {

// Of the model's parameters().
ParameterNames ParameterNamesOf(const LlamaModel& model);

// Lets SavePretrainedLlama write kFp8StateFile, too: what the context has of the model's modules,
// after `step` updates; nothing when no scale has a history. Returns the number of tensors. Waits
// for the device. The state is that of the call.
StatusOr<int64_t> AddFp8State(const LlamaModel& model, const Recipe& recipe, int64_t step,
                              SavePretrainedOptions* options);

// The same for kOptimizerStateFile. The tensors are read when they are written: `optimizer` must
// outlive the options, and train no further before. options->type must have been set.
Status AddOptimizerState(const PretrainedLlama& llama, AdamWOptimizer* optimizer,
                         const OptimizerStateInfo& info, SavePretrainedOptions* options);

// Whether the FP8 state that stood beside an optimizer state, at `path`, is the one that was
// written with it. `state` null: there is none at `path`; `tensors`: how many were read.
// kInvalidArgument says what differs.
Status CheckWrittenTogether(const OptimizerStateFile& optimizer, const std::string& path,
                            const Fp8State* state, int64_t tensors);

}  // namespace te
