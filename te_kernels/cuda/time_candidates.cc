#include "te_kernels/cuda/time_candidates.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "te_kernels/cuda/cuda_event.h"
#include "te_kernels/cuda/cuda_status.h"

namespace te::cuda {
namespace {

// What a search takes at least.
constexpr double kLookFromColdMs = 40;

double HostMilliseconds() {
  return std::chrono::duration<double, std::milli>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

class StreamTimer : public CandidateTimer {
 public:
  StreamTimer(cudaStream_t stream, const CandidateRun& run) : stream_(stream), run_(run) {}

  Status Enqueue(int index, int runs) override {
    for (int i = 0; i < runs; ++i) TE_RETURN_IF_ERROR(run_(index));
    return OkStatus();
  }
  StatusOr<float> Time(int index, int runs) override {
    const Event begin, end;
    cudaEventRecord(begin.get(), stream_);
    TE_RETURN_IF_ERROR(Enqueue(index, runs));
    cudaEventRecord(end.get(), stream_);
    TE_RETURN_IF_ERROR(ToStatus(cudaEventSynchronize(end.get()), "timing a candidate"));
    float ms = 0;
    cudaEventElapsedTime(&ms, begin.get(), end.get());
    return ms / static_cast<float>(runs);
  }
  double Now() override { return HostMilliseconds(); }

 private:
  cudaStream_t stream_;
  const CandidateRun& run_;
};

}  // namespace

SearchSession* SearchSession::Of(CudaState* state) {
  if (state->searches == nullptr) state->searches = std::make_unique<SearchSession>();
  return static_cast<SearchSession*>(state->searches.get());
}

void SearchSession::Configure(const SearchSettings& settings) {
  budget_.set_limit_seconds(settings.limit_seconds);
  thorough_ = settings.thorough;
  observer_ = settings.observer;
}

CandidateSearch::CandidateSearch(SearchSession* session, std::string problem)
    : session_(session),
      problem_(std::move(problem)),
      begin_(HostMilliseconds()),
      allowance_(session->budget_.Allowance()) {
  session_->budget_.Begin(begin_);
  Tell(false, 0);
}

CandidateSearch::~CandidateSearch() {
  session_->budget_.End(HostMilliseconds());
  Tell(true, session_->budget_.last_seconds());
}

double CandidateSearch::MillisecondsLeft() const {
  return allowance_ - (HostMilliseconds() - begin_);
}

StatusOr<std::vector<float>> CandidateSearch::Time(const Exec& exec, const Candidates& candidates,
                                                   const CandidateRun& run) {
  StreamTimer timer(StreamOf(exec), run);
  const double now = HostMilliseconds();
  build_seconds_ = (now - begin_) / 1e3;
  candidates_ = candidates.count;
  const double limit = std::max(kLookFromColdMs, MillisecondsLeft());
  return SearchCandidates(&timer, candidates.count,
                          {.flops = candidates.flops,
                           .clock = candidates.clock,
                           .limit_ms = candidates.from_cold ? kLookFromColdMs : limit,
                           .hot = session_->budget_.IsHot(now)});
}

void CandidateSearch::Tell(bool ended, double seconds) const {
  if (session_->observer_ == nullptr) return;
  session_->observer_({.problem = problem_,
                       .ended = ended,
                       .seconds = seconds,
                       .build_seconds = build_seconds_,
                       .candidates = candidates_,
                       .totals = session_->totals(),
                       .limit_seconds = session_->budget_.limit_seconds()});
}

}  // namespace te::cuda
