// How the ranks of a world are laid out over the dimensions of parallelism, and their groups.
//
//   TE_ASSIGN_OR_RETURN(std::unique_ptr<ParallelState> parallel,
//                       ParallelState::Create(world, {.tensor = 2, .pipeline = 2}));
//   options.groups = parallel->groups();  // of a ContextOptions
//
// The layout is Megatron-Core's default order, tp-cp-ep-dp-pp: neighbouring ranks differ first in
// the tensor-parallel dimension, then in context, data and pipeline. For experts the same ranks
// are laid out a second time, in the order expert-tensor, expert, expert-data, pipeline; since
// pipeline comes last in both, a rank's stage is the same.
#pragma once

#include <memory>
#include <vector>

#include "te_core/comm/process_groups.h"

namespace te {

// What is not given follows from the number of ranks.
struct ParallelSizes {
  int tensor = 1;
  int context = 1;
  int pipeline = 1;
  int data = 0;  // 0: ranks / (tensor * context * pipeline)
  int expert = 1;
  int expert_tensor = 0;  // 0: as tensor
  int expert_data = 0;    // 0: ranks / (expert_tensor * expert * pipeline)
};

// All sizes filled in. kInvalidArgument: a size is negative, or 0 where it must be given; the
// product of tensor, context, data and pipeline, or of expert_tensor, expert, expert_data and
// pipeline, is not the number of ranks. Messages name the values.
StatusOr<ParallelSizes> CompleteSizes(const ParallelSizes& sizes, int ranks);

// The groups of one rank. Thread-compatible.
class ParallelState {
 public:
  // Every rank of `world` calls with the same sizes; other sizes are an error on one rank at least,
  // which ends the groups for all when it leaves. `world` (null: one rank) stays the caller's and
  // is not used after the call. Groups of one rank are null, so that nothing is sent for them.
  static StatusOr<std::unique_ptr<ParallelState>> Create(Communicator* world,
                                                         const ParallelSizes& sizes);

  // Theirs is the memory of this object.
  const ProcessGroups& groups() const { return groups_; }
  const ParallelSizes& sizes() const { return sizes_; }  // filled in
  // Size of a group and this rank's place in it: GroupSize(groups().tensor), GroupRank(...).

 private:
  ParallelState() = default;

  ParallelSizes sizes_;
  ProcessGroups groups_;
  std::vector<std::unique_ptr<Communicator>> owned_;
};

}  // namespace te
