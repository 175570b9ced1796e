// What one shape's attention works on, in BF16 and in FP8, for bench/fp8_attention.cc.
#pragma once

#include <string>
#include <vector>

#include "bench/fp8_sdpa.h"
#include "bench/operation_timer.h"
#include "bench/quantized_tensor.h"

namespace te::bench {

struct AttentionShape {
  static constexpr int64_t kHeadDim = 128;

  int64_t batch, sequence, heads, groups;
  int64_t tokens() const { return batch * sequence; }
  int64_t q_width() const { return heads * kHeadDim; }
  int64_t kv_width() const { return groups * kHeadDim; }
  std::string ToString() const;  // "1x4096 32/8"
};

// q, k and v of one buffer: [tokens, heads * d] or [B, S, heads, d].
struct AttentionParts {
  TensorView q, k, v;
};

// Forward and backward of some inputs, all [B, S, heads, d] in BF16.
struct AttentionResults {
  Tensor out, lse, dq, dk, dv;
};

class AttentionOperands {
 public:
  static constexpr QuantFormat kForwardFormat = QuantFormat::kFloat8E4M3;
  static constexpr QuantFormat kGradientFormat = QuantFormat::kFloat8E5M2;

  // One rotation.
  struct Buffers {
    Tensor qkv, dqkv, out, dout;  // BF16, [tokens, columns]; q, k and v packed
    Tensor lse, statistics;       // float32, of the BF16 and the FP8 forward pass
    QuantizedTensor q8, k8, v8, dout8;
    Tensor out8, dq8, dk8, dv8;  // codes
  };

  // Normal random inputs; enough rotations that the L2 cache keeps nothing.
  static StatusOr<AttentionOperands> Make(OperationTimer* timer, const AttentionShape& shape);

  int rotations() const { return static_cast<int>(sets_.size()); }
  const Buffers& at(int i) const { return sets_[static_cast<size_t>(i)]; }
  AttentionParts Rows(const Tensor& packed) const;
  AttentionParts Heads(const Tensor& packed) const;
  TensorView OfHeads(const Tensor& rows, int64_t heads) const;

  // What an FP8 graph, and one of BF16, reads and writes in rotation i.
  SdpaPointers Fp8Pointers(int i, bool backward) const;
  SdpaPointers Bf16BackwardPointers(int i) const;
  Status Bf16Forward(int i) const;
  Status Bf16Backward(int i) const;

  // The graphs' scalars: a copy on the host, and the device's.
  float& Value(int64_t scalar) { return scalar_values_[IndexOf(scalar)]; }
  float* At(int64_t scalar) const { return scalars_.view().as<float>() + IndexOf(scalar); }
  Status Upload() const;
  Status Download();
  // Scales of one pass from its own amaxes, as delayed scaling has them with margin 0, by running
  // `plan` on rotation 0. Says whether the graph adds to what stands in an amax or overwrites it.
  StatusOr<bool> Calibrate(Fp8Sdpa* graph, size_t plan, bool backward);

  // BF16 attention of the inputs as they were (`quantized` false) or as their codes have them.
  StatusOr<AttentionResults> Reference(bool quantized) const;

  StatusOr<std::vector<float>> HostValues(const Tensor& tensor) const;  // BF16 or float32
  // Of codes that were made with `scale`.
  StatusOr<std::vector<float>> HostValues(const Tensor& codes, float scale,
                                          QuantFormat format) const;
  // A quarter too much: what a check must see.
  StatusOr<Tensor> DisturbedScaleInv(const QuantizedTensor& x) const;

 private:
  AttentionOperands(Context* context, const AttentionShape& shape);

  // Each at a 16-byte boundary, as quantize and dequantize want a scale_inv.
  static size_t IndexOf(int64_t scalar) { return 4 * static_cast<size_t>(scalar - kDescaleQ); }
  Status SetScale(int64_t scale, int64_t descale, int64_t amax, const char* name,
                  QuantFormat format);
  Shape HeadsShape(int64_t heads) const {
    return {shape_.batch, shape_.sequence, heads, AttentionShape::kHeadDim};
  }
  float softmax_scale() const;
  StatusOr<AttentionResults> Attend(const AttentionParts& in, const TensorView& dout) const;

  Context* context_;
  AttentionShape shape_;
  std::vector<Buffers> sets_;
  std::vector<float> scalar_values_;
  Tensor scalars_;
};

}  // namespace te::bench
