// The fastest of all that cuBLASLt offers for a matrix product: the ceiling of ours.
#pragma once

#include "bench/operation_timer.h"
#include "te_kernels/gemm/gemm.h"

namespace te::bench {

class LtCandidates {
 public:
  // args of dense bfloat16 operands, without bias, beta 0.
  static StatusOr<std::unique_ptr<LtCandidates>> Make(OperationTimer* timer, const GemmArgs& args);
  virtual ~LtCandidates() = default;

  // Times up to 64 candidates, atomics and rounded partial sums included, and keeps the `keep`
  // fastest, fastest first. Returns how many cuBLASLt offered.
  virtual StatusOr<int> Search(int keep) = 0;
  virtual int kept() const = 0;
  // Enqueues the product of the kept candidate `index` for operands of the same layout.
  virtual Status Run(int index, const GemmArgs& args) = 0;
};

}  // namespace te::bench
