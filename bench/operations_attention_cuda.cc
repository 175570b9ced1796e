#include <algorithm>
#include <cmath>
#include <numeric>

#include "bench/operations_cuda.h"
#include "fmt/format.h"
#include "te_kernels/attention/sdpa_graph.h"
#include "te_kernels/cuda/cuda_state.h"

namespace te::bench {

Status OperationsBench::Attention(const BenchModelShape& model, int64_t tokens, int64_t sequence) {
  const int64_t n = model.heads, g = model.groups, d = model.head_dim;
  const int64_t batch = tokens / sequence;
  const std::string shape = fmt::format("{} {}x{}", model.name, batch, sequence);
  const char* const nondeterministic = "attention_backward nondet.";
  if (batch < 1 || (!Wanted("attention_forward", shape) && !Wanted("attention_backward", shape) &&
                    !Wanted(nondeterministic, shape)))
    return OkStatus();
  const int count = OperationTimer::Rotations(2 * tokens * (2 * n + 2 * g) * d);
  TE_ASSIGN_OR_RETURN(const Buffers qkv, Random({batch, sequence, (n + 2 * g) * d}, count));
  TE_ASSIGN_OR_RETURN(const Buffers dqkv, Random({batch, sequence, (n + 2 * g) * d}, count));
  TE_ASSIGN_OR_RETURN(const Buffers out, Random({batch, sequence, n, d}, count));
  TE_ASSIGN_OR_RETURN(const Buffers dout, Random({batch, sequence, n, d}, count));
  TE_ASSIGN_OR_RETURN(const Buffers lse, Random({batch, n, sequence}, count, DType::kFloat32));
  const auto part = [=](const Buffers& buffers, int i, int64_t begin, int64_t heads) {
    return View(buffers, i).Slice(2, begin * d, (begin + heads) * d).Split(2, heads, d);
  };
  const float scale = 0.08838834764831845f;  // 1 / sqrt(128)
  const OperationTimer::Call forward = [=, this](int i) {
    return run().attention_forward(exec(), {.q = part(qkv, i, 0, n),
                                            .k = part(qkv, i, n, g),
                                            .v = part(qkv, i, n + g, g),
                                            .softmax_scale = scale,
                                            .out = View(out, i),
                                            .lse = View(lse, i)});
  };
  const auto backward = [=, this](const Exec& exec, int i) {
    return run().attention_backward(exec, {.q = part(qkv, i, 0, n),
                                           .k = part(qkv, i, n, g),
                                           .v = part(qkv, i, n + g, g),
                                           .out = View(out, i),
                                           .dout = View(dout, i),
                                           .lse = View(lse, i),
                                           .softmax_scale = scale,
                                           .dq = part(dqkv, i, 0, n),
                                           .dk = part(dqkv, i, n, g),
                                           .dv = part(dqkv, i, n + g, g)});
  };
  // Two products of the visible half forward, five backward.
  const double pairs = static_cast<double>(sequence) * static_cast<double>(sequence + 1) / 2;
  const double flops = 4 * static_cast<double>(batch * n * d) * pairs;
  // Before the backward pass, so that it has outputs and sums of its inputs.
  for (int i = 0; i < count; ++i) TE_RETURN_IF_ERROR(forward(i));
  TE_RETURN_IF_ERROR(AgainstPlans("attention_forward", shape, flops, forward, count));
  Exec allowing = exec();
  allowing.allow_nondeterministic = true;
  TE_RETURN_IF_ERROR(AgainstPlans(
      "attention_backward", shape, 2.5 * flops, [&](int i) { return backward(exec(), i); }, count));
  return AgainstPlans(
      nondeterministic, shape, 2.5 * flops, [&](int i) { return backward(allowing, i); }, count);
}

// Beside the library's first choice, and those plans that were fastest when ours was chosen.
Status OperationsBench::AgainstPlans(const char* operation, const std::string& shape, double flops,
                                     const OperationTimer::Call& call, int rotations) {
  constexpr size_t kKept = 5;
  if (!Wanted(operation, shape)) return OkStatus();
  TE_ASSIGN_OR_RETURN(cuda::CudaState * state, cuda::GetCudaState(exec()));
  SdpaCache* cache = SdpaCache::Of(state);
  cache->tune = true;
  cache->tune_knobs = options_.attention_knobs;
  cache->last = nullptr;
  TE_RETURN_IF_ERROR(call(0));
  SdpaGraph* graph = cache->last;
  if (graph == nullptr) {  // our own kernels
    TE_ASSIGN_OR_RETURN(const double seconds, timer_->Seconds(call, rotations));
    Add({operation, shape, seconds, flops / seconds, 0, true});
    return OkStatus();
  }
  const size_t chosen = graph->chosen();
  std::vector<size_t> plans(graph->plans().size());
  std::iota(plans.begin(), plans.end(), 0);
  // Infinite: the plan failed when it ran. The first choice comes first, whatever it took.
  std::erase_if(plans, [&](size_t p) { return !std::isfinite(graph->plans()[p].milliseconds); });
  if (!plans.empty()) {
    std::sort(plans.begin() + 1, plans.end(), [&](size_t a, size_t b) {
      return graph->plans()[a].milliseconds < graph->plans()[b].milliseconds;
    });
  }
  if (plans.size() > kKept) plans.resize(kKept);
  std::vector<OperationTimer::Call> calls = {call};
  for (const size_t plan : plans) {
    calls.emplace_back([=, &call](int i) {
      graph->Choose(plan);
      const Status status = call(i);
      graph->Choose(chosen);
      return status;
    });
  }
  TE_ASSIGN_OR_RETURN(const std::vector<double> seconds, timer_->Seconds(calls, rotations));
  const double best = *std::min_element(seconds.begin() + 1, seconds.end());
  Add({operation, fmt::format("{} of {}", shape, graph->plans().size()), seconds[0],
       flops / seconds[0], flops / best, true});
  for (size_t i = 0; i < plans.size(); ++i) {
    const SdpaPlan& plan = graph->plans()[plans[i]];
    fmt::print("    {:>10.1f} us  plan {}{}, workspace {} bytes{}\n", seconds[i + 1] * 1e6,
               plans[i] == 0 ? "(cuDNN's first choice) " : "", plan.config, plan.workspace_bytes,
               plans[i] == chosen ? ", ours" : "");
  }
  return OkStatus();
}

}  // namespace te::bench
