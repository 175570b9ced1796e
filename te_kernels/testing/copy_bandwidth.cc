#include "te_kernels/testing/copy_bandwidth.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <vector>

#include "te_kernels/base/parallel.h"

namespace te::test {
namespace {

constexpr int64_t kChunk = 16384;  // bytes: below every threshold of memcpy's

}  // namespace

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
    // Not memcpy, which bypasses the caches above a size that depends on the machine: an
    // operation's output is read next, and is wanted in them.
    char* to = destination_.get();
    const char* from = source_.get();
    for (int64_t i = begin; i < end; i += kChunk) {
      const int64_t n = std::min(kChunk, end - i);
      std::memcpy(to + i, from + i, n);
    }
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
