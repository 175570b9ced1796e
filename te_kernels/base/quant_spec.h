// How a tensor is to be written, and what a GEMM eats. Recipes (te_core/recipe) hand out QuantSpecs
// by role; layers pass them on without looking; operations write what they say.
#pragma once

#include "te_kernels/base/status.h"
#include "te_kernels/base/view.h"

namespace te {

enum class QuantFormat : int32_t {
  kNone = 0,  // dense, in the tensor's own dtype
  kFloat8E4M3 = 1,
  kFloat8E5M2 = 2,
};

// Plain data: format, orientations wanted, where scale and amax stand (device memory, float32).
struct QuantSpec {
  QuantFormat format = QuantFormat::kNone;
  bool rowwise = true;
  bool columnwise = false;       // the transposed copy, too
  const float* scale = nullptr;  // known beforehand (delayed scaling)
  float* scale_inv = nullptr;    // written: 1 / scale
  float* amax = nullptr;         // max-accumulated: of the unscaled values
  TensorView rowwise_data;
  TensorView columnwise_data;
};

// Where a producing operation writes: a dense view, or a QuantSpec's buffers.
struct Sink {
  TensorView dense;
  QuantSpec quant;

  Sink() = default;
  Sink(const TensorView& view) : dense(view) {}
};

// What a GEMM reads: a dense view, or quantized data.
struct Operand {
  ConstTensorView dense;
  QuantSpec quant;

  Operand() = default;
  Operand(const ConstTensorView& view) : dense(view) {}
  Operand(const TensorView& view) : dense(view) {}
};

// For backends without a quantizing path: refuses by name.
inline Status RequireDense(const char* operation, const char* argument, QuantFormat format) {
  if (format == QuantFormat::kNone) return OkStatus();
  return Unsupported(
      "{}: {} is a quantized tensor (format {}), which this backend does not take yet", operation,
      argument, static_cast<int>(format));
}

}  // namespace te
