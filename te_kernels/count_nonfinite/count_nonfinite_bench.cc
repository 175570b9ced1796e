#include "te_kernels/count_nonfinite/count_nonfinite.h"
#include "te_kernels/testing/bench_against_copy.h"
#include "te_kernels/testing/cpu_exec.h"
#include "te_kernels/testing/host_tensor.h"

namespace te {
namespace {

constexpr int64_t kElements = int64_t{1} << 24;

// Reads alone: a copy of as many bytes writes half of them.
void BenchCountNonfinite(benchmark::State& state, DType dtype) {
  const auto threads = static_cast<int>(state.range(0));
  const test::HostTensor x(dtype, {kElements});
  int64_t count = 0;
  test::CpuExec exec(threads);
  const int64_t bytes = kElements * static_cast<int64_t>(SizeOf(dtype));
  test::BenchAgainstCopy(state, bytes, threads, [&] {
    return CountNonfiniteCpu(exec, {.x = x, .as = DType::kFloat16, .count = &count}).ok();
  });
}

BENCHMARK_CAPTURE(BenchCountNonfinite, float32, DType::kFloat32)->Arg(1)->Arg(2)->UseManualTime();
BENCHMARK_CAPTURE(BenchCountNonfinite, bfloat16, DType::kBFloat16)->Arg(1)->Arg(2)->UseManualTime();

}  // namespace
}  // namespace te
