#include "te_core/comm/communicator.h"

#include <vector>

namespace te {
namespace {

Status CheckRange(const Communicator& group, const char* call, const char* what, int rank) {
  if (rank >= 0 && rank < group.size()) return OkStatus();
  return InvalidArgument("{} of group '{}': {} is {}; expected 0 to {}", call, group.name(), what,
                         rank, group.size() - 1);
}

// The view is dense, present if it has elements, and its size in bytes is a number.
Status CheckView(const Communicator& group, const char* call, const char* argument,
                 const ConstTensorView& view) {
  size_t bytes = SizeOf(view.dtype());
  bool fits = bytes != 0;
  for (const int64_t d : view.shape().dims())
    fits = fits && d >= 0 && !__builtin_mul_overflow(bytes, static_cast<size_t>(d), &bytes);
  // Pointers that are further apart than this cannot be subtracted.
  if (!fits || bytes > static_cast<size_t>(INT64_MAX)) {
    return InvalidArgument("{} of group '{}': the size of {}, {}, is not a number of bytes", call,
                           group.name(), argument, view.ToString());
  }
  if (!view.IsDense()) {
    return InvalidArgument("{} of group '{}': {} is {}; expected a dense tensor", call,
                           group.name(), argument, view.ToString());
  }
  if (bytes != 0 && view.data() == nullptr) {
    return InvalidArgument("{} of group '{}': {} is {} without memory", call, group.name(),
                           argument, view.ToString());
  }
  return OkStatus();
}

Status CheckReduction(const Communicator& group, const char* call, DType dtype, ReduceOp op) {
  if (op != ReduceOp::kSum && op != ReduceOp::kMax && op != ReduceOp::kMin) {
    return InvalidArgument("{} of group '{}': op is {}; expected sum (0), max (1) or min (2)", call,
                           group.name(), static_cast<int>(op));
  }
  if (dtype == DType::kFloat8E4M3 || dtype == DType::kFloat8E5M2) {
    return InvalidArgument(
        "{} of group '{}': {} cannot be reduced; expected float32, bfloat16, float16, float64, "
        "int32, int64 or uint8",
        call, group.name(), Name(dtype));
  }
  return OkStatus();
}

Status CheckSameDType(const Communicator& group, const char* call, const ConstTensorView& in,
                      const ConstTensorView& out) {
  if (in.dtype() == out.dtype()) return OkStatus();
  return InvalidArgument("{} of group '{}': in is {} and out {}; expected one dtype", call,
                         group.name(), Name(in.dtype()), Name(out.dtype()));
}

// `whole` has size() times the elements of `part`.
Status CheckParts(const Communicator& group, const char* call, const char* part_name,
                  const ConstTensorView& part, const char* whole_name,
                  const ConstTensorView& whole) {
  int64_t expected = 0;
  const bool overflows = __builtin_mul_overflow(part.elements(), group.size(), &expected);
  if (!overflows && whole.elements() == expected) return OkStatus();
  return InvalidArgument(
      "{} of group '{}': {} has {} elements and {} {}; expected {} times as many", call,
      group.name(), part_name, part.elements(), whole_name, whole.elements(), group.size());
}

bool Overlap(const ConstTensorView& a, const ConstTensorView& b) {
  const auto a_begin = reinterpret_cast<uintptr_t>(a.data());
  const auto b_begin = reinterpret_cast<uintptr_t>(b.data());
  if (a.bytes() == 0 || b.bytes() == 0) return false;
  return a_begin < b_begin ? b_begin - a_begin < a.bytes() : a_begin - b_begin < b.bytes();
}

// `part` is apart from `whole`, or this rank's part of it.
Status CheckPlaces(const Communicator& group, const char* call, const ConstTensorView& part,
                   const ConstTensorView& whole) {
  if (!Overlap(part, whole)) return OkStatus();
  if (reinterpret_cast<uintptr_t>(part.data()) ==
      reinterpret_cast<uintptr_t>(whole.data()) + part.bytes() * static_cast<size_t>(group.rank()))
    return OkStatus();
  return InvalidArgument(
      "{} of group '{}': in and out overlap; expected them apart, or the smaller one as part {} of "
      "the larger one",
      call, group.name(), group.rank());
}

Status CheckCounts(const Communicator& group, const char* argument, const ConstTensorView& view,
                   std::span<const int64_t> counts) {
  if (counts.size() != static_cast<size_t>(group.size())) {
    return InvalidArgument("all_to_all of group '{}': {} counts of {}; expected {}, one a rank",
                           group.name(), counts.size(), argument, group.size());
  }
  int64_t sum = 0;
  for (size_t r = 0; r < counts.size(); ++r) {
    if (counts[r] < 0 || __builtin_add_overflow(sum, counts[r], &sum)) {
      return InvalidArgument("all_to_all of group '{}': the count of {} for rank {} is {}",
                             group.name(), argument, r, counts[r]);
    }
  }
  if (sum == view.elements()) return OkStatus();
  return InvalidArgument(
      "all_to_all of group '{}': the counts of {} add up to {}; expected its {} elements",
      group.name(), argument, sum, view.elements());
}

}  // namespace

const char* Name(ReduceOp op) {
  switch (op) {
    case ReduceOp::kSum:
      return "sum";
    case ReduceOp::kMax:
      return "max";
    case ReduceOp::kMin:
      return "min";
  }
  return "unknown";
}

Status Communicator::AllReduce(const Exec& exec, TensorView data, ReduceOp op) {
  TE_RETURN_IF_ERROR(CheckView(*this, "all_reduce", "data", data));
  TE_RETURN_IF_ERROR(CheckReduction(*this, "all_reduce", data.dtype(), op));
  return DoAllReduce(exec, data, op);
}

Status Communicator::AllGather(const Exec& exec, ConstTensorView in, TensorView out) {
  TE_RETURN_IF_ERROR(CheckView(*this, "all_gather", "in", in));
  TE_RETURN_IF_ERROR(CheckView(*this, "all_gather", "out", out));
  TE_RETURN_IF_ERROR(CheckSameDType(*this, "all_gather", in, out));
  TE_RETURN_IF_ERROR(CheckParts(*this, "all_gather", "in", in, "out", out));
  TE_RETURN_IF_ERROR(CheckPlaces(*this, "all_gather", in, out));
  return DoAllGather(exec, in, out);
}

Status Communicator::ReduceScatter(const Exec& exec, ConstTensorView in, TensorView out,
                                   ReduceOp op) {
  TE_RETURN_IF_ERROR(CheckView(*this, "reduce_scatter", "in", in));
  TE_RETURN_IF_ERROR(CheckView(*this, "reduce_scatter", "out", out));
  TE_RETURN_IF_ERROR(CheckSameDType(*this, "reduce_scatter", in, out));
  TE_RETURN_IF_ERROR(CheckReduction(*this, "reduce_scatter", in.dtype(), op));
  TE_RETURN_IF_ERROR(CheckParts(*this, "reduce_scatter", "out", out, "in", in));
  TE_RETURN_IF_ERROR(CheckPlaces(*this, "reduce_scatter", out, in));
  return DoReduceScatter(exec, in, out, op);
}

Status Communicator::Broadcast(const Exec& exec, TensorView data, int root) {
  TE_RETURN_IF_ERROR(CheckView(*this, "broadcast", "data", data));
  TE_RETURN_IF_ERROR(CheckRange(*this, "broadcast", "root", root));
  return DoBroadcast(exec, data, root);
}

Status Communicator::AllToAll(const Exec& exec, ConstTensorView in, TensorView out,
                              std::span<const int64_t> in_counts,
                              std::span<const int64_t> out_counts) {
  TE_RETURN_IF_ERROR(CheckView(*this, "all_to_all", "in", in));
  TE_RETURN_IF_ERROR(CheckView(*this, "all_to_all", "out", out));
  TE_RETURN_IF_ERROR(CheckSameDType(*this, "all_to_all", in, out));
  TE_RETURN_IF_ERROR(CheckCounts(*this, "in", in, in_counts));
  TE_RETURN_IF_ERROR(CheckCounts(*this, "out", out, out_counts));
  if (Overlap(in, out))
    return InvalidArgument("all_to_all of group '{}': in and out overlap; expected them apart",
                           name());
  return DoAllToAll(exec, in, out, in_counts, out_counts);
}

Status Communicator::AllToAll(const Exec& exec, ConstTensorView in, TensorView out) {
  TE_RETURN_IF_ERROR(CheckView(*this, "all_to_all", "in", in));
  if (in.elements() % size() != 0) {
    return InvalidArgument(
        "all_to_all of group '{}': in has {} elements; expected a multiple of {}", name(),
        in.elements(), size());
  }
  const std::vector<int64_t> counts(static_cast<size_t>(size()), in.elements() / size());
  return AllToAll(exec, in, out, counts, counts);
}

Status Communicator::Exchange(const Exec& exec, std::span<const Transfer> transfers) {
  for (const Transfer& t : transfers) {
    const char* call = t.send ? "send" : "receive";
    TE_RETURN_IF_ERROR(CheckView(*this, call, "data", t.data));
    TE_RETURN_IF_ERROR(CheckRange(*this, call, "peer", t.peer));
    if (t.peer == rank()) {
      return InvalidArgument("{} of group '{}': peer is {}, this rank itself; expected another one",
                             call, name(), t.peer);
    }
    for (const Transfer& other : transfers) {
      if (!t.send && &other != &t && Overlap(t.data, other.data)) {
        return InvalidArgument(
            "receive of group '{}': its place overlaps that of another message of the same call",
            name());
      }
    }
  }
  return transfers.empty() ? OkStatus() : DoExchange(exec, transfers);
}

Status Communicator::Send(const Exec& exec, ConstTensorView data, int peer) {
  const Transfer transfer = Transfer::Send(data, peer);
  return Exchange(exec, {&transfer, 1});
}

Status Communicator::Receive(const Exec& exec, TensorView data, int peer) {
  const Transfer transfer = Transfer::Receive(data, peer);
  return Exchange(exec, {&transfer, 1});
}

StatusOr<std::unique_ptr<Communicator>> Communicator::Split(int color, int key,
                                                            std::string_view name) {
  if (color < 0 && color != kNoGroup) {
    return InvalidArgument("split of group '{}' into '{}': color is {}; expected 0 or more, or -1",
                           this->name(), name, color);
  }
  return DoSplit(color, key, name);
}

}  // namespace te
