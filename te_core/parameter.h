// A trainable tensor: one buffer per GEMM operand, with named row ranges (query, key and value of
// one QKV weight; gate and up).
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "te_core/quantization/delayed_scaling_state.h"
#include "te_core/quantization/recipe.h"
#include "te_core/tensor.h"

namespace te {

// A weight as quantized GEMMs read it, in both orientations. The layer makes and renews it; the
// optimizer writes it together with the value. Or the weight itself (fp8_only_weight.h).
struct QuantizedCopy {
  TensorQuantization quantization;            // as which it was made
  QuantSpec spec;                             // format kNone: there is none
  std::vector<Tensor> memory;                 // behind spec
  DelayedScalingState::Slot* slot = nullptr;  // of delayed scaling; the layer's
  // What it holds: the value of this version, by the scale of this version.
  bool valid = false;
  uint64_t value_version = 0;
  uint64_t scale_version = 0;
  // There is no other: codes rowwise, E4M3 with one scale. A product that reads columns transposes
  // them into scratch.
  bool only = false;
  DType dense_dtype = DType::kFloat32;  // of gradients, and of the value while it is written
  float* previous_scale_inv = nullptr;  // device memory for AdamWArgs::previous_scale_inv

  void MarkWritten(uint64_t version) {
    valid = true;
    value_version = version;
    if (slot != nullptr) scale_version = slot->version();
  }
};

// Rows [row_begin, row_begin + rows) of a parameter under a name of their own (Transformer Engine's
// state-dict key).
struct ParameterSlice {
  std::string name;
  int64_t row_begin = 0;
  int64_t rows = 0;
};

struct Parameter {
  std::string name;  // within its layer: "weight", "layer_norm_weight", "fc1_weight"
  Tensor value;      // undefined where the weight exists in FP8 alone
  Tensor grad;       // a sum over tokens and micro-batches; undefined until EnsureGrad
  std::vector<ParameterSlice> slices;  // in row order, without gaps; empty: the whole is one
  Shape global_shape;                  // over all ranks of the tensor-parallel group
  int partition_dim = -1;              // -1: replicated
  int64_t partition_offset = 0;
  int replica_id = 0;
  bool requires_grad = true;
  bool is_expert = false;
  uint64_t version = 0;  // bumped by every write: the key of the quantized copy
  QuantizedCopy quantized;

  bool fp8_only() const { return quantized.only; }
  // Of the value, whatever holds it.
  const Shape& shape() const {
    return fp8_only() ? quantized.spec.rowwise_data.shape() : value.shape();
  }
  DType dtype() const { return fp8_only() ? quantized.dense_dtype : value.dtype(); }

  // For writers. Every write of the value goes through here; of one that may exist in FP8 alone,
  // between BeginWrite and EndWrite (fp8_only_weight.h).
  TensorView MutableValue() {
    ++version;
    return value.view();
  }
  Status EnsureGrad(MemoryResource* resource);
};

// A parameter, or one of its slices, under its full name.
struct NamedParameter {
  std::string name;
  Parameter* parameter = nullptr;
  int64_t row_begin = 0;
  int64_t rows = 0;  // of the first dimension

  // Undefined where the parameter exists in FP8 alone.
  TensorView value() const {
    return parameter->value.defined()
               ? parameter->value.view().Slice(0, row_begin, row_begin + rows)
               : TensorView();
  }
  Shape shape() const {
    Shape out = parameter->shape();
    out[0] = rows;
    return out;
  }
  // Undefined while the parameter has no gradient.
  TensorView grad() const {
    return parameter->grad.defined() ? parameter->grad.view().Slice(0, row_begin, row_begin + rows)
                                     : TensorView();
  }
};

}  // namespace te
