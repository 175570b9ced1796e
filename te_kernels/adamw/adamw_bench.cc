// One AdamW pass against a copy of as many bytes: of 16 Mi parameters, far beyond any cache.
#include "te_kernels/adamw/adamw.h"
#include "te_kernels/testing/bench_against_copy.h"
#include "te_kernels/testing/cpu_exec.h"
#include "te_kernels/testing/host_tensor.h"

namespace te {
namespace {

constexpr int64_t kElements = int64_t{1} << 24;

void BenchAdamW(benchmark::State& state, DType param_dtype, DType moments, bool has_master,
                Rounding rounding) {
  const auto threads = static_cast<int>(state.range(0));
  const test::HostTensor param(param_dtype, {kElements}), grad(param_dtype, {kElements});
  const test::HostTensor m(moments, {kElements}), v(moments, {kElements});
  const test::HostTensor master(DType::kFloat32, {has_master ? kElements : 0});
  StepScalars scalars;
  scalars.learning_rate = 1e-5f;
  scalars.step = 10;
  AdamWArgs args = {.param = param, .grad = grad, .m = m, .v = v};
  if (has_master) args.master = master;
  args.rounding = rounding;
  args.scalars = &scalars;
  test::CpuExec exec(threads);
  // Read param (or master), grad, m and v; write param, m, v and master.
  const auto p = static_cast<int64_t>(SizeOf(param_dtype));
  const auto bytes =
      kElements * ((has_master ? 2 * p + 8 : 3 * p) + 4 * static_cast<int64_t>(SizeOf(moments)));
  test::BenchAgainstCopy(state, bytes, threads, [&] { return AdamWCpu(exec, args).ok(); });
}

constexpr DType kF32 = DType::kFloat32;
constexpr DType kBf16 = DType::kBFloat16;
constexpr Rounding kNearest = Rounding::kNearest;
constexpr Rounding kStochastic = Rounding::kStochastic;

BENCHMARK_CAPTURE(BenchAdamW, float32, kF32, kF32, false, kNearest)
    ->Arg(1)
    ->Arg(2)
    ->UseManualTime();
BENCHMARK_CAPTURE(BenchAdamW, bfloat16, kBf16, kBf16, false, kNearest)
    ->Arg(1)
    ->Arg(2)
    ->UseManualTime();
BENCHMARK_CAPTURE(BenchAdamW, bfloat16_stochastic, kBf16, kBf16, false, kStochastic)
    ->Arg(1)
    ->Arg(2)
    ->UseManualTime();
BENCHMARK_CAPTURE(BenchAdamW, bfloat16_master, kBf16, kF32, true, kNearest)
    ->Arg(1)
    ->Arg(2)
    ->UseManualTime();

}  // namespace
}  // namespace te
