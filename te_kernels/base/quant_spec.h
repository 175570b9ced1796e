// How a tensor is to be written, and what a GEMM eats. Recipes (te_core/recipe) hand out QuantSpecs
// by role; layers pass them on without looking; operations write what they say.
//
// A tensor x [M, K] (M rows) is held as codes in up to two orientations: rowwise [M, K] and
// columnwise = transposed [K, M], because Hopper's FP8 GEMM sums along rows alone. In a block
// scaling the blocks of an orientation lie along its own rows. Partial blocks at an edge behave as
// if padded with zeros. Formats, scales and rounding: te_kernels/quantize/quantize.h.
#pragma once

#include "te_kernels/base/philox.h"
#include "te_kernels/base/status.h"
#include "te_kernels/base/view.h"

namespace te {

// The numbers stand in saved files: never reused.
enum class QuantFormat : int32_t {
  kNone = 0,  // dense, in the tensor's own dtype
  kFloat8E4M3 = 1,
  kFloat8E5M2 = 2,
  kFloat4E2M1 = 3,
};
const char* Name(QuantFormat format);  // "e4m3", "e5m2", "e2m1", "none"
// The largest finite value: 448, 57344, 6; 0 for kNone.
constexpr float QuantMax(QuantFormat format) {
  switch (format) {
    case QuantFormat::kFloat8E4M3:
      return 448.0f;
    case QuantFormat::kFloat8E5M2:
      return 57344.0f;
    case QuantFormat::kFloat4E2M1:
      return 6.0f;
    case QuantFormat::kNone:
      break;
  }
  return 0.0f;
}

// What shares a scale, and where the scale comes from.
enum class QuantScaling : int32_t {
  kTensor = 0,         // one scale, known beforehand (delayed scaling)
  kTensorCurrent = 1,  // one scale, from this tensor's own amax
  kBlock1x128 = 2,     // float32 for 128 elements of a row
  kBlock128x128 = 3,   // float32 for a square
  kMx1x32 = 4,         // E8M0 for 32 elements of a row
  kMx32x32 = 5,        // E8M0 for a square, written once for each of its rows
  kNvfp4_1x16 = 6,     // E4M3 for 16 elements of a row, and one float32 a tensor
  kNvfp4_16x16 = 7,    // the same for a square, written once for each of its rows
};
const char* Name(QuantScaling scaling);
// Rows and columns of the part of an orientation that shares a scale; {0, 0}: the whole tensor.
struct QuantBlock {
  int64_t rows = 0;
  int64_t columns = 0;
};
constexpr QuantBlock BlockOf(QuantScaling scaling) {
  switch (scaling) {
    case QuantScaling::kTensor:
    case QuantScaling::kTensorCurrent:
      break;
    case QuantScaling::kBlock1x128:
      return {1, 128};
    case QuantScaling::kBlock128x128:
      return {128, 128};
    case QuantScaling::kMx1x32:
      return {1, 32};
    case QuantScaling::kMx32x32:
      return {32, 32};
    case QuantScaling::kNvfp4_1x16:
      return {1, 16};
    case QuantScaling::kNvfp4_16x16:
      return {16, 16};
  }
  return {};
}

// NVFP4's choice between two scales of a block, by the sum over its elements of the error's
// magnitude (MAE) or square (MSE).
enum class FourOverSix : int32_t { kOff = 0, kMAE = 1, kMSE = 2 };
const char* Name(FourOverSix mode);  // "off", "MAE", "MSE"

// Plain data; all pointers are device memory. An orientation whose data is undefined is not wanted;
// with neither, the amax alone is.
struct QuantSpec {
  QuantFormat format = QuantFormat::kNone;
  QuantScaling scaling = QuantScaling::kTensor;
  // Options of kTensorCurrent and the float32 blocks.
  bool power_of_2_scales = false;
  float amax_epsilon = 0;
  // Options of NVFP4: rounding of the codes, and the 16x16 random Hadamard transform along rows of
  // the columnwise copy.
  bool stochastic_rounding = false;
  bool random_hadamard = false;
  RandomState random;
  // More of NVFP4's: a float32 for each row of an orientation instead of one a tensor; the choice
  // of a block's scale, and whether 256 instead of 448 bounds what the float32 leaves to the
  // blocks.
  bool row_scaled = false;
  FourOverSix four_over_six = FourOverSix::kOff;
  bool e4m3_use_256 = false;

  const float* scale = nullptr;  // read in kTensor
  // One float32 for both orientations at a 16-byte boundary: written in kTensor, kTensorCurrent
  // (1 / scale) and NVFP4 (the tensor's decoding factor); null in the others. row_scaled: M of
  // them, of the rowwise copy.
  float* scale_inv = nullptr;
  // The columnwise copy's own: NVFP4 with random_hadamard (one) or row_scaled (K).
  float* columnwise_tensor_scale_inv = nullptr;
  // One float32: max-accumulated in kTensor (optional there), written in kTensorCurrent and NVFP4
  // (of x, and in [1] of what the columnwise copy is made from): the largest |x|, NaN not counted.
  float* amax = nullptr;
  TensorView rowwise_data;     // uint8 [M, K]; E2M1: [M, ceil(K / 2)], even elements in low bits
  TensorView columnwise_data;  // uint8 [K, M]; E2M1: [K, ceil(M / 2)]
  // Of block scalings, each shaped by BlockScaleShape of its orientation's rows and columns.
  TensorView rowwise_scale_inv;
  TensorView columnwise_scale_inv;

  // Whether the columnwise copy goes by columnwise_tensor_scale_inv, not by scale_inv.
  bool columnwise_has_own_scale() const { return random_hadamard || row_scaled; }
};

// dtype and shape of the codes of an orientation of R rows and C columns.
Shape QuantDataShape(QuantFormat format, int64_t rows, int64_t columns);
// Of its block scales: float32 blocks as cuBLASLt reads them (VEC128_32F, BLK128x128_32F), the
// others by rows:
//   kBlock1x128    float32 [ceil(C / 128), ceil4(R)]             block (r, j) at [j, r]
//   kBlock128x128  float32 [ceil(R / 128), ceil4(ceil(C / 128))]  at [i, j]
//   kMx*           uint8 (E8M0) [R, ceil(C / 32)]                at [r, j]
//   kNvfp4*        uint8 (E4M3) [R, ceil(C / 16)]                at [r, j]
// with ceil4 rounding up to a multiple of 4; entries beyond the tensor are 0. Rank 0: no blocks.
Shape BlockScaleShape(QuantScaling scaling, int64_t rows, int64_t columns);
DType BlockScaleDType(QuantScaling scaling);

// Where a producing operation writes its result y: densely, quantized, or both (whatever is
// given). What it writes quantized is the quantization of the dense result, rounded to its dtype
// first: fused or not gives the same bits.
struct Sink {
  TensorView dense;  // undefined: only the quantized copies are wanted
  QuantSpec quant;

  Sink() = default;
  Sink(const TensorView& view) : dense(view) {}
  bool quantized() const { return quant.format != QuantFormat::kNone; }
};

// What a GEMM reads: quantized data when there is some, else the dense view.
struct Operand {
  ConstTensorView dense;
  QuantSpec quant;

  Operand() = default;
  Operand(const ConstTensorView& view) : dense(view) {}
  Operand(const TensorView& view) : dense(view) {}
  bool quantized() const { return quant.format != QuantFormat::kNone; }
};

// kInvalidArgument names what of `quant` (format not kNone) does not suit x [rows, columns].
Status CheckQuantSpec(const char* operation, const char* argument, const QuantSpec& quant,
                      int64_t rows, int64_t columns);

}  // namespace te
