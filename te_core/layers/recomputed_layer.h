// Activation recomputation (Transformer Engine's te.checkpoint, Megatron's recompute_granularity
// "full"): of a forward pass in training only the layer's input is kept; before its backward pass
// the layer runs forward again. Memory for time, and the same numbers bit for bit.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "te_core/layer.h"

namespace te {

// Any layer whose backward pass does not read the output that the caller has given: all but
// DotProductAttention. Arguments, parameters, errors, name and description are the layer's own.
//
// Forward runs the layer in `saved`'s memory and gives that back at the end, but for a copy of the
// scales of delayed scaling. Inputs, masks, positions and rotary tables must stay unchanged until
// BackwardInput, which runs the layer a second time, into `saved`'s memory as it is then: what the
// caller frees after the backward pass (Arena::Rewind) frees it. The second run computes what the
// backward pass reads and not the output: the last product of a TransformerLayer runs once. It goes
// by the scope, the scales, the quantized weights and the random numbers of the first
// (repeated_forward.h), leaves no amax, and moves no scale.
class RecomputedLayer : public Layer {
 public:
  explicit RecomputedLayer(std::unique_ptr<Layer> layer)
      : Layer(layer->context(), layer->name()), layer_(std::move(layer)) {}

  Status Forward(const ForwardArgs& args, Saved* saved) override;
  StatusOr<QuantSpec> GradOutputQuant(Saved* saved, Arena* arena) override;
  Status BackwardInput(const BackwardArgs& args, Saved* saved) override;
  Status BackwardWeight(const BackwardArgs& args, Saved* saved) override;
  void VisitParameters(const std::string& prefix, const ParameterVisitor& visit) override;
  std::string Describe(int indent) const override;

 private:
  struct State;

  Status RunAgain(Saved* saved);

  std::unique_ptr<Layer> layer_;
};

}  // namespace te
