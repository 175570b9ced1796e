// bytes: x read, y written. Shapes: batch, length, heads, head_dim.
// Run: bazel run --config=opt //te_kernels/rope:rope_bench
#include "te_kernels/rope/rope.h"
#include "te_kernels/testing/bench_against_copy.h"
#include "te_kernels/testing/cpu_exec.h"
#include "te_kernels/testing/host_tensor.h"

namespace te {
namespace {

template <typename T, bool kInterleaved, bool kInPlace>
void BM_Rope(benchmark::State& state) {
  const int64_t b = state.range(0), s = state.range(1), n = state.range(2), d = state.range(3);
  constexpr DType dtype = DTypeOf<T>::value;
  const test::CpuExec exec(2);
  const test::FilledTensor x(dtype, {b, s, n, d}), y(dtype, {b, s, n, d}),
      cos(DType::kFloat32, {s, d / 2}), sin(DType::kFloat32, {s, d / 2});
  for (int64_t i = 0; i < s * d / 2; ++i) {  // a true rotation: values keep their size in place
    TensorView(cos).as<float>()[i] = 0.8f;
    TensorView(sin).as<float>()[i] = 0.6f;
  }
  RopeArgs args;
  args.x = x;
  args.cos = cos;
  args.sin = sin;
  args.interleaved = kInterleaved;
  args.y = kInPlace ? Sink(x) : Sink(y);
  // In place, memory is read and written once, too; the copy beside it also fetches what it
  // overwrites.
  test::BenchAgainstCopy(state, 2 * b * s * n * d * static_cast<int64_t>(sizeof(T)), 2, [&] {
    args.inverse = !args.inverse;
    return RopeCpu(exec, args).ok();
  });
}

#define TE_ROPE_SHAPES Args({8, 2048, 32, 128})->Args({4, 256, 12, 64})->UseManualTime()
BENCHMARK(BM_Rope<float, false, false>)->TE_ROPE_SHAPES;
BENCHMARK(BM_Rope<bfloat16, false, false>)->TE_ROPE_SHAPES;
BENCHMARK(BM_Rope<float, false, true>)->TE_ROPE_SHAPES;
BENCHMARK(BM_Rope<bfloat16, false, true>)->TE_ROPE_SHAPES;
BENCHMARK(BM_Rope<float, true, false>)->TE_ROPE_SHAPES;
BENCHMARK(BM_Rope<bfloat16, true, false>)->TE_ROPE_SHAPES;
#undef TE_ROPE_SHAPES

}  // namespace
}  // namespace te
