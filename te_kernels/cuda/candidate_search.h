// The fastest of several ways to compute one thing: cuBLASLt's algorithms of a product, cuDNN's
// plans of an attention.
#pragma once

#include <functional>
#include <vector>

#include "te_kernels/base/exec.h"

namespace te::cuda {

// Enqueues one run of candidate `index`. Any number of runs must leave the same result.
using CandidateRun = std::function<Status(int index)>;

// Milliseconds of one run of each of `count` candidates, as far as they matter: infinity for those
// that failed (some fail only when they run) or that a first, short look left behind. Only entries
// of one call compare. `flops`: of one run. All of them failed: the last one's error.
//
// A step of a large model runs at the card's power limit, where the clock gives way until the
// limit is met, and what costs least energy is fastest, which is often not what is fastest from
// cold. So a candidate that is worth it (30 GFLOP) runs for as long as the card needs to find the
// clock for it, some 0.1 s, and is timed then. Blocks; must not be called while the stream is
// captured.
StatusOr<std::vector<float>> TimeCandidates(const Exec& exec, int count, double flops,
                                            const CandidateRun& run);

// The index of the smallest.
int FastestOf(const std::vector<float>& milliseconds);

}  // namespace te::cuda
