#include "bench/stream_timer.h"

#include <chrono>

#ifdef TE_WITH_CUDA
#include "bench/cuda_stream_timer.h"
#endif

namespace te::bench {
namespace {

class HostTimer : public StreamTimer {
 public:
  Status Begin(const Exec&) override {
    begins_.push_back(Clock::now());
    return OkStatus();
  }
  Status End(const Exec&) override {
    ends_.push_back(Clock::now());
    return OkStatus();
  }
  StatusOr<Times> Read() override {
    if (begins_.empty() || begins_.size() != ends_.size())
      return FailedPrecondition("stream timer: {} begins and {} ends; expected pairs",
                                begins_.size(), ends_.size());
    Times times;
    for (size_t i = 0; i < begins_.size(); ++i) times.each.push_back(Seconds(begins_[i], ends_[i]));
    times.whole = Seconds(begins_.front(), ends_.back());
    begins_.clear();
    ends_.clear();
    return times;
  }

 private:
  using Clock = std::chrono::steady_clock;
  static double Seconds(Clock::time_point begin, Clock::time_point end) {
    return std::chrono::duration<double>(end - begin).count();
  }
  std::vector<Clock::time_point> begins_, ends_;
};

}  // namespace

StatusOr<std::unique_ptr<StreamTimer>> MakeStreamTimer(const Device& device) {
  if (device.host_accessible()) return std::unique_ptr<StreamTimer>(std::make_unique<HostTimer>());
#ifdef TE_WITH_CUDA
  return NewCudaStreamTimer();
#else
  return Unsupported("no timer for device {} in this build", device.name());
#endif
}

StatusOr<std::vector<std::pair<std::string, std::string>>> DescribeMachine(const Device& device) {
#ifdef TE_WITH_CUDA
  if (!device.host_accessible()) return DescribeCuda();
#endif
  return std::vector<std::pair<std::string, std::string>>{{"device", device.name()}};
}

}  // namespace te::bench
