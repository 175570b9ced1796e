#include "models/cli/open_model.h"

#include <utility>

#include "models/checkpoint/model_directory.h"
#include "models/cli/exit_code.h"

namespace te {
namespace {

constexpr int kMaxThreads = 4096;

}  // namespace

StatusOr<DType> ParsePrecision(const std::string& name) {
  if (name == "fp32") return DType::kFloat32;
  if (name == "bf16") return DType::kBFloat16;
  return InvalidArgument("--precision is \"{}\"; expected fp32, bf16 or fp8", name);
}

StatusOr<std::string> FindModelDirectory(const ModelFlags& flags) {
  return FindModelDirectory(flags.directory, flags.subfolder);
}

StatusOr<OpenedModel> OpenModel(const ModelFlags& flags, const LlamaModelOptions& options,
                                const BeforeModel& before_model) {
  if (flags.threads < 0 || flags.threads > kMaxThreads) {
    return InvalidArgument("--threads is {}; expected 0 (all) to {}", flags.threads, kMaxThreads);
  }
  TE_RETURN_IF_ERROR(
      FindModelDirectory(flags).status());  // says more than a file that is not there
  OpenedModel opened;
  TE_ASSIGN_OR_RETURN(opened.context,
                      Context::Create({.device = flags.device,
                                       .num_threads = flags.threads,
                                       .seed = flags.seed,
                                       .allow_nondeterministic = flags.allow_nondeterministic}));
  PretrainedOptions pretrained = {
      .checkpoint = {.variant = flags.variant, .subfolder = flags.subfolder},
      .model = options,
      .load = {.allow_missing = flags.allow_missing},
      .random_init = flags.random_weights};
  if (before_model != nullptr) {
    pretrained.before_model = [&](const std::string& directory, const LlamaConfig& config) {
      return before_model(opened.context.get(), directory, config);
    };
  }
  TE_ASSIGN_OR_RETURN(opened.llama,
                      LoadPretrainedLlama(opened.context.get(), flags.directory, pretrained));
  for (const std::string& line : opened.llama.report.Warnings()) PrintWarning(line);
  if (const std::string& line = opened.llama.known_choices.warning(); !line.empty())
    PrintWarning(line);
  return opened;
}

}  // namespace te
