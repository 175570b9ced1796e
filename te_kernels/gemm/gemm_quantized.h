// What both backends know of a product of quantized operands: each is read in the orientation whose
// rows run along the sum, so that d = a b^T whatever the kind.
#pragma once

#include "te_kernels/dequantize/dequantize.h"
#include "te_kernels/gemm/gemm.h"

namespace te {

struct QuantizedOperand {
  const QuantSpec* quant;
  Orientation orientation;
  TensorView data;             // of this orientation
  TensorView block_scale_inv;  // likewise

  // Whether its rows went through the random Hadamard transform.
  bool transformed() const {
    return orientation == Orientation::kColumnwise && quant->format == QuantFormat::kFloat4E2M1 &&
           quant->random_hadamard;
  }
  // The factor of the whole tensor (row_scaled: of each row); null where blocks hold all.
  const float* tensor_scale_inv() const {
    const bool own = orientation == Orientation::kColumnwise &&
                     quant->format == QuantFormat::kFloat4E2M1 && quant->columnwise_has_own_scale();
    return own ? quant->columnwise_tensor_scale_inv : quant->scale_inv;
  }
};

inline const char* Name(Orientation orientation) {
  return orientation == Orientation::kColumnwise ? "columnwise" : "rowwise";
}

// What messages call the parts of a product.
struct GemmNames {
  const char* operation;
  const char* a;
  const char* b;
  const char* d;
};
GemmNames NamesOf(GemmKind kind);

// The pointers lead into args.
QuantizedOperand QuantizedA(const GemmArgs& args);
QuantizedOperand QuantizedB(const GemmArgs& args);

// Of valid arguments with quantized operands.
Status GemmQuantizedCpu(const Exec& exec, const GemmArgs& args);
Status GemmQuantizedCuda(const Exec& exec, const GemmArgs& args);

}  // namespace te
