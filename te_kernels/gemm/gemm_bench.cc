// GEMM rates at the shapes of a 110M-parameter Llama (1024 tokens, hidden 768, ffn 2048, vocabulary
// 32000), beside 2048^3.
#include <benchmark/benchmark.h>

#include "te_kernels/gemm/gemm.h"
#include "te_kernels/gemm/onednn_exec.h"
#include "te_kernels/testing/host_tensor.h"

namespace te {
namespace {

void Gemm(benchmark::State& state, GemmKind kind, DType dtype, int64_t m, int64_t n, int64_t k) {
  test::OnednnExec exec(2);
  const Shape x = {m, k}, w = {n, k}, y = {m, n};
  const test::FilledTensor a(dtype, kind == GemmKind::kFprop ? x : y);
  const test::FilledTensor b(dtype, kind == GemmKind::kWgrad ? x : w);
  const test::FilledTensor d(dtype, kind == GemmKind::kFprop   ? y
                                    : kind == GemmKind::kDgrad ? x
                                                               : w);
  for (auto _ : state) {
    if (!GemmCpu(exec, {.kind = kind, .a = ConstTensorView(a), .b = ConstTensorView(b), .d = d})
             .ok()) {
      state.SkipWithError("the operation failed");
      break;
    }
  }
  state.counters["FLOP/s"] = benchmark::Counter(
      2.0 * m * n * k, benchmark::Counter::kIsIterationInvariantRate, benchmark::Counter::kIs1000);
}

const int kRegistered = [] {
  const struct {
    const char* name;
    int64_t m, n, k;
  } shapes[] = {{"cube", 2048, 2048, 2048}, {"qkv", 1024, 2304, 768},
                {"proj", 1024, 768, 768},   {"fc1", 1024, 4096, 768},
                {"fc2", 1024, 768, 2048},   {"lm_head", 1024, 32000, 768}};
  for (DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    for (const auto& s : shapes) {
      for (const auto& [kind, kind_name] : {std::pair{GemmKind::kFprop, "fprop"},
                                            {GemmKind::kDgrad, "dgrad"},
                                            {GemmKind::kWgrad, "wgrad"}}) {
        benchmark::RegisterBenchmark(
            (std::string(Name(dtype)) + "/" + s.name + "/" + kind_name).c_str(),
            [=](benchmark::State& state) { Gemm(state, kind, dtype, s.m, s.n, s.k); })
            ->UseRealTime();
      }
    }
  }
  return 0;
}();

}  // namespace
}  // namespace te
