#include "te_kernels/random_fill/random_fill.h"
#include "te_kernels/testing/bench_against_copy.h"
#include "te_kernels/testing/cpu_exec.h"
#include "te_kernels/testing/host_tensor.h"

namespace te {
namespace {

constexpr int64_t kElements = int64_t{1} << 22;

void BenchRandomFill(benchmark::State& state, RandomDistribution distribution) {
  const auto threads = static_cast<int>(state.range(0));
  const test::HostTensor out(DType::kFloat32, {kElements});
  test::CpuExec exec(threads);
  test::BenchAgainstCopy(state, 4 * kElements, threads, [&] {
    return RandomFillCpu(exec, {.distribution = distribution, .out = out}).ok();
  });
}

BENCHMARK_CAPTURE(BenchRandomFill, normal, RandomDistribution::kNormal)
    ->Arg(1)
    ->Arg(2)
    ->UseManualTime();
BENCHMARK_CAPTURE(BenchRandomFill, uniform, RandomDistribution::kUniform)
    ->Arg(1)
    ->Arg(2)
    ->UseManualTime();

}  // namespace
}  // namespace te
