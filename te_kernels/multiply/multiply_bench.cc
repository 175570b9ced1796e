#include "te_kernels/multiply/multiply.h"
#include "te_kernels/testing/bench_against_copy.h"
#include "te_kernels/testing/cpu_exec.h"
#include "te_kernels/testing/host_tensor.h"

namespace te {
namespace {

constexpr int64_t kElements = int64_t{1} << 24;

void BenchMultiply(benchmark::State& state, DType dtype) {
  const auto threads = static_cast<int>(state.range(0));
  const test::HostTensor a(dtype, {kElements}), b(dtype, {kElements}), out(dtype, {kElements});
  test::CpuExec exec(threads);
  const int64_t bytes = 3 * kElements * static_cast<int64_t>(SizeOf(dtype));
  test::BenchAgainstCopy(state, bytes, threads,
                         [&] { return MultiplyCpu(exec, {.a = a, .b = b, .out = out}).ok(); });
}

BENCHMARK_CAPTURE(BenchMultiply, float32, DType::kFloat32)->Arg(1)->Arg(2)->UseManualTime();
BENCHMARK_CAPTURE(BenchMultiply, bfloat16, DType::kBFloat16)->Arg(1)->Arg(2)->UseManualTime();

}  // namespace
}  // namespace te
