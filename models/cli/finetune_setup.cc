#include "models/cli/finetune_setup.h"

#include <fnmatch.h>

#include <algorithm>
#include <limits>
#include <set>

#include "models/checkpoint/save.h"
#include "models/cli/low_precision.h"

namespace te {
namespace {

StatusOr<std::optional<StoredType>> ParseSaveType(const std::string& name) {
  if (name.empty()) return std::optional<StoredType>();
  if (name == "fp32" || name == "float32") return std::optional(StoredType::kF32);
  if (name == "bf16" || name == "bfloat16") return std::optional(StoredType::kBF16);
  if (name == "fp16" || name == "float16") return std::optional(StoredType::kF16);
  return InvalidArgument("--save-dtype is \"{}\"; expected fp32, bf16 or fp16", name);
}

Status CheckRange(const char* flag, double value, bool valid, const char* expected) {
  return valid ? OkStatus() : InvalidArgument("{} is {}; expected {}", flag, value, expected);
}

// Products of two counts stay exact.
constexpr int64_t kMost = std::numeric_limits<int32_t>::max();

Status CheckNumbers(const FinetuneFlags& flags) {
  const auto check = [](const char* flag, int64_t value, int64_t least) -> Status {
    if (value > kMost) return InvalidArgument("{} is {}; expected {} or less", flag, value, kMost);
    return value >= least ? OkStatus()
                          : InvalidArgument("{} is {}; expected {} or more", flag, value, least);
  };
  TE_RETURN_IF_ERROR(check("--steps", flags.steps, 0));
  TE_RETURN_IF_ERROR(check("--save-every", flags.save_every, 0));
  TE_RETURN_IF_ERROR(check("--untimed-steps", flags.untimed_steps, 0));
  TE_RETURN_IF_ERROR(check("--warmup-steps", flags.warmup_steps, 0));
  TE_RETURN_IF_ERROR(check("--batch-size", flags.batch_size, 1));
  TE_RETURN_IF_ERROR(check("--max-seq-length", flags.max_seq_length, 2));
  TE_RETURN_IF_ERROR(check("--gradient-accumulation-steps", flags.gradient_accumulation_steps, 1));
  const auto is_beta = [](double beta) { return beta >= 0 && beta < 1; };
  constexpr double kHuge = 3e38;  // also keeps infinity and NaN out
  TE_RETURN_IF_ERROR(CheckRange("--learning-rate", flags.learning_rate,
                                flags.learning_rate >= 0 && flags.learning_rate < kHuge,
                                "0 or more"));
  TE_RETURN_IF_ERROR(CheckRange("--max-grad-norm", flags.max_grad_norm,
                                flags.max_grad_norm >= 0 && flags.max_grad_norm < kHuge,
                                "0 (off) or more"));
  TE_RETURN_IF_ERROR(CheckRange("--weight-decay", flags.weight_decay,
                                flags.weight_decay >= 0 && flags.weight_decay < kHuge,
                                "0 or more"));
  TE_RETURN_IF_ERROR(
      CheckRange("--beta1", flags.beta1, is_beta(flags.beta1), "0 or more and less than 1"));
  TE_RETURN_IF_ERROR(
      CheckRange("--beta2", flags.beta2, is_beta(flags.beta2), "0 or more and less than 1"));
  return CheckRange("--eps", flags.eps, flags.eps > 0 && flags.eps < kHuge, "more than 0");
}

// --resume, --save-optimizer-state and what contradicts them.
Status CheckStateFlags(const FinetuneFlags& flags) {
  if (flags.resume && flags.steps == 0)
    return InvalidArgument("--resume with --steps 0; expected more than the run has made");
  if (flags.save_optimizer_state && flags.steps == 0) {
    return InvalidArgument(
        "--save-optimizer-state with --steps 0: without a step there is no optimizer state");
  }
  if (!flags.resume) return OkStatus();
  if (flags.model.random_weights) {
    return InvalidArgument(
        "--resume with --init-from-config: a run goes on with the weights that it has written");
  }
  if (!flags.model.variant.empty()) {
    return InvalidArgument("--resume with --variant {}: the state is that of the weights without",
                           flags.model.variant);
  }
  if (flags.fp8.calibration_steps) {
    return InvalidArgument(
        "--fp8-calibration-steps has no effect with --resume: the saved state says how many are "
        "left");
  }
  return OkStatus();
}

Status SetPrecision(const FinetuneFlags& flags, FinetuneSetup* setup) {
  TE_ASSIGN_OR_RETURN(setup->fp8,
                      ParseComputeFlags(flags.precision, flags.path, flags.fp8, &setup->model));
  const bool bf16 = setup->model.params_dtype == DType::kBFloat16;

  const bool weights_only = setup->fp8 && setup->fp8->weights_only;
  if (flags.master_weights == "fp32") {
    if (weights_only) {
      return InvalidArgument(
          "--master-weights is fp32 with --fp8-weights-only; expected none: there is no copy "
          "beside "
          "the FP8 weights");
    }
    if (!bf16) {
      return InvalidArgument(
          "--master-weights fp32 needs --precision bf16 or fp8: fp32 weights are their own master");
    }
    setup->adamw.master_weights = MasterWeights::kFloat32;
  } else if (!flags.master_weights.empty() && flags.master_weights != "none") {
    return InvalidArgument("--master-weights is \"{}\"; expected none or fp32",
                           flags.master_weights);
  }
  if (flags.moments.empty()) {
    setup->adamw.moments = setup->model.params_dtype;
  } else {
    StatusOr<DType> moments = ParsePrecision(flags.moments);
    if (!moments.ok())
      return InvalidArgument("--moments is \"{}\"; expected bf16 or fp32", flags.moments);
    setup->adamw.moments = *moments;
  }
  const bool any_bf16 = bf16 || setup->adamw.moments == DType::kBFloat16;
  if (weights_only && flags.rounding == "nearest") {
    return InvalidArgument(
        "--rounding is nearest with --fp8-weights-only; expected stochastic: most updates are less "
        "than half a step of E4M3, and would be lost");
  }
  if (flags.rounding.empty()) {
    setup->adamw.rounding = any_bf16 ? Rounding::kStochastic : Rounding::kNearest;
  } else if (flags.rounding == "stochastic") {
    if (!any_bf16)
      return InvalidArgument(
          "--rounding stochastic needs something in bf16: --precision bf16 or fp8, or --moments "
          "bf16");
    setup->adamw.rounding = Rounding::kStochastic;
  } else if (flags.rounding != "nearest") {
    return InvalidArgument("--rounding is \"{}\"; expected nearest or stochastic", flags.rounding);
  }
  return OkStatus();
}

Status SetRecomputation(const FinetuneFlags& flags, LlamaModelOptions* model) {
  StatusOr<RecomputeGranularity> granularity = ParseRecomputeGranularity(flags.recompute);
  if (!granularity.ok())
    return InvalidArgument("--recompute is \"{}\"; expected none or full", flags.recompute);
  model->recompute_granularity = *granularity;
  if (!flags.recompute_num_layers) return OkStatus();
  const int64_t layers = *flags.recompute_num_layers;
  if (*granularity == RecomputeGranularity::kNone) {
    return InvalidArgument(
        "--recompute-num-layers has no effect with --recompute none; expected --recompute full");
  }
  if (layers < 1)
    return InvalidArgument("--recompute-num-layers is {}; expected 1 or more", layers);
  model->recompute_num_layers = layers;
  return OkStatus();
}

}  // namespace

StatusOr<FinetuneSetup> CheckFinetuneFlags(const FinetuneFlags& flags) {
  FinetuneSetup setup;
  TE_RETURN_IF_ERROR(CheckNumbers(flags));
  TE_RETURN_IF_ERROR(SetPrecision(flags, &setup));
  TE_RETURN_IF_ERROR(SetRecomputation(flags, &setup.model));
  if (flags.data.empty() && flags.steps > 0)
    return InvalidArgument("--data is required (only --steps 0 does without)");
  if (!flags.data_format.empty() && flags.data.empty())
    return InvalidArgument("--data-format has no effect without --data");
  setup.adamw.beta1 = flags.beta1;
  setup.adamw.beta2 = flags.beta2;
  setup.adamw.epsilon = flags.eps;
  setup.adamw.weight_decay = flags.weight_decay;
  setup.trainer.steps = flags.steps;
  setup.trainer.save_every = flags.save_every;
  setup.trainer.untimed_steps = flags.untimed_steps;
  setup.trainer.gradient_accumulation_steps = flags.gradient_accumulation_steps;
  setup.max_grad_norm = static_cast<float>(flags.max_grad_norm);
  TE_ASSIGN_OR_RETURN(setup.trainer.schedule.kind, ParseLrScheduleKind(flags.lr_scheduler));
  setup.trainer.schedule.learning_rate = flags.learning_rate;
  setup.trainer.schedule.warmup_steps = flags.warmup_steps;
  setup.trainer.schedule.steps = flags.steps;
  TE_ASSIGN_OR_RETURN(setup.save_type, ParseSaveType(flags.save_dtype));
  StatusOr<int64_t> shard = ParseByteSize(flags.max_shard_size);
  if (!shard.ok()) return shard.status().WithContext("--max-shard-size");
  setup.max_shard_bytes = *shard;
  TE_RETURN_IF_ERROR(CheckStateFlags(flags));
  if (flags.model.random_weights && flags.model.allow_missing) {
    return InvalidArgument(
        "--allow-missing has no effect with --init-from-config: no weights are read");
  }
  if (flags.model.random_weights && !flags.model.variant.empty()) {
    return InvalidArgument("--variant has no effect with --init-from-config: no weights are read");
  }
  return setup;
}

StatusOr<int64_t> FreezeParameters(LlamaModel* model, const std::vector<std::string>& patterns) {
  std::vector<bool> used(patterns.size(), false);
  std::set<const Parameter*> trained;
  int64_t frozen = 0;
  for (const LlamaTensor& tensor : model->tensors()) {
    bool matches = false;
    for (size_t i = 0; i < patterns.size(); ++i) {
      if (fnmatch(patterns[i].c_str(), tensor.name.hf_name.c_str(), 0) != 0) continue;
      matches = true;
      used[i] = true;
    }
    if (matches) {
      tensor.parameter->requires_grad = false;
      ++frozen;
    } else {
      trained.insert(tensor.parameter);
    }
  }
  for (size_t i = 0; i < patterns.size(); ++i) {
    if (!used[i])
      return InvalidArgument("--freeze {}: no tensor of that name (te inspect lists them)",
                             patterns[i]);
  }
  for (const LlamaTensor& tensor : model->tensors()) {
    if (tensor.parameter->requires_grad || !trained.contains(tensor.parameter)) continue;
    return InvalidArgument(
        "--freeze: {} is trained in one piece with tensors that are not frozen (all are rows of "
        "{}); freeze all of "
        "them or none",
        tensor.name.hf_name, tensor.name.te_name);
  }
  const auto& parameters = model->parameters();
  if (std::none_of(parameters.begin(), parameters.end(),
                   [](const Parameter* p) { return p->requires_grad; })) {
    return InvalidArgument("--freeze: every tensor is frozen: nothing is left to train");
  }
  return frozen;
}

}  // namespace te
