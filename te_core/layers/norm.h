// RMSNorm or LayerNorm as a layer of its own. Equations: te_kernels/rms_norm,
// te_kernels/layer_norm.
#pragma once

#include <memory>
#include <string>

#include "te_core/layers/normalization.h"

namespace te {

struct NormOptions {
  int64_t hidden_size = 0;
  NormalizationKind normalization = NormalizationKind::kRmsNorm;
  float layernorm_epsilon = 1e-5f;
  bool zero_centered_gamma = false;
  DType params_dtype = DType::kFloat32;
};

// input, output [..., hidden_size], dense; takes dresidual. Parameters: weight; bias (LayerNorm).
// BackwardInput writes every gradient.
class Norm : public Layer {
 public:
  static StatusOr<std::unique_ptr<Norm>> Create(Context* context, const NormOptions& options,
                                                std::string name);

  Capabilities capabilities() const override {
    return {.quantizes_dinput = true, .frees_output = true, .recordable = true};
  }
  Status Forward(const ForwardArgs& args, Saved* saved) override;
  Status BackwardInput(const BackwardArgs& args, Saved* saved) override;
  Status BackwardWeight(const BackwardArgs& args, Saved* saved) override;
  std::string Describe(int indent) const override;

  const NormOptions& options() const { return options_; }

 private:
  struct State;
  using Layer::Layer;
  void VisitOwnParameters(const std::string& prefix, const ParameterVisitor& visit) override;

  NormOptions options_;
  Normalization norm_;
};

}  // namespace te
