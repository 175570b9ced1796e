// bytes: what one pass must read and write. Run: bazel run --config=opt
// //te_kernels/rms_norm:rms_norm_bench
#include "te_kernels/rms_norm/rms_norm.h"
#include "te_kernels/testing/bench_against_copy.h"
#include "te_kernels/testing/cpu_exec.h"
#include "te_kernels/testing/host_tensor.h"

namespace te {
namespace {

template <typename T>
void BM_Forward(benchmark::State& state) {
  const int64_t tokens = state.range(0), hidden = state.range(1);
  constexpr DType dtype = DTypeOf<T>::value;
  const test::CpuExec exec(2);
  const test::FilledTensor x(dtype, {tokens, hidden}), gamma(dtype, {hidden}),
      y(dtype, {tokens, hidden}), rstd(DType::kFloat32, {tokens});
  RmsNormForwardArgs args;
  args.x = x;
  args.gamma = gamma;
  args.y = Sink(y);
  args.rstd = rstd;
  test::BenchAgainstCopy(state, 2 * tokens * hidden * static_cast<int64_t>(sizeof(T)), 2,
                         [&] { return RmsNormForwardCpu(exec, args).ok(); });
}

template <typename T>
void BM_Backward(benchmark::State& state) {
  const int64_t tokens = state.range(0), hidden = state.range(1);
  constexpr DType dtype = DTypeOf<T>::value;
  const test::CpuExec exec(2);
  const test::FilledTensor x(dtype, {tokens, hidden}), dy(dtype, {tokens, hidden}),
      gamma(dtype, {hidden}), dx(dtype, {tokens, hidden}), rstd(DType::kFloat32, {tokens}),
      dgamma(dtype, {hidden});
  RmsNormBackwardArgs args;
  args.dy = dy;
  args.x = x;
  args.gamma = gamma;
  args.rstd = rstd;
  args.dx = Sink(dx);
  args.dgamma = dgamma;
  test::BenchAgainstCopy(state, 3 * tokens * hidden * static_cast<int64_t>(sizeof(T)), 2,
                         [&] { return RmsNormBackwardCpu(exec, args).ok(); });
}

BENCHMARK(BM_Forward<float>)->Args({16384, 4096})->Args({1024, 768})->UseManualTime();
BENCHMARK(BM_Forward<bfloat16>)->Args({16384, 4096})->Args({1024, 768})->UseManualTime();
BENCHMARK(BM_Backward<float>)->Args({16384, 4096})->Args({1024, 768})->UseManualTime();
BENCHMARK(BM_Backward<bfloat16>)->Args({16384, 4096})->Args({1024, 768})->UseManualTime();

}  // namespace
}  // namespace te
