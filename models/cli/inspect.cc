#include "models/cli/inspect.h"

#include <filesystem>
#include <utility>
#include <vector>

#include "models/checkpoint/save.h"
#include "models/cli/console.h"
#include "models/cli/exit_code.h"
#include "models/json/json.h"
#include "models/llama/checkpoint_faults.h"
#include "models/llama/inspect.h"
#include "models/quantization/fp8_state_file.h"
#include "models/train/optimizer_state_file.h"

namespace te {
namespace {

// What stands beside the weights and belongs to them.
void PrintTrainingState(const std::string& directory, std::vector<Status>* faults) {
  const auto show = [&](const char* what, const char* name, const Status& status,
                        const std::string& text) {
    if (status.code() == StatusCode::kNotFound) return;
    if (!status.ok()) {
      faults->push_back(status.WithContext(what));
    } else {
      Print("{}: {} in {}/{}\n", what, text, directory, name);
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
  const std::string path = (std::filesystem::path(directory) / "config.json").string();
  TE_ASSIGN_OR_RETURN(const JsonValue json, ReadJsonFile(path));
  const StatusOr<LlamaConfig> config = LlamaConfig::FromJson(json);
  if (!config.ok()) return config.status().WithContext(path);
  TE_ASSIGN_OR_RETURN(const std::unique_ptr<Context> context, Context::Create({.num_threads = 1}));
  TE_ASSIGN_OR_RETURN(
      const std::unique_ptr<LlamaModel> model,
      LlamaModel::Create(context.get(), *config, {.params_dtype = DType::kBFloat16}));
  Print("{}\n", InspectLlama(*model));
  CheckpointFaults found = FindCheckpointFaults(
      flags.directory, json, *model, {.variant = flags.variant, .subfolder = flags.subfolder});
  if (found.none) {
    Print("weights: none in {}: a config alone (te finetune --init-from-config begins from it)\n",
          directory);
  } else if (found.reader != nullptr && !found.reader->files().empty()) {
    size_t tensors = 0;
    for (const auto& file : found.reader->files()) tensors += file->entries().size();
    Print("weights: {} tensors in {}\n", tensors, found.reader->FileNames());
  } else {
    Print("weights: none that can be read in {}\n", directory);
  }
  for (const std::string& line : found.warnings) PrintWarning(line);
  if (flags.variant.empty())
    PrintTrainingState(directory, &found.faults);  // it is of the weights without
  if (found.faults.empty()) return OkStatus();
  // One line each; the last one is this command's result.
  for (size_t i = 0; i + 1 < found.faults.size(); ++i)
    PrintError("te inspect", found.faults[i].message());
  return CorruptData("{}", found.faults.back().message());
}

}  // namespace te
