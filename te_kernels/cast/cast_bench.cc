#include "te_kernels/cast/cast.h"
#include "te_kernels/testing/bench_against_copy.h"
#include "te_kernels/testing/cpu_exec.h"
#include "te_kernels/testing/host_tensor.h"

namespace te {
namespace {

constexpr int64_t kElements = int64_t{1} << 24;

void BenchCast(benchmark::State& state, DType from, DType to) {
  const auto threads = static_cast<int>(state.range(0));
  const test::HostTensor x(from, {kElements}), y(to, {kElements});
  test::CpuExec exec(threads);
  const auto bytes = kElements * static_cast<int64_t>(SizeOf(from) + SizeOf(to));
  test::BenchAgainstCopy(state, bytes, threads,
                         [&] { return CastCpu(exec, {.x = x, .y = y}).ok(); });
}

constexpr DType kF32 = DType::kFloat32, kBf16 = DType::kBFloat16, kF16 = DType::kFloat16;

BENCHMARK_CAPTURE(BenchCast, float32_to_bfloat16, kF32, kBf16)->Arg(1)->Arg(2)->UseManualTime();
BENCHMARK_CAPTURE(BenchCast, bfloat16_to_float32, kBf16, kF32)->Arg(1)->Arg(2)->UseManualTime();
BENCHMARK_CAPTURE(BenchCast, float16_to_float32, kF16, kF32)->Arg(1)->Arg(2)->UseManualTime();
BENCHMARK_CAPTURE(BenchCast, float32_to_float16, kF32, kF16)->Arg(1)->Arg(2)->UseManualTime();

}  // namespace
}  // namespace te
