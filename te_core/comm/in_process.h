// Ranks as threads of one process, each with a Context of its own: for tests of everything
// parallel, and for several ranks on one card.
//
//   Status status = RunRanks({.ranks = 4}, [](Communicator* world) -> Status {
//     TE_ASSIGN_OR_RETURN(std::unique_ptr<Context> context, Context::Create({...}));
//     ...
//     return world->AllReduce(context->exec(), data, ReduceOp::kSum);
//   });
//
// Beyond what Communicator promises:
// - Sums are made in rank order, (((r0 + r1) + r2) + ...): float32 and float64 in their own type,
//   bfloat16 and float16 in float32 and rounded once. No result depends on timing, and kMax and
//   kMin of a number and NaN are the number.
// - No call waits for ever. Calls that differ, a rank that has left the group (its handle is
//   destroyed) or has called Abort, ranks that wait for one another in different calls or groups:
//   each is kFailedPrecondition on every rank, with a message that says what each rank had called.
//   A rank that neither calls nor leaves ends the group after a time limit.
// - An error ends the whole world, the groups split from it included.
// - The host waits in every call: can_record() is false. Memory of a device that the host cannot
//   access goes through host memory.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "te_core/comm/communicator.h"

namespace te {

struct InProcessOptions {
  int ranks = 1;
  std::string device = "cpu";  // whose memory and streams the ranks' calls bring: MakeDevice
  // How long a call waits for ranks that have not left.
  std::chrono::milliseconds time_limit = std::chrono::minutes(10);
};

// The handles of all ranks, by rank. Each belongs to the thread of its rank, which destroys it when
// it makes no more calls; they share what they need, and go in any order. kInvalidArgument: ranks
// below 1 or above 4096, a time limit that is not positive; kUnsupported: an unknown device.
StatusOr<std::vector<std::unique_ptr<Communicator>>> MakeInProcessWorld(
    const InProcessOptions& options);

// Runs `rank` in a thread for each rank and waits for all. A rank that returns an error aborts the
// others. The result is the first such error, with its rank before it; where the communication
// itself failed, its error.
Status RunRanks(const InProcessOptions& options,
                const std::function<Status(Communicator* world)>& rank);

}  // namespace te
