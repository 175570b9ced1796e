// Cross entropy with its gradient in place, relative to a copy of the logits (read once, written
// once).
#include "te_kernels/cross_entropy/cross_entropy.h"
#include "te_kernels/testing/bench_against_copy.h"
#include "te_kernels/testing/cpu_exec.h"
#include "te_kernels/testing/host_tensor.h"

namespace te {
namespace {

void CrossEntropy(benchmark::State& state, DType dtype) {
  const int64_t rows = state.range(0), classes = state.range(1);
  test::CpuExec exec(2);
  const test::FilledTensor logits(dtype, {rows, classes}), loss(DType::kFloat32, {rows});
  test::HostTensor labels(DType::kInt32, {rows});
  test::BenchAgainstCopy(state, 2 * rows * classes * static_cast<int64_t>(SizeOf(dtype)), 2, [&] {
    return CrossEntropyCpu(exec,
                           {.logits = logits, .labels = labels, .loss = loss, .dlogits = logits})
        .ok();
  });
}

BENCHMARK_CAPTURE(CrossEntropy, float32, DType::kFloat32)
    ->Args({1024, 32000})
    ->Args({256, 128256})
    ->UseManualTime();
BENCHMARK_CAPTURE(CrossEntropy, bfloat16, DType::kBFloat16)
    ->Args({1024, 32000})
    ->Args({256, 128256})
    ->UseManualTime();

}  // namespace
}  // namespace te
