#include "models/cli/finetune.h"

#include <unistd.h>

#include <chrono>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "models/checkpoint/directory_replacement.h"
#include "models/checkpoint/save.h"
#include "models/cli/console.h"
#include "models/cli/finetune_data.h"
#include "models/cli/finetune_log.h"
#include "models/cli/finetune_resume.h"
#include "models/cli/finetune_setup.h"
#include "models/cli/interrupt.h"
#include "models/cli/low_precision.h"
#include "models/cli/output_check.h"
#include "models/cli/search_display.h"
#include "models/llama/training_state.h"
#include "models/train/progress.h"

namespace te {
namespace {

// Where the choices of algorithms come from that the run need not search.
std::string DescribeKnownChoices(const PretrainedLlama& llama) {
  const KnownChoices& known = llama.known_choices;
  std::string of;
  const auto add = [&of](const std::string& what) { of += (of.empty() ? "" : ", ") + what; };
  if (llama.choices == ChoicesFile::kPinned) add(kTunedChoicesFile);
  if (known.cached()) add(known.path());
  if (known.shipped()) add("those that ship with te");
  const std::string another =
      llama.choices == ChoicesFile::kOfAnother
          ? fmt::format("{} is of another card, driver or library; ", kTunedChoicesFile)
          : "";
  return another +
         (of.empty() ? "the first steps search"
                     : fmt::format("of {}; for what they lack the first steps search", of)) +
         fmt::format(" (at most {:.0f} s)", SearchSettings().limit_seconds);
}

void PrintPlan(const FinetuneFlags& flags, const FinetuneSetup& setup, const OpenedModel& opened,
               int64_t frozen) {
  const LrSchedule& schedule = setup.trainer.schedule;
  const bool bf16 = setup.model.params_dtype == DType::kBFloat16;
  Print("model           {}: Llama, {} layers, {} parameters{}{}\n", flags.model.directory,
        opened.llama.model->config().num_hidden_layers,
        opened.llama.model->config().ParameterCount(),
        flags.model.random_weights ? ", random weights" : "",
        frozen > 0 ? fmt::format(", {} tensors frozen", frozen) : "");
  Print("precision       {}, path {}, moments {}{}{}\n", flags.precision, flags.path,
        setup.adamw.moments == DType::kBFloat16 ? "bf16" : "fp32",
        bf16 ? fmt::format(", master weights {}",
                           setup.adamw.master_weights == MasterWeights::kNone ? "none" : "fp32")
             : "",
        setup.adamw.rounding == Rounding::kStochastic ? ", rounding stochastic" : "");
  if (setup.step.recipe != nullptr) {
    Print("recipe          {}{}\n", setup.step.recipe->name(),
          setup.fp8->weights_only ? ", weights in FP8 alone" : "");
  }
  if (const LlamaModel& model = *opened.llama.model; model.recomputed_layers() > 0) {
    Print("recomputation   full, the first {} of {} layers\n", model.recomputed_layers(),
          model.config().num_hidden_layers);
  }
  Print("training        {} steps of {} x {} samples, at most {} tokens each\n", flags.steps,
        flags.gradient_accumulation_steps, flags.batch_size, flags.max_seq_length);
  Print("learning rate   {}, warm-up {} steps, peak {:.4g}\n", Name(schedule.kind),
        schedule.warmup_steps, schedule.Peak());
  if (flags.model.allow_nondeterministic) {
    Print("nondeterminism  {}\n",
          opened.context->device().host_accessible()
              ? "allowed, which changes nothing on the cpu"
              : "allowed: attention's backward pass need not repeat its bits");
  }
  if (flags.steps > 0 && !opened.context->device().host_accessible())
    Print("algorithms      {}\n", DescribeKnownChoices(opened.llama));
  // Of a learning rate of 0, which somebody wants to see the loss alone, there is no peak.
  if (flags.steps > 0 && schedule.warmup_steps >= flags.steps && schedule.learning_rate > 0) {
    PrintWarning(fmt::format(
        "the warm-up ({} steps) is {} the run ({}): the learning rate never reaches {:.4g}, its "
        "peak is {:.4g}; lower "
        "--warmup-steps or raise --steps",
        schedule.warmup_steps, schedule.warmup_steps > flags.steps ? "longer than" : "as long as",
        flags.steps, schedule.learning_rate, schedule.Peak()));
  }
}

LlamaBatch View(const Batch& batch) {
  return {.batch = batch.batch,
          .sequence = batch.sequence,
          .input_ids = batch.input_ids,
          .labels = batch.labels,
          .attention_mask = batch.attention_mask};
}

// Which attention runs: a fused engine that silently is not there costs a step's time several times
// over. (The CPU backend has one, and keeps no log.)
void PrintAttention(const KernelLog& log) {
  std::set<std::string> kernels;
  for (const KernelRecord& record : log.records())
    if (record.operation.starts_with("attention")) kernels.insert(record.kernel);
  std::string names;
  for (const std::string& kernel : kernels) names += (names.empty() ? "" : ", ") + kernel;
  if (!names.empty()) Print("attention       {}\n", names);
}

// A run: from the model that was opened to the checkpoint that it leaves.
class FinetuneRun {
 public:
  FinetuneRun(const FinetuneFlags& flags, FinetuneSetup setup, const SaveTarget& target,
              std::optional<OpenedData> input)
      : flags_(flags), setup_(std::move(setup)), target_(target), input_(std::move(input)) {}

  // Everything before the first step. Prints what will be done.
  Status Open();
  StatusOr<TrainingResult> Train(JsonLinesLog* log, const InterruptGuard& interrupt);
  // Writes --output after `steps` steps of the run.
  Status Save(int64_t steps);

  int64_t first_step() const { return setup_.trainer.first_step; }
  bool has_saved() const { return saved_step_ >= 0; }
  // "nothing was written", or which step is in --output.
  std::string DescribeSaved() const {
    return saved_step_ < 0 ? "nothing was written"
                           : fmt::format("{} has step {}", flags_.output, saved_step_);
  }

 private:
  Status OpenOptimizer();

  const FinetuneFlags& flags_;
  FinetuneSetup setup_;
  SaveTarget target_;
  std::unique_ptr<OptimizerStateFile> resumed_;  // null: the run begins here
  LowPrecision fp8_;                             // outlives the context
  OpenedModel opened_;
  std::optional<OpenedData> input_;  // --data, until it is read
  TrainingData data_;
  std::unique_ptr<AdamWOptimizer> optimizer_;  // null with --steps 0
  std::unique_ptr<LlamaTrainingStep> step_;
  int64_t saved_step_ = -1;  // by this process; -1: none
};

Status FinetuneRun::Open() {
  if (flags_.resume) {
    TE_ASSIGN_OR_RETURN(resumed_, OpenResumedState(flags_));
    setup_.trainer.first_step = resumed_->info().position;
  }
  TE_ASSIGN_OR_RETURN(opened_, OpenModelWithPrecision(flags_.model, setup_.model, setup_.fp8,
                                                      LowPrecisionUse::kTraining, &fp8_));
  if (setup_.fp8) {
    if (resumed_ != nullptr) TE_RETURN_IF_ERROR(CheckResumedFp8(*resumed_, &fp8_));
    setup_.step.recipe = fp8_.recipe.get();
    setup_.step.calibration_steps = fp8_.calibration_steps;
  }
  int64_t frozen = 0;
  if (!flags_.freeze.empty()) {
    TE_ASSIGN_OR_RETURN(frozen, FreezeParameters(opened_.llama.model.get(), flags_.freeze));
  }
  if (input_) {
    TE_ASSIGN_OR_RETURN(data_, ReadTrainingData(flags_, *std::exchange(input_, std::nullopt),
                                                opened_, first_step()));
    PrintData(flags_, data_, opened_.llama.model->config());
  }
  if (resumed_ != nullptr)
    TE_RETURN_IF_ERROR(CheckResumedRun(*resumed_, DescribeRun(flags_, setup_, data_)));
  PrintPlan(flags_, setup_, opened_, frozen);
  if (!fp8_.state_file.empty()) Print("fp8 state       {}\n", fp8_.DescribeState());
  if (flags_.steps > 0) TE_RETURN_IF_ERROR(OpenOptimizer());
  if (resumed_ != nullptr) {
    Print("resumed         {}: {} steps are made\n", resumed_->path(), first_step());
  }
  return OkStatus();
}

Status FinetuneRun::OpenOptimizer() {
  LlamaModel* model = opened_.llama.model.get();
  TE_ASSIGN_OR_RETURN(
      optimizer_, AdamWOptimizer::Create(opened_.context.get(), model->parameters(), setup_.adamw));
  if (resumed_ != nullptr)
    TE_RETURN_IF_ERROR(resumed_->Load(optimizer_.get(), ParameterNamesOf(*model)));
  TE_ASSIGN_OR_RETURN(step_, LlamaTrainingStep::Create(model, optimizer_.get(), setup_.step));
  return OkStatus();
}

StatusOr<TrainingResult> FinetuneRun::Train(JsonLinesLog* log, const InterruptGuard& interrupt) {
  ProgressDisplay progress = ProgressDisplay::For(STDOUT_FILENO, PrintText);
  std::vector<TrainingObserver*> observers = {&progress};
  if (log != nullptr) {
    const Status begun = log->Begin(/*append=*/flags_.resume, [&progress](const Status& why) {
      progress.Finish();
      PrintWarning(fmt::format("--log: {}: lines are lost; the run goes on", why.message()));
    });
    TE_RETURN_IF_ERROR(begun.WithContext("--log"));
    observers.push_back(log);
  }
  if (flags_.steps == 0) return TrainingResult{};
  Context* context = opened_.context.get();
  SearchDisplay searches(PrintText, isatty(STDOUT_FILENO) == 1);
  searches.Watch(context);
  // A search's line takes the place of what was drawn there.
  const auto after_step = [&, this](const Status& status) {
    const bool kept = status.ok() && opened_.llama.known_choices.Keep(context);
    searches.Report(kept ? opened_.llama.known_choices.path() : "");
    return status;
  };
  bool first = true;
  const TrainableModel trainable = {
      .run_step = [&, this](std::span<const Batch> batches, float learning_rate) -> Status {
        std::vector<LlamaBatch> views;
        for (const Batch& batch : batches) views.push_back(View(batch));
        const AdamWOptimizer::StepInputs inputs = {.learning_rate = learning_rate,
                                                   .max_grad_norm = setup_.max_grad_norm,
                                                   .want_grad_norm = true};  // it is printed
        if (!first) return after_step(step_->Run(views, inputs));
        first = false;
        KernelLog kernels;
        context->set_kernel_log(&kernels);
        const Status status = step_->Run(views, inputs);
        context->set_kernel_log(nullptr);
        after_step(status).IgnoreError();  // it is returned
        PrintAttention(kernels);
        return status;
      },
      .result = [this](int steps_ago) { return step_->Result(steps_ago); },
      .asynchronous = context->device().can_record(context->exec()),
      .save = [&, this](int64_t steps) -> Status {
        progress.Finish();
        TE_RETURN_IF_ERROR(Save(steps));
        Print("saved           {}, step {}\n", flags_.output, steps);
        return OkStatus();
      }};
  const BatchSource batches = [this](int64_t index) { return data_.At(index); };
  StatusOr<TrainingResult> result = te::Train(trainable, batches, setup_.trainer, observers,
                                              [&interrupt] { return interrupt.interrupted(); });
  progress.Finish();
  searches.Stop(context);
  if (log != nullptr) log->Finish();
  return result;
}

// A directory that is no checkpoint, or another run's: the caller chooses another one.
Status ForOutput(const Status& status) {
  if (status.code() != StatusCode::kFailedPrecondition) return status.WithContext("--output");
  return InvalidArgument("--output: {}", status.message());
}

// Of another run that saves there, which is most often about to end.
constexpr std::chrono::seconds kOutputPatience(10);

Status FinetuneRun::Save(int64_t steps) {
  SavePretrainedOptions save = {.max_shard_bytes = setup_.max_shard_bytes,
                                .type = setup_.save_type,
                                .allow_nonfinite = flags_.allow_nonfinite,
                                .target = target_};
  OptimizerStateInfo info = {.position = steps};
  if (optimizer_ == nullptr) {  // no step: the FP8 state as it was read
    if (!fp8_.state.slots.empty()) {
      save.extra_writers.emplace_back(kFp8StateFile, [this](const std::string& path) {
        return WriteFp8State(path, fp8_.state);
      });
    }
  } else if (fp8_.recipe != nullptr) {
    TE_ASSIGN_OR_RETURN(const AdamWOptimizer::Progress progress, optimizer_->ReadProgress());
    TE_ASSIGN_OR_RETURN(info.fp8_tensors,
                        AddFp8State(*opened_.llama.model, *fp8_.recipe, progress.step, &save));
    info.calibration_steps = step_->calibration_steps_left();
  }
  if (flags_.save_optimizer_state) {
    info.run = DescribeRun(flags_, setup_, data_);
    TE_RETURN_IF_ERROR(AddOptimizerState(opened_.llama, optimizer_.get(), info, &save));
  }
  TE_RETURN_IF_ERROR(
      SavePretrainedLlama(opened_.llama, flags_.output, save).WithContext("--output"));
  saved_step_ = steps;
  return OkStatus();
}

}  // namespace

StatusOr<ExitCode> Finetune(const FinetuneFlags& flags) {
  TE_ASSIGN_OR_RETURN(FinetuneSetup setup, CheckFinetuneFlags(flags));
  // Before minutes of loading and training, not after.
  TE_RETURN_IF_ERROR(CheckFinetuneOutputs(flags));
  // Held to the end: two runs that save into one directory would each undo the other's work.
  const StatusOr<PathLock> lock = LockDirectoryForSaving(flags.output, kOutputPatience);
  if (!lock.ok()) return ForOutput(lock.status());
  SaveTarget target = {.lock = &*lock, .log = ""};
  NewFolders folders;
  TE_RETURN_IF_ERROR(MakeLogFolder(flags, &folders, &target.log).WithContext("--log"));
  if (const Status writable = CheckSaveDirectory(flags.output, target); !writable.ok())
    return ForOutput(writable);
  std::unique_ptr<JsonLinesLog> log;
  if (!flags.log.empty()) {
    StatusOr<std::unique_ptr<JsonLinesLog>> opened = JsonLinesLog::Open(flags.log);
    if (opened.status().code() == StatusCode::kFailedPrecondition)
      return InvalidArgument("--log: {}", opened.status().message());
    if (!opened.ok()) return opened.status().WithContext("--log");
    log = std::move(opened).value();
  }
  std::optional<OpenedData> data;
  if (!flags.data.empty()) {
    TE_ASSIGN_OR_RETURN(data, OpenData(flags));
  }

  FinetuneRun run(flags, std::move(setup), target, std::move(data));
  TE_RETURN_IF_ERROR(run.Open());
  InterruptGuard interrupt;
  const StatusOr<TrainingResult> result = run.Train(log.get(), interrupt);
  if (!result.ok()) {
    return Status(result.status().code(), result.status().message() + "; " + run.DescribeSaved());
  }
  const int64_t steps = run.first_step() + result->steps_done;
  if (result->interrupted && (!flags.save_optimizer_state || result->steps_done == 0)) {
    Print("interrupted after step {} of {}; {}\n", steps, flags.steps, run.DescribeSaved());
    return kExitInterrupted;
  }
  if (const Status saved = run.Save(steps); !saved.ok()) {
    return run.has_saved() ? Status(saved.code(), saved.message() + "; " + run.DescribeSaved())
                           : saved;
  }
  if (result->interrupted) {
    Print("interrupted after step {} of {}; saved to {}: --model {} --resume goes on\n", steps,
          flags.steps, flags.output, flags.output);
    return kExitInterrupted;
  }
  Print("saved           {}\n", flags.output);
  Print("{} finetuning steps complete!{}\n", steps,
        flags.resume ? fmt::format(" ({} of them in this run)", result->steps_done) : "");
  if (result->timed_steps > 0) {
    Print("Average time taken per step: {} milliseconds (over the last {})\n",
          FormatMilliseconds(result->seconds_per_step), result->timed_steps);
  }
  return log != nullptr && !log->lost().ok() ? kExitFailed : kExitOk;
}

}  // namespace te
