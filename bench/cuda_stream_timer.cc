#include "bench/cuda_stream_timer.h"

#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <cudnn.h>

#include "fmt/format.h"
#include "te_kernels/cuda/cuda_state.h"
#include "te_kernels/cuda/cuda_status.h"

namespace te::bench {
namespace {

using cuda::ToStatus;

class CudaStreamTimer : public StreamTimer {
 public:
  ~CudaStreamTimer() override { Clear(); }
  Status Begin(const Exec& exec) override { return Mark(exec); }
  Status End(const Exec& exec) override { return Mark(exec); }

  StatusOr<Times> Read() override {
    if (events_.empty() || events_.size() % 2 != 0)
      return FailedPrecondition("stream timer: {} marks; expected pairs", events_.size());
    TE_RETURN_IF_ERROR(ToStatus(cudaEventSynchronize(events_.back()), "cudaEventSynchronize"));
    Times times;
    for (size_t i = 0; i < events_.size(); i += 2) {
      TE_ASSIGN_OR_RETURN(const double seconds, Between(events_[i], events_[i + 1]));
      times.each.push_back(seconds);
    }
    TE_ASSIGN_OR_RETURN(times.whole, Between(events_.front(), events_.back()));
    Clear();
    return times;
  }

 private:
  Status Mark(const Exec& exec) {
    cudaEvent_t event = nullptr;
    TE_RETURN_IF_ERROR(ToStatus(cudaEventCreate(&event), "cudaEventCreate"));
    events_.push_back(event);
    return ToStatus(cudaEventRecord(event, cuda::StreamOf(exec)), "cudaEventRecord");
  }

  static StatusOr<double> Between(cudaEvent_t begin, cudaEvent_t end) {
    float milliseconds = 0;
    TE_RETURN_IF_ERROR(
        ToStatus(cudaEventElapsedTime(&milliseconds, begin, end), "cudaEventElapsedTime"));
    return static_cast<double>(milliseconds) * 1e-3;
  }

  void Clear() {
    for (cudaEvent_t event : events_) cudaEventDestroy(event);
    events_.clear();
  }

  std::vector<cudaEvent_t> events_;
};

// 13000 -> "13.0", as CUDA numbers itself.
std::string CudaVersion(int number) {
  return fmt::format("{}.{}", number / 1000, number % 1000 / 10);
}

}  // namespace

StatusOr<std::unique_ptr<StreamTimer>> NewCudaStreamTimer() {
  return std::unique_ptr<StreamTimer>(std::make_unique<CudaStreamTimer>());
}

StatusOr<std::vector<std::pair<std::string, std::string>>> DescribeCuda() {
  int ordinal = 0, driver = 0, runtime = 0;
  cudaDeviceProp card{};
  TE_RETURN_IF_ERROR(ToStatus(cudaGetDevice(&ordinal), "cudaGetDevice"));
  TE_RETURN_IF_ERROR(ToStatus(cudaGetDeviceProperties(&card, ordinal), "cudaGetDeviceProperties"));
  TE_RETURN_IF_ERROR(ToStatus(cudaDriverGetVersion(&driver), "cudaDriverGetVersion"));
  TE_RETURN_IF_ERROR(ToStatus(cudaRuntimeGetVersion(&runtime), "cudaRuntimeGetVersion"));
  return std::vector<std::pair<std::string, std::string>>{
      {"card", card.name},
      {"multiprocessors", std::to_string(card.multiProcessorCount)},
      {"cuda_driver", CudaVersion(driver)},
      {"cuda_runtime", CudaVersion(runtime)},
      {"cublas_lt", std::to_string(cublasLtGetVersion())},
      {"cudnn", std::to_string(cudnnGetVersion())}};
}

}  // namespace te::bench
