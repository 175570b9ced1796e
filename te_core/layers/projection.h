// One GEMM operand's weight with its bias, and the three products of a linear layer. What Linear,
// LayerNormLinear and LayerNormMLP are made of; the one place where layers meet the recipe.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "te_core/layer.h"

namespace te {

// A named range of the output features: "query_" of 64 rows becomes query_weight and query_bias.
struct ParameterSplit {
  std::string prefix;
  int64_t rows = 0;
};

struct ProjectionOptions {
  const char* module_type = "linear";  // of the recipe's roles
  std::string parameter_prefix = {};   // "fc1_": fc1_weight, fc1_bias
  int64_t in_features = 0;
  int64_t out_features = 0;
  bool bias = true;
  std::vector<ParameterSplit> parameters_split = {};  // empty: one weight
  float init_std = 0.023f;
  bool perform_initialization =
      true;  // false: the weight's contents are undefined until they are set
  DType params_dtype = DType::kFloat32;
};

// Thread-compatible; the context must outlive it. All tensors are rank 2 of params_dtype: x [T,
// in], y and dy [T, out].
class Projection {
 public:
  Projection() = default;
  // Weight normal(0, init_std), bias 0. `layer`: the owner's full name.
  Status Init(Context* context, const ProjectionOptions& options, const std::string& layer);

  // Where the producer of this product's input writes it, and what the GEMM then reads.
  StatusOr<Sink> InputSink(TensorView dense) const;
  StatusOr<Operand> InputOperand(const Sink& written) const;
  StatusOr<Operand> InputOperand(ConstTensorView dense) const;
  // The same for the gradient of its output.
  StatusOr<Sink> GradOutputSink(TensorView dense) const;
  StatusOr<Operand> GradOutputOperand(const Sink& written) const;
  StatusOr<Operand> GradOutputOperand(ConstTensorView dense) const;

  // y = x w^T + bias (+ residual, when defined)
  Status Forward(const Operand& x, ConstTensorView residual, TensorView y) const;
  // dx = dy w (+ add, when defined)
  Status BackwardInput(const Operand& dy, ConstTensorView add, TensorView dx) const;
  // Weight's and bias's gradients; calls gradient_ready for each.
  Status BackwardWeight(const Operand& dy, ConstTensorView dense_dy, const Operand& x,
                        const BackwardArgs& args);

  void VisitParameters(const std::string& prefix, const ParameterVisitor& visit);
  const ProjectionOptions& options() const { return options_; }
  Parameter& weight() { return weight_; }
  Parameter& bias() { return bias_; }
  // Names and shapes of the parameters, slices one by one.
  std::string DescribeParameters() const;
  int64_t parameter_count() const;

 private:
  StatusOr<Operand> WeightOperand() const;
  QuantizerRole Role(const char* tensor_type) const {
    return {options_.module_type, tensor_type, layer_};
  }

  Context* context_ = nullptr;
  ProjectionOptions options_;
  std::string layer_;
  Parameter weight_;
  Parameter bias_;
};

}  // namespace te
