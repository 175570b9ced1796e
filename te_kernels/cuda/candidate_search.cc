#include "te_kernels/cuda/candidate_search.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace te::cuda {
namespace {

constexpr float kNever = std::numeric_limits<float>::infinity();

// Below this a candidate's energy is a small part of anything, and a search of seconds too long.
constexpr double kSustainedFlops = 3e10;
// Choices that win by the energy they save were up to 12% slower than the fastest from cold
// (bench/notes.md, section 9).
constexpr float kSustainedMargin = 1.15f;
constexpr size_t kSustainedFinalists = 10;
constexpr float kHeatMs = 150, kSettleMs = 70, kWindowMs = 30;
constexpr int kShortRuns = 2;      // of the short look
constexpr int kLooksFromCold = 3;  // of finalists, for kBetween: the best counts
// Those that are timed anew, because the first look's winner also had luck: two looks of two
// windows, of which the second smallest counts, because the card now and then slows down by itself.
constexpr size_t kSecondLook = 4;

constexpr size_t kFinalistsFromCold = 5;
constexpr int kTurnsFromCold = 5;

class Search {
 public:
  explicit Search(CandidateTimer* timer) : timer_(timer) {}

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

  // `finalists` in the order of their short look, which `ms` holds.
  Status Sustained(std::vector<int> finalists, StepClock clock, std::vector<float>* ms) {
    std::vector<float> cold = *ms;
    if (clock == StepClock::kBetween)
      TE_RETURN_IF_ERROR(InTurns(finalists, kLooksFromCold - 1, kShortRuns, &cold));
    const auto in_a_step = [&](int index, float sustained) {
      return clock == StepClock::kBetween ? std::sqrt(sustained * cold[static_cast<size_t>(index)])
                                          : sustained;
    };
    const float reference = (*ms)[static_cast<size_t>(finalists.front())];
    TE_RETURN_IF_ERROR(timer_->Enqueue(finalists.front(), RunsIn(kHeatMs, reference)));
    const auto look = [&](int index, std::vector<float>* windows) -> Status {
      TE_RETURN_IF_ERROR(timer_->Enqueue(index, RunsIn(kSettleMs, reference)));
      for (int window = 0; window < 2; ++window) {
        TE_ASSIGN_OR_RETURN(const float one, timer_->Time(index, RunsIn(kWindowMs, reference)));
        windows->push_back(one);
      }
      return OkStatus();
    };
    for (const int index : finalists) {
      std::vector<float> windows;
      TE_RETURN_IF_ERROR(look(index, &windows));
      (*ms)[static_cast<size_t>(index)] =
          in_a_step(index, *std::min_element(windows.begin(), windows.end()));
    }
    Sort(*ms, &finalists);
    if (finalists.size() > kSecondLook) finalists.resize(kSecondLook);
    std::vector<std::vector<float>> windows(finalists.size());
    for (int turn = 0; turn < 2; ++turn)
      for (size_t i = 0; i < finalists.size(); ++i)
        TE_RETURN_IF_ERROR(look(finalists[i], &windows[i]));
    std::fill(ms->begin(), ms->end(), kNever);
    for (size_t i = 0; i < finalists.size(); ++i) {
      std::sort(windows[i].begin(), windows[i].end());
      (*ms)[static_cast<size_t>(finalists[i])] = in_a_step(finalists[i], windows[i][1]);
    }
    return OkStatus();
  }

  Status FromCold(const std::vector<int>& finalists, double flops, std::vector<float>* ms) {
    std::fill(ms->begin(), ms->end(), kNever);
    const int runs = static_cast<int>(std::clamp(2e12 / flops, 3.0, 20.0));
    return InTurns(finalists, kTurnsFromCold, runs, ms);
  }

  static void Sort(const std::vector<float>& ms, std::vector<int>* indices) {
    std::stable_sort(indices->begin(), indices->end(), [&ms](int a, int b) {
      return ms[static_cast<size_t>(a)] < ms[static_cast<size_t>(b)];
    });
  }

 private:
  // Of each its best turn, if that is better than what `best` holds. A clock that drifts favours
  // none.
  Status InTurns(const std::vector<int>& finalists, int turns, int runs, std::vector<float>* best) {
    for (int turn = 0; turn < turns; ++turn) {
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
};

}  // namespace

StatusOr<std::vector<float>> SearchCandidates(CandidateTimer* timer, int count, double flops,
                                              StepClock clock) {
  Search search(timer);
  TE_ASSIGN_OR_RETURN(std::vector<float> ms, search.ShortLook(count));
  std::vector<int> order;
  for (int i = 0; i < count; ++i)
    if (ms[static_cast<size_t>(i)] != kNever) order.push_back(i);
  Search::Sort(ms, &order);
  const bool sustained = flops >= kSustainedFlops;
  if (sustained) {
    const float limit = kSustainedMargin * ms[static_cast<size_t>(order.front())];
    while (ms[static_cast<size_t>(order.back())] > limit) order.pop_back();
  }
  order.resize(std::min(order.size(), sustained ? kSustainedFinalists : kFinalistsFromCold));
  if (order.size() == 1) return ms;
  TE_RETURN_IF_ERROR(sustained ? search.Sustained(order, clock, &ms)
                               : search.FromCold(order, flops, &ms));
  return ms;
}

int FastestOf(const std::vector<float>& milliseconds) {
  return static_cast<int>(std::min_element(milliseconds.begin(), milliseconds.end()) -
                          milliseconds.begin());
}

}  // namespace te::cuda
