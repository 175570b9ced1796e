#include "te_kernels/bias_gradient/bias_gradient.h"
#include "te_kernels/testing/bench_against_copy.h"
#include "te_kernels/testing/cpu_exec.h"
#include "te_kernels/testing/host_tensor.h"

namespace te {
namespace {

constexpr int64_t kRows = 8192, kColumns = 2048;

// Reads alone: a copy of as many bytes writes half of them.
void BenchBiasGradient(benchmark::State& state, DType dtype) {
  const auto threads = static_cast<int>(state.range(0));
  const test::HostTensor dy(dtype, {kRows, kColumns}), dbias(dtype, {kColumns});
  test::CpuExec exec(threads);
  const int64_t bytes = kRows * kColumns * static_cast<int64_t>(SizeOf(dtype));
  test::BenchAgainstCopy(state, bytes, threads,
                         [&] { return BiasGradientCpu(exec, {.dy = dy, .dbias = dbias}).ok(); });
}

BENCHMARK_CAPTURE(BenchBiasGradient, float32, DType::kFloat32)->Arg(1)->Arg(2)->UseManualTime();
BENCHMARK_CAPTURE(BenchBiasGradient, bfloat16, DType::kBFloat16)->Arg(1)->Arg(2)->UseManualTime();

}  // namespace
}  // namespace te
