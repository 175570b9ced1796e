#include "te_kernels/cuda/candidate_search.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace te::cuda {
namespace {

constexpr float kNever = std::numeric_limits<float>::infinity();

// Below this a candidate's energy is a small part of anything, and its search would be long.
constexpr double kSustainedFlops = 3e10;
// How much slower from cold one may be that the energy it saves can make the best. Looped, that
// was worth up to 8% (bench/notes.md, section 9); between cold and looped half of it counts.
constexpr float kMarginAtTheLimit = 1.15f, kMarginBetween = 1.10f;
constexpr size_t kSustainedFinalists = 10;
// A card that comes from other work has to heat before anything is timed.
constexpr float kHeatMs = 100;
// The clock's time constant is some 30 ms: what a first look leaves of the last candidate's clock,
// a quarter of a few percent, decides nothing but who takes part in the second.
constexpr float kFirstSettleMs = 30, kFirstWindowMs = 20;
constexpr float kSecondSettleMs = 50, kSecondWindowMs = 25;
// What is planned for a look: its runs are counted by their time from cold, and take longer.
constexpr double kAtLimit = 1.2;
constexpr double kFirstLookMs = kAtLimit * (kFirstSettleMs + kFirstWindowMs);
constexpr double kSecondLookMs = kAtLimit * (kSecondSettleMs + kSecondWindowMs);
// The first look's winner also had luck. Of two looks the faster one counts, because the card now
// and then slows down by itself for a tenth of a second.
constexpr size_t kSecondLook = 3;
constexpr int kSecondTurns = 2;

constexpr int kShortRuns = 2;      // of the short look
constexpr int kLooksFromCold = 3;  // of finalists, for kBetween: the best counts
constexpr size_t kFinalistsFromCold = 5;
constexpr int kTurnsFromCold = 5;

class Search {
 public:
  Search(CandidateTimer* timer, const SearchOptions& options)
      : timer_(timer), options_(options), begin_(timer->Now()) {}

  double Left() const { return options_.limit_ms - (timer_->Now() - begin_); }

  // Milliseconds of one of `runs` runs, after `settle` ones that are not timed.
  StatusOr<float> Time(int index, int settle, int runs) {
    TE_RETURN_IF_ERROR(timer_->Enqueue(index, settle));
    return timer_->Time(index, runs);
  }

  // From the cold, or whatever state the card is in.
  StatusOr<std::vector<float>> ShortLook(int count) {
    std::vector<float> ms(static_cast<size_t>(count), kNever);
    Status last;
    for (int i = 0; i < count; ++i) {
      const StatusOr<float> one = Time(i, 1, kShortRuns);
      if (one.ok()) {
        ms[static_cast<size_t>(i)] = *one;
      } else {
        last = one.status();
      }
    }
    return *std::min_element(ms.begin(), ms.end()) == kNever ? StatusOr<std::vector<float>>(last)
                                                             : std::move(ms);
  }

  // `finalists` in the order of their short look, which `ms` holds. Times from cold where there is
  // no time to compare two of them.
  Status Sustained(std::vector<int> finalists, std::vector<float>* ms) {
    // First looks leave time for the second ones of two candidates. Those that are fastest from
    // cold come first.
    const double heat = options_.hot ? 0 : kHeatMs;
    const double for_first = Left() - heat - 2 * kSecondTurns * kSecondLookMs;
    const auto first = static_cast<size_t>(std::max(0.0, for_first / kFirstLookMs));
    std::vector<float> cold = *ms;
    if (options_.clock == StepClock::kBetween || first < 2)
      TE_RETURN_IF_ERROR(InTurns(finalists, kLooksFromCold - 1, kShortRuns, &cold));
    if (first < 2) {
      *ms = std::move(cold);
      return OkStatus();
    }
    if (finalists.size() > first) finalists.resize(first);
    const auto in_a_step = [&](int index, float sustained) {
      return options_.clock == StepClock::kBetween
                 ? std::sqrt(sustained * cold[static_cast<size_t>(index)])
                 : sustained;
    };
    const float reference = (*ms)[static_cast<size_t>(finalists.front())];
    if (!options_.hot)
      TE_RETURN_IF_ERROR(timer_->Enqueue(finalists.front(), RunsIn(kHeatMs, reference)));
    std::vector<float> found(ms->size(), kNever);
    for (const int index : finalists) {
      TE_ASSIGN_OR_RETURN(const float one, Time(index, RunsIn(kFirstSettleMs, reference),
                                                RunsIn(kFirstWindowMs, reference)));
      found[static_cast<size_t>(index)] = in_a_step(index, one);
    }
    Sort(found, &finalists);
    finalists.resize(std::min(finalists.size(), SecondLookers()));
    if (finalists.size() < 2) {  // the looks took longer than planned
      *ms = std::move(found);
      return OkStatus();
    }
    std::fill(ms->begin(), ms->end(), kNever);
    for (int turn = 0; turn < kSecondTurns; ++turn) {
      for (const int index : finalists) {
        TE_ASSIGN_OR_RETURN(const float one, Time(index, RunsIn(kSecondSettleMs, reference),
                                                  RunsIn(kSecondWindowMs, reference)));
        float& best = (*ms)[static_cast<size_t>(index)];
        best = std::min(best, in_a_step(index, one));
      }
    }
    return OkStatus();
  }

  Status FromCold(const std::vector<int>& finalists, std::vector<float>* ms) {
    std::vector<float> found(ms->size(), kNever);
    const int runs = static_cast<int>(std::clamp(2e12 / options_.flops, 3.0, 20.0));
    TE_RETURN_IF_ERROR(InTurns(finalists, kTurnsFromCold, runs, &found));
    if (std::any_of(found.begin(), found.end(), [](float one) { return one != kNever; }))
      *ms = std::move(found);
    return OkStatus();
  }

  static void Sort(const std::vector<float>& ms, std::vector<int>* indices) {
    std::stable_sort(indices->begin(), indices->end(), [&ms](int a, int b) {
      return ms[static_cast<size_t>(a)] < ms[static_cast<size_t>(b)];
    });
  }

 private:
  // How many candidates there is time to look at a second time.
  size_t SecondLookers() const {
    // A quarter more than planned does no harm, where the first looks took that over their plan.
    const double lookers = 1.25 * Left() / (kSecondTurns * kSecondLookMs);
    return std::min(kSecondLook, static_cast<size_t>(std::max(0.0, lookers)));
  }

  // Of each its best turn, if that is better than what `best` holds. A clock that drifts favours
  // none. Ends early, after a whole turn, when there is no time for more.
  Status InTurns(const std::vector<int>& finalists, int turns, int runs, std::vector<float>* best) {
    for (int turn = 0; turn < turns && Left() > 0; ++turn) {
      for (const int index : finalists) {
        TE_ASSIGN_OR_RETURN(const float one, Time(index, 1, runs));
        float& ms = (*best)[static_cast<size_t>(index)];
        ms = std::min(ms, one);
      }
    }
    return OkStatus();
  }

  static int RunsIn(float milliseconds, float one) {
    return std::max(3, static_cast<int>(std::ceil(milliseconds / std::max(one, 1e-3f))));
  }

  CandidateTimer* timer_;
  SearchOptions options_;
  double begin_;
};

}  // namespace

StatusOr<std::vector<float>> SearchCandidates(CandidateTimer* timer, int count,
                                              const SearchOptions& options) {
  Search search(timer, options);
  TE_ASSIGN_OR_RETURN(std::vector<float> ms, search.ShortLook(count));
  std::vector<int> order;
  for (int i = 0; i < count; ++i)
    if (ms[static_cast<size_t>(i)] != kNever) order.push_back(i);
  Search::Sort(ms, &order);
  const bool sustained = options.flops >= kSustainedFlops;
  if (sustained) {
    const float margin = options.clock == StepClock::kBetween ? kMarginBetween : kMarginAtTheLimit;
    const float limit = margin * ms[static_cast<size_t>(order.front())];
    while (ms[static_cast<size_t>(order.back())] > limit) order.pop_back();
  }
  order.resize(std::min(order.size(), sustained ? kSustainedFinalists : kFinalistsFromCold));
  if (order.size() == 1) return ms;
  TE_RETURN_IF_ERROR(sustained ? search.Sustained(order, &ms) : search.FromCold(order, &ms));
  return ms;
}

int FastestOf(const std::vector<float>& milliseconds) {
  return static_cast<int>(std::min_element(milliseconds.begin(), milliseconds.end()) -
                          milliseconds.begin());
}

}  // namespace te::cuda
