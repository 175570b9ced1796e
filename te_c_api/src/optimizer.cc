// te_optimizer_*: AdamW over a layer's parameters.
#include <cmath>

#include "te_c_api/src/error.h"
#include "te_c_api/src/handles.h"
#include "te_c_api/src/optimizer_options.h"
#include "te_c_api/src/options.h"
#include "te_kernels/base/step_scalars.h"

namespace te::c_api {
namespace {

constexpr size_t kOptimizerOptionsV1 = offsetof(te_optimizer_options, reserved) + sizeof(int32_t);
constexpr size_t kStepArgsV1 = offsetof(te_optimizer_step_args, gradient_divisor) + sizeof(double);

te_optimizer_step_args DefaultStepArgs() { return {sizeof(te_optimizer_step_args), 0, 0, 1}; }

}  // namespace

te_optimizer_options DefaultOptimizerOptions() {
  te_optimizer_options options{};
  options.struct_size = sizeof(options);
  options.beta1 = 0.9;
  options.beta2 = 0.999;
  options.epsilon = 1e-8;
  options.weight_decay = 0.01;
  options.moments_dtype = TE_DTYPE_FLOAT32;
  options.rounding = TE_ROUNDING_NEAREST;
  return options;
}

Status ReadOptimizerOptions(const te_optimizer_options* options, const char* argument,
                            AdamWOptions* out) {
  if (options == nullptr) return OkStatus();
  te_optimizer_options read = DefaultOptimizerOptions();
  TE_RETURN_IF_ERROR(ReadOptions(options, argument, kOptimizerOptionsV1, &read));
  TE_RETURN_IF_ERROR(CheckReserved(read.reserved, "options->reserved"));
  TE_RETURN_IF_ERROR(CheckBool(read.master_weights, "options->master_weights"));
  if (read.rounding != TE_ROUNDING_NEAREST && read.rounding != TE_ROUNDING_STOCHASTIC) {
    return InvalidArgument(
        "{}->rounding is {}; expected TE_ROUNDING_NEAREST (0) or TE_ROUNDING_STOCHASTIC (1)",
        argument, read.rounding);
  }
  out->beta1 = read.beta1;
  out->beta2 = read.beta2;
  out->epsilon = read.epsilon;
  out->weight_decay = read.weight_decay;
  TE_ASSIGN_OR_RETURN(out->moments, ToDType(read.moments_dtype, "options->moments_dtype"));
  out->master_weights = read.master_weights != 0 ? MasterWeights::kFloat32 : MasterWeights::kNone;
  out->rounding = static_cast<Rounding>(read.rounding);
  return OkStatus();
}

}  // namespace te::c_api

using namespace te;         // NOLINT: the whole file is one thin layer over te
using namespace te::c_api;  // NOLINT

te_status te_optimizer_options_init(te_optimizer_options* options) {
  return Guard([&] { return InitOptions(options, "options", DefaultOptimizerOptions()); });
}

te_status te_optimizer_create(te_layer* layer, const te_optimizer_options* options,
                              te_optimizer** out) {
  return Guard([&]() -> Status {
    TE_RETURN_IF_ERROR(Check(layer, "layer"));
    TE_RETURN_IF_ERROR(CheckNotNull(out, "out"));
    AdamWOptions core_options;
    TE_RETURN_IF_ERROR(ReadOptimizerOptions(options, "options", &core_options));
    TE_ASSIGN_OR_RETURN(
        std::unique_ptr<AdamWOptimizer> core,
        AdamWOptimizer::Create(layer->box->context, layer->box->layer->Parameters(), core_options));
    *out = new te_optimizer(layer->box, std::move(core));
    return OkStatus();
  });
}

void te_optimizer_destroy(te_optimizer* optimizer) {
  if (Check(optimizer, "optimizer").ok()) delete optimizer;
}

te_status te_optimizer_step_args_init(te_optimizer_step_args* args) {
  return Guard([&] { return InitOptions(args, "args", DefaultStepArgs()); });
}

te_status te_optimizer_step(te_optimizer* optimizer, const te_optimizer_step_args* args,
                            double* grad_norm) {
  return Guard([&]() -> Status {
    TE_RETURN_IF_ERROR(Check(optimizer, "optimizer"));
    TE_RETURN_IF_ERROR(CheckNotNull(args, "args"));
    te_optimizer_step_args read = DefaultStepArgs();
    TE_RETURN_IF_ERROR(ReadOptions(args, "args", kStepArgsV1, &read));
    const struct {
      const char* name;
      double value;
      bool fits;
    } numbers[] = {{"learning_rate", read.learning_rate, read.learning_rate >= 0},
                   {"max_grad_norm", read.max_grad_norm, read.max_grad_norm >= 0},
                   {"gradient_divisor", read.gradient_divisor, read.gradient_divisor > 0}};
    for (const auto& [name, value, fits] : numbers) {
      if (!fits || !std::isfinite(value))
        return InvalidArgument(
            "args->{} is {}; expected a finite number, not negative (the divisor: > 0)", name,
            value);
    }
    Context* context = optimizer->box->context;
    TE_RETURN_IF_ERROR(optimizer->core->BeginStep());
    // The divisor takes the loss scale's place: the step divides by token_count * loss_scale.
    TE_ASSIGN_OR_RETURN(StepScalars scalars, context->ReadScalars());
    const float loss_scale = scalars.loss_scale;
    scalars.token_count = 1;
    scalars.loss_scale = static_cast<float>(read.gradient_divisor);
    TE_RETURN_IF_ERROR(context->WriteScalars(scalars));
    TE_RETURN_IF_ERROR(
        optimizer->core->Step({.learning_rate = static_cast<float>(read.learning_rate),
                               .max_grad_norm = static_cast<float>(read.max_grad_norm),
                               .want_grad_norm = grad_norm != nullptr}));
    TE_ASSIGN_OR_RETURN(scalars, context->ReadScalars());
    const double norm = GradNorm(scalars);
    scalars.loss_scale = loss_scale;
    TE_RETURN_IF_ERROR(context->WriteScalars(scalars));
    if (grad_norm != nullptr) *grad_norm = norm;
    return OkStatus();
  });
}
