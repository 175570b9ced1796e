#include "te_kernels/attention/attention_cudnn.h"

#include <cudnn_frontend.h>

#include <algorithm>
#include <exception>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>

#include "te_kernels/attention/sequence_lengths_cuda.h"
#include "te_kernels/cuda/cuda_state.h"

namespace te {
namespace {

namespace fe = cudnn_frontend;

// Before 9.25 cuDNN's deterministic backward keeps dS, [batch, heads, Sq, Skv] of bfloat16, in its
// workspace: more than this is done in slices of batch and heads, whose workspace is reused. A
// slice should fill the card: 1 x 4096 tokens of 32 heads take 1255 us in four slices, 1010 in two,
// 870 in one (H200).
constexpr int64_t kMaxScoreBytes = int64_t{2} << 30;

enum Uid : int64_t { kQ = 1, kK, kV, kOut, kLse, kDout, kDq, kDk, kDv, kLengthsQ, kLengthsKv };

struct Problem {
  ConstTensorView q, k, v, out, dout, lse, dq, dk, dv;  // dout and later: backward only
  AttentionMaskType mask;
  int64_t window_left;
  float scale;
  bool lengths;
  bool backward;

  std::string Key() const {
    std::string key = backward ? "backward" : "forward";
    for (const ConstTensorView* t : {&q, &k, &v, &out, &dout, &lse, &dq, &dk, &dv}) {
      if (!t->defined()) {
        key += " -";
        continue;
      }
      for (int i = 0; i < t->rank(); ++i) key += fmt::format(" {}/{}", t->dim(i), t->stride(i));
    }
    return key + fmt::format(" {} {} {} {}", static_cast<int>(mask), window_left, scale, lengths);
  }
};

bool IsBottomRight(AttentionMaskType type) {
  return type == AttentionMaskType::kCausalBottomRight ||
         type == AttentionMaskType::kPaddingCausalBottomRight;
}

bool IsCausal(AttentionMaskType type) {
  return type == AttentionMaskType::kCausal || type == AttentionMaskType::kPaddingCausal ||
         IsBottomRight(type);
}

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

Status ToStatus(fe::error_t error, const char* what) {
  if (error.is_good()) return OkStatus();
  return Internal("{}: {}", what, error.get_message());
}

// One graph, built for one Problem.
class SdpaGraph {
 public:
  // kUnsupported when cuDNN has no engine for it.
  static StatusOr<std::unique_ptr<SdpaGraph>> Build(const Problem& p, cudnnHandle_t handle) try {
    std::unique_ptr<SdpaGraph> out(new SdpaGraph);
    fe::graph::Graph& graph = out->graph_;
    graph.set_io_data_type(fe::DataType_t::BFLOAT16)
        .set_intermediate_data_type(fe::DataType_t::FLOAT)
        .set_compute_data_type(fe::DataType_t::FLOAT);
    p.backward ? out->AddBackward(p) : out->AddForward(p);
    fe::error_t error = graph.build(handle, {fe::HeurMode_t::A});
    if (!error.is_good()) return Unsupported("cuDNN attention: {}", error.get_message());
    int64_t bytes = 0;
    TE_RETURN_IF_ERROR(ToStatus(graph.get_workspace_size(bytes), "cuDNN attention workspace"));
    out->workspace_bytes_ = static_cast<size_t>(std::max<int64_t>(bytes, 1));
    return out;
  } catch (const std::exception& e) {
    return Internal("cuDNN attention: {}", e.what());
  }

  Status Run(const Exec& exec, cudnnHandle_t handle,
             std::unordered_map<int64_t, void*>& pointers) try {
    const ArenaScope scope(exec.scratch);
    TE_ASSIGN_OR_RETURN(void* workspace, exec.scratch->Allocate(workspace_bytes_));
    return ToStatus(graph_.execute(handle, pointers, workspace), "cuDNN attention");
  } catch (const std::exception& e) {
    return Internal("cuDNN attention: {}", e.what());
  }

 private:
  using Attributes = std::shared_ptr<fe::graph::Tensor_attributes>;

  SdpaGraph() = default;

  // [B, S, n, d] as cuDNN's [B, n, S, d].
  fe::graph::Tensor_attributes Describe(const ConstTensorView& t, Uid uid) {
    return fe::graph::Tensor_attributes()
        .set_uid(uid)
        .set_dim({t.dim(0), t.dim(2), t.dim(1), t.dim(3)})
        .set_stride({t.stride(0), t.stride(2), t.stride(1), t.stride(3)});
  }
  // Packed, as cuDNN wants it: of one sequence the distance to the next does not count, though a
  // slice of its heads has a larger one.
  fe::graph::Tensor_attributes DescribeLse(const ConstTensorView& t) {
    const int64_t batch_stride = t.dim(0) == 1 ? t.dim(1) * t.stride(1) : t.stride(0);
    return fe::graph::Tensor_attributes()
        .set_uid(kLse)
        .set_dim({t.dim(0), t.dim(1), t.dim(2), 1})
        .set_stride({batch_stride, t.stride(1), t.stride(2), 1})
        .set_data_type(fe::DataType_t::FLOAT);
  }
  Attributes Lengths(const Problem& p, Uid uid) {
    return graph_.tensor(fe::graph::Tensor_attributes()
                             .set_uid(uid)
                             .set_dim({p.q.dim(0), 1, 1, 1})
                             .set_stride({1, 1, 1, 1})
                             .set_data_type(fe::DataType_t::INT32));
  }
  template <typename SdpaAttributes>
  void SetMask(const Problem& p, SdpaAttributes* attributes) {
    attributes->set_attn_scale(p.scale);
    if (IsCausal(p.mask)) {
      attributes->set_diagonal_alignment(IsBottomRight(p.mask)
                                             ? fe::DiagonalAlignment_t::BOTTOM_RIGHT
                                             : fe::DiagonalAlignment_t::TOP_LEFT);
      attributes->set_diagonal_band_right_bound(0);
    }
    // cuDNN counts the keys up to the diagonal, the diagonal's own included.
    if (p.window_left >= 0)
      attributes->set_diagonal_band_left_bound(static_cast<int>(p.window_left + 1));
    if (p.lengths) {
      attributes->set_padding_mask(true)
          .set_seq_len_q(Lengths(p, kLengthsQ))
          .set_seq_len_kv(Lengths(p, kLengthsKv));
    }
  }
  void AddForward(const Problem& p) {
    auto attributes =
        fe::graph::SDPA_attributes().set_name("attention").set_generate_stats(p.lse.defined());
    SetMask(p, &attributes);
    auto [out, lse] =
        graph_.sdpa(graph_.tensor(Describe(p.q, kQ)), graph_.tensor(Describe(p.k, kK)),
                    graph_.tensor(Describe(p.v, kV)), attributes);
    const auto o = Describe(p.out, kOut);
    out->set_output(true).set_uid(kOut).set_dim(o.get_dim()).set_stride(o.get_stride());
    if (!p.lse.defined()) return;
    const auto l = DescribeLse(p.lse);
    lse->set_output(true)
        .set_uid(kLse)
        .set_dim(l.get_dim())
        .set_stride(l.get_stride())
        .set_data_type(fe::DataType_t::FLOAT);
  }
  void AddBackward(const Problem& p) {
    auto attributes = fe::graph::SDPA_backward_attributes()
                          .set_name("attention backward")
                          .set_deterministic_algorithm(true);
    SetMask(p, &attributes);
    auto [dq, dk, dv] = graph_.sdpa_backward(
        graph_.tensor(Describe(p.q, kQ)), graph_.tensor(Describe(p.k, kK)),
        graph_.tensor(Describe(p.v, kV)), graph_.tensor(Describe(p.out, kOut)),
        graph_.tensor(Describe(p.dout, kDout)), graph_.tensor(DescribeLse(p.lse)), attributes);
    const auto set = [this](const Attributes& t, const ConstTensorView& view, Uid uid) {
      const auto d = Describe(view, uid);
      t->set_output(true).set_uid(uid).set_dim(d.get_dim()).set_stride(d.get_stride());
    };
    set(dq, p.dq, kDq);
    set(dk, p.dk, kDk);
    set(dv, p.dv, kDv);
  }

  fe::graph::Graph graph_;
  size_t workspace_bytes_ = 0;
};

class SdpaCache : public cuda::OperationCache {
 public:
  // Null: cuDNN refused the problem.
  std::unordered_map<std::string, std::unique_ptr<SdpaGraph>> graphs;
};

// The graph of `p`; null when cuDNN has no engine for it.
StatusOr<SdpaGraph*> GraphOf(cuda::CudaState* state, const Problem& p, cudnnHandle_t handle) {
  if (state->attention_cache == nullptr) state->attention_cache = std::make_unique<SdpaCache>();
  auto& graphs = static_cast<SdpaCache*>(state->attention_cache.get())->graphs;
  const std::string key = p.Key();
  if (const auto found = graphs.find(key); found != graphs.end()) return found->second.get();
  StatusOr<std::unique_ptr<SdpaGraph>> graph = SdpaGraph::Build(p, handle);
  if (!graph.ok() && graph.status().code() != StatusCode::kUnsupported) return graph.status();
  std::unique_ptr<SdpaGraph>& slot = graphs[key];
  if (graph.ok()) slot = std::move(graph).value();
  return slot.get();
}

void* Pointer(const ConstTensorView& view) { return const_cast<void*>(view.data()); }

// Runs one slice; `lengths` is the int32 [2, B] of query and key lengths, or undefined.
StatusOr<bool> RunGraph(const Exec& exec, const Problem& p, const ConstTensorView& lengths) {
  TE_ASSIGN_OR_RETURN(cuda::CudaState * state, cuda::GetCudaState(exec));
  TE_ASSIGN_OR_RETURN(const cudnnHandle_t handle, state->Cudnn(cuda::StreamOf(exec)));
  TE_ASSIGN_OR_RETURN(SdpaGraph * graph, GraphOf(state, p, handle));
  if (graph == nullptr) return false;
  std::unordered_map<int64_t, void*> pointers = {
      {kQ, Pointer(p.q)}, {kK, Pointer(p.k)}, {kV, Pointer(p.v)}, {kOut, Pointer(p.out)}};
  if (p.lse.defined()) pointers[kLse] = Pointer(p.lse);
  if (p.backward) {
    pointers[kDout] = Pointer(p.dout);
    pointers[kDq] = Pointer(p.dq);
    pointers[kDk] = Pointer(p.dk);
    pointers[kDv] = Pointer(p.dv);
  }
  if (p.lengths) {
    pointers[kLengthsQ] = Pointer(lengths.Select(0, 0));
    pointers[kLengthsKv] = Pointer(lengths.Select(0, 1));
  }
  TE_RETURN_IF_ERROR(graph->Run(exec, handle, pointers));
  return true;
}

// Query and key lengths of right-padded sequences, [2, B]; undefined without padding.
StatusOr<ConstTensorView> LengthsOf(const Exec& exec, const AttentionMask& mask,
                                    const ConstTensorView& q) {
  if (!UsesPadding(mask.type)) return ConstTensorView();
  TE_ASSIGN_OR_RETURN(const TensorView lengths,
                      exec.scratch->Allocate(DType::kInt32, {2, q.dim(0)}));
  TE_RETURN_IF_ERROR(SequenceLengthsCuda(exec, mask.padding, q.dim(1), lengths));
  return ConstTensorView(lengths);
}

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
Slices SlicesOf(const ConstTensorView& q, const ConstTensorView& k) {
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

}  // namespace

StatusOr<bool> AttentionForwardCudnn(const Exec& exec, const AttentionForwardArgs& args) {
  if (!Fits(args.q, args.k, args.v, args.mask, args.dropout)) return false;
  const ArenaScope scope(exec.scratch);
  TE_ASSIGN_OR_RETURN(const ConstTensorView lengths, LengthsOf(exec, args.mask, args.q));
  const Problem problem = {.q = args.q,
                           .k = args.k,
                           .v = args.v,
                           .out = args.out,
                           .lse = args.lse,
                           .mask = args.mask.type,
                           .window_left = args.mask.window_left,
                           .scale = args.softmax_scale,
                           .lengths = lengths.defined(),
                           .backward = false};
  TE_ASSIGN_OR_RETURN(const bool done, RunGraph(exec, problem, lengths));
  if (done) {
    Record(exec, "attention_forward", "cudnn_sdpa", args.q.dtype(),
           BytesOf({args.q, args.k, args.v, args.out, args.lse}));
  }
  return done;
}

StatusOr<bool> AttentionBackwardCudnn(const Exec& exec, const AttentionBackwardArgs& args) {
  if (!Fits(args.q, args.k, args.v, args.mask, args.dropout)) return false;
  const ArenaScope scope(exec.scratch);
  TE_ASSIGN_OR_RETURN(const ConstTensorView lengths, LengthsOf(exec, args.mask, args.q));
  const int64_t batch = args.q.dim(0), groups = args.k.dim(2);
  const int64_t heads_per_group = args.q.dim(2) / groups;
  const Slices slices = SlicesOf(args.q, args.k);
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
      const Problem problem = {.q = of_heads(args.q, 2),
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
                               .backward = true};
      TE_ASSIGN_OR_RETURN(
          const bool done,
          RunGraph(exec, problem,
                   lengths.defined() ? lengths.Slice(1, b, b + slices.batch) : lengths));
      if (!done) return false;  // refused before the first slice ran: all slices are alike
    }
  }
  Record(
      exec, "attention_backward", "cudnn_sdpa_backward", args.q.dtype(),
      BytesOf({args.q, args.k, args.v, args.out, args.dout, args.lse, args.dq, args.dk, args.dv}));
  return true;
}

}  // namespace te
