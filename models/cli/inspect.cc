#include "models/cli/inspect.h"

#include <filesystem>
#include <utility>
#include <vector>

#include "models/checkpoint/save.h"
#include "models/cli/exit_code.h"
#include "models/llama/inspect.h"
#include "models/quantization/fp8_state_file.h"
#include "models/train/optimizer_state_file.h"

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

// What stands beside the weights and belongs to them. A damaged file is a warning: it is what one
// may be looking for.
void PrintTrainingState(const std::string& directory) {
  const auto show = [&directory](const char* what, const char* name, const Status& status,
                                 const std::string& text) {
    if (status.code() == StatusCode::kNotFound) return;
    if (!status.ok()) {
      PrintWarning(fmt::format("{}: {}", what, status.message()));
    } else {
      fmt::print("{}: {} in {}/{}\n", what, text, directory, name);
    }
  };
  const StatusOr<Fp8State> fp8 = ReadFp8State(directory + "/" + kFp8StateFile);
  std::string text;
  if (fp8.ok()) {
    text = fmt::format("{} tensors of {} modules, written by {}", fp8.value().slots.size(),
                       CountModules(fp8.value()), fp8.value().recipe);
    if (fp8.value().step) text += fmt::format(" after {} updates", *fp8.value().step);
  }
  show("fp8 state", kFp8StateFile, fp8.status(), text);
  const StatusOr<std::unique_ptr<OptimizerStateFile>> optimizer =
      OptimizerStateFile::Open(directory + "/" + kOptimizerStateFile);
  if (optimizer.ok()) {
    const OptimizerStateInfo& info = optimizer.value()->info();
    text = fmt::format("AdamW after {} updates ({} steps of the run), {} parameters", info.step,
                       info.position, optimizer.value()->parameters());
  }
  show("optimizer state", kOptimizerStateFile, optimizer.status(), text);
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
  if (flags.variant.empty()) PrintTrainingState(directory);  // it is of the weights without
  return OkStatus();
}

}  // namespace te
