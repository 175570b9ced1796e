#include "models/cli/inspect.h"

#include <filesystem>
#include <utility>
#include <vector>

#include "models/cli/exit_code.h"
#include "models/llama/inspect.h"

namespace te {
namespace {

// Compares the weights that are there with what the config asks for; reads no weight.
void PrintWeights(const CheckpointReader& reader, const LlamaModel& model) {
  int64_t missing = 0;
  std::string first;
  for (const LlamaTensor& tensor : model.tensors()) {
    const std::string& name = tensor.name.hf_name;
    const bool tied = model.config().tie_word_embeddings && name == kLlamaEmbeddingName;
    if (reader.Find(name) != nullptr || (tied && reader.Find(kLlamaHeadName) != nullptr)) continue;
    if (missing++ == 0) first = name;
  }
  fmt::print("weights: {} tensors in {}\n", reader.tensors().size(), reader.FileNames());
  if (missing > 0)
    PrintWarning(fmt::format("{} tensors are missing, the first is {}", missing, first));
}

}  // namespace

Status Inspect(const ModelFlags& flags) {
  TE_ASSIGN_OR_RETURN(const std::string directory, FindModelDirectory(flags));
  TE_ASSIGN_OR_RETURN(
      const LlamaConfig config,
      LlamaConfig::FromFile((std::filesystem::path(directory) / "config.json").string()));
  StatusOr<std::unique_ptr<CheckpointReader>> reader = CheckpointReader::Open(
      flags.directory, {.variant = flags.variant, .subfolder = flags.subfolder});
  // A folder with a config alone can be looked at, too.
  if (!reader.ok() && (reader.status().code() != StatusCode::kNotFound || !flags.variant.empty())) {
    return reader.status();
  }
  TE_ASSIGN_OR_RETURN(const std::unique_ptr<Context> context, Context::Create({.num_threads = 1}));
  TE_ASSIGN_OR_RETURN(
      const std::unique_ptr<LlamaModel> model,
      LlamaModel::Create(context.get(), config, {.params_dtype = DType::kBFloat16}));
  fmt::print("{}\n", InspectLlama(*model));
  if (reader.ok()) {
    PrintWeights(**reader, *model);
  } else {
    fmt::print("weights: none in {}\n", directory);
  }
  return OkStatus();
}

}  // namespace te
