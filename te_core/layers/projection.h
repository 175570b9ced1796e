// One GEMM operand's weight with its bias, and the three products of a linear layer. What Linear,
// LayerNormLinear and LayerNormMLP are made of; the one place where layers meet the recipe.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "te_core/layers/layer.h"
#include "te_core/quantization/gemm_quantizers.h"

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

// A product's input: where its producer writes it, what the GEMMs read of it, and what the scope
// said when the forward pass began. Layers keep it for the backward pass.
struct ProjectionInput {
  GemmPass pass;
  Sink sink;
  int64_t tokens = 0;
};

// Thread-compatible; the context must outlive it. All tensors are rank 2 of params_dtype: x [T,
// in], y and dy [T, out].
class Projection {
 public:
  Projection() = default;
  // Weight normal(0, init_std), bias 0. `layer`: the owner's full name.
  Status Init(Context* context, const ProjectionOptions& options, const std::string& layer);

  // Memory for an input of `tokens` rows that the caller then has written through its sink.
  // `dense`: written densely in any case, into this. `saved`: a backward pass follows, and the
  // arena is that of its saved state.
  StatusOr<ProjectionInput> NewInput(Arena* arena, int64_t tokens, TensorView dense, bool saved);
  // An input that exists densely.
  StatusOr<ProjectionInput> InputOf(Arena* arena, ConstTensorView dense, bool saved);
  // One that exists as codes with one scale [tokens, in]: in one pass into what the product reads.
  StatusOr<ProjectionInput> InputOfCodes(Arena* arena, const QuantSpec& codes, bool saved);

  // The same for the gradient of the output: memory for its producer, ...
  StatusOr<Sink> NewGradOutput(Arena* arena, const ProjectionInput& x);
  // ... what a producer of a dense one can write beside it, ...
  StatusOr<QuantSpec> NewGradOutputQuant(Arena* arena, const ProjectionInput& x);
  // ... one that exists densely, and quantized as NewGradOutputQuant said if `written` has a
  // format.
  StatusOr<Sink> GradOutputOf(Arena* arena, const ProjectionInput& x, ConstTensorView dense,
                              const QuantSpec& written);

  // y = x w^T + bias (+ residual, when defined)
  Status Forward(const ProjectionInput& x, ConstTensorView residual, TensorView y);
  // dx = dy w (+ add, when defined)
  Status BackwardInput(const ProjectionInput& x, const Sink& dy, ConstTensorView add,
                       TensorView dx);
  // Weight's and bias's gradients; calls gradient_ready for each. Ends the product's backward pass.
  Status BackwardWeight(const ProjectionInput& x, const Sink& dy, const BackwardArgs& args);

  void VisitParameters(const std::string& prefix, const ParameterVisitor& visit);
  const ProjectionOptions& options() const { return options_; }
  Parameter& weight() { return weight_; }
  Parameter& bias() { return bias_; }
  // Names and shapes of the parameters, slices one by one.
  std::string DescribeParameters() const;
  int64_t parameter_count() const;

 private:
  bool bias_wanted() const { return options_.bias && bias_.requires_grad; }

  Context* context_ = nullptr;
  ProjectionOptions options_;
  GemmQuantizers quantizers_;
  Parameter weight_;
  Parameter bias_;
};

}  // namespace te
