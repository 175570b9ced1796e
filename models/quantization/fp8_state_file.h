// te_fp8_state.safetensors: scales and amax histories of delayed scaling, beside the weights that
// they belong to.
//
// A safetensors file (readable by any reader of the format). For each quantized tensor SLOT, whose
// name is that of the module and of the tensor's role ("model.layers.0.layernorm_mlp.fc2.input",
// "... .weight", "... .grad_output"; with fp8_dpa "... .self_attention.core_attention.qkv", "...
// .s",
// "... .o", "... .do", "... .dp", "... .dqkv"):
//   SLOT.scale         F32 [1]    what the next step multiplies with before its cast
//   SLOT.amax_history  F32 [len]  row 0: the amax of the step that is running (0 between steps);
//                                 then those of past steps, the newest in the last row
//                                 (te_kernels/delayed_scaling/delayed_scaling.h)
// Metadata:
//   te_fp8_state   "1", the version of this format
//   recipe         the recipe's text, for readers: nothing is parsed from it
//   step           optional: the updates that had been made, for readers
//   format.SLOT    "e4m3" or "e5m2": the format that the scale was made for
// Float32 bits are those of the device's memory: what is read is what was written.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "te_core/context.h"
#include "te_core/quantization/delayed_scaling_state.h"
#include "te_core/quantization/recipe.h"

namespace te {

struct Fp8State {
  std::string recipe;
  std::optional<int64_t> step;
  std::vector<DelayedScalingState::Saved> slots;
};

// Creates `path`, which must not exist, and syncs it.
Status WriteFp8State(const std::string& path, const Fp8State& state);
// kNotFound, kIoError, kCorruptData: names the file, the tensor or key, and what was expected.
StatusOr<Fp8State> ReadFp8State(const std::string& path);
// How many modules the state's tensors belong to.
int64_t CountModules(const Fp8State& state);

// What the context has of `modules`, after `step` updates: waits for the device.
// kFailedPrecondition: two of the context's modules share a name.
StatusOr<Fp8State> ExportFp8State(Context* context, const std::vector<std::string>& modules,
                                  std::string recipe, int64_t step);

// How a state fits a recipe that is to go on with it.
struct Fp8StateFit {
  int64_t used = 0;
  int64_t unused = 0;   // of modules that the recipe does not scale by history
  int64_t missing = 0;  // that the recipe has and the state has not
};
// Removes what the recipe does not use. kInvalidArgument: another model's module, another format,
// another length of history. `evaluation`: only inputs and weights count.
StatusOr<Fp8StateFit> FitFp8State(const std::string& path, const Recipe& recipe, int64_t num_layers,
                                  bool evaluation, Fp8State* state);

}  // namespace te
