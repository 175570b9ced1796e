// A Google Benchmark loop that times an operation and, alternately, a copy of as many bytes, so
// that the ratio survives a noisy machine. Counters: "GB/s" of the operation and "of_copy", its
// bandwidth relative to that of the copy that ran right after it (medians of the run). Use with
// ->UseManualTime().
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "benchmark/benchmark.h"
#include "te_kernels/testing/copy_bandwidth.h"

namespace te::test {

// `bytes`: what the operation must read plus write once. `operation` returns false on failure.
template <typename Operation>
void BenchAgainstCopy(benchmark::State& state, int64_t bytes, int num_threads,
                      const Operation& operation) {
  CopyYardstick copy(bytes, num_threads);
  std::vector<double> operation_seconds;
  std::vector<double> ratios;
  copy.Run();
  if (!operation()) state.SkipWithError("the operation failed");
  for (auto _ : state) {
    const double start = SecondsNow();
    const bool ok = operation();
    const double seconds = SecondsNow() - start;
    if (!ok) {
      state.SkipWithError("the operation failed");
      break;
    }
    state.SetIterationTime(seconds);
    operation_seconds.push_back(seconds);
    ratios.push_back(copy.Run() / seconds);
  }
  if (operation_seconds.empty()) return;
  const auto median = [](std::vector<double>& v) {
    std::nth_element(v.begin(), v.begin() + v.size() / 2, v.end());
    return v[v.size() / 2];
  };
  const double op = median(operation_seconds);
  state.counters["GB/s"] = static_cast<double>(bytes) / op * 1e-9;
  state.counters["of_copy"] = median(ratios);
}

}  // namespace te::test
