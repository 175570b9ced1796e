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
// addresses are not aligned). Empty M, N or K is fine: K == 0 gives beta * c (+ bias). Source: the
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
  float beta = 0;  // 0 or 1
};

// kInvalidArgument names the operand whose shape, stride or dtype breaks the contract.
Status ValidateGemm(const GemmArgs& args);

Status GemmCpu(const Exec& exec, const GemmArgs& args);
Status GemmCuda(const Exec& exec, const GemmArgs& args);

}  // namespace te
