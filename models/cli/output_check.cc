#include "models/cli/output_check.h"

#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <string_view>

#include "models/checkpoint/output_file.h"
#include "models/checkpoint/save.h"
#include "models/files/input.h"
#include "models/files/input_set.h"
#include "models/files/output_path.h"
#include "models/llama/tuned_choices.h"

namespace te {
namespace {

// What flags name, without the model's folder.
InputSet NamedInputs(const Fp8Options& fp8, const char* data_flag, const std::string& data) {
  InputSet inputs;
  inputs.AddFile(data_flag, data);
  if (fp8.recipe_file) inputs.AddFile("--fp8-recipe-file", *fp8.recipe_file);
  return inputs;
}

constexpr std::pair<int, const char*> kStreams[] = {{STDOUT_FILENO, "standard output"},
                                                    {STDERR_FILENO, "standard error"}};

// The shell has opened them before us, for what we print. Appended to an input, that would still be
// read.
Status CheckStreams(const InputSet& inputs) {
  for (const auto& [descriptor, name] : kStreams)
    TE_RETURN_IF_ERROR(inputs.CheckDescriptor(name, descriptor));
  return OkStatus();
}

// Two outputs in one file would write over each other.
Status CheckNoStream(const char* flag, const std::string& path) {
  struct stat file, stream;
  if (stat(path.c_str(), &file) != 0 || !S_ISREG(file.st_mode)) return OkStatus();
  for (const auto& [descriptor, name] : kStreams) {
    if (fstat(descriptor, &stream) == 0 && stream.st_dev == file.st_dev &&
        stream.st_ino == file.st_ino) {
      return InvalidArgument("{}: {} is where {} goes; choose another name", flag, path, name);
    }
  }
  return OkStatus();
}

bool IsReplacedBySaving(const std::string& name) {
  return IsCheckpointFile(name) || name == kTunedChoicesFile;
}

// A log of te, or nothing at all.
bool LooksLikeLog(const std::string& path) {
  const StatusOr<OpenedInput> input = OpenInput(path, InputUse::kByPosition);
  if (!input.ok()) return false;
  constexpr std::string_view kBegin = "{\"step\":";
  char begin[kBegin.size()];
  const ssize_t count = pread(input->descriptor.get(), begin, sizeof(begin), 0);
  return count == 0 || (count == sizeof(begin) && std::string_view(begin, sizeof(begin)) == kBegin);
}

Status CheckLog(const FinetuneFlags& flags, const InputSet& named, const InputSet& inputs) {
  constexpr char kFlag[] = "--log";
  TE_RETURN_IF_ERROR(named.CheckFile(kFlag, flags.log));
  TE_RETURN_IF_ERROR(CheckNoStream(kFlag, flags.log));
  TE_ASSIGN_OR_RETURN(const std::string log, ResolveOutput(flags.log));
  TE_ASSIGN_OR_RETURN(const std::string output, ResolveOutput(flags.output));
  if (log == output)
    return InvalidArgument("{}: {} is the directory of --output; choose a file", kFlag, flags.log);
  const std::filesystem::path path(log);
  const std::string name = path.filename().string();
  TE_ASSIGN_OR_RETURN(const std::string model, ResolveOutput(flags.model.directory));
  const bool in_checkpoint = path.parent_path() == output || IsInside(log, model);
  if (in_checkpoint && IsReplacedBySaving(name)) {
    return InvalidArgument(
        "{}: {} is a name that checkpoints use for something else; choose another", kFlag,
        flags.log);
  }
  // The log of a run that goes on may lie in the folder of its checkpoint.
  if (in_checkpoint && LooksLikeLog(log)) return OkStatus();
  return inputs.CheckFile(kFlag, flags.log);
}

}  // namespace

Status CheckTraceOutput(const TraceFlags& flags) {
  constexpr char kFlag[] = "--output";
  InputSet inputs = NamedInputs(flags.fp8, "--input", flags.input);
  inputs.AddFolder("--model", flags.model.directory);
  TE_RETURN_IF_ERROR(inputs.CheckOutside(kFlag, flags.output));
  TE_ASSIGN_OR_RETURN(const std::string output, ResolveOutput(flags.output));
  // It is written under another name first.
  TE_RETURN_IF_ERROR(inputs.CheckFile(kFlag, output + kFreshSuffix));
  TE_RETURN_IF_ERROR(CheckNoStream(kFlag, flags.output));
  TE_RETURN_IF_ERROR(CheckStreams(inputs));
  return CheckReplaceable(flags.output).WithContext(kFlag);
}

Status CheckFinetuneOutputs(const FinetuneFlags& flags) {
  const InputSet named = NamedInputs(flags.fp8, "--data", flags.data);
  InputSet inputs = named;
  inputs.AddFolder("--model", flags.model.directory);
  TE_RETURN_IF_ERROR(inputs.CheckReplacement("--output", flags.output, IsReplacedBySaving));
  if (!flags.log.empty()) TE_RETURN_IF_ERROR(CheckLog(flags, named, inputs));
  return CheckStreams(inputs);
}

}  // namespace te
