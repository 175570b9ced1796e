// A recipe says in which precision each tensor of a layer is written. Layers name the tensor's role
// and pass on what they get; no layer ever asks which recipe runs.
#pragma once

#include <string_view>

#include "te_kernels/base/quant_spec.h"

namespace te {

// Transformer Engine's QuantizerRole.
struct QuantizerRole {
  std::string_view module_type;  // "linear", "layernorm_linear", "layernorm_mlp.fc2", ...
  std::string_view tensor_type;  // "input", "weight", "output", "grad_output", "grad_input"
  std::string_view name;         // the layer's full name
};

// Thread-compatible.
class Recipe {
 public:
  virtual ~Recipe() = default;
  virtual const char* name() const = 0;
  // Where the operation that produces this tensor writes it, given the memory of its dense form.
  virtual StatusOr<Sink> SinkFor(const QuantizerRole& role, TensorView dense) = 0;
  // The GEMM operand for the same tensor.
  virtual StatusOr<Operand> OperandFor(const QuantizerRole& role, const Sink& written) = 0;
};

// Every tensor in its own dtype: FP32 and BF16 training.
class PrecisionRecipe : public Recipe {
 public:
  const char* name() const override { return "precision"; }
  StatusOr<Sink> SinkFor(const QuantizerRole&, TensorView dense) override { return Sink(dense); }
  StatusOr<Operand> OperandFor(const QuantizerRole&, const Sink& written) override {
    return Operand(written.dense);
  }
};

}  // namespace te
