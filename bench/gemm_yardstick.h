// The yardstick of a whole step: one large matrix product of n x n matrices.
#pragma once

#include <cstdint>
#include <memory>

#include "te_core/context.h"

namespace te::bench {

class GemmYardstick {
 public:
  virtual ~GemmYardstick() = default;
  // FLOP/s of one product.
  virtual StatusOr<double> Run() = 0;
};

// dtype: float32 or bfloat16, of all three matrices. On the CPU oneDNN's own product, its weights
// in the layout that the library likes best; kUnsupported where it has none for the dtype on this
// CPU, and in a build without the CPU backend. On a
// GPU the device's gemm over normal random numbers (zeros draw less power and run faster), the mean
// of ten. Keeps the context's address.
StatusOr<std::unique_ptr<GemmYardstick>> MakeGemmYardstick(Context* context, DType dtype,
                                                           int64_t n);

}  // namespace te::bench
