// Token embedding: output[t, :] = weight[ids[t], :].
#pragma once

#include <memory>
#include <string>

#include "te_core/layers/layer.h"

namespace te {

struct EmbeddingOptions {
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  DType params_dtype = DType::kFloat32;
  float init_method_std = 0.023f;
  bool perform_initialization = true;
  // torch.nn.Embedding's: a row that gets no gradient from this layer and is 0 after
  // initialization; -1: none. The optimizer still updates it (weight decay, moments).
  int64_t padding_idx = -1;
};

// input: ids int32 [B, S] or [T], output [..., hidden_size], dense. dinput must be undefined: ids
// have no gradient. The ids are read again in BackwardWeight. Parameter: weight [vocab_size,
// hidden_size].
class Embedding : public Layer {
 public:
  static StatusOr<std::unique_ptr<Embedding>> Create(Context* context,
                                                     const EmbeddingOptions& options,
                                                     std::string name);

  Capabilities capabilities() const override { return {.frees_output = true, .recordable = true}; }
  Status Forward(const ForwardArgs& args, Saved* saved) override;
  Status BackwardInput(const BackwardArgs& args, Saved* saved) override;
  Status BackwardWeight(const BackwardArgs& args, Saved* saved) override;
  std::string Describe(int indent) const override;

  const EmbeddingOptions& options() const { return options_; }
  Parameter& weight() { return weight_; }
  // What initialization leaves in the row padding_idx; nothing without one.
  Status ZeroPaddingRow();

 private:
  struct State;
  using Layer::Layer;
  void VisitOwnParameters(const std::string& prefix, const ParameterVisitor& visit) override;

  EmbeddingOptions options_;
  Parameter weight_;
};

}  // namespace te
