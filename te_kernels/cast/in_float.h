// Float32 copies of operands, for paths of the CPU backend that have no native bfloat16 arithmetic.
#pragma once

#include "te_kernels/cast/cast.h"

namespace te {

// A dense float32 copy in exec's scratch: lives until the caller's ArenaScope ends.
inline StatusOr<TensorView> InFloat(const Exec& exec, const ConstTensorView& x) {
  TE_ASSIGN_OR_RETURN(TensorView y, exec.scratch->Allocate(DType::kFloat32, x.shape()));
  TE_RETURN_IF_ERROR(CastCpu(exec, {.x = x, .y = y}));
  return y;
}

}  // namespace te
