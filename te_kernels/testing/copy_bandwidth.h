// The yardstick of operations that move memory: a plain parallel copy, measured in the same run.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace te::test {

// Copies half of `bytes` from one buffer to another: as many bytes read plus written as the
// operation beside it moves, through caches in the same way.
class CopyYardstick {
 public:
  CopyYardstick(int64_t bytes, int num_threads);
  // Seconds of one copy.
  double Run();

 private:
  int64_t half_;
  int num_threads_;
  std::unique_ptr<char[]> source_;
  std::unique_ptr<char[]> destination_;
};

// Bytes read plus written a second by the copy: median of `repeats`.
double CopyBytesPerSecond(int64_t bytes, int num_threads, int repeats = 9);

double SecondsNow();

}  // namespace te::test
