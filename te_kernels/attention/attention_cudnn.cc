#include "te_kernels/attention/attention_cudnn.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "te_kernels/attention/sdpa_graph.h"
#include "te_kernels/attention/sequence_lengths_cuda.h"
#include "te_kernels/cuda/cuda_state.h"
#include "te_kernels/cuda/cuda_status.h"

namespace te {
namespace {

// Before 9.25 cuDNN's deterministic backward keeps dS, [batch, heads, Sq, Skv] of bfloat16, in its
// workspace: more than this is done in slices of batch and heads, whose workspace is reused. A
// slice should fill the card: 1 x 4096 tokens of 32 heads take 1255 us in four slices, 1010 in two,
// 870 in one (H200).
constexpr int64_t kMaxScoreBytes = int64_t{2} << 30;

// Below this a wrong choice costs microseconds.
constexpr double kMinTunedFlops = 2e9;

// What this file offers cuDNN; cuDNN itself may refuse more.
bool Fits(const ConstTensorView& q, const ConstTensorView& k, const ConstTensorView& v,
          const AttentionMask& mask, float dropout) {
  constexpr int64_t kMaxHeadDim = 256;
  if (q.dtype() != DType::kBFloat16 || dropout != 0 || q.elements() == 0 || k.dim(1) == 0)
    return false;
  for (const ConstTensorView* t : {&q, &k, &v}) {
    if (t->dim(3) % 8 != 0 || t->dim(3) > kMaxHeadDim) return false;
    for (int axis = 0; axis < 3; ++axis)
      if (t->stride(axis) % 8 != 0 && t->dim(axis) > 1) return false;
    if (reinterpret_cast<uintptr_t>(t->data()) % 16 != 0) return false;
  }
  if (mask.type == AttentionMaskType::kArbitrary) return false;
  if (UsesPadding(mask.type) &&
      (!mask.padding_on_the_right || mask.type == AttentionMaskType::kPaddingCausalBottomRight)) {
    return false;
  }
  // A row that sees no key has output 0 here and none in cuDNN.
  if (IsBottomRight(mask.type) && q.dim(1) > k.dim(1)) return false;
  const bool window = mask.window_left >= 0 || (mask.window_right >= 0 && !IsCausal(mask.type));
  if (!window) return true;
  return IsCausal(mask.type) && mask.window_right <= 0 && q.dim(1) <= k.dim(1);
}

// The graph of `p`; null when cuDNN has no engine for it. It runs the library's first choice, which
// was the best at every shape that was measured (bench/notes.md, section 7), or the pinned one:
// making and timing all plans took seconds a shape.
StatusOr<SdpaGraph*> GraphOf(const Exec& exec, cuda::CudaState* state, const SdpaProblem& p,
                             cudnnHandle_t handle, SdpaPointers& pointers) {
  SdpaCache* cache = SdpaCache::Of(state);
  const std::string key = p.Key();
  if (const auto found = cache->graphs.find(key); found != cache->graphs.end())
    return found->second.get();
  const auto pinned = cache->pinned.find(key);
  StatusOr<std::unique_ptr<SdpaGraph>> graph =
      SdpaGraph::Build(p, handle, pinned == cache->pinned.end() ? "" : pinned->second);
  if (!graph.ok() && graph.status().code() != StatusCode::kUnsupported) return graph.status();
  if (graph.ok() && cache->tune && !(*graph)->pinned() && p.flops() >= kMinTunedFlops) {
    cudaStreamCaptureStatus capturing = cudaStreamCaptureStatusNone;
    TE_RETURN_IF_ERROR(cuda::ToStatus(cudaStreamIsCapturing(cuda::StreamOf(exec), &capturing),
                                      "cudaStreamIsCapturing"));
    if (capturing == cudaStreamCaptureStatusNone) {
      cuda::CandidateSearch search(cuda::SearchSession::Of(state), "attention " + key);
      TE_RETURN_IF_ERROR((*graph)->Tune(exec, handle, pointers, &search));
      if (cache->tune_knobs)
        TE_RETURN_IF_ERROR((*graph)->TuneKnobs(exec, handle, pointers, &search));
      cache->found.insert(key);
    }
  }
  std::unique_ptr<SdpaGraph>& slot = cache->graphs[key];
  if (graph.ok()) {
    slot = std::move(graph).value();
  } else {
    cache->refusals[key] = graph.status().message();
  }
  return slot.get();
}

void* Pointer(const ConstTensorView& view) { return const_cast<void*>(view.data()); }

int64_t BytesOf(std::initializer_list<ConstTensorView> tensors) {
  int64_t bytes = 0;
  for (const ConstTensorView& t : tensors)
    if (t.defined()) bytes += static_cast<int64_t>(t.bytes());
  return bytes;
}

// How many sequences, and of each how many groups of heads, one slice of the backward pass takes.
struct Slices {
  int64_t batch;
  int64_t groups;
};
Slices SlicesOf(const ConstTensorView& q, const ConstTensorView& k, bool deterministic) {
  if (!deterministic) return {q.dim(0), k.dim(2)};  // dq is summed by atomics: there is no dS
  const int64_t heads_per_group = q.dim(2) / k.dim(2);
  const int64_t group_bytes = heads_per_group * q.dim(1) * k.dim(1) * 2;
  const auto divisor_at_most = [](int64_t n, int64_t limit) {
    int64_t d = std::clamp<int64_t>(limit, 1, n);
    while (n % d != 0) --d;
    return d;
  };
  const int64_t groups = kMaxScoreBytes / group_bytes;
  if (groups < k.dim(2)) return {1, divisor_at_most(k.dim(2), groups)};
  return {divisor_at_most(q.dim(0), groups / k.dim(2)), k.dim(2)};
}

// Of one slice.
SdpaPointers PointersOf(const SdpaProblem& p) {
  SdpaPointers pointers = {{kSdpaQ, Pointer(p.q)},
                           {kSdpaK, Pointer(p.k)},
                           {kSdpaV, Pointer(p.v)},
                           {kSdpaOut, Pointer(p.out)}};
  if (p.lse.defined()) pointers[kSdpaLse] = Pointer(p.lse);
  if (p.backward) {
    pointers[kSdpaDout] = Pointer(p.dout);
    pointers[kSdpaDq] = Pointer(p.dq);
    pointers[kSdpaDk] = Pointer(p.dk);
    pointers[kSdpaDv] = Pointer(p.dv);
  }
  return pointers;
}

}  // namespace

StatusOr<bool> RunSdpa(const Exec& exec, const SdpaProblem& p, const ConstTensorView& lengths,
                       const SdpaPointers& scalars, std::string* refusal) {
  TE_ASSIGN_OR_RETURN(cuda::CudaState * state, cuda::GetCudaState(exec));
  TE_ASSIGN_OR_RETURN(const cudnnHandle_t handle, state->Cudnn(cuda::StreamOf(exec)));
  SdpaPointers pointers = PointersOf(p);
  pointers.insert(scalars.begin(), scalars.end());
  if (p.lengths) {
    pointers[kSdpaLengthsQ] = Pointer(lengths.Select(0, 0));
    pointers[kSdpaLengthsKv] = Pointer(lengths.Select(0, 1));
  }
  SdpaCache* cache = SdpaCache::Of(state);
  TE_ASSIGN_OR_RETURN(SdpaGraph * graph, GraphOf(exec, state, p, handle, pointers));
  if (graph == nullptr) {
    if (refusal != nullptr) *refusal = cache->refusals[p.Key()];
    return false;
  }
  cache->last = graph;
  TE_RETURN_IF_ERROR(graph->Run(exec, handle, pointers));
  return true;
}

StatusOr<ConstTensorView> SequenceLengthsOf(const Exec& exec, const AttentionMask& mask,
                                            const ConstTensorView& q) {
  if (!UsesPadding(mask.type)) return ConstTensorView();
  TE_ASSIGN_OR_RETURN(const TensorView lengths,
                      exec.scratch->Allocate(DType::kInt32, {2, q.dim(0)}));
  TE_RETURN_IF_ERROR(SequenceLengthsCuda(exec, mask.padding, q.dim(1), lengths));
  return ConstTensorView(lengths);
}

StatusOr<bool> AttentionForwardCudnn(const Exec& exec, const AttentionForwardArgs& args) {
  if (!Fits(args.q, args.k, args.v, args.mask, args.dropout)) return false;
  const ArenaScope scope(exec.scratch);
  TE_ASSIGN_OR_RETURN(const ConstTensorView lengths, SequenceLengthsOf(exec, args.mask, args.q));
  const SdpaProblem problem = {.q = args.q,
                               .k = args.k,
                               .v = args.v,
                               .out = args.out,
                               .lse = args.lse,
                               .mask = args.mask.type,
                               .window_left = args.mask.window_left,
                               .scale = args.softmax_scale,
                               .lengths = lengths.defined(),
                               .backward = false};
  TE_ASSIGN_OR_RETURN(const bool done, RunSdpa(exec, problem, lengths));
  if (done) {
    Record(exec, "attention_forward", "cudnn_sdpa", args.q.dtype(),
           BytesOf({args.q, args.k, args.v, args.out, args.lse}));
  }
  return done;
}

namespace {

// False: cuDNN has no engine of this kind.
StatusOr<bool> RunBackward(const Exec& exec, const AttentionBackwardArgs& args,
                           const ConstTensorView& lengths, bool deterministic) {
  const int64_t batch = args.q.dim(0), groups = args.k.dim(2);
  const int64_t heads_per_group = args.q.dim(2) / groups;
  const Slices slices = SlicesOf(args.q, args.k, deterministic);
  for (int64_t b = 0; b < batch; b += slices.batch) {
    for (int64_t g = 0; g < groups; g += slices.groups) {
      const auto sequences = [&](const ConstTensorView& t) {
        return t.Slice(0, b, b + slices.batch);
      };
      const auto of_groups = [&](const ConstTensorView& t) {
        return sequences(t).Slice(2, g, g + slices.groups);
      };
      const auto of_heads = [&](const ConstTensorView& t, int axis) {
        return sequences(t).Slice(axis, g * heads_per_group, (g + slices.groups) * heads_per_group);
      };
      const SdpaProblem problem = {.q = of_heads(args.q, 2),
                                   .k = of_groups(args.k),
                                   .v = of_groups(args.v),
                                   .out = of_heads(args.out, 2),
                                   .dout = of_heads(args.dout, 2),
                                   .lse = of_heads(args.lse, 1),
                                   .dq = of_heads(args.dq, 2),
                                   .dk = of_groups(args.dk),
                                   .dv = of_groups(args.dv),
                                   .mask = args.mask.type,
                                   .window_left = args.mask.window_left,
                                   .scale = args.softmax_scale,
                                   .lengths = lengths.defined(),
                                   .backward = true,
                                   .deterministic = deterministic};
      TE_ASSIGN_OR_RETURN(
          const bool done,
          RunSdpa(exec, problem,
                  lengths.defined() ? lengths.Slice(1, b, b + slices.batch) : lengths));
      if (!done) return false;  // refused before the first slice ran: all slices are alike
    }
  }
  return true;
}

}  // namespace

StatusOr<bool> AttentionBackwardCudnn(const Exec& exec, const AttentionBackwardArgs& args) {
  if (!Fits(args.q, args.k, args.v, args.mask, args.dropout)) return false;
  const ArenaScope scope(exec.scratch);
  TE_ASSIGN_OR_RETURN(const ConstTensorView lengths, SequenceLengthsOf(exec, args.mask, args.q));
  bool done = false, deterministic = !exec.allow_nondeterministic;
  TE_ASSIGN_OR_RETURN(done, RunBackward(exec, args, lengths, deterministic));
  if (!done && !deterministic) {
    deterministic = true;
    TE_ASSIGN_OR_RETURN(done, RunBackward(exec, args, lengths, deterministic));
  }
  if (done) {
    Record(exec, "attention_backward",
           deterministic ? "cudnn_sdpa_backward" : "cudnn_sdpa_backward_nondeterministic",
           args.q.dtype(),
           BytesOf(
               {args.q, args.k, args.v, args.out, args.dout, args.lse, args.dq, args.dk, args.dv}));
  }
  return done;
}

}  // namespace te
