// SearchCandidates on a stream: cuBLASLt's algorithms of a product, cuDNN's plans of an attention.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "te_kernels/base/exec.h"
#include "te_kernels/cuda/candidate_search.h"
#include "te_kernels/cuda/cuda_state.h"
#include "te_kernels/cuda/search_budget.h"
#include "te_kernels/device/search_progress.h"

namespace te::cuda {

// Enqueues one run of candidate `index`. Any number of runs must leave the same result.
using CandidateRun = std::function<Status(int index)>;

// The searches of one CudaState: their time, and who is told of them.
class SearchSession : public OperationCache {
 public:
  static SearchSession* Of(CudaState* state);

  void Configure(const SearchSettings& settings);
  const SearchTotals& totals() const { return budget_.totals(); }
  bool thorough() const { return thorough_; }

 private:
  friend class CandidateSearch;
  SearchBudget budget_;
  bool thorough_ = false;
  SearchObserver observer_;
};

// One search, from its constructor to its destructor: making what is timed counts, too.
class CandidateSearch {
 public:
  CandidateSearch(SearchSession* session, std::string problem);
  ~CandidateSearch();
  CandidateSearch(const CandidateSearch&) = delete;
  CandidateSearch& operator=(const CandidateSearch&) = delete;

  double MillisecondsLeft() const;

  struct Candidates {
    int count = 0;
    double flops = 0;  // of one run
    StepClock clock = StepClock::kAtTheLimit;
    bool from_cold = false;  // a look from cold is enough, whatever time there is
  };
  // SearchCandidates, by CUDA events. Blocks; must not be called while the stream is captured.
  StatusOr<std::vector<float>> Time(const Exec& exec, const Candidates& candidates,
                                    const CandidateRun& run);

 private:
  void Tell(bool ended, double seconds) const;

  SearchSession* session_;
  std::string problem_;
  double begin_;
  double allowance_;
  double build_seconds_ = 0;
  int candidates_ = 0;
};

}  // namespace te::cuda
