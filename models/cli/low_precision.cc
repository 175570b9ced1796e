#include "models/cli/low_precision.h"

#include <filesystem>
#include <system_error>
#include <utility>

#include "models/checkpoint/save.h"

namespace te {

StatusOr<std::optional<Fp8Plan>> ParseComputeFlags(const std::string& precision,
                                                   const std::string& path,
                                                   const Fp8Options& options,
                                                   LlamaModelOptions* model) {
  TE_ASSIGN_OR_RETURN(model->path, ParseLlamaPath(path));
  if (precision != "fp8") {
    TE_ASSIGN_OR_RETURN(model->params_dtype, ParsePrecision(precision));
    const std::string flag = FirstGivenFlag(options);
    if (flag.empty()) return std::optional<Fp8Plan>();
    return InvalidArgument("{} has no effect with --precision {}; expected --precision fp8", flag,
                           precision);
  }
  if (model->path == LlamaPath::kHf) {
    return InvalidArgument(
        "--path is hf with --precision fp8; expected --path te: Hugging Face's operations know no "
        "recipe");
  }
  model->params_dtype = DType::kBFloat16;
  TE_ASSIGN_OR_RETURN(Fp8Plan plan, MakeFp8Plan(options));
  return std::optional<Fp8Plan>(std::move(plan));
}

std::string LowPrecision::DescribeState() const {
  std::string text = fmt::format("{}: {} tensors", state_file, fit.used);
  if (fit.unused > 0) text += fmt::format(", {} more that the recipe does not use", fit.unused);
  if (fit.missing > 0) text += fmt::format(", {} of the recipe's are not there", fit.missing);
  return text + (calibration_steps == 0 ? ", no calibration"
                                        : fmt::format(", {} calibration steps", calibration_steps));
}

namespace {

StatusOr<LowPrecision> OpenLowPrecision(const Fp8Plan& plan, const ModelFlags& flags,
                                        LowPrecisionUse use, Context* context,
                                        const std::string& directory, int64_t num_layers) {
  const bool evaluation = use == LowPrecisionUse::kEvaluation;
  LowPrecision out;
  TE_ASSIGN_OR_RETURN(out.recipe, MakeModelRecipe(plan, num_layers, !evaluation));
  TE_ASSIGN_OR_RETURN(out.fit, FitFp8State("", *out.recipe, num_layers, evaluation, &out.state));
  if (out.fit.missing == 0) return out;  // no scale has a history
  out.calibration_steps = plan.calibration_steps.value_or(1);

  const std::string path = directory + "/" + kFp8StateFile;
  std::error_code error;
  const bool of_these_weights = !flags.random_weights && flags.variant.empty();
  if (of_these_weights && std::filesystem::exists(path, error)) {
    TE_ASSIGN_OR_RETURN(out.state, ReadFp8State(path));
    TE_ASSIGN_OR_RETURN(out.fit,
                        FitFp8State(path, *out.recipe, num_layers, evaluation, &out.state));
    out.state_file = path;
    if (out.fit.missing == 0) out.calibration_steps = plan.calibration_steps.value_or(0);
    const Status imported = context->delayed_scaling().Import(context->exec(), out.state.slots);
    if (!imported.ok()) return imported.WithContext(path);
  }
  if (evaluation && out.fit.missing > 0) {
    return InvalidArgument(
        "{}: the scales of {} tensors are {}; expected the FP8 state that te finetune --recipe "
        "delayed writes beside the weights, or a recipe without history",
        path, out.fit.missing, out.state_file.empty() ? "unknown: no such file" : "not in it");
  }
  return out;
}

}  // namespace

StatusOr<OpenedModel> OpenModelWithPrecision(const ModelFlags& flags,
                                             const LlamaModelOptions& options,
                                             const std::optional<Fp8Plan>& plan,
                                             LowPrecisionUse use, LowPrecision* fp8) {
  if (!plan) return OpenModel(flags, options);
  return OpenModel(flags, options,
                   [&](Context* context, const std::string& directory,
                       const LlamaConfig& config) -> StatusOr<const Recipe*> {
                     TE_ASSIGN_OR_RETURN(*fp8,
                                         OpenLowPrecision(*plan, flags, use, context, directory,
                                                          config.num_hidden_layers));
                     return plan->weights_only ? fp8->recipe.get() : nullptr;
                   });
}

EvaluationScope::EvaluationScope(Context* context, const Recipe* recipe)
    : context_(recipe == nullptr ? nullptr : context) {
  if (context_ != nullptr) context_->BeginQuantization(recipe, {.training = false});
}

EvaluationScope::~EvaluationScope() {
  // Fails only without a scope.
  if (context_ != nullptr) static_cast<void>(context_->EndQuantization());
}

}  // namespace te
