// y = x w^T + b (Transformer Engine's Linear).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "te_core/layers/projection.h"

namespace te {

struct LinearOptions {
  int64_t in_features = 0;
  int64_t out_features = 0;
  bool bias = true;
  // Named ranges of the output features, in row order, covering all: {"query_", n d} gives
  // query_weight and query_bias.
  std::vector<ParameterSplit> parameters_split = {};
  DType params_dtype = DType::kFloat32;
  float init_method_std = 0.023f;
  bool perform_initialization =
      true;  // false: the weights' contents are undefined until they are set
};

// input [..., in_features], output [..., out_features], dense; takes residual and dresidual.
// Or an input of FP8 codes alone [T, in_features] with one scale (what FP8 attention leaves): their
// values, rounded to the layer's dtype. One pass over them makes what the products read; the codes
// need not outlive the call.
// Parameters: weight, bias.
class Linear : public Layer {
 public:
  static StatusOr<std::unique_ptr<Linear>> Create(Context* context, const LinearOptions& options,
                                                  std::string name);

  Capabilities capabilities() const override {
    return {.takes_residual = true,
            .quantizes_dinput = true,
            .takes_codes = true,
            .frees_output = true,
            .recordable = true};
  }
  Status Forward(const ForwardArgs& args, Saved* saved) override;
  StatusOr<QuantSpec> WantedGradOutput(Saved* saved, Arena* arena) override;
  Status BackwardInput(const BackwardArgs& args, Saved* saved) override;
  Status BackwardWeight(const BackwardArgs& args, Saved* saved) override;
  std::string Describe(int indent) const override;

  const LinearOptions& options() const { return options_; }
  Parameter& weight() { return projection_.weight(); }

 private:
  struct State;
  using Layer::Layer;
  void VisitOwnParameters(const std::string& prefix, const ParameterVisitor& visit) override;

  Status ForwardOfCodes(const ForwardArgs& args, Saved* saved);
  // `shape`: of the input.
  Status Multiply(const ProjectionInput& x, const Shape& shape, const ForwardArgs& args,
                  Saved* saved);

  LinearOptions options_;
  Projection projection_;
};

}  // namespace te
