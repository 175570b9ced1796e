// Element-wise reductions of several buffers in host memory, for backends whose ranks see each
// other's memory.
#pragma once

#include <cstdint>
#include <span>

#include "te_core/comm/communicator.h"

namespace te {

// Of each element i < count: results[k][i], for every k, becomes sources[0][i] op sources[1][i] op
// ..., in that order. float32 and float64 are added in their own type, bfloat16 and float16 in
// float32 with one rounding at the end; integers wrap around; the larger or smaller of a number and
// NaN is the number. A result may be one of the sources, but is else apart from them. `dtype` is
// one that Communicator reduces.
void ReduceHost(DType dtype, ReduceOp op, std::span<const char* const> sources,
                std::span<char* const> results, int64_t count);

}  // namespace te
