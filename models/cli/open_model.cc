#include "models/cli/open_model.h"

#include <filesystem>
#include <utility>

#include "models/cli/exit_code.h"
#include "models/llama/load_weights.h"

namespace te {
namespace {

// A folder of configs is not as big as this.
constexpr size_t kMaxConfigBytes = size_t{16} << 20;

}  // namespace

StatusOr<DType> ParsePrecision(const std::string& name) {
  if (name == "fp32") return DType::kFloat32;
  if (name == "bf16") return DType::kBFloat16;
  return InvalidArgument("precision is \"{}\"; expected fp32 or bf16", name);
}

StatusOr<std::string> FindModelDirectory(const ModelFlags& flags) {
  std::error_code error;
  const std::filesystem::path root(flags.directory);
  if (!std::filesystem::exists(root, error)) {
    return NotFound(
        "{}: no such directory; --model takes a checkpoint directory in Hugging Face's layout "
        "(config.json, "
        "model.safetensors, ...)",
        flags.directory);
  }
  if (!std::filesystem::is_directory(root, error)) {
    return InvalidArgument("{}: a file; --model takes the directory that holds it",
                           flags.directory);
  }
  const std::filesystem::path directory = flags.subfolder.empty() ? root : root / flags.subfolder;
  if (!std::filesystem::is_directory(directory, error)) {
    return NotFound("{}: no such directory (--subfolder {})", directory.string(), flags.subfolder);
  }
  if (!std::filesystem::exists(directory / "config.json", error)) {
    return NotFound(
        "{}: no config.json there; --model takes a checkpoint directory in Hugging Face's layout "
        "(is it in a "
        "--subfolder?)",
        directory.string());
  }
  return directory.string();
}

StatusOr<OpenedModel> OpenModel(const ModelFlags& flags, const LlamaModelOptions& options) {
  OpenedModel opened;
  TE_ASSIGN_OR_RETURN(opened.directory, FindModelDirectory(flags));
  const std::string config_path =
      (std::filesystem::path(opened.directory) / "config.json").string();
  TE_ASSIGN_OR_RETURN(opened.config_json, ReadJsonFile(config_path, kMaxConfigBytes));
  TE_ASSIGN_OR_RETURN(const LlamaConfig config, LlamaConfig::FromFile(config_path));
  if (!flags.random_weights) {
    TE_ASSIGN_OR_RETURN(opened.reader,
                        CheckpointReader::Open(flags.directory, {.variant = flags.variant,
                                                                 .subfolder = flags.subfolder}));
  }
  TE_ASSIGN_OR_RETURN(opened.context,
                      Context::Create({.num_threads = flags.threads, .seed = flags.seed}));
  TE_ASSIGN_OR_RETURN(opened.model, LlamaModel::Create(opened.context.get(), config, options));
  if (flags.random_weights) {
    TE_RETURN_IF_ERROR(opened.model->InitializeAll());
    return opened;
  }
  TE_ASSIGN_OR_RETURN(
      const LoadReport report,
      LoadLlamaWeights(opened.model.get(), *opened.reader, {.allow_missing = flags.allow_missing}));
  for (const std::string& line : report.Warnings()) PrintWarning(line);
  return opened;
}

}  // namespace te
