// The yardstick of a whole step: oneDNN's own matrix product of n x n matrices, its weights in the
// layout that the library likes best.
#pragma once

#include <cstdint>
#include <memory>

#include "te_kernels/base/dtype.h"
#include "te_kernels/base/status.h"

namespace te::bench {

class GemmYardstick {
 public:
  virtual ~GemmYardstick() = default;
  // FLOP/s of one product.
  virtual StatusOr<double> Run() = 0;
};

// dtype: float32 or bfloat16, of all three matrices.
StatusOr<std::unique_ptr<GemmYardstick>> MakeGemmYardstick(DType dtype, int64_t n, int num_threads);

}  // namespace te::bench
