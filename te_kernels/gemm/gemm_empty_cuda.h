// A product without terms to sum (K == 0): d = beta * c (+ bias). cuBLASLt refuses the shape.
#pragma once

#include "te_kernels/gemm/gemm.h"

namespace te {

Status GemmEmptyCuda(const Exec& exec, const GemmArgs& args);

}  // namespace te
