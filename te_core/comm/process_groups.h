// The groups that layers, recipes and the optimizer see through their context. ParallelState makes
// them; null means a group of one, and the caller owns them.
#pragma once

#include "te_core/comm/communicator.h"

namespace te {

struct ProcessGroups {
  // The dimensions of the layout. Each group holds the ranks that differ in this dimension alone.
  Communicator* data = nullptr;      // other samples, the same weights
  Communicator* tensor = nullptr;    // other parts of each weight
  Communicator* context = nullptr;   // other parts of each sequence, the same weights
  Communicator* pipeline = nullptr;  // other layers
  // For experts the ranks of one pipeline stage are laid out anew.
  Communicator* expert = nullptr;         // other experts
  Communicator* expert_tensor = nullptr;  // other parts of each expert's weights
  Communicator* expert_data = nullptr;    // the same experts
  // Ranks that differ in any of the dimensions named.
  Communicator* tensor_context = nullptr;
  Communicator* data_context = nullptr;            // gradients, counts of tokens, losses
  Communicator* tensor_context_data = nullptr;     // amaxes of delayed scaling
  Communicator* tensor_pipeline = nullptr;         // norms over all weights
  Communicator* tensor_expert = nullptr;           // expert_tensor and expert
  Communicator* tensor_expert_pipeline = nullptr;  // norms over all experts' weights
  // The first and the last stage of a pipeline, on those two alone: tied embeddings.
  Communicator* embedding = nullptr;
};

// The same with each union that is null and needs no ranks of its own: with at most one of its
// dimensions larger than one, it is that dimension's group. kInvalidArgument names a union that is
// missing, or whose size is not the product of its dimensions'.
StatusOr<ProcessGroups> CompleteGroups(const ProcessGroups& groups);

}  // namespace te
