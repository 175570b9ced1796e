// Rotary position embedding (Su et al. 2021, "RoFormer", equation 34).
//
// Of each head's first 2R elements, R = cos.dim(1), pair r is rotated by the angle whose cosine and
// sine stand in row p of the tables; the other elements are copied:
//   pairs are (r, r + R), or (2r, 2r + 1) when interleaved
//   (u, v) -> (u c - v s, u s + v c);   inverse (the backward pass): (u c + v s, v c - u s)
// p = positions[b, s] when given, else start_position + s. Tables are float32 [P, R]; a scaled
// table (YaRN's attention factor) makes the map scaled, and `inverse` then is its transpose: the
// gradient.
//
// x, y: [B, S, n, d], one dtype of {float32, bfloat16}, inner stride 1, other strides free (a slice
// of a packed QKV buffer is fine); y may be x itself. Arithmetic in float32. positions: int32 [B,
// S].
//
// Heads from num_rotated_heads on are copied: the values of a packed QKV product or its gradient,
// whose quantized copies this call can write. y quantized: as the matrix [B S, n d].
//
// sequence_first: x and y are [S, B, n, d] (positions stay [B, S]), and the matrix is [S B, n d].
//
// x may be FP8 codes with one scale (what FP8 attention leaves of a gradient): uint8, dense, of
// x_format E4M3 or E5M2. It then stands for code * x_scale_inv, rounded to x_dtype, which is y's
// dtype: the bits are those of te_kernels/dequantize, then this.
#pragma once

#include "te_kernels/base/exec.h"
#include "te_kernels/base/quant_spec.h"

namespace te {

struct RopeArgs {
  ConstTensorView x;
  ConstTensorView cos;
  ConstTensorView sin;
  ConstTensorView positions;  // optional
  int64_t start_position = 0;
  bool interleaved = false;
  bool inverse = false;
  int64_t num_rotated_heads = -1;  // -1: all
  bool sequence_first = false;
  QuantFormat x_format = QuantFormat::kNone;  // kNone: x holds numbers, not codes
  const float* x_scale_inv = nullptr;         // of codes: one float32, device memory
  DType x_dtype = DType::kBFloat16;           // of codes: what they stand for
  Sink y;

  bool codes() const { return x_format != QuantFormat::kNone; }
  DType dtype() const { return codes() ? x_dtype : x.dtype(); }  // of what is rotated, and of y
};

// A position outside the table is kInvalidArgument on the CPU; on CUDA, where callers check before,
// its heads' rotated elements become NaN.
Status ValidateRope(const RopeArgs& args);
Status RopeCpu(const Exec& exec, const RopeArgs& args);
Status RopeCuda(const Exec& exec, const RopeArgs& args);

}  // namespace te
