#include "models/cli/finetune.h"

#include <signal.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "models/checkpoint/save.h"
#include "models/cli/finetune_setup.h"
#include "models/cli/interrupt.h"
#include "models/cli/low_precision.h"
#include "models/data/dataset.h"
#include "models/data/sampler.h"
#include "models/tokenizer/tokenizer.h"
#include "models/train/progress.h"

namespace te {
namespace {

struct TrainingData {
  DataFormat format = DataFormat::kText;
  std::unique_ptr<Tokenizer> tokenizer;  // null: the file holds ids
  std::unique_ptr<Dataset> dataset;
  std::unique_ptr<BatchSampler> sampler;
  CollateOptions collate;
};

// What padding is filled with. It is masked, so it never changes a result; it must be an id that
// the model has.
int32_t PadId(const LlamaConfig& config, const Tokenizer* tokenizer) {
  std::vector<std::optional<int64_t>> candidates;
  if (tokenizer != nullptr) candidates.push_back(tokenizer->special_tokens().pad);
  candidates.push_back(config.pad_token_id);
  if (tokenizer != nullptr) candidates.push_back(tokenizer->special_tokens().eos);
  for (int64_t eos : config.eos_token_ids) candidates.push_back(eos);
  for (const std::optional<int64_t>& id : candidates) {
    if (id && *id >= 0 && *id < config.vocab_size) return static_cast<int32_t>(*id);
  }
  return 0;
}

StatusOr<TrainingData> OpenTrainingData(const FinetuneFlags& flags, const OpenedModel& opened) {
  const LlamaConfig& config = opened.llama.model->config();
  TrainingData data;
  TE_ASSIGN_OR_RETURN(const DataFormat format, DetectDataFormat(flags.data));
  if (format != DataFormat::kSafetensors) {
    TE_ASSIGN_OR_RETURN(data.tokenizer, LoadTokenizer(opened.llama.directory));
  }
  if (format != DataFormat::kJsonLines && flags.text_field != FinetuneFlags().text_field) {
    return InvalidArgument("--text-field has no effect: {} is {}", flags.data, Name(format));
  }
  data.collate.pad_id = PadId(config, data.tokenizer.get());
  TE_ASSIGN_OR_RETURN(data.dataset, OpenDataset(flags.data, format,
                                                {.text_field = flags.text_field,
                                                 .max_sequence_length = flags.max_seq_length,
                                                 .vocab_size = config.vocab_size,
                                                 .tokenizer = data.tokenizer.get(),
                                                 .pad_id = data.collate.pad_id}));
  // Texts: Hugging Face's drop_last. Ids: used in order and repeated.
  StatusOr<BatchSampler> sampler =
      BatchSampler::Create({.samples = data.dataset->size(),
                            .batch_size = flags.batch_size,
                            .drop_last = format != DataFormat::kSafetensors,
                            .shuffle = flags.shuffle,
                            .seed = flags.model.seed});
  if (!sampler.ok()) return sampler.status().WithContext(flags.data);
  data.sampler = std::make_unique<BatchSampler>(std::move(sampler).value());

  // Tokenizing ahead what the run will see keeps it out of the timing, and finds its errors before
  // the first step.
  const int64_t batches = flags.steps * flags.gradient_accumulation_steps;
  const int64_t epoch = (data.dataset->size() + flags.batch_size - 1) / flags.batch_size;
  for (int64_t i = 0; i < std::min(batches, flags.shuffle ? batches : epoch); ++i) {
    TE_RETURN_IF_ERROR(data.dataset->Prepare(data.sampler->Batch(i)));
  }
  data.format = format;
  return data;
}

void PrintData(const FinetuneFlags& flags, const TrainingData& data) {
  fmt::print("data            {}: {}, {} samples\n", flags.data, Name(data.format),
             data.dataset->size());
  if (data.tokenizer != nullptr) fmt::print("tokenizer       {}\n", data.tokenizer->Describe());
  if (data.dataset->truncated() > 0) {
    fmt::print("                {} samples cut to {} tokens (--max-seq-length)\n",
               data.dataset->truncated(), flags.max_seq_length);
  }
}

void PrintPlan(const FinetuneFlags& flags, const FinetuneSetup& setup, const OpenedModel& opened,
               int64_t frozen) {
  const LrSchedule& schedule = setup.trainer.schedule;
  const bool bf16 = setup.model.params_dtype == DType::kBFloat16;
  fmt::print("model           {}: Llama, {} layers, {} parameters{}{}\n", flags.model.directory,
             opened.llama.model->config().num_hidden_layers,
             opened.llama.model->config().ParameterCount(),
             flags.model.random_weights ? ", random weights" : "",
             frozen > 0 ? fmt::format(", {} tensors frozen", frozen) : "");
  fmt::print("precision       {}, path {}, moments {}{}{}\n", flags.precision, flags.path,
             setup.adamw.moments == DType::kBFloat16 ? "bf16" : "fp32",
             bf16
                 ? fmt::format(", master weights {}",
                               setup.adamw.master_weights == MasterWeights::kNone ? "none" : "fp32")
                 : "",
             setup.adamw.rounding == Rounding::kStochastic ? ", rounding stochastic" : "");
  if (setup.step.recipe != nullptr) {
    fmt::print("recipe          {}{}\n", setup.step.recipe->name(),
               setup.fp8->weights_only ? ", weights in FP8 alone" : "");
  }
  fmt::print("training        {} steps of {} x {} samples, at most {} tokens each\n", flags.steps,
             flags.gradient_accumulation_steps, flags.batch_size, flags.max_seq_length);
  fmt::print("learning rate   {}, warm-up {} steps, peak {:.4g}\n", Name(schedule.kind),
             schedule.warmup_steps, schedule.Peak());
  std::fflush(stdout);
  if (flags.steps > 0 && schedule.warmup_steps >= flags.steps) {
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
  if (!names.empty()) fmt::print("attention       {}\n", names);
}

StatusOr<TrainingResult> RunTraining(const FinetuneFlags& flags, const FinetuneSetup& setup,
                                     OpenedModel* opened, TrainingData* data,
                                     const InterruptGuard& interrupt) {
  std::unique_ptr<JsonLinesLog> log;
  ProgressDisplay progress = ProgressDisplay::For(stdout);
  std::vector<TrainingObserver*> observers = {&progress};
  if (!flags.log.empty()) {
    StatusOr<std::unique_ptr<JsonLinesLog>> created = JsonLinesLog::Create(flags.log);
    if (!created.ok()) return created.status().WithContext("--log");
    log = std::move(created).value();
    observers.push_back(log.get());
  }
  if (flags.steps == 0) return TrainingResult{};
  LlamaModel* model = opened->llama.model.get();
  TE_ASSIGN_OR_RETURN(
      const std::unique_ptr<AdamWOptimizer> optimizer,
      AdamWOptimizer::Create(opened->context.get(), model->parameters(), setup.adamw));
  TE_ASSIGN_OR_RETURN(const std::unique_ptr<LlamaTrainingStep> step,
                      LlamaTrainingStep::Create(model, optimizer.get(), setup.step));
  Context* context = opened->context.get();
  bool first = true;
  const TrainableModel trainable = {
      .run_step = [&, context](std::span<const Batch> batches, float learning_rate) -> Status {
        std::vector<LlamaBatch> views;
        for (const Batch& batch : batches) views.push_back(View(batch));
        if (!first) return step->Run(views, learning_rate);
        first = false;
        KernelLog log;
        context->set_kernel_log(&log);
        const Status status = step->Run(views, learning_rate);
        context->set_kernel_log(nullptr);
        PrintAttention(log);
        return status;
      },
      .result = [&step](int steps_ago) { return step->Result(steps_ago); },
      .asynchronous = opened->context->device().can_record()};
  const BatchSource batches = [data](int64_t index) -> StatusOr<Batch> {
    std::vector<Sample> samples;
    for (int64_t sample : data->sampler->Batch(index)) {
      TE_ASSIGN_OR_RETURN(Sample next, data->dataset->At(sample));
      samples.push_back(std::move(next));
    }
    return Collate(samples, data->collate);
  };
  StatusOr<TrainingResult> result = Train(trainable, batches, setup.trainer, observers,
                                          [&interrupt] { return interrupt.interrupted(); });
  progress.Finish();
  return result;
}

}  // namespace

StatusOr<ExitCode> Finetune(const FinetuneFlags& flags) {
  TE_ASSIGN_OR_RETURN(FinetuneSetup setup, CheckFinetuneFlags(flags));
  // Before minutes of loading and training, not after.
  Status writable = CheckSaveDirectory(flags.output);
  if (writable.code() == StatusCode::kFailedPrecondition) {  // a directory that is no checkpoint
    return InvalidArgument("--output: {}", writable.message());
  }
  if (!writable.ok()) return writable.WithContext("--output");
  if (!flags.log.empty()) {
    const Status loggable = JsonLinesLog::CheckWritable(flags.log);
    if (!loggable.ok()) return loggable.WithContext("--log");
  }
  if (!flags.data.empty()) TE_RETURN_IF_ERROR(DetectDataFormat(flags.data).status());
  // A reader of our output that leaves (`te finetune | head`) must not end the training.
  signal(SIGPIPE, SIG_IGN);

  LowPrecision fp8;  // outlives the context
  TE_ASSIGN_OR_RETURN(OpenedModel opened,
                      OpenModelWithPrecision(flags.model, setup.model, setup.fp8,
                                             LowPrecisionUse::kTraining, &fp8));
  if (setup.fp8) {
    setup.step.recipe = fp8.recipe.get();
    setup.step.calibration_steps = fp8.calibration_steps;
  }
  int64_t frozen = 0;
  if (!flags.freeze.empty()) {
    TE_ASSIGN_OR_RETURN(frozen, FreezeParameters(opened.llama.model.get(), flags.freeze));
  }
  TrainingData data;
  if (!flags.data.empty()) {
    TE_ASSIGN_OR_RETURN(data, OpenTrainingData(flags, opened));
  }
  if (data.dataset != nullptr) PrintData(flags, data);
  PrintPlan(flags, setup, opened, frozen);
  if (!fp8.state_file.empty()) fmt::print("fp8 state       {}\n", fp8.DescribeState());
  std::fflush(stdout);

  InterruptGuard interrupt;
  StatusOr<TrainingResult> result = RunTraining(flags, setup, &opened, &data, interrupt);
  if (!result.ok()) {
    return Status(result.status().code(), result.status().message() + "; nothing was written");
  }
  if (result->interrupted) {
    fmt::print("interrupted after step {} of {}; nothing was written\n", result->steps_done,
               flags.steps);
    return kExitInterrupted;
  }
  if (flags.steps > 0 && fp8.recipe != nullptr) {
    Context* context = opened.context.get();
    fp8.state.recipe = fp8.recipe->name();
    TE_ASSIGN_OR_RETURN(fp8.state.slots, context->delayed_scaling().Export(context->exec()));
  }
  SavePretrainedOptions save = {.max_shard_bytes = setup.max_shard_bytes, .type = setup.save_type};
  if (!fp8.state.slots.empty()) {
    save.extra_writers.emplace_back(
        kFp8StateFile, [&fp8](const std::string& path) { return WriteFp8State(path, fp8.state); });
  }
  const Status saved = SavePretrainedLlama(opened.llama, flags.output, save);
  if (!saved.ok()) return saved.WithContext("--output");
  fmt::print("saved           {}\n", flags.output);
  fmt::print("{} finetuning steps complete!\n", result->timed_steps);
  if (result->timed_steps > 0) {
    fmt::print("Average time taken per step: {} milliseconds\n",
               FormatMilliseconds(result->seconds_per_step));
  }
  std::fflush(stdout);
  return kExitOk;
}

}  // namespace te
