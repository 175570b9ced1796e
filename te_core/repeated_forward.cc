#include "te_core/repeated_forward.h"

#include <utility>

namespace te {

void ForwardConditions::Begin(Context* context) {
  in_scope_ = !context->quantization_scopes_.empty();
  recipe_ = in_scope_ ? context->quantization_scopes_.back().recipe : nullptr;
  options_ = in_scope_ ? context->quantization_scopes_.back().options : QuantizationOptions();
  first_module_ran_ = context->first_module_ran_;
  micro_batch_ = context->micro_batch_;
}

Status ForwardConditions::KeepScales(Context* context, Arena* arena) {
  scales_ = {};
  if (recipe_ == nullptr) return OkStatus();
  // Within the second run of a layer around this one the context's scales may have moved; the first
  // run's are that layer's, which keeps them until its backward pass has ended.
  if (context->repeated() != nullptr) {
    scales_ = context->repeated()->scales();
    return OkStatus();
  }
  TE_ASSIGN_OR_RETURN(scales_, context->delayed_scaling().TakeSnapshot(
                                   context->exec(), ScalingDirection::kForward, arena));
  return OkStatus();
}

RepeatedForward::RepeatedForward(Context* context, const ForwardConditions* conditions)
    : context_(context),
      outer_(context->repeated_),
      first_module_ran_(conditions->first_module_ran_),
      micro_batch_(conditions->micro_batch_) {
  if (conditions->in_scope_) {
    QuantizationOptions options = conditions->options_;
    options.is_first_microbatch = false;  // the first run has cast the weights
    scopes_.push_back({conditions->recipe_, options});
  }
  Exchange();
  context_->repeated_ = conditions;
}

RepeatedForward::~RepeatedForward() {
  Exchange();
  context_->repeated_ = outer_;
}

void RepeatedForward::Exchange() {
  std::swap(context_->quantization_scopes_, scopes_);
  std::swap(context_->first_module_ran_, first_module_ran_);
  std::swap(context_->micro_batch_, micro_batch_);
}

StatusOr<CastScaling> CastScalingOf(const Context& context, const DelayedScalingState::Slot& slot,
                                    bool leaves_amax) {
  if (context.repeated() == nullptr)
    return CastScaling{.scale = slot.scale(), .amax = leaves_amax ? slot.amax() : nullptr};
  const float* const scale = context.repeated()->scales().scale(slot);
  if (scale == nullptr) {
    return FailedPrecondition(
        "{}: the second run of a forward pass needs a scale that the first has not left",
        slot.name);
  }
  return CastScaling{.scale = scale};
}

}  // namespace te
