// Collective communication among the processes of one group. NCCL on GPUs and MPI on CPUs will
// stand behind it; a group of one needs neither.
#pragma once

#include <cstdint>

#include "te_kernels/base/exec.h"
#include "te_kernels/base/view.h"

namespace te {

enum class ReduceOp { kSum, kMax };

// Thread-compatible; every rank makes the same calls in the same order.
class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  // In place, element-wise over the ranks. Dense view.
  virtual Status AllReduce(const Exec& exec, TensorView data, ReduceOp op) = 0;
  // `out` is the ranks' `in`s, one after the other.
  virtual Status AllGather(const Exec& exec, ConstTensorView in, TensorView out) = 0;
  // `out` is this rank's part of the sum of the ranks' `in`s.
  virtual Status ReduceScatter(const Exec& exec, ConstTensorView in, TensorView out) = 0;
};

// The groups that layers see through their context, from the first day on. Null means a group of
// one. The caller owns them.
struct ProcessGroups {
  Communicator* data = nullptr;
  Communicator* tensor = nullptr;
  Communicator* context = nullptr;
  Communicator* pipeline = nullptr;
  Communicator* expert = nullptr;
};

inline int GroupSize(const Communicator* group) { return group == nullptr ? 1 : group->size(); }

}  // namespace te
