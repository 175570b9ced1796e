#include "te_core/layers/recomputed_layer.h"

#include "te_core/layers/layer_support.h"
#include "te_core/repeated_forward.h"

namespace te {

struct RecomputedLayer::State : SavedState {
  ForwardArgs args;
  ForwardConditions conditions;
  bool complete = false;  // the layer's own state is there: it has run again
};

Capabilities RecomputedLayer::capabilities() const {
  Capabilities out = child(0)->capabilities();
  out.wants_codes = out.leaves_codes = out.takes_codes = false;
  out.frees_input = false;
  out.frees_output = true;  // the second run has an output of its own
  return out;
}

Status RecomputedLayer::Forward(const ForwardArgs& args, Saved* saved) {
  if (saved == nullptr) return child(0)->Forward(args, nullptr);
  State& state = saved->state<State>();
  state.args = args;
  state.complete = false;
  state.conditions.Begin(context_);
  const Arena::Mark mark = saved->arena()->Here();
  const Status status = child(0)->Forward(args, saved->child(0));
  saved->arena()->Rewind(mark);
  TE_RETURN_IF_ERROR(status);
  return state.conditions.KeepScales(context_, saved->arena());
}

// What a layer says of a gradient's copy follows from small values, which outlive the memory.
StatusOr<QuantSpec> RecomputedLayer::WantedGradOutput(Saved* saved, Arena* arena) {
  TE_RETURN_IF_ERROR(CheckSaved(name_, saved));
  return child(0)->WantedGradOutput(saved->child(0), arena);
}

Status RecomputedLayer::RunAgain(Saved* saved) {
  State& state = saved->state<State>();
  ArenaScope scope(context_->scratch());
  ForwardArgs args = state.args;
  // The caller's output holds what the first run has written, and may be somebody else's by now.
  const bool reads_output = !child(0)->capabilities().frees_output;
  Arena* const arena = reads_output ? saved->arena() : context_->scratch();
  TE_ASSIGN_OR_RETURN(args.output,
                      arena->Allocate(state.args.output.dtype(), state.args.output.shape()));
  args.output_wanted = reads_output;
  const RepeatedForward repeated(context_, &state.conditions);
  TE_RETURN_IF_ERROR(child(0)->Forward(args, saved->child(0)));
  state.complete = true;
  return OkStatus();
}

Status RecomputedLayer::BackwardInput(const BackwardArgs& args, Saved* saved) {
  TE_RETURN_IF_ERROR(CheckSaved(name_, saved));
  if (!saved->state<State>().complete) TE_RETURN_IF_ERROR(RunAgain(saved));
  return child(0)->BackwardInput(args, saved->child(0));
}

Status RecomputedLayer::BackwardWeight(const BackwardArgs& args, Saved* saved) {
  TE_RETURN_IF_ERROR(CheckSaved(name_, saved));
  return child(0)->BackwardWeight(args, saved->child(0));
}

std::string RecomputedLayer::Describe(int indent) const { return child(0)->Describe(indent); }

}  // namespace te
