// The fastest of several ways to compute one thing, by a clock that is given: what
// time_candidates.h does on a card.
#pragma once

#include <vector>

#include "te_kernels/base/status.h"

namespace te::cuda {

// What runs the candidates, one after the other, and the clocks beside it.
class CandidateTimer {
 public:
  virtual ~CandidateTimer() = default;
  // `runs` runs of candidate `index`, behind all that has been enqueued before.
  virtual Status Enqueue(int index, int runs) = 0;
  // Enqueues them and waits for their end: milliseconds of one.
  virtual StatusOr<float> Time(int index, int runs) = 0;
  // Milliseconds of the host's clock.
  virtual double Now() = 0;
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

struct SearchOptions {
  double flops = 0;  // of one run
  StepClock clock = StepClock::kAtTheLimit;
  // What the search may take, by CandidateTimer::Now. The first, short look at all candidates is
  // made in any case, and a look that has begun ends.
  double limit_ms = 750;
  bool hot = false;  // another search has just ended: the card has the clock of the power limit
};

// Milliseconds of one run of each of `count` candidates (at least one), as far as they matter:
// infinity for those that failed in a first, short look (some fail only when they run) or that it
// left behind. Only entries of one call compare. All of them failed: the last one's error; one that
// fails later: its error.
//
// Candidates that are worth it (30 GFLOP) run for as long as the card needs to find the clock for
// them, and are timed then: a first turn finds the three best, of which two more turns find the
// best. With kBetween their milliseconds are the geometric mean of those and of the time from cold.
// What is smaller, or for which there is no time left, is timed from cold alone.
StatusOr<std::vector<float>> SearchCandidates(CandidateTimer* timer, int count,
                                              const SearchOptions& options);

// The index of the smallest; of equal ones the first, which the library prefers.
int FastestOf(const std::vector<float>& milliseconds);

}  // namespace te::cuda
