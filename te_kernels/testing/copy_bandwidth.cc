#include "te_kernels/testing/copy_bandwidth.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <vector>

#include "te_kernels/base/parallel.h"

namespace te::test {

double SecondsNow() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

CopyYardstick::CopyYardstick(int64_t bytes, int num_threads)
    : half_(std::max<int64_t>(bytes / 2, 1)),
      num_threads_(num_threads),
      source_(new char[half_]),
      destination_(new char[half_]) {
  std::memset(source_.get(), 1, half_);
  std::memset(destination_.get(), 2, half_);
}

double CopyYardstick::Run() {
  Exec exec;
  exec.num_threads = num_threads_;
  const double start = SecondsNow();
  ParallelFor(exec, half_, 1 << 16, [&](int64_t begin, int64_t end) {
    std::memcpy(destination_.get() + begin, source_.get() + begin, end - begin);
  });
  return SecondsNow() - start;
}

double CopyBytesPerSecond(int64_t bytes, int num_threads, int repeats) {
  CopyYardstick copy(bytes, num_threads);
  std::vector<double> seconds(std::max(repeats, 1));
  for (double& s : seconds) s = copy.Run();
  std::nth_element(seconds.begin(), seconds.begin() + seconds.size() / 2, seconds.end());
  return static_cast<double>(bytes) / seconds[seconds.size() / 2];
}

}  // namespace te::test
