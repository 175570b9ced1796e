// Norm and feed-forward network as one (Transformer Engine's LayerNormMLP):
//   y = act(norm(x) fc1_weight^T + fc1_bias) fc2_weight^T + fc2_bias
// Gated activations have fc1_weight [2 ffn_hidden_size, hidden_size]: the gate's rows first, then
// the linear half's.
#pragma once

#include <memory>
#include <string>

#include "te_core/layers/normalization.h"
#include "te_core/layers/projection.h"
#include "te_kernels/activation/activation.h"

namespace te {

struct LayerNormMLPOptions {
  int64_t hidden_size = 0;
  int64_t ffn_hidden_size = 0;
  float layernorm_epsilon = 1e-5f;
  bool bias = true;
  NormalizationKind normalization = NormalizationKind::kLayerNorm;
  ActivationKind activation = ActivationKind::kGelu;
  ActivationParams activation_params;  // clamped_swiglu
  bool zero_centered_gamma = false;
  DType params_dtype = DType::kFloat32;
  float init_method_std = 0.023f;               // fc1
  float output_layer_init_method_std = 0.023f;  // fc2
  bool perform_initialization = true;
};

// input, output [..., hidden_size], dense; takes residual, dresidual, norm_output and dnorm_output.
// Parameters: layer_norm_weight, layer_norm_bias (LayerNorm), fc1_weight, fc1_bias, fc2_weight,
// fc2_bias.
class LayerNormMLP : public Layer {
 public:
  static StatusOr<std::unique_ptr<LayerNormMLP>> Create(Context* context,
                                                        const LayerNormMLPOptions& options,
                                                        std::string name);

  Capabilities capabilities() const override {
    return {.takes_residual = true,
            .gives_norm_output = true,
            .quantizes_dinput = true,
            .frees_output = true,
            .recordable = true};
  }
  Status Forward(const ForwardArgs& args, Saved* saved) override;
  StatusOr<QuantSpec> WantedGradOutput(Saved* saved, Arena* arena) override;
  Status BackwardInput(const BackwardArgs& args, Saved* saved) override;
  Status BackwardWeight(const BackwardArgs& args, Saved* saved) override;
  std::string Describe(int indent) const override;

  const LayerNormMLPOptions& options() const { return options_; }

 private:
  struct State;
  using Layer::Layer;
  void VisitOwnParameters(const std::string& prefix, const ParameterVisitor& visit) override;

  LayerNormMLPOptions options_;
  Normalization norm_;
  Projection fc1_;
  Projection fc2_;
};

}  // namespace te
