// A stack of layers, each of which takes what the one before gives (Megatron's TransformerBlock
// without its ends). Everything that a loop over layers has to know is here: where activations
// begin and end, in which memory gradients travel, which layer writes a quantized copy for which.
//
//   TransformerBlock block(context, std::move(layers));
//   block.Forward(args, &saved);                             // saved: what Backward reads
//   const TensorView dx = block.Backward(backward, &saved).value();
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "te_core/layers/layer.h"

namespace te {

// Thread-compatible; the context must outlive it. Input and output [B, S, H] (or [S, B, H]) of one
// dtype and shape; every layer gets the same args.attention, but in inference its own cache.
class TransformerBlock {
 public:
  // At least one layer. Their names are their own.
  TransformerBlock(Context* context, std::vector<std::unique_ptr<Layer>> layers);
  ~TransformerBlock();

  size_t size() const { return layers_.size(); }
  Layer* layer(size_t index) const { return layers_[index].get(); }
  // Whether all layers' work can be recorded.
  bool recordable() const;

  // A forward pass of training. args.input and what lies between the layers stay until Backward:
  // the latter in `saved`'s memory. args.output: undefined, since the last layer's output is there,
  // too (HiddenState).
  Status Forward(const ForwardArgs& args, Saved* saved);
  // Input of layer i, or with i == size() the output, of a pass before its backward pass.
  ConstTensorView HiddenState(Saved* saved, size_t index) const;
  // One of inference: x and y take turns; the result's is returned. `caches`: one a layer, or none.
  StatusOr<TensorView> Infer(TensorView x, TensorView y, const AttentionArgs& attention,
                             std::span<KeyValueCache> caches);

  struct BackwardArgs {
    // Gradient of the output; overwritten, for gradients take turns in it and in `other`, which has
    // its dtype and shape. Its codes, if any, are in the memory of WantedGradOutput.
    TensorView doutput;
    QuantSpec doutput_codes;
    TensorView other;
    bool accumulate_gradients = false;
    const GradientReady* gradient_ready = nullptr;
    // Called before layer i's backward pass, when the activations of all later layers have gone:
    // memory for its gradients may come out of the end of `saved`'s arena. Empty: nothing is done.
    std::function<Status(size_t index)> before_layer;
  };
  // What the last layer wants beside the gradient of its output; kept until Backward has ended.
  StatusOr<QuantSpec> WantedGradOutput(Saved* saved) const;
  // Both halves of the backward pass of each layer, from the last to the first. A layer's
  // activations die (Arena::Rewind) as its gradients are born. Returns the gradient of the input:
  // one of the two buffers.
  StatusOr<TensorView> Backward(BackwardArgs args, Saved* saved);

 private:
  struct State;
  // The same of layer `index`, in memory of its own turn.
  StatusOr<QuantSpec> WantedOf(size_t index, Saved* saved) const;

  Context* context_;
  std::vector<std::unique_ptr<Layer>> layers_;
};

}  // namespace te
