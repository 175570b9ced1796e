// Sums over d that cuBLASLt does not make.
#pragma once

#include "te_kernels/gemm/gemm.h"

namespace te {

// A product without terms to sum (K == 0): d = beta * c (+ bias). cuBLASLt refuses the shape.
Status GemmEmptyCuda(const Exec& exec, const GemmArgs& args);
// d += bias, after a product without it: cuBLASLt's FP8 products take no float32 bias.
Status GemmAddBiasCuda(const Exec& exec, const GemmArgs& args);

}  // namespace te
