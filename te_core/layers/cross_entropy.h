// Cross entropy of logits that exist whole. Equations: te_kernels/cross_entropy.
#pragma once

#include <memory>
#include <string>

#include "te_core/layers/layer.h"
#include "te_kernels/cross_entropy/cross_entropy.h"

namespace te {

struct CrossEntropyOptions {
  float label_smoothing = 0;
  int32_t ignore_index = kIgnoreIndex;
};

// input: logits [..., V], float32 or bfloat16; labels: int32 [...]; output: loss, float32 [...], 0
// where not counted. Backward: doutput must be undefined; dinput is the gradient of the SUM of the
// losses and may be the logits' own memory. Logits and labels are read again in BackwardInput.
class CrossEntropy : public Layer {
 public:
  static StatusOr<std::unique_ptr<CrossEntropy>> Create(Context* context,
                                                        const CrossEntropyOptions& options,
                                                        std::string name);

  Capabilities capabilities() const override { return {.recordable = true}; }
  Status Forward(const ForwardArgs& args, Saved* saved) override;
  Status BackwardInput(const BackwardArgs& args, Saved* saved) override;
  Status BackwardWeight(const BackwardArgs& args, Saved* saved) override;
  std::string Describe(int indent) const override;

 private:
  struct State;
  using Layer::Layer;

  CrossEntropyOptions options_;
};

}  // namespace te
