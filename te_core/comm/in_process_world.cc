#include "te_core/comm/in_process_world.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <span>
#include <tuple>
#include <utility>

#include "fmt/format.h"
#include "te_core/comm/host_reduction.h"

namespace te::in_process {
namespace {

const char* Name(CallKind kind) {
  switch (kind) {
    case CallKind::kAllReduce:
      return "all_reduce";
    case CallKind::kAllGather:
      return "all_gather";
    case CallKind::kReduceScatter:
      return "reduce_scatter";
    case CallKind::kBroadcast:
      return "broadcast";
    case CallKind::kAllToAll:
      return "all_to_all";
    case CallKind::kBarrier:
      return "barrier";
    case CallKind::kSplit:
      return "split";
    case CallKind::kExchange:
      return "exchange";
  }
  return "unknown";
}

std::string Describe(const Message& message) {
  return fmt::format("{} {} of {} {} rank {}", message.send ? "send" : "receive", message.count,
                     te::Name(message.dtype), message.send ? "to" : "from", message.peer);
}

bool Overlap(const void* a, size_t a_bytes, const void* b, size_t b_bytes) {
  const auto a_begin = reinterpret_cast<uintptr_t>(a), b_begin = reinterpret_cast<uintptr_t>(b);
  if (a_bytes == 0 || b_bytes == 0) return false;
  return a_begin < b_begin ? b_begin - a_begin < a_bytes : a_begin - b_begin < b_bytes;
}

void Copy(const char* from, char* to, size_t bytes) {
  if (bytes != 0 && from != to) std::memcpy(to, from, bytes);
}

int64_t SumBefore(const std::vector<int64_t>& counts, size_t end) {
  int64_t sum = 0;
  for (size_t i = 0; i < end; ++i) sum += counts[i];
  return sum;
}

// The work of rank `rank`, while all ranks are in the call. No two ranks write the same memory, and
// none writes what another one reads.
void Work(std::span<Call* const> calls, size_t rank) {
  const Call& call = *calls[rank];
  const size_t size = calls.size();
  const size_t element = SizeOf(call.dtype);
  const size_t bytes = static_cast<size_t>(call.count) * element;
  std::vector<const char*> sources(size);
  std::vector<char*> results;
  switch (call.kind) {
    case CallKind::kAllReduce: {
      // Each rank makes a part of the result, and writes it for all.
      const auto n = static_cast<int64_t>(size), r = static_cast<int64_t>(rank);
      const auto begin_of = [&](int64_t part) {
        return call.count / n * part + std::min(part, call.count % n);
      };
      const int64_t begin = begin_of(r), end = begin_of(r + 1);
      for (size_t q = 0; q < size; ++q) {
        results.push_back(calls[q]->out + static_cast<size_t>(begin) * element);
        sources[q] = results.back();
      }
      return ReduceHost(call.dtype, call.op, sources, results, end - begin);
    }
    case CallKind::kReduceScatter:
      for (size_t q = 0; q < size; ++q) sources[q] = calls[q]->in + bytes * rank;
      results.push_back(call.out);
      return ReduceHost(call.dtype, call.op, sources, results, call.count);
    case CallKind::kAllGather:
      for (size_t q = 0; q < size; ++q) Copy(calls[q]->in, call.out + bytes * q, bytes);
      return;
    case CallKind::kBroadcast: {
      const auto root = static_cast<size_t>(call.root);
      if (rank != root) Copy(calls[root]->in, call.out, bytes);
      return;
    }
    case CallKind::kAllToAll:
      for (size_t q = 0; q < size; ++q) {
        const auto from = static_cast<size_t>(SumBefore(calls[q]->in_counts, rank));
        const auto to = static_cast<size_t>(SumBefore(call.out_counts, q));
        Copy(calls[q]->in + from * element, call.out + to * element,
             static_cast<size_t>(call.out_counts[q]) * element);
      }
      return;
    case CallKind::kBarrier:
    case CallKind::kSplit:
    case CallKind::kExchange:
      return;
  }
}

}  // namespace

std::string Describe(const Call& call) {
  switch (call.kind) {
    case CallKind::kAllReduce:
    case CallKind::kReduceScatter:
      return fmt::format("{}({}, {} of {})", Name(call.kind), te::Name(call.op), call.count,
                         te::Name(call.dtype));
    case CallKind::kAllGather:
      return fmt::format("all_gather({} of {})", call.count, te::Name(call.dtype));
    case CallKind::kBroadcast:
      return fmt::format("broadcast({} of {} from rank {})", call.count, te::Name(call.dtype),
                         call.root);
    case CallKind::kAllToAll:
      return fmt::format("all_to_all({}, [{}] to the ranks, [{}] from them)", te::Name(call.dtype),
                         fmt::join(call.in_counts, ", "), fmt::join(call.out_counts, ", "));
    case CallKind::kBarrier:
      return "barrier()";
    case CallKind::kSplit:
      return fmt::format("split('{}')", call.name);
    case CallKind::kExchange: {
      std::vector<std::string> messages;
      for (const Message& message : call.messages)
        if (message.state != Message::State::kDone) messages.push_back(Describe(message));
      return fmt::format("exchange({})", fmt::join(messages, ", "));
    }
  }
  return "unknown";
}

World::World(int ranks, std::chrono::milliseconds time_limit)
    : time_limit_(time_limit), in_call_(static_cast<size_t>(ranks)) {}

std::shared_ptr<Group> World::NewWorld(int ranks, std::chrono::milliseconds time_limit) {
  std::vector<int> members(static_cast<size_t>(ranks));
  for (int r = 0; r < ranks; ++r) members[static_cast<size_t>(r)] = r;
  return std::make_shared<Group>(std::make_shared<World>(ranks, time_limit), "world",
                                 std::move(members));
}

bool World::Abort(int rank, const Status& why) {
  const std::lock_guard lock(mutex_);
  if (broken_) return false;
  Break(fmt::format("rank {} has failed: {}", rank, why.message()));
  return true;
}

void World::Break(std::string why) {
  if (broken_) return;
  broken_ = true;
  status_ = Status(StatusCode::kFailedPrecondition, std::move(why));
  changed_.notify_all();
}

Group::Group(std::shared_ptr<World> world, std::string name, std::vector<int> members)
    : world_(std::move(world)),
      name_(std::move(name)),
      members_(std::move(members)),
      calls_(members_.size()),
      left_(members_.size()) {}

Status Group::Run(int rank, Call* call) {
  Lock lock(world_->mutex_);
  TE_RETURN_IF_ERROR(Enter(rank, call));
  const Status status = call->kind == CallKind::kExchange ? RunExchange(&lock, rank, call)
                                                          : RunCollective(&lock, rank, call);
  Exit(rank);
  return status;
}

void Group::Leave(int rank) {
  const std::lock_guard lock(world_->mutex_);
  left_[static_cast<size_t>(rank)] = true;
  for (int r = 0; r < size(); ++r)
    if (calls_[static_cast<size_t>(r)] != nullptr) CheckProgress(r);
}

Status Group::Enter(int rank, Call* call) {
  if (world_->broken_) return world_->status_;
  Group*& in_call = world_->in_call_[static_cast<size_t>(member(rank))];
  if (in_call != nullptr) {
    return FailedPrecondition(
        "{} of group '{}': another thread of this rank is in a call of group '{}'; expected one "
        "call of a rank at a time",
        Name(call->kind), name_, in_call->name_);
  }
  in_call = this;
  calls_[static_cast<size_t>(rank)] = call;
  return OkStatus();
}

void Group::Exit(int rank) {
  world_->in_call_[static_cast<size_t>(member(rank))] = nullptr;
  calls_[static_cast<size_t>(rank)] = nullptr;
}

Status Group::RunCollective(Lock* lock, int rank, Call* call) {
  const auto deadline = std::chrono::steady_clock::now() + world_->time_limit_;
  const uint64_t round = rounds_;
  ++arrived_;
  if (arrived_ == size()) {
    const std::string difference = Difference();
    if (!difference.empty()) {
      world_->Break(fmt::format("the ranks' calls of group '{}' differ{}: {}", name_, difference,
                                DescribeCalls()));
      return world_->status_;
    }
    if (call->kind == CallKind::kSplit) MakeGroups();
    running_ = true;
    world_->changed_.notify_all();
  } else {
    CheckProgress(rank);
    while (!running_) {
      if (world_->broken_ || !WaitUntil(lock, deadline, rank)) return world_->status_;
    }
  }
  lock->unlock();
  Work(calls_, static_cast<size_t>(rank));  // nobody changes calls_ before all have departed
  lock->lock();
  // All wait for all, whatever else happens: their memory is in use.
  if (++departed_ == size()) {
    arrived_ = departed_ = 0;
    running_ = false;
    ++rounds_;
    // For those that have not woken up yet, too: their call is over.
    for (int r = 0; r < size(); ++r) Exit(r);
    world_->changed_.notify_all();
  } else {
    while (rounds_ == round) world_->changed_.wait(*lock);
  }
  return OkStatus();
}

Status Group::RunExchange(Lock* lock, int rank, Call* call) {
  using State = Message::State;
  const auto deadline = std::chrono::steady_clock::now() + world_->time_limit_;
  Match(rank, call);
  CheckProgress(rank);
  const auto any = [call](auto condition) {
    return std::any_of(call->messages.begin(), call->messages.end(), condition);
  };
  while (any([](const Message& m) { return m.state != State::kDone; })) {
    if (world_->broken_) {
      if (any([](const Message& m) { return m.state == State::kCopying; })) {
        world_->changed_.wait(*lock);  // a peer reads this rank's memory
        continue;
      }
      for (Message& m : call->messages) {
        if (m.state != State::kMatched) continue;
        m.partner->state = State::kOpen;
        m.partner->partner = nullptr;
      }
      return world_->status_;
    }
    // The receiver copies.
    const auto next =
        std::find_if(call->messages.begin(), call->messages.end(),
                     [](const Message& m) { return !m.send && m.state == State::kMatched; });
    if (next == call->messages.end()) {
      WaitUntil(lock, deadline, rank);
      continue;
    }
    Message* const partner = next->partner;
    next->state = partner->state = State::kCopying;
    lock->unlock();
    Copy(partner->data, next->data, static_cast<size_t>(next->count) * SizeOf(next->dtype));
    lock->lock();
    next->state = partner->state = State::kDone;
    world_->changed_.notify_all();
  }
  return OkStatus();
}

// Gives each message of `call` the first one of its peer that fits and waits.
void Group::Match(int rank, Call* call) {
  for (Message& mine : call->messages) {
    Call* const other = calls_[static_cast<size_t>(mine.peer)];
    if (other == nullptr || other->kind != CallKind::kExchange) continue;
    const auto found =
        std::find_if(other->messages.begin(), other->messages.end(), [&](const Message& theirs) {
          return theirs.peer == rank && theirs.send != mine.send &&
                 theirs.state == Message::State::kOpen;
        });
    if (found == other->messages.end()) continue;
    if (found->dtype != mine.dtype || found->count != mine.count) {
      world_->Break(fmt::format("the messages between two ranks of group '{}' differ: {}, {}",
                                name_, DescribeRank(std::min(rank, mine.peer)),
                                DescribeRank(std::max(rank, mine.peer))));
      return;
    }
    if (Overlap(found->place, static_cast<size_t>(found->count) * SizeOf(found->dtype), mine.place,
                static_cast<size_t>(mine.count) * SizeOf(mine.dtype))) {
      world_->Break(fmt::format("two ranks of group '{}' gave the same memory: {}, {}", name_,
                                DescribeRank(std::min(rank, mine.peer)),
                                DescribeRank(std::max(rank, mine.peer))));
      return;
    }
    mine.partner = &*found;
    found->partner = &mine;
    mine.state = found->state = Message::State::kMatched;
  }
  world_->changed_.notify_all();
}

bool Group::WaitUntil(Lock* lock, std::chrono::steady_clock::time_point deadline, int rank) {
  if (world_->changed_.wait_until(*lock, deadline) == std::cv_status::no_timeout) return true;
  // What the time was spent for may have come at its very end.
  if (AwaitedBy(rank).empty()) return true;
  world_->Break(fmt::format("rank {} of group '{}' has waited for {} s: {}", rank, name_,
                            std::chrono::duration<double>(world_->time_limit_).count(),
                            DescribeCalls()));
  return false;
}

std::vector<int> Group::AwaitedBy(int rank) const {
  std::vector<int> out;
  const Call* const call = calls_[static_cast<size_t>(rank)];
  if (call->kind == CallKind::kExchange) {
    for (const Message& m : call->messages)
      if (m.state == Message::State::kOpen) out.push_back(m.peer);
  } else if (!running_) {
    for (int r = 0; r < size(); ++r) {
      const Call* const other = calls_[static_cast<size_t>(r)];
      if (other == nullptr || other->kind == CallKind::kExchange) out.push_back(r);
    }
  }
  return out;
}

void Group::CheckProgress(int rank) {
  for (const int awaited : AwaitedBy(rank)) {
    if (!left_[static_cast<size_t>(awaited)]) continue;
    world_->Break(fmt::format("rank {} has left group '{}': {}", awaited, name_, DescribeCalls()));
    return;
  }
  std::vector<bool> seen(world_->in_call_.size());
  for (const int awaited : AwaitedBy(rank)) {
    if (!Reaches(member(awaited), member(rank), &seen)) continue;
    world_->Break(fmt::format(
        "ranks wait for one another in calls that differ, one of them in group '{}': {}", name_,
        DescribeCalls()));
    return;
  }
}

// Whether rank `from` of the world waits for rank `goal`, be it through others.
bool Group::Reaches(int from, int goal, std::vector<bool>* seen) const {
  if (from == goal) return true;
  if ((*seen)[static_cast<size_t>(from)]) return false;
  (*seen)[static_cast<size_t>(from)] = true;
  const Group* const group = world_->in_call_[static_cast<size_t>(from)];
  if (group == nullptr) return false;
  const auto place = std::find(group->members_.begin(), group->members_.end(), from);
  for (const int next : group->AwaitedBy(static_cast<int>(place - group->members_.begin())))
    if (Reaches(group->member(next), goal, seen)) return true;
  return false;
}

std::string Group::Difference() const {
  const Call& first = *calls_[0];
  for (size_t r = 1; r < calls_.size(); ++r) {
    const Call& call = *calls_[r];
    if (std::tie(call.kind, call.dtype, call.op, call.root, call.count, call.name) !=
        std::tie(first.kind, first.dtype, first.op, first.root, first.count, first.name)) {
      return fmt::format(" (ranks 0 and {})", r);
    }
  }
  for (size_t a = 0; a < calls_.size(); ++a) {
    for (size_t b = 0; b < calls_.size(); ++b) {
      const Call &x = *calls_[a], &y = *calls_[b];
      if (first.kind == CallKind::kAllToAll && x.in_counts[b] != y.out_counts[a])
        return fmt::format(" (what rank {} sends to rank {})", a, b);
      if (a != b && (Overlap(x.out_place, x.out_bytes, y.in_place, y.in_bytes) ||
                     Overlap(x.out_place, x.out_bytes, y.out_place, y.out_bytes))) {
        return fmt::format(" (ranks {} and {} gave the same memory)", std::min(a, b),
                           std::max(a, b));
      }
    }
  }
  return "";
}

void Group::MakeGroups() {
  std::map<int, std::vector<std::pair<int, int>>> by_color;  // of (key, rank)
  for (int r = 0; r < size(); ++r) {
    const Call& call = *calls_[static_cast<size_t>(r)];
    if (call.color != Communicator::kNoGroup) by_color[call.color].emplace_back(call.key, r);
  }
  for (auto& [color, ranks] : by_color) {
    std::sort(ranks.begin(), ranks.end());
    std::vector<int> members;
    for (const auto& [key, r] : ranks) members.push_back(member(r));
    const auto group = std::make_shared<Group>(world_, calls_[0]->name, std::move(members));
    for (size_t i = 0; i < ranks.size(); ++i) {
      Call& call = *calls_[static_cast<size_t>(ranks[i].second)];
      call.new_group = group;
      call.new_rank = static_cast<int>(i);
    }
  }
}

std::string Group::DescribeRank(int rank) const {
  const auto r = static_cast<size_t>(rank);
  std::string who = fmt::format("rank {}", rank);
  if (member(rank) != rank || members_.size() != world_->in_call_.size())
    who += fmt::format(" (of the world {})", member(rank));
  if (calls_[r] != nullptr) return fmt::format("{} called {}", who, Describe(*calls_[r]));
  if (left_[r]) return who + " has left";
  const Group* const other = world_->in_call_[static_cast<size_t>(member(rank))];
  if (other == nullptr) return who + " has not called";
  const auto place = std::find(other->members_.begin(), other->members_.end(), member(rank));
  return fmt::format("{} called {} of group '{}'", who,
                     Describe(*other->calls_[static_cast<size_t>(place - other->members_.begin())]),
                     other->name_);
}

std::string Group::DescribeCalls() const {
  std::vector<std::string> out;
  for (int r = 0; r < size(); ++r) out.push_back(DescribeRank(r));
  return fmt::format("{}", fmt::join(out, "; "));
}

}  // namespace te::in_process
