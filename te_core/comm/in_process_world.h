// Where the ranks of in_process.h meet: who has called what, and what follows from it. Knows
// nothing of devices; all memory is host memory. Internal to te_core/comm.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "te_core/comm/communicator.h"

namespace te::in_process {

class Group;

enum class CallKind {
  kAllReduce,
  kAllGather,
  kReduceScatter,
  kBroadcast,
  kAllToAll,
  kBarrier,
  kSplit,
  kExchange,
};

// One message of an exchange.
struct Message {
  enum class State { kOpen, kMatched, kCopying, kDone };
  bool send = false;
  int peer = 0;  // in the group
  DType dtype = DType::kFloat32;
  int64_t count = 0;
  char* data = nullptr;         // only read where `send`
  const void* place = nullptr;  // in the memory of the rank, of which `data` may be a copy
  State state = State::kOpen;
  Message* partner = nullptr;  // while kMatched or kCopying
};

// What one rank has called. Lives on the rank's stack while it is in the call.
struct Call {
  CallKind kind = CallKind::kBarrier;
  DType dtype = DType::kFloat32;
  ReduceOp op = ReduceOp::kSum;
  int root = 0;
  int64_t count = 0;  // elements of data (all_reduce, broadcast), or of one rank's part
  const char* in = nullptr;
  size_t in_bytes = 0;  // which this call reads
  char* out = nullptr;
  size_t out_bytes = 0;  // which this call writes
  // In the memory of the rank, of which `in` and `out` may be copies.
  const void* in_place = nullptr;
  const void* out_place = nullptr;
  std::vector<int64_t> in_counts, out_counts;  // of all_to_all
  // Of split.
  int color = 0;
  int key = 0;
  std::string name;
  std::shared_ptr<Group> new_group;  // null: none
  int new_rank = 0;
  // Of exchange.
  std::vector<Message> messages;
};
std::string Describe(const Call& call);  // "all_reduce(sum, 8 of float32)"

// All ranks of one process. Thread-safe.
class World {
 public:
  World(int ranks, std::chrono::milliseconds time_limit);

  // The group of all ranks.
  static std::shared_ptr<Group> NewWorld(int ranks, std::chrono::milliseconds time_limit);

  // Ends everything, unless it has ended already. Whether this call did it.
  bool Abort(int rank, const Status& why);

 private:
  friend class Group;
  // The first reason stays.
  void Break(std::string why);

  std::mutex mutex_;
  std::condition_variable changed_;
  const std::chrono::milliseconds time_limit_;
  bool broken_ = false;
  Status status_;  // of every call once broken_
  // Of each rank of the world: the group in which it is in a call; null: none.
  std::vector<Group*> in_call_;
};

// Some ranks of a world. Thread-safe.
class Group {
 public:
  Group(std::shared_ptr<World> world, std::string name, std::vector<int> members);

  const std::string& name() const { return name_; }
  int size() const { return static_cast<int>(members_.size()); }
  // In the world.
  int member(int rank) const { return members_[static_cast<size_t>(rank)]; }
  World& world() { return *world_; }

  // `rank` makes a call and takes its part in the work. Blocks until it is done.
  Status Run(int rank, Call* call);
  // `rank` makes no more calls.
  void Leave(int rank);

 private:
  using Lock = std::unique_lock<std::mutex>;
  Status Enter(int rank, Call* call);
  void Exit(int rank);
  Status RunCollective(Lock* lock, int rank, Call* call);
  Status RunExchange(Lock* lock, int rank, Call* call);
  void Match(int rank, Call* call);
  // Waits for a change; false, and the world is broken: the time is over.
  bool WaitUntil(Lock* lock, std::chrono::steady_clock::time_point deadline, int rank);
  // The ranks that `rank`, which is in a call of this group, waits for.
  std::vector<int> AwaitedBy(int rank) const;
  // Breaks the world if `rank` waits for a rank that has left, or for one that waits for it.
  void CheckProgress(int rank);
  bool Reaches(int from, int goal, std::vector<bool>* seen) const;
  // Empty: the calls of all ranks agree.
  std::string Difference() const;
  void MakeGroups();
  std::string DescribeRank(int rank) const;
  std::string DescribeCalls() const;

  const std::shared_ptr<World> world_;
  const std::string name_;
  const std::vector<int> members_;
  // By rank. All below is the mutex's.
  std::vector<Call*> calls_;
  std::vector<bool> left_;
  // Of the collective that is under way.
  int arrived_ = 0;
  int departed_ = 0;
  bool running_ = false;  // all are there and agree: they work and depart
  uint64_t rounds_ = 0;   // ended so far
};

}  // namespace te::in_process
