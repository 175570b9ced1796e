#include "te_core/layers/recomputed_layer.h"

#include "te_core/layers/layer_support.h"
#include "te_core/repeated_forward.h"

namespace te {

struct RecomputedLayer::State : SavedState {
  ForwardArgs args;
  ForwardConditions conditions;
  bool complete = false;  // the layer's own state is there: it has run again
};

Status RecomputedLayer::Forward(const ForwardArgs& args, Saved* saved) {
  if (saved == nullptr) return layer_->Forward(args, nullptr);
  State& state = saved->state<State>();
  state.args = args;
  state.complete = false;
  TE_RETURN_IF_ERROR(state.conditions.Begin(context_));
  const Arena::Mark mark = saved->arena()->Here();
  const Status status = layer_->Forward(args, saved->child(0));
  saved->arena()->Rewind(mark);
  TE_RETURN_IF_ERROR(status);
  return state.conditions.KeepScales(context_, saved->arena());
}

// What a layer says of a gradient's copy follows from small values, which outlive the memory.
StatusOr<QuantSpec> RecomputedLayer::GradOutputQuant(Saved* saved, Arena* arena) {
  TE_RETURN_IF_ERROR(CheckSaved(name_, saved));
  return layer_->GradOutputQuant(saved->child(0), arena);
}

Status RecomputedLayer::RunAgain(Saved* saved) {
  State& state = saved->state<State>();
  ArenaScope scope(context_->scratch());
  ForwardArgs args = state.args;
  args.output_wanted = false;
  TE_ASSIGN_OR_RETURN(args.output, context_->scratch()->Allocate(state.args.output.dtype(),
                                                                 state.args.output.shape()));
  const RepeatedForward repeated(context_, &state.conditions);
  TE_RETURN_IF_ERROR(layer_->Forward(args, saved->child(0)));
  state.complete = true;
  return OkStatus();
}

Status RecomputedLayer::BackwardInput(const BackwardArgs& args, Saved* saved) {
  TE_RETURN_IF_ERROR(CheckSaved(name_, saved));
  if (!saved->state<State>().complete) TE_RETURN_IF_ERROR(RunAgain(saved));
  return layer_->BackwardInput(args, saved->child(0));
}

Status RecomputedLayer::BackwardWeight(const BackwardArgs& args, Saved* saved) {
  TE_RETURN_IF_ERROR(CheckSaved(name_, saved));
  return layer_->BackwardWeight(args, saved->child(0));
}

void RecomputedLayer::VisitParameters(const std::string& prefix, const ParameterVisitor& visit) {
  layer_->VisitParameters(prefix, visit);
}

std::string RecomputedLayer::Describe(int indent) const { return layer_->Describe(indent); }

}  // namespace te
