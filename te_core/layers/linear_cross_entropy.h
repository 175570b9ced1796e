// lm_head and loss as one: logits = x weight^T exist a few tokens at a time, and their gradient
// replaces them in place.
#pragma once

#include <memory>
#include <string>

#include "te_core/layers/layer.h"
#include "te_core/quantization/gemm_quantizers.h"
#include "te_kernels/cross_entropy/cross_entropy.h"

namespace te {

struct LinearCrossEntropyOptions {
  int64_t hidden_size = 0;
  int64_t vocab_size = 0;
  float label_smoothing = 0;
  int32_t ignore_index = kIgnoreIndex;
  // Tokens at a time = this / the bytes of one token's logits, at least 1. A larger chunk makes the
  // GEMMs better, a smaller one saves memory. Each chunk reads the weight twice and, but for the
  // first, reads its gradient: 4 x 1.05 GB of Llama 3 8B, whose 4096 tokens fit here. The logits
  // lie in scratch memory, beside nothing else; attention's backward takes as much there.
  size_t max_logits_bytes = size_t{1} << 30;
  DType params_dtype = DType::kFloat32;
  float init_method_std = 0.023f;
  bool perform_initialization = true;
};

// One pass over the chunks.
struct LinearCrossEntropyArgs {
  ConstTensorView input;   // [..., hidden_size], dense
  ConstTensorView labels;  // int32 [...], dense: as many as tokens
  TensorView loss;         // float32 [...], dense; optional
  // Device memory; when given, loss_sum and token_count are added to (the caller zeroes them when a
  // step begins).
  StepScalars* scalars = nullptr;
  TensorView dinput;  // optional: gradient of the SUM of the losses; may be the input's own memory
  // Of NewPass, when the forward pass began; null: of the running scope.
  const GemmPass* pass = nullptr;
  bool weight_gradient = false;  // the weight's too, if it requires one
  bool accumulate_gradients = false;
  const GradientReady* gradient_ready =
      nullptr;  // not called for a shared weight: its owner's layer adds to it later
};

// Parameter: weight [vocab_size, hidden_size], unless it belongs to another layer (tied
// embeddings).
class LinearCrossEntropy : public Layer {
 public:
  // `shared_weight`: another layer's, which must outlive this; null: an own one.
  static StatusOr<std::unique_ptr<LinearCrossEntropy>> Create(
      Context* context, const LinearCrossEntropyOptions& options, std::string name,
      Parameter* shared_weight = nullptr);

  // What the running scope says of this layer's GEMMs, for a Run that comes when it has ended.
  GemmPass NewPass() const { return quantizers_.NewPass(true); }
  // Loss and gradients in one pass: each chunk's logits are computed once. Without gradients: the
  // forward-only variant.
  Status Run(const LinearCrossEntropyArgs& args);
  // logits [..., vocab_size] = input weight^T, whole: generation, and those who want to see them.
  Status Logits(ConstTensorView input, TensorView logits);

  // The Layer interface computes each chunk's logits twice: Forward writes the loss (args.output)
  // from args.input and args.labels, BackwardInput the gradients of input and weight (doutput must
  // be undefined). Neither touches the step's scalars.
  Capabilities capabilities() const override { return {.recordable = true}; }
  Status Forward(const ForwardArgs& args, Saved* saved) override;
  Status BackwardInput(const BackwardArgs& args, Saved* saved) override;
  Status BackwardWeight(const BackwardArgs& args, Saved* saved) override;
  std::string Describe(int indent) const override;

  const LinearCrossEntropyOptions& options() const { return options_; }
  Parameter& weight() { return *weight_; }

 private:
  struct State;
  using Layer::Layer;
  void VisitOwnParameters(const std::string& prefix, const ParameterVisitor& visit) override;

  LinearCrossEntropyOptions options_;
  GemmQuantizers quantizers_;
  Parameter own_weight_;
  Parameter* weight_ = nullptr;
};

}  // namespace te
