// From a checkpoint directory to a model in memory: what every command of `te` begins with.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "models/llama/pretrained.h"
#include "te_core/context.h"

namespace te {

struct ModelFlags {
  std::string directory;
  std::string subfolder;
  std::string variant;
  bool allow_missing = false;
  bool random_weights =
      false;  // --init-from-config: the directory's weights, if any, are not looked at
  std::string device = "cpu";
  int threads = 0;  // of the cpu; 0: as many as this process may run on
  bool allow_nondeterministic = false;
  uint64_t seed = 0;
};

// The model goes before its context: members are destroyed in reverse order.
struct OpenedModel {
  std::unique_ptr<Context> context;
  PretrainedLlama llama;
};

// The directory with its subfolder; kNotFound, kInvalidArgument when that is no directory with a
// config.json.
StatusOr<std::string> FindModelDirectory(const ModelFlags& flags);
// PretrainedOptions::before_model, with the model's context.
using BeforeModel = std::function<StatusOr<const Recipe*>(
    Context* context, const std::string& directory, const LlamaConfig& config)>;
// Reads config and weights, or draws random weights. Warnings go to stderr.
StatusOr<OpenedModel> OpenModel(const ModelFlags& flags, const LlamaModelOptions& options,
                                const BeforeModel& before_model = nullptr);
// "fp32" and "bf16", of storage ("fp8": ParseComputeFlags).
StatusOr<DType> ParsePrecision(const std::string& name);

}  // namespace te
