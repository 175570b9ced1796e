// Splitting loops over the CPU backend's OpenMP threads (the ones that oneDNN uses, too).
#pragma once

#include <algorithm>
#include <cstdint>

#include "te_kernels/base/exec.h"

namespace te {

// Calls body(begin, end) on disjoint ranges that cover [0, count). The split never changes results
// as long as body treats indices independently: reductions across indices must split the other
// axis. `grain`: indices below which a second thread does not pay.
template <typename Body>
void ParallelFor(const Exec& exec, int64_t count, int64_t grain, const Body& body) {
  const int64_t wanted = std::max<int64_t>(1, count / std::max<int64_t>(1, grain));
  const int threads = static_cast<int>(std::min<int64_t>(std::max(1, exec.num_threads), wanted));
  if (threads == 1) {
    if (count > 0) body(int64_t{0}, count);
    return;
  }
#pragma omp parallel for schedule(static, 1) num_threads(threads)
  for (int t = 0; t < threads; ++t) {
    const int64_t begin = count * t / threads;
    const int64_t end = count * (t + 1) / threads;
    if (begin < end) body(begin, end);
  }
}

}  // namespace te
