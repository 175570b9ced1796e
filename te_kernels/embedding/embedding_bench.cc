// Of a 32000 x 768 table and 1024 tokens, as in a fine-tuning step of a 110M-parameter model.
#include "te_kernels/embedding/embedding.h"
#include "te_kernels/testing/bench_against_copy.h"
#include "te_kernels/testing/cpu_exec.h"
#include "te_kernels/testing/host_tensor.h"

namespace te {
namespace {

constexpr int64_t kTokens = 1024, kVocabulary = 32000, kHidden = 768;

test::HostTensor Ids() {
  return test::HostTensor::Uniform(DType::kInt32, {kTokens}, 1, 0, kVocabulary);
}

void BenchForward(benchmark::State& state, DType dtype) {
  const auto threads = static_cast<int>(state.range(0));
  const test::HostTensor ids = Ids(), table(dtype, {kVocabulary, kHidden}),
                         out(dtype, {kTokens, kHidden});
  test::CpuExec exec(threads);
  const int64_t bytes = 2 * kTokens * kHidden * static_cast<int64_t>(SizeOf(dtype));
  test::BenchAgainstCopy(state, bytes, threads, [&] {
    return EmbeddingForwardCpu(exec, {.ids = ids, .table = table, .out = out}).ok();
  });
}

// With accumulation: dout is read, the rows named are read and written.
void BenchBackward(benchmark::State& state, DType dtype) {
  const auto threads = static_cast<int>(state.range(0));
  const test::HostTensor ids = Ids(), dtable(dtype, {kVocabulary, kHidden}),
                         dout(dtype, {kTokens, kHidden});
  test::CpuExec exec(threads);
  const int64_t bytes = 3 * kTokens * kHidden * static_cast<int64_t>(SizeOf(dtype));
  test::BenchAgainstCopy(state, bytes, threads, [&] {
    return EmbeddingBackwardCpu(exec,
                                {.ids = ids, .dout = dout, .dtable = dtable, .accumulate = true})
        .ok();
  });
}

BENCHMARK_CAPTURE(BenchForward, float32, DType::kFloat32)->Arg(1)->Arg(2)->UseManualTime();
BENCHMARK_CAPTURE(BenchForward, bfloat16, DType::kBFloat16)->Arg(1)->Arg(2)->UseManualTime();
BENCHMARK_CAPTURE(BenchBackward, float32, DType::kFloat32)->Arg(1)->Arg(2)->UseManualTime();
BENCHMARK_CAPTURE(BenchBackward, bfloat16, DType::kBFloat16)->Arg(1)->Arg(2)->UseManualTime();

}  // namespace
}  // namespace te
