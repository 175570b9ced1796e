// te_llama_*: load, loss, step, save.
#include <algorithm>
#include <limits>

#include "models/llama/training_state.h"
#include "models/quantization/fp8_state_file.h"
#include "te_c_api/src/error.h"
#include "te_c_api/src/handles.h"
#include "te_c_api/src/optimizer_options.h"
#include "te_c_api/src/options.h"
#include "te_kernels/base/step_scalars.h"

namespace te::c_api {
namespace {

constexpr size_t kLlamaOptionsV1 = offsetof(te_llama_options, optimizer) + sizeof(void*);
constexpr size_t kBatchV1 = offsetof(te_llama_batch, attention_mask) + sizeof(void*);
constexpr size_t kStepResultV1 = offsetof(te_llama_step_result, token_count) + sizeof(int64_t);
constexpr size_t kSaveOptionsV1 = offsetof(te_llama_save_options, reserved) + sizeof(int32_t);

te_llama_options DefaultLlamaOptions() {
  te_llama_options options{};
  options.struct_size = sizeof(options);
  options.params_dtype = TE_DTYPE_BFLOAT16;
  options.path = TE_LLAMA_PATH_TE;
  options.calibration_steps = 1;
  return options;
}

te_llama_batch DefaultBatch() {
  te_llama_batch batch{};
  batch.struct_size = sizeof(batch);
  return batch;
}

te_llama_save_options DefaultSaveOptions() {
  te_llama_save_options options{};
  options.struct_size = sizeof(options);
  options.max_shard_size = static_cast<uint64_t>(SavePretrainedOptions().max_shard_bytes);
  options.save_dtype = -1;
  return options;
}

// te_llama_options.resume: the optimizer with its state, and the scales, of the loaded directory.
Status Resume(te_llama* llama) {
  LlamaModel* model = llama->core.model.get();
  Context* context = model->context();
  TE_ASSIGN_OR_RETURN(const std::unique_ptr<OptimizerStateFile> file,
                      OptimizerStateFile::Open(llama->core.directory + "/" + kOptimizerStateFile));
  // Everything that can be wrong with the files comes before the first change.
  Fp8State scales;
  const bool calibrates = llama->recipe != nullptr && llama->recipe->calibrates();
  if (calibrates) {
    const std::string path = llama->core.directory + "/" + kFp8StateFile;
    StatusOr<Fp8State> read = ReadFp8State(path);
    if (!read.ok() && read.status().code() != StatusCode::kNotFound) return read.status();
    const int64_t tensors = read.ok() ? static_cast<int64_t>(read->slots.size()) : 0;
    TE_RETURN_IF_ERROR(
        CheckWrittenTogether(*file, path, read.ok() ? &read.value() : nullptr, tensors));
    if (read.ok()) {
      scales = std::move(read).value();
      TE_RETURN_IF_ERROR(FitFp8State(path, *llama->recipe, model->config().num_hidden_layers,
                                     /*evaluation=*/false, &scales)
                             .status());
    }
  }
  TE_ASSIGN_OR_RETURN(llama->optimizer, AdamWOptimizer::Create(context, model->parameters(),
                                                               llama->optimizer_options));
  TE_RETURN_IF_ERROR(file->Load(llama->optimizer.get(), ParameterNamesOf(*model)));
  if (!calibrates || file->info().fp8_tensors == 0) return OkStatus();
  llama->calibration_steps = file->info().calibration_steps;
  return context->delayed_scaling().Import(context->exec(), std::move(scales.slots));
}

// te_llama_save_options.save_training_state.
Status AddTrainingState(te_llama* llama, SavePretrainedOptions* save) {
  if (llama->optimizer == nullptr) {
    return FailedPrecondition(
        "options->save_training_state is 1, but there is none: no te_llama_step has been made");
  }
  TE_ASSIGN_OR_RETURN(const AdamWOptimizer::Progress progress, llama->optimizer->ReadProgress());
  OptimizerStateInfo info = {.position = progress.step,
                             .calibration_steps = llama->step == nullptr
                                                      ? llama->calibration_steps
                                                      : llama->step->calibration_steps_left()};
  if (llama->recipe != nullptr) {
    TE_ASSIGN_OR_RETURN(info.fp8_tensors,
                        AddFp8State(*llama->core.model, *llama->recipe, progress.step, save));
  }
  return AddOptimizerState(llama->core, llama->optimizer.get(), info, save);
}

// A batch with what its spans point to.
struct OwnedBatch {
  std::vector<int32_t> labels;
  std::vector<uint8_t> mask;
  LlamaBatch batch;
};

Status ReadBatch(const te_llama_batch* in, OwnedBatch* out) {
  te_llama_batch read = DefaultBatch();
  TE_RETURN_IF_ERROR(CheckNotNull(in, "batch"));
  TE_RETURN_IF_ERROR(ReadOptions(in, "batch", kBatchV1, &read));
  int64_t count = 0;
  if (read.batch_size <= 0 || read.sequence_length <= 0 ||
      __builtin_mul_overflow(read.batch_size, read.sequence_length, &count)) {
    return InvalidArgument(
        "batch->batch_size is {} and batch->sequence_length is {}; expected 1 or more each",
        read.batch_size, read.sequence_length);
  }
  TE_RETURN_IF_ERROR(CheckNotNull(read.input_ids, "batch->input_ids"));
  const auto size = static_cast<size_t>(count);
  for (size_t i = 0; read.attention_mask != nullptr && i < size; ++i) {
    const int32_t keep = read.attention_mask[i];
    if (keep != 0 && keep != 1)
      return InvalidArgument("batch->attention_mask[{}] is {}; expected 1 (token) or 0 (padding)",
                             i, keep);
    out->mask.push_back(static_cast<uint8_t>(keep));
  }
  out->batch = {.batch = read.batch_size,
                .sequence = read.sequence_length,
                .input_ids = {read.input_ids, size}};
  out->batch.attention_mask = out->mask;
  if (read.labels != nullptr) {
    out->batch.labels = {read.labels, size};
  } else {
    out->labels.assign(read.input_ids, read.input_ids + size);
    for (size_t i = 0; i < out->mask.size(); ++i) {
      if (out->mask[i] == 0) out->labels[i] = kIgnoreIndex;
    }
    out->batch.labels = out->labels;
  }
  return OkStatus();
}

Status CheckFloat(double value, const char* argument) {
  constexpr double kMost = std::numeric_limits<float>::max();
  if (value >= 0 && value <= kMost) return OkStatus();
  return InvalidArgument("{} is {}; expected 0 or more that a float32 can hold", argument, value);
}

Status NoLabelIsCounted() {
  return InvalidArgument("no label is counted: every shifted label is -100 or padding");
}

StatusOr<double> MeanLoss(const StepScalars& scalars) {
  if (scalars.token_count == 0) return NoLabelIsCounted();
  return scalars.loss_sum / static_cast<double>(scalars.token_count);
}

Status MakeTrainingStep(te_llama* llama) {
  LlamaModel* model = llama->core.model.get();
  if (llama->optimizer == nullptr) {
    TE_ASSIGN_OR_RETURN(
        llama->optimizer,
        AdamWOptimizer::Create(model->context(), model->parameters(), llama->optimizer_options));
  }
  if (llama->step != nullptr) return OkStatus();
  TE_ASSIGN_OR_RETURN(llama->step,
                      LlamaTrainingStep::Create(model, llama->optimizer.get(),
                                                {.recipe = llama->recipe.get(),
                                                 .calibration_steps = llama->calibration_steps}));
  return OkStatus();
}

Status Step(te_llama* llama, std::span<const OwnedBatch> batches, double learning_rate,
            double max_grad_norm, te_llama_step_result* result) {
  std::vector<LlamaBatch> views;
  for (const OwnedBatch& owned : batches) views.push_back(owned.batch);
  // The device would find it out when everything has run.
  if (std::none_of(views.begin(), views.end(), CountsAnyLabel)) return NoLabelIsCounted();
  TE_RETURN_IF_ERROR(MakeTrainingStep(llama));
  TE_RETURN_IF_ERROR(llama->step->Run(views, {.learning_rate = static_cast<float>(learning_rate),
                                              .max_grad_norm = static_cast<float>(max_grad_norm),
                                              .want_grad_norm = result != nullptr}));
  // Whether they could be kept changes nothing for the caller.
  static_cast<void>(llama->core.known_choices.Keep(llama->core.model->context()));
  if (result == nullptr) return OkStatus();
  TE_ASSIGN_OR_RETURN(const StepScalars scalars, llama->step->Result(0));
  TE_ASSIGN_OR_RETURN(result->loss, MeanLoss(scalars));
  result->grad_norm = GradNorm(scalars);
  result->token_count = scalars.token_count;
  return OkStatus();
}

}  // namespace
}  // namespace te::c_api

using namespace te;         // NOLINT: the whole file is one thin layer over te
using namespace te::c_api;  // NOLINT

// In parentheses, because te.h has a macro of this name.
te_status(te_llama_options_init)(te_llama_options* options) {
  return te_llama_options_init_sized(options, kLlamaOptionsV1);
}

te_status te_llama_options_init_sized(te_llama_options* options, size_t struct_size) {
  return Guard([&] {
    return InitSizedOptions(options, "options", struct_size, kLlamaOptionsV1,
                            DefaultLlamaOptions());
  });
}

te_status te_llama_load(te_context* context, const char* directory, const te_llama_options* options,
                        te_llama** out) {
  return Guard([&]() -> Status {
    TE_RETURN_IF_ERROR(Check(context, "context"));
    TE_RETURN_IF_ERROR(CheckNotNull(directory, "directory"));
    TE_RETURN_IF_ERROR(CheckNotNull(out, "out"));
    te_llama_options read = DefaultLlamaOptions();
    TE_RETURN_IF_ERROR(ReadOptions(options, "options", kLlamaOptionsV1, &read));
    TE_RETURN_IF_ERROR(CheckReserved(read.reserved, "options->reserved"));
    TE_RETURN_IF_ERROR(CheckBool(read.allow_missing, "options->allow_missing"));
    if (read.path != TE_LLAMA_PATH_TE && read.path != TE_LLAMA_PATH_HF) {
      return InvalidArgument(
          "options->path is {}; expected TE_LLAMA_PATH_TE (0) or TE_LLAMA_PATH_HF (1)", read.path);
    }
    if (read.recipe != nullptr) {
      TE_RETURN_IF_ERROR(Check(read.recipe, "options->recipe"));
      if (read.recipe->context != context->core.get())
        return InvalidArgument("options->recipe belongs to another context");
      if (read.path == TE_LLAMA_PATH_HF && read.recipe->core != nullptr) {
        return InvalidArgument(
            "options->recipe is {}; expected NULL: TE_LLAMA_PATH_HF has no quantized operations",
            read.recipe->core->name());
      }
    }
    if (read.calibration_steps < 0) {
      return InvalidArgument("options->calibration_steps is {}; expected 0 or more",
                             read.calibration_steps);
    }
    TE_RETURN_IF_ERROR(CheckBool(read.resume, "options->resume"));
    if (read.recompute_granularity != TE_RECOMPUTE_NONE &&
        read.recompute_granularity != TE_RECOMPUTE_FULL) {
      return InvalidArgument(
          "options->recompute_granularity is {}; expected TE_RECOMPUTE_NONE (0) or "
          "TE_RECOMPUTE_FULL (1)",
          read.recompute_granularity);
    }
    if (read.resume != 0 && read.variant != nullptr) {
      return InvalidArgument(
          "options->resume is 1 and options->variant is '{}'; expected NULL: the state is that of "
          "the weights without",
          read.variant);
    }
    PretrainedOptions pretrained;
    if (read.variant != nullptr) pretrained.checkpoint.variant = read.variant;
    if (read.subfolder != nullptr) pretrained.checkpoint.subfolder = read.subfolder;
    TE_ASSIGN_OR_RETURN(pretrained.model.params_dtype,
                        ToDType(read.params_dtype, "options->params_dtype"));
    pretrained.model.path = read.path == TE_LLAMA_PATH_TE ? LlamaPath::kTe : LlamaPath::kHf;
    pretrained.model.recompute_granularity = read.recompute_granularity == TE_RECOMPUTE_FULL
                                                 ? RecomputeGranularity::kFull
                                                 : RecomputeGranularity::kNone;
    pretrained.model.recompute_num_layers = read.recompute_num_layers;
    pretrained.load.allow_missing = read.allow_missing != 0;
    AdamWOptions optimizer;
    if (pretrained.model.params_dtype == DType::kBFloat16) {
      optimizer.moments = DType::kBFloat16;
      optimizer.rounding = Rounding::kStochastic;
    }
    TE_RETURN_IF_ERROR(ReadOptimizerOptions(read.optimizer, "options->optimizer", &optimizer));
    TE_ASSIGN_OR_RETURN(PretrainedLlama core,
                        LoadPretrainedLlama(context->core.get(), directory, pretrained));
    auto handle = std::make_unique<te_llama>(std::move(core));
    handle->optimizer_options = optimizer;
    if (read.recipe != nullptr) handle->recipe = read.recipe->core;
    handle->calibration_steps = read.calibration_steps;
    if (read.resume != 0) TE_RETURN_IF_ERROR(Resume(handle.get()));
    *out = handle.release();
    return OkStatus();
  });
}

void te_llama_destroy(te_llama* llama) {
  if (Check(llama, "llama").ok()) delete llama;
}

te_status te_llama_batch_init(te_llama_batch* batch) {
  return Guard([&] { return InitOptions(batch, "batch", DefaultBatch()); });
}

te_status te_llama_loss(te_llama* llama, const te_llama_batch* batch, double* loss) {
  return Guard([&]() -> Status {
    TE_RETURN_IF_ERROR(Check(llama, "llama"));
    TE_RETURN_IF_ERROR(CheckNotNull(loss, "loss"));
    OwnedBatch owned;
    TE_RETURN_IF_ERROR(ReadBatch(batch, &owned));
    LlamaModel* model = llama->core.model.get();
    TE_RETURN_IF_ERROR(model->context()->BeginStep());
    TE_ASSIGN_OR_RETURN(LlamaModel::Pass pass, model->Forward(owned.batch));
    TE_RETURN_IF_ERROR(model->EvaluateLoss(&pass));
    TE_ASSIGN_OR_RETURN(const StepScalars scalars, model->context()->ReadScalars());
    TE_ASSIGN_OR_RETURN(*loss, MeanLoss(scalars));
    return OkStatus();
  });
}

te_status te_llama_step_result_init(te_llama_step_result* result) {
  return Guard([&] {
    return InitOptions(result, "result",
                       te_llama_step_result{sizeof(te_llama_step_result), 0, 0, 0});
  });
}

te_status te_llama_step(te_llama* llama, const te_llama_batch* batches, int64_t batch_count,
                        double learning_rate, double max_grad_norm, te_llama_step_result* result) {
  return Guard([&]() -> Status {
    TE_RETURN_IF_ERROR(Check(llama, "llama"));
    TE_RETURN_IF_ERROR(CheckNotNull(batches, "batches"));
    if (batch_count < 1 || batch_count >= static_cast<int64_t>(AdamWOptimizer::kRngAdvance)) {
      return InvalidArgument("batch_count is {}; expected 1 to {}", batch_count,
                             AdamWOptimizer::kRngAdvance - 1);
    }
    TE_RETURN_IF_ERROR(CheckFloat(learning_rate, "learning_rate"));
    TE_RETURN_IF_ERROR(CheckFloat(max_grad_norm, "max_grad_norm"));
    te_llama_step_result read{};
    TE_RETURN_IF_ERROR(ReadOptions(result, "result", kStepResultV1, &read));
    // Elements of the caller's array are as large as its struct_size says, not as this library's
    // struct.
    std::vector<OwnedBatch> owned(static_cast<size_t>(batch_count));
    const auto* bytes = reinterpret_cast<const char*>(batches);
    for (OwnedBatch& batch : owned) {
      const auto* element = reinterpret_cast<const te_llama_batch*>(bytes);
      TE_RETURN_IF_ERROR(ReadBatch(element, &batch));
      bytes += element->struct_size;
    }
    te_llama_step_result out{};
    TE_RETURN_IF_ERROR(
        Step(llama, owned, learning_rate, max_grad_norm, result == nullptr ? nullptr : &out));
    if (result != nullptr) {
      result->loss = out.loss;
      result->grad_norm = out.grad_norm;
      result->token_count = out.token_count;
    }
    return OkStatus();
  });
}

// In parentheses, because te.h has a macro of this name.
te_status(te_llama_save_options_init)(te_llama_save_options* options) {
  return te_llama_save_options_init_sized(options, kSaveOptionsV1);
}

te_status te_llama_save_options_init_sized(te_llama_save_options* options, size_t struct_size) {
  return Guard([&] {
    return InitSizedOptions(options, "options", struct_size, kSaveOptionsV1, DefaultSaveOptions());
  });
}

te_status te_llama_save(te_llama* llama, const char* directory,
                        const te_llama_save_options* options) {
  return Guard([&]() -> Status {
    TE_RETURN_IF_ERROR(Check(llama, "llama"));
    TE_RETURN_IF_ERROR(CheckNotNull(directory, "directory"));
    te_llama_save_options read = DefaultSaveOptions();
    TE_RETURN_IF_ERROR(ReadOptions(options, "options", kSaveOptionsV1, &read));
    TE_RETURN_IF_ERROR(CheckReserved(read.reserved, "options->reserved"));
    TE_RETURN_IF_ERROR(CheckBool(read.save_training_state, "options->save_training_state"));
    TE_RETURN_IF_ERROR(CheckReserved(read.reserved2, "options->reserved2"));
    TE_RETURN_IF_ERROR(CheckBool(read.allow_nonfinite, "options->allow_nonfinite"));
    TE_RETURN_IF_ERROR(CheckReserved(read.reserved3, "options->reserved3"));
    if (read.max_shard_size == 0 ||
        read.max_shard_size > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      return InvalidArgument("options->max_shard_size is {}; expected 1 to 2^63 - 1 bytes",
                             read.max_shard_size);
    }
    SavePretrainedOptions save;
    save.max_shard_bytes = static_cast<int64_t>(read.max_shard_size);
    save.allow_nonfinite = read.allow_nonfinite != 0;
    if (read.save_dtype != -1) {
      TE_ASSIGN_OR_RETURN(const DType dtype, ToDType(read.save_dtype, "options->save_dtype"));
      StoredType type;
      if (!IsFloating(dtype) || !StoredTypeOf(dtype, &type)) {
        return InvalidArgument(
            "options->save_dtype is {}; expected float32, bfloat16, float16, float64, or -1 (the "
            "checkpoint's)",
            Name(dtype));
      }
      save.type = type;
    }
    if (read.save_training_state != 0) TE_RETURN_IF_ERROR(AddTrainingState(llama, &save));
    return SavePretrainedLlama(llama->core, directory, save);
  });
}
