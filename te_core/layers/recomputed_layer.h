// Activation recomputation (Transformer Engine's te.checkpoint, Megatron's recompute_granularity
// "full"; around core attention alone, its "selective"): of a forward pass in training only the
// layer's input is kept; before its backward pass the layer runs forward again. Memory for time,
// and the same numbers bit for bit.
//
//   MustOk(transformer_layer->WrapChild("self_attention", [](std::unique_ptr<Layer> layer) {
//     return std::make_unique<RecomputedLayer>(std::move(layer));
//   }));
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "te_core/layers/layer.h"

namespace te {

// Around any layer, also around one within a recomputed one. Arguments, parameters, errors, name
// and description are the layer's own; so are its capabilities, but that it takes and leaves dense
// tensors alone, and that it reads its input again.
//
// Forward runs the layer in `saved`'s memory and gives that back at the end, but for a copy of the
// scales of delayed scaling. Inputs, masks, positions and rotary tables must stay unchanged until
// BackwardInput, which runs the layer a second time, into `saved`'s memory as it is then: what the
// caller frees after the backward pass (Arena::Rewind) frees it. The second run computes what the
// backward pass reads: the last product of a TransformerLayer runs once. It goes by the scope, the
// scales, the quantized weights and the random numbers of the first (repeated_forward.h), leaves no
// amax, and moves no scale.
class RecomputedLayer : public Layer {
 public:
  explicit RecomputedLayer(std::unique_ptr<Layer> layer) : Layer(layer->context(), layer->name()) {
    AddChild("", std::move(layer));
  }

  Capabilities capabilities() const override;
  Status Forward(const ForwardArgs& args, Saved* saved) override;
  StatusOr<QuantSpec> WantedGradOutput(Saved* saved, Arena* arena) override;
  Status BackwardInput(const BackwardArgs& args, Saved* saved) override;
  Status BackwardWeight(const BackwardArgs& args, Saved* saved) override;
  std::string Describe(int indent) const override;

 private:
  struct State;

  Status RunAgain(Saved* saved);
};

}  // namespace te
