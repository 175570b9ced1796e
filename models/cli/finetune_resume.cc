#include "models/cli/finetune_resume.h"

#include <algorithm>
#include <filesystem>
#include <limits>
#include <string_view>

#include "models/checkpoint/save.h"
#include "models/cli/exit_code.h"
#include "models/llama/training_state.h"

namespace te {
namespace {

// A flag of the first kind chooses data or the tensors that the optimizer keeps.
constexpr std::string_view kMustAgree[] = {
    "--data",           "--batch-size",     "--gradient-accumulation-steps",
    "--max-seq-length", "--text-field",     "--shuffle",
    "--moments",        "--master-weights", "--fp8-weights-only"};

bool MustAgree(std::string_view flag) {
  return std::find(std::begin(kMustAgree), std::end(kMustAgree), flag) != std::end(kMustAgree);
}

}  // namespace

StatusOr<std::unique_ptr<OptimizerStateFile>> OpenResumedState(const FinetuneFlags& flags) {
  TE_ASSIGN_OR_RETURN(const std::string directory, FindModelDirectory(flags.model));
  const std::string path = directory + "/" + kOptimizerStateFile;
  StatusOr<std::unique_ptr<OptimizerStateFile>> state = OptimizerStateFile::Open(path);
  if (state.status().code() == StatusCode::kNotFound) {
    return NotFound(
        "--resume: {}: no such file; expected the output of te finetune --save-optimizer-state",
        path);
  }
  if (!state.ok()) return state.status().WithContext("--resume");
  const OptimizerStateInfo& info = (*state)->info();
  if (info.position >= flags.steps) {
    return InvalidArgument(
        "--steps is {}, and the run in {} has made {}; expected more: --steps counts from its "
        "beginning",
        flags.steps, directory, info.position);
  }
  if (info.seed != flags.model.seed) {
    return InvalidArgument("--seed is {}; expected {}, that of the run in {}", flags.model.seed,
                           info.seed, directory);
  }
  return state;
}

std::map<std::string, std::string> DescribeRun(const FinetuneFlags& flags,
                                               const FinetuneSetup& setup,
                                               const TrainingData& data) {
  const auto text = [](const auto& value) { return fmt::format("{}", value); };
  const LrSchedule& schedule = setup.trainer.schedule;
  return {
      {"--data", fmt::format("{}, {} samples, {} bytes", Name(data.format), data.dataset->size(),
                             data.input_bytes)},
      {"--batch-size", text(flags.batch_size)},
      {"--gradient-accumulation-steps", text(flags.gradient_accumulation_steps)},
      {"--max-seq-length", text(flags.max_seq_length)},
      {"--text-field", flags.text_field},
      {"--shuffle", flags.shuffle ? "yes" : "no"},
      {"--moments", Name(setup.adamw.moments)},
      {"--master-weights", setup.adamw.master_weights == MasterWeights::kFloat32 ? "fp32" : "none"},
      {"--fp8-weights-only", flags.fp8.weights_only ? "yes" : "no"},
      {"--precision", flags.precision},
      {"--path", flags.path},
      {"--recipe", setup.step.recipe == nullptr ? "none" : setup.step.recipe->name()},
      {"--rounding", setup.adamw.rounding == Rounding::kStochastic ? "stochastic" : "nearest"},
      {"--learning-rate", text(flags.learning_rate)},
      {"--lr-scheduler", flags.lr_scheduler},
      {"--warmup-steps", text(flags.warmup_steps)},
      // A constant rate does not ask when the run ends.
      {"--steps", schedule.kind == LrScheduleKind::kConstant ? "any" : text(flags.steps)},
      {"--weight-decay", text(flags.weight_decay)},
      {"--beta1", text(flags.beta1)},
      {"--beta2", text(flags.beta2)},
      {"--eps", text(flags.eps)},
      {"--max-grad-norm", text(flags.max_grad_norm)},
  };
}

Status CheckResumedRun(const OptimizerStateFile& state,
                       const std::map<std::string, std::string>& run) {
  const std::map<std::string, std::string>& before = state.info().run;
  for (const auto& [flag, value] : before) {
    if (!run.contains(flag)) {
      return CorruptData("{}: metadata run.{} is unknown: no run of te finetune", state.path(),
                         flag);
    }
  }
  for (const auto& [flag, value] : run) {
    const auto found = before.find(flag);
    if (found == before.end()) {
      return CorruptData("{}: metadata run.{} is missing: no run of te finetune", state.path(),
                         flag);
    }
    if (found->second == value) continue;
    if (MustAgree(flag)) {
      return InvalidArgument("{} is {}; expected {}, as in the run that --resume goes on with ({})",
                             flag, value, found->second, state.path());
    }
    PrintWarning(fmt::format("{} is {}, and was {} so far: the run goes on with {}", flag, value,
                             found->second, value));
  }
  return OkStatus();
}

Status CheckResumedFp8(const OptimizerStateFile& state, LowPrecision* fp8) {
  if (!fp8->recipe->calibrates()) return OkStatus();
  const std::string beside =
      (std::filesystem::path(state.path()).parent_path() / kFp8StateFile).string();
  TE_RETURN_IF_ERROR(CheckWrittenTogether(state, beside,
                                          fp8->state_file.empty() ? nullptr : &fp8->state,
                                          fp8->fit.used + fp8->fit.unused));
  // A run that had no histories so far, and turns to them, calibrates as a new one does.
  if (state.info().fp8_tensors > 0)
    fp8->calibration_steps = static_cast<int>(
        std::min<int64_t>(state.info().calibration_steps, std::numeric_limits<int>::max()));
  return OkStatus();
}

}  // namespace te
