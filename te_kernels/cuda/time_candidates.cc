#include "te_kernels/cuda/time_candidates.h"

#include "te_kernels/cuda/cuda_event.h"
#include "te_kernels/cuda/cuda_state.h"
#include "te_kernels/cuda/cuda_status.h"

namespace te::cuda {
namespace {

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

 private:
  cudaStream_t stream_;
  const CandidateRun& run_;
};

}  // namespace

StatusOr<std::vector<float>> TimeCandidates(const Exec& exec, int count, double flops,
                                            StepClock clock, const CandidateRun& run) {
  StreamTimer timer(StreamOf(exec), run);
  return SearchCandidates(&timer, count, flops, clock);
}

}  // namespace te::cuda
