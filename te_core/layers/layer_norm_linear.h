// A norm and the linear layer that reads it, as one (Transformer Engine's LayerNormLinear): y =
// norm(x) w^T + b.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "te_core/layers/normalization.h"
#include "te_core/layers/projection.h"

namespace te {

struct LayerNormLinearOptions {
  int64_t in_features = 0;
  int64_t out_features = 0;
  float layernorm_epsilon = 1e-5f;
  bool bias = true;
  NormalizationKind normalization = NormalizationKind::kLayerNorm;
  bool zero_centered_gamma = false;
  // Named ranges of the output features, in row order, covering all: {"query_", n d} gives
  // query_weight and query_bias.
  std::vector<ParameterSplit> parameters_split = {};
  DType params_dtype = DType::kFloat32;
  float init_method_std = 0.023f;
  bool perform_initialization = true;
};

// input [..., in_features], output [..., out_features], dense; takes residual (added to the
// output), dresidual (added to dinput in the norm's backward), norm_output and dnorm_output.
// Parameters: layer_norm_weight, layer_norm_bias (LayerNorm), weight, bias.
class LayerNormLinear : public Layer {
 public:
  static StatusOr<std::unique_ptr<LayerNormLinear>> Create(Context* context,
                                                           const LayerNormLinearOptions& options,
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

  const LayerNormLinearOptions& options() const { return options_; }

 private:
  struct State;
  using Layer::Layer;
  void VisitOwnParameters(const std::string& prefix, const ParameterVisitor& visit) override;

  LayerNormLinearOptions options_;
  Normalization norm_;
  Projection projection_;
};

}  // namespace te
