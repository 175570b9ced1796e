#pragma once

#include "bench/gemm_yardstick.h"

namespace te::bench {

StatusOr<std::unique_ptr<GemmYardstick>> MakeOnednnYardstick(DType dtype, int64_t n,
                                                             int num_threads);

}  // namespace te::bench
