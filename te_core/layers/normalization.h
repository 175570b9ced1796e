// The norm inside Norm, LayerNormLinear, LayerNormMLP: its parameters and its two kernels.
#pragma once

#include <string>
#include <string_view>

#include "te_core/layers/layer.h"

namespace te {

enum class NormalizationKind : int32_t { kLayerNorm = 0, kRmsNorm = 1 };

const char* Name(NormalizationKind kind);
// "LayerNorm" or "RMSNorm"; kInvalidArgument lists the names.
StatusOr<NormalizationKind> ParseNormalization(std::string_view name);

struct NormalizationOptions {
  int64_t hidden_size = 0;
  NormalizationKind kind = NormalizationKind::kLayerNorm;
  float epsilon = 1e-5f;
  bool zero_centered_gamma = false;
  DType params_dtype = DType::kFloat32;
  std::string
      parameter_prefix;  // "layer_norm_": the parameters are layer_norm_weight, layer_norm_bias
};

// Thread-compatible; the context must outlive it.
class Normalization {
 public:
  struct Statistics {
    TensorView mean;  // LayerNorm alone
    TensorView rstd;
  };

  Normalization() = default;
  // gamma 1 (0 when zero-centered), beta 0. `layer` names the owner in messages.
  Status Init(Context* context, const NormalizationOptions& options, const std::string& layer);

  // x [T, hidden_size]. Statistics come from `arena` when `statistics` is given (training).
  Status Forward(ConstTensorView x, const Sink& y, Arena* arena, Statistics* statistics) const;
  // dx receives `add`, too, when defined. dx undefined: only the parameters' gradients are wanted.
  // Calls gradient_ready.
  Status Backward(ConstTensorView dy, ConstTensorView x, const Statistics& statistics,
                  ConstTensorView add, TensorView dx, const BackwardArgs& args);
  bool requires_grad() const {
    return weight_.requires_grad || (has_bias() && bias_.requires_grad);
  }

  void VisitParameters(const std::string& prefix, const ParameterVisitor& visit);
  const NormalizationOptions& options() const { return options_; }
  Parameter& weight() { return weight_; }
  // "normalization=RMSNorm, eps=1e-05" and the parameters' shapes.
  std::string Describe() const;
  int64_t parameter_count() const;

 private:
  bool has_bias() const { return options_.kind == NormalizationKind::kLayerNorm; }

  Context* context_ = nullptr;
  NormalizationOptions options_;
  Parameter weight_;
  Parameter bias_;
};

}  // namespace te
