// Attention forward and backward, causal, in FLOP/s (causal half counted: 2 B n S^2 d forward, 2.5
// times that backward).
#include <benchmark/benchmark.h>

#include <cmath>

#include "te_kernels/attention/attention.h"
#include "te_kernels/gemm/onednn_exec.h"
#include "te_kernels/testing/host_tensor.h"

namespace te {
namespace {

void Attention(benchmark::State& state, DType dtype, int64_t batch, int64_t sequence,
               bool backward) {
  constexpr int64_t kHeads = 12, kHeadDim = 64;
  test::OnednnExec exec(2);
  const Shape shape = {batch, sequence, kHeads, kHeadDim};
  const test::FilledTensor q(dtype, shape), k(dtype, shape), v(dtype, shape), out(dtype, shape),
      dout(dtype, shape);
  const test::FilledTensor dq(dtype, shape), dk(dtype, shape), dv(dtype, shape),
      lse(DType::kFloat32, {batch, kHeads, sequence});
  const float scale = 1.0f / std::sqrt(static_cast<float>(kHeadDim));
  const auto forward = [&] {
    return AttentionForwardCpu(
               exec, {.q = q, .k = k, .v = v, .softmax_scale = scale, .out = out, .lse = lse})
        .ok();
  };
  bool ok = forward();
  for (auto _ : state) {
    ok = ok && (backward ? AttentionBackwardCpu(exec, {.q = q,
                                                       .k = k,
                                                       .v = v,
                                                       .out = out,
                                                       .dout = dout,
                                                       .lse = lse,
                                                       .softmax_scale = scale,
                                                       .dq = dq,
                                                       .dk = dk,
                                                       .dv = dv})
                               .ok()
                         : forward());
  }
  if (!ok) state.SkipWithError("the operation failed");
  const double flop = 2.0 * batch * kHeads * sequence * sequence * kHeadDim * (backward ? 2.5 : 1);
  state.counters["FLOP/s"] = benchmark::Counter(flop, benchmark::Counter::kIsIterationInvariantRate,
                                                benchmark::Counter::kIs1000);
}

const int kRegistered = [] {
  for (DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    for (const auto& [batch, sequence] :
         {std::pair<int64_t, int64_t>{4, 256}, {1, 2048}, {1, 4096}}) {
      for (bool backward : {false, true}) {
        const std::string name = fmt::format("{}/{}x{}/{}", Name(dtype), batch, sequence,
                                             backward ? "backward" : "forward");
        benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) {
          Attention(state, dtype, batch, sequence, backward);
        })->UseRealTime();
      }
    }
  }
  return 0;
}();

}  // namespace
}  // namespace te
