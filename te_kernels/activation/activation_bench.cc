// bytes: what one pass must read and write. Arguments: T, F. Run: bazel run --config=opt
// //te_kernels/activation:activation_bench
#include "te_kernels/activation/activation.h"
#include "te_kernels/testing/bench_against_copy.h"
#include "te_kernels/testing/cpu_exec.h"
#include "te_kernels/testing/host_tensor.h"

namespace te {
namespace {

template <typename T, ActivationKind kKind>
void BM_Forward(benchmark::State& state) {
  const int64_t tokens = state.range(0), width = state.range(1);
  const int64_t halves = IsGated(kKind) ? 2 : 1;
  constexpr DType dtype = DTypeOf<T>::value;
  const test::CpuExec exec(2);
  const test::FilledTensor x(dtype, {tokens, halves * width}), y(dtype, {tokens, width});
  ActivationForwardArgs args;
  args.kind = kKind;
  args.x = x;
  args.y = Sink(y);
  const auto size = static_cast<int64_t>(sizeof(T));
  test::BenchAgainstCopy(state, (halves + 1) * tokens * width * size, 2,
                         [&] { return ActivationForwardCpu(exec, args).ok(); });
}

template <typename T, ActivationKind kKind>
void BM_Backward(benchmark::State& state) {
  const int64_t tokens = state.range(0), width = state.range(1);
  const int64_t halves = IsGated(kKind) ? 2 : 1;
  constexpr DType dtype = DTypeOf<T>::value;
  const test::CpuExec exec(2);
  const test::FilledTensor x(dtype, {tokens, halves * width}), dx(dtype, {tokens, halves * width}),
      dy(dtype, {tokens, width});
  ActivationBackwardArgs args;
  args.kind = kKind;
  args.x = x;
  args.dy = dy;
  args.dx = Sink(dx);
  const auto size = static_cast<int64_t>(sizeof(T));
  test::BenchAgainstCopy(state, (2 * halves + 1) * tokens * width * size, 2,
                         [&] { return ActivationBackwardCpu(exec, args).ok(); });
}

#define TE_SHAPES Args({8192, 4096})->Args({1024, 2048})->UseManualTime()
BENCHMARK(BM_Forward<float, ActivationKind::kSwiglu>)->TE_SHAPES;
BENCHMARK(BM_Forward<bfloat16, ActivationKind::kSwiglu>)->TE_SHAPES;
BENCHMARK(BM_Backward<float, ActivationKind::kSwiglu>)->TE_SHAPES;
BENCHMARK(BM_Backward<bfloat16, ActivationKind::kSwiglu>)->TE_SHAPES;
BENCHMARK(BM_Forward<bfloat16, ActivationKind::kGelu>)->TE_SHAPES;
BENCHMARK(BM_Backward<bfloat16, ActivationKind::kGelu>)->TE_SHAPES;
BENCHMARK(BM_Forward<bfloat16, ActivationKind::kClampedSwiglu>)->TE_SHAPES;
BENCHMARK(BM_Backward<bfloat16, ActivationKind::kClampedSwiglu>)->TE_SHAPES;
#undef TE_SHAPES

}  // namespace
}  // namespace te
