// bfloat16 products on AMX tiles.
#pragma once

#include <memory>

#include "te_kernels/gemm/onednn_state.h"

namespace te {

// The product by `spec` in kernels of our own; null where oneDNN's primitive is the one to take:
// without AMX, for other dtypes, for a batch, for operands without an inner stride of 1 and for
// products too narrow to fill tiles. Sums in float32 in the order of K, whatever the number of
// threads.
std::shared_ptr<const Matmul> MakeAmxMatmul(const MatmulSpec& spec);

// Whether MakeAmxMatmul takes it.
bool RunsOnAmx(const MatmulSpec& spec);

// Terms up to which such a product sums at full speed: beyond, panels leave the L2 cache.
constexpr int64_t kAmxTerms = 4096;

}  // namespace te
