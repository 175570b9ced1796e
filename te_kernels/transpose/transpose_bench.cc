#include "te_kernels/testing/bench_against_copy.h"
#include "te_kernels/testing/cpu_exec.h"
#include "te_kernels/testing/host_tensor.h"
#include "te_kernels/transpose/transpose.h"

namespace te {
namespace {

void BenchTranspose(benchmark::State& state) {
  const auto threads = static_cast<int>(state.range(0));
  constexpr int64_t kRows = 4096, kColumns = 11008;
  const test::HostTensor x(DType::kUInt8, {kRows, kColumns}), y(DType::kUInt8, {kColumns, kRows});
  test::CpuExec exec(threads);
  test::BenchAgainstCopy(state, 2 * kRows * kColumns, threads,
                         [&] { return TransposeCpu(exec, {.x = x, .y = y}).ok(); });
}

BENCHMARK(BenchTranspose)->Arg(1)->Arg(2)->UseManualTime();

}  // namespace
}  // namespace te
