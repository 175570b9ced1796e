// The fastest of several ways to compute one thing, by a clock that is given: what
// time_candidates.h does on a card.
#pragma once

#include <vector>

#include "te_kernels/base/status.h"

namespace te::cuda {

// What runs the candidates, one after the other, and the clock beside it.
class CandidateTimer {
 public:
  virtual ~CandidateTimer() = default;
  // `runs` runs of candidate `index`, behind all that has been enqueued before.
  virtual Status Enqueue(int index, int runs) = 0;
  // Enqueues them and waits for their end: milliseconds of one.
  virtual StatusOr<float> Time(int index, int runs) = 0;
};

// The card's clock where the chosen candidate will run. A step of a large model runs at the card's
// power limit, where the clock gives way until the limit is met, and what costs least energy is
// fastest, which is often not what is fastest from cold.
enum class StepClock {
  kAtTheLimit,  // a step of products alone
  // A step that spends a fifth of its time and more on memory operations (AdamW), which cool the
  // card: products start fast and end at the limit.
  kBetween,
};

// Milliseconds of one run of each of `count` candidates (at least one), as far as they matter:
// infinity for those that failed in a first, short look (some fail only when they run) or that it
// left behind. Only entries of one call compare. `flops`: of one run. All of them failed: the last
// one's error; one that fails later: its error.
//
// A candidate that is worth it (30 GFLOP) runs for as long as the card needs to find the clock for
// it, some 0.1 s, and is timed then. With kBetween its milliseconds are the geometric mean of those
// and of its time from cold; what is smaller is timed from cold alone.
StatusOr<std::vector<float>> SearchCandidates(CandidateTimer* timer, int count, double flops,
                                              StepClock clock);

// The index of the smallest; of equal ones the first, which the library prefers.
int FastestOf(const std::vector<float>& milliseconds);

}  // namespace te::cuda
