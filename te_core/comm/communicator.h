// Communication among the ranks of one group. A rank is a process with a GPU (NCCL), a process on
// CPUs (MPI), or a thread with a context of its own (in_process.h); nothing above asks which.
//
//   Status Sum(const Exec& exec, Communicator* group, TensorView gradient) {
//     return group->AllReduce(exec, gradient, ReduceOp::kSum);
//   }
//
// What holds for every call:
// - Ranks: every rank of the group makes the same calls in the same order, with the same dtype,
//   counts, operation and root. Exchange alone involves only those ranks that its transfers name.
// - Memory: views are dense, and lie in memory of the device that exec's stream belongs to. Shapes
//   do not matter beyond their number of elements, which may be 0 (the ranks still meet). Counts
//   are of elements, and any int64_t whose bytes fit into memory is taken.
// - Stream: a call acts when all that exec's stream was given before has ended, and what the stream
//   is given after the call sees its results. A backend may return to the host earlier (NCCL) or
//   wait (in process, MPI); the caller leaves the buffers alone until the stream has been
//   synchronized. On the CPU, results are there when the call returns.
// - Overlap: input and output are apart in memory, unless the call allows one place for both.
// - Dtypes: calls that move elements take every dtype, FP8 included. Reductions take float32,
//   bfloat16, float16, float64, int32, int64 and uint8.
// - Errors: an argument that this rank alone can see to be wrong is kInvalidArgument, nothing has
//   been sent, and the rank may call again. All else (ranks whose calls differ, a rank that has
//   failed or left, a lost connection) ends the group for good: this call and every later one fail
//   on every rank, and no call waits for ever where the backend can tell.
// - Threads: one thread of a rank at a time. The calls of a rank on several groups follow one
//   another, too.
// - Determinism: results are a function of the arguments and the number of ranks alone, and each
//   result that several ranks get is the same on all of them, bit for bit. (A backend that cannot
//   promise it, such as NCCL with an algorithm that is not pinned, says so in its own header.)
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "te_kernels/base/exec.h"
#include "te_kernels/base/view.h"

namespace te {

// kSum of integers wraps around. kMax and kMin: callers keep NaN out, whose effect is the
// backend's own.
enum class ReduceOp { kSum, kMax, kMin };
const char* Name(ReduceOp op);  // "sum", "max", "min"

// One message of Exchange.
struct Transfer {
  static Transfer Send(ConstTensorView from, int peer) { return {peer, true, from, {}}; }
  static Transfer Receive(TensorView to, int peer) { return {peer, false, to, to}; }

  int peer = 0;
  bool send = false;
  ConstTensorView data;  // what is sent, or the place of what is received
  TensorView to;         // of a Receive
};

// Backends derive from this class and get arguments that have been checked.
class Communicator {
 public:
  virtual ~Communicator() = default;

  virtual int rank() const = 0;                 // of this rank, 0 to size() - 1
  virtual int size() const = 0;                 // at least 1
  virtual const std::string& name() const = 0;  // for messages: "world", "tensor"
  // Whether the calls may be part of recorded work (Device::BeginRecording). False where the host
  // takes part in them.
  virtual bool can_record() const { return false; }

  // In place: each element becomes its reduction over the ranks, on every rank.
  Status AllReduce(const Exec& exec, TensorView data, ReduceOp op);

  // `out` on every rank becomes the ranks' `in`s, one after the other in rank order: size() times
  // the elements of `in`, of its dtype. In place: `in` may be this rank's part of `out`.
  Status AllGather(const Exec& exec, ConstTensorView in, TensorView out);

  // `out` becomes this rank's part, in rank order, of the reduction of the ranks' `in`s: `in` has
  // size() times the elements of `out`, and its dtype. The bits are those of AllReduce. `in` keeps
  // its contents, unless `out` is this rank's part of `in`, which is allowed.
  Status ReduceScatter(const Exec& exec, ConstTensorView in, TensorView out,
                       ReduceOp op = ReduceOp::kSum);

  // In place: `data` of every rank becomes that of rank `root`.
  Status Broadcast(const Exec& exec, TensorView data, int root);

  // Rank r gets the r-th part of `in`, which has in_counts[r] elements; the parts follow one
  // another in rank order and fill `in`. In the same way `out` is filled by what the ranks send:
  // out_counts[r], known to the receiver beforehand, is in_counts[rank()] of rank r (else the calls
  // differ). Never in place.
  Status AllToAll(const Exec& exec, ConstTensorView in, TensorView out,
                  std::span<const int64_t> in_counts, std::span<const int64_t> out_counts);
  // The same with equal parts: `in` and `out` have as many elements as each other, a multiple of
  // size().
  Status AllToAll(const Exec& exec, ConstTensorView in, TensorView out);

  // Sends and receives, all at once: none waits for another one of the same call, so that two ranks
  // may each send to the other one. Between two ranks, the k-th message that is sent meets the k-th
  // that is received, however they are divided into calls, and agrees with it in dtype and count. A
  // send may wait until its peer receives. `peer` is never this rank. Without transfers nothing
  // happens. What is received overlaps nothing else of the call.
  Status Exchange(const Exec& exec, std::span<const Transfer> transfers);
  Status Send(const Exec& exec, ConstTensorView data, int peer);
  Status Receive(const Exec& exec, TensorView data, int peer);

  // When it returns, every rank has called it, and what each had given to its exec's stream before
  // has ended. The host waits.
  virtual Status Barrier(const Exec& exec) = 0;

  // Divides the group: ranks of equal color form a new one, in the order of their keys (equal keys:
  // in this group's order). kNoGroup gives null: the rank is in none. Every rank of this group
  // calls, with the same name. The new group may outlive this one, whose failures it shares. Waits
  // for the host's part of the work alone, and touches no stream.
  static constexpr int kNoGroup = -1;
  StatusOr<std::unique_ptr<Communicator>> Split(int color, int key, std::string_view name);

  // For a rank that cannot go on: this group, and those that were split from the same world, end
  // for all ranks, whose calls (those that wait now, too) fail with a message that has `why` in it.
  // The first call counts. From any thread.
  virtual void Abort(const Status& why) = 0;

 protected:
  virtual Status DoAllReduce(const Exec& exec, TensorView data, ReduceOp op) = 0;
  virtual Status DoAllGather(const Exec& exec, ConstTensorView in, TensorView out) = 0;
  virtual Status DoReduceScatter(const Exec& exec, ConstTensorView in, TensorView out,
                                 ReduceOp op) = 0;
  virtual Status DoBroadcast(const Exec& exec, TensorView data, int root) = 0;
  virtual Status DoAllToAll(const Exec& exec, ConstTensorView in, TensorView out,
                            std::span<const int64_t> in_counts,
                            std::span<const int64_t> out_counts) = 0;
  virtual Status DoExchange(const Exec& exec, std::span<const Transfer> transfers) = 0;
  virtual StatusOr<std::unique_ptr<Communicator>> DoSplit(int color, int key,
                                                          std::string_view name) = 0;
};

// Null is a group of one.
inline int GroupSize(const Communicator* group) { return group == nullptr ? 1 : group->size(); }
inline int GroupRank(const Communicator* group) { return group == nullptr ? 0 : group->rank(); }

}  // namespace te
