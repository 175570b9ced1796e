// Matrix products of a linear layer.
//
//   fprop:  y[M, N]  = x[M, K] w[N, K]^T (+ bias[N]) + beta * c[M, N]
//   dgrad:  dx[M, K] = dy[M, N] w[N, K]              + beta * c[M, K]
//   wgrad:  dw[N, K] = dy[M, N]^T x[M, K]            + beta * c[N, K]
//
// M = tokens, K = in_features, N = out_features. Operands are rank 2, inner stride 1, any row
// stride. dtypes: a, b and d share one of {float32, bfloat16}, except that d may be float32 over
// bfloat16 operands; accumulation is float32 (its order is the library's: the same call with the
// same number of threads repeats bit for bit). c has d's dtype and shape and may be d itself (beta
// == 1 accumulates in place); with beta == 0 it is not read. The sum, beta * c included, is rounded
// to d's dtype once; a bias may be added after a rounding of its own (cuBLASLt does so where
// addresses are not aligned).
//
// Quantized operands (both or neither): each is read in the orientation whose rows run along the
// sum: fprop x and w rowwise; dgrad dy rowwise, w columnwise (w^T); wgrad dy and x columnwise. The
// product is that of their dequantized values (dequantize.h), accumulated in float32 (the CPU sums
// in double where a value of block scalings, or a sum of them, may leave float32's range on the way
// to a number within it); d is bfloat16 or float32. With split_accumulator CUDA's tensor cores add
// into float32 registers at intervals; without, into their own of about 14 bits (block scalings
// have no such mode: there it is always split). Formats: one operand may be E5M2, not both; E2M1
// with E2M1, whose padding code at the end of an odd row is 0. Block scalings: 1x128 with 1x128 or
// with 128x128, not two squares. random_hadamard: in both of wgrad's operands or in neither. CUDA
// takes E4M3 and E5M2 with kTensor, kTensorCurrent, kBlock1x128, kBlock128x128, where the summed
// dimension and the row length of d are multiples of 16 and, with a in kBlock1x128, the rows of d
// are a multiple of 8, and addresses and distances of rows multiples of 16 bytes; anything else
// there is kUnsupported with the padding or the compute capability that would do. The CPU takes
// all. Empty M, N or K is fine: K == 0 gives beta * c (+ bias). Source: the
// linear layer's chain rule; names as in Transformer Engine.
#pragma once

#include "te_kernels/base/exec.h"
#include "te_kernels/base/quant_spec.h"

namespace te {

enum class GemmKind { kFprop, kDgrad, kWgrad };

struct GemmArgs {
  GemmKind kind = GemmKind::kFprop;
  Operand a;             // fprop: x; dgrad, wgrad: dy
  Operand b;             // fprop, dgrad: w; wgrad: x
  ConstTensorView bias;  // fprop only; optional; [N], dtype of d
  ConstTensorView c;     // read when beta != 0; undefined means d
  TensorView d;
  float beta = 0;                 // 0 or 1
  bool split_accumulator = true;  // of quantized operands
};

// kInvalidArgument names the operand whose shape, stride or dtype breaks the contract.
Status ValidateGemm(const GemmArgs& args);

Status GemmCpu(const Exec& exec, const GemmArgs& args);
Status GemmCuda(const Exec& exec, const GemmArgs& args);

}  // namespace te
