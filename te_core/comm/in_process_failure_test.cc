// What goes wrong among ranks: every rank gets an error that says what each had called, and no call
// hangs. The time limit of a world here is far above what a test takes, so that nothing passes by
// running into it, unless it is what the test is about.
#include <atomic>
#include <mutex>
#include <thread>

#include "gtest/gtest.h"
#include "te_core/comm/in_process.h"
#include "te_kernels/testing/host_tensor.h"
#include "te_kernels/testing/near.h"

namespace te {
namespace {

using test::FailsWith;
using test::HostTensor;
using test::IsOk;

constexpr auto kFailed = StatusCode::kFailedPrecondition;
constexpr auto kInvalid = StatusCode::kInvalidArgument;

// The status of each rank; `rank` returns it and leaves.
std::vector<Status> RunEach(int ranks, const std::function<Status(Communicator*)>& rank) {
  auto handles = MakeInProcessWorld({.ranks = ranks});
  EXPECT_TRUE(IsOk(handles.status()));
  std::vector<Status> out(static_cast<size_t>(ranks));
  std::vector<std::thread> threads;
  for (int r = 0; r < ranks; ++r) {
    threads.emplace_back([&, r] {
      // The handle goes when the rank returns, whatever it returns.
      const std::unique_ptr<Communicator> world = std::move((*handles)[static_cast<size_t>(r)]);
      out[static_cast<size_t>(r)] = rank(world.get());
    });
  }
  for (std::thread& thread : threads) thread.join();
  return out;
}

struct Scratch {
  std::vector<float> memory = std::vector<float>(4096);
  TensorView F32(int64_t count) { return {memory.data(), DType::kFloat32, {count}}; }
  TensorView Of(DType dtype, int64_t count) { return {memory.data(), dtype, {count}}; }
  TensorView Other(int64_t count) { return {memory.data() + 2048, DType::kFloat32, {count}}; }
};

void ExpectAll(const std::vector<Status>& statuses, const std::vector<const char*>& parts) {
  for (size_t r = 0; r < statuses.size(); ++r) {
    for (const char* part : parts)
      EXPECT_TRUE(FailsWith(statuses[r], kFailed, part)) << "rank " << r;
  }
}

TEST(InProcessFailureTest, EveryKindOfDifferenceIsNamedOnEveryRank) {
  using Make = Status (*)(Communicator*, Scratch&);
  const struct {
    Make usual;
    Make other;
    const char* usual_name;
    const char* other_name;
  } cases[] = {
      // Another operation.
      {[](Communicator* w, Scratch& s) { return w->AllReduce({}, s.F32(6), ReduceOp::kSum); },
       [](Communicator* w, Scratch& s) { return w->Broadcast({}, s.F32(6), 1); },
       "called all_reduce(sum, 6 of float32)", "rank 2 called broadcast(6 of float32 from rank 1)"},
      // Another reduction.
      {[](Communicator* w, Scratch& s) { return w->AllReduce({}, s.F32(6), ReduceOp::kSum); },
       [](Communicator* w, Scratch& s) { return w->AllReduce({}, s.F32(6), ReduceOp::kMax); },
       "called all_reduce(sum,", "rank 2 called all_reduce(max,"},
      // Another count, as large and as small as counts are.
      {[](Communicator* w, Scratch& s) { return w->AllReduce({}, s.F32(6), ReduceOp::kSum); },
       [](Communicator* w, Scratch& s) { return w->AllReduce({}, s.F32(0), ReduceOp::kSum); },
       "6 of float32", "rank 2 called all_reduce(sum, 0 of float32)"},
      {[](Communicator* w, Scratch& s) { return w->AllReduce({}, s.F32(6), ReduceOp::kSum); },
       [](Communicator* w, Scratch& s) {
         return w->AllReduce({}, s.F32(INT64_MAX / 4), ReduceOp::kSum);
       },
       "6 of float32", "rank 2 called all_reduce(sum, 2305843009213693951 of float32)"},
      // Another dtype of the same number of bytes.
      {[](Communicator* w, Scratch& s) { return w->AllReduce({}, s.F32(6), ReduceOp::kSum); },
       [](Communicator* w, Scratch& s) {
         return w->AllReduce({}, s.Of(DType::kInt32, 6), ReduceOp::kSum);
       },
       "6 of float32", "rank 2 called all_reduce(sum, 6 of int32)"},
      // Another root.
      {[](Communicator* w, Scratch& s) { return w->Broadcast({}, s.F32(6), 0); },
       [](Communicator* w, Scratch& s) { return w->Broadcast({}, s.F32(6), 3); }, "from rank 0)",
       "rank 2 called broadcast(6 of float32 from rank 3)"},
      {[](Communicator* w, Scratch& s) { return w->AllGather({}, s.F32(2), s.Other(8)); },
       [](Communicator* w, Scratch& s) { return w->ReduceScatter({}, s.Other(8), s.F32(2)); },
       "called all_gather(2 of float32)", "rank 2 called reduce_scatter(sum, 2 of float32)"},
      {[](Communicator* w, Scratch&) { return w->Barrier({}); },
       [](Communicator* w, Scratch& s) { return w->AllToAll({}, s.F32(4), s.Other(4)); },
       "called barrier()", "rank 2 called all_to_all(float32, [1, 1, 1, 1] to"},
      {[](Communicator* w, Scratch& s) { return w->AllToAll({}, s.F32(4), s.Other(4)); },
       [](Communicator* w, Scratch& s) {
         const int64_t in[] = {1, 0, 1, 2}, out[] = {1, 1, 1, 1};
         return w->AllToAll({}, s.F32(4), s.Other(4), in, out);
       },
       "what rank 2 sends to rank 1", "rank 2 called all_to_all(float32, [1, 0, 1, 2] to"},
      {[](Communicator* w, Scratch&) { return w->Split(0, 0, "tensor").status(); },
       [](Communicator* w, Scratch&) { return w->Split(0, 0, "data").status(); },
       "called split('tensor')", "rank 2 called split('data')"},
  };
  for (const auto& [usual, other, usual_name, other_name] : cases) {
    for (const int64_t delay : {0, 3}) {
      const auto statuses = RunEach(4, [&](Communicator* world) -> Status {
        Scratch scratch;
        // The one that differs comes early, or late.
        if (world->rank() == 2) std::this_thread::sleep_for(std::chrono::milliseconds(delay));
        return (world->rank() == 2 ? other : usual)(world, scratch);
      });
      ExpectAll(statuses,
                {"differ", "'world'", usual_name, other_name, "rank 0", "rank 1", "rank 3"});
      EXPECT_EQ(statuses[0].message(), statuses[3].message());
    }
  }
}

TEST(InProcessFailureTest, ARankThatLeavesEarlyEndsTheCallsOfTheOthers) {
  const auto statuses = RunEach(4, [](Communicator* world) -> Status {
    Scratch scratch;
    if (world->rank() == 1) return OkStatus();
    return world->AllReduce({}, scratch.F32(3), ReduceOp::kSum);
  });
  EXPECT_TRUE(IsOk(statuses[1]));
  for (const int r : {0, 2, 3}) {
    EXPECT_TRUE(FailsWith(statuses[static_cast<size_t>(r)], kFailed, "rank 1 has left"));
    EXPECT_TRUE(FailsWith(statuses[static_cast<size_t>(r)], kFailed, "called all_reduce(sum, 3"));
  }
}

TEST(InProcessFailureTest, ARankThatLeavesWhileOthersWaitEndsTheirCalls) {
  std::atomic<int> waiting{0};
  const auto statuses = RunEach(3, [&](Communicator* world) -> Status {
    Scratch scratch;
    if (world->rank() == 0) {
      while (waiting < 2) std::this_thread::yield();
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      return InvalidArgument("its own trouble");
    }
    ++waiting;
    return world->rank() == 1 ? world->Receive({}, scratch.F32(3), 0) : world->Barrier({});
  });
  EXPECT_TRUE(FailsWith(statuses[0], kInvalid, "its own trouble"));
  EXPECT_TRUE(FailsWith(statuses[1], kFailed, "rank 0 has left"));
  EXPECT_TRUE(FailsWith(statuses[2], kFailed, "rank 0 has left"));
}

TEST(InProcessFailureTest, AnErrorOfOneRankIsNamedOnAllAndReturned) {
  std::mutex mutex;
  std::vector<Status> seen(4);
  const Status status = RunRanks({.ranks = 4}, [&](Communicator* world) -> Status {
    Scratch scratch;
    TE_RETURN_IF_ERROR(world->AllReduce({}, scratch.F32(3), ReduceOp::kSum));
    if (world->rank() == 2) return OutOfMemory("no room for a tensor");
    const Status failed = world->AllGather({}, scratch.F32(1), scratch.Other(4));
    const std::lock_guard lock(mutex);
    seen[static_cast<size_t>(world->rank())] = failed;
    return failed;
  });
  EXPECT_TRUE(FailsWith(status, StatusCode::kOutOfMemory, "rank 2: no room for a tensor"));
  for (const size_t r : {0u, 1u, 3u})
    EXPECT_TRUE(FailsWith(seen[r], kFailed, "rank 2 has failed: no room for a tensor"));
}

TEST(InProcessFailureTest, AnAbortReachesEveryGroupAndEveryLaterCall) {
  const auto statuses = RunEach(4, [](Communicator* world) -> Status {
    Scratch scratch;
    TE_ASSIGN_OR_RETURN(const auto pair, world->Split(world->rank() / 2, 0, "pair"));
    if (world->rank() == 3) {
      world->Abort(Internal("the first"));
      world->Abort(Internal("the second"));
      return pair->Barrier({});
    }
    // Rank 2 waits in its pair, ranks 0 and 1 wait for 2 and 3 in the world.
    const Status first = world->rank() == 2 ? pair->Barrier({}) : world->Barrier({});
    EXPECT_TRUE(FailsWith(first, kFailed, "rank 3 has failed: the first"));
    EXPECT_TRUE(FailsWith(world->Split(0, 0, "later").status(), kFailed, "the first"));
    return world->AllReduce({}, scratch.F32(1), ReduceOp::kMax);
  });
  ExpectAll(statuses, {"rank 3 has failed: the first"});
}

TEST(InProcessFailureTest, CallsInAnotherOrderAreFoundAmongGroupsToo) {
  // Ranks 0 and 1 meet in two groups, and each goes to another one first.
  const auto statuses = RunEach(2, [](Communicator* world) -> Status {
    Scratch scratch;
    TE_ASSIGN_OR_RETURN(const auto other, world->Split(0, 0, "other"));
    Communicator* const groups[] = {world, other.get()};
    for (int i = 0; i < 2; ++i) {
      TE_RETURN_IF_ERROR(
          groups[(i + world->rank()) % 2]->AllReduce({}, scratch.F32(2), ReduceOp::kSum));
    }
    return OkStatus();
  });
  ExpectAll(statuses, {"wait for one another", "rank 0", "called all_reduce(sum, 2 of float32)"});
}

TEST(InProcessFailureTest, ACircleOfThreeGroupsIsFound) {
  const auto statuses = RunEach(3, [](Communicator* world) -> Status {
    // Pairs {0, 1}, {1, 2}, {2, 0}; each rank waits in the one with the next.
    std::unique_ptr<Communicator> pairs[3];
    for (int p = 0; p < 3; ++p) {
      const bool in = world->rank() == p || world->rank() == (p + 1) % 3;
      TE_ASSIGN_OR_RETURN(pairs[p], world->Split(in ? 0 : Communicator::kNoGroup, 0, "pair"));
    }
    return pairs[world->rank()]->Barrier({});
  });
  ExpectAll(statuses, {"wait for one another", "called barrier()", "'pair'"});
}

TEST(InProcessFailureTest, MessagesThatDoNotMeetAreErrors) {
  const auto meet = [](auto first, auto second) {
    return RunEach(2, [=](Communicator* world) -> Status {
      Scratch scratch;
      return world->rank() == 0 ? first(world, scratch) : second(world, scratch);
    });
  };
  const auto send = [](Communicator* w, Scratch& s) { return w->Send({}, s.F32(4), 1); };
  ExpectAll(meet(send, [](Communicator* w, Scratch& s) { return w->Receive({}, s.F32(5), 0); }),
            {"differ", "send 4 of float32 to rank 1", "receive 5 of float32 from rank 0"});
  ExpectAll(meet(send, [](Communicator* w,
                          Scratch& s) { return w->Receive({}, s.Of(DType::kInt32, 4), 0); }),
            {"differ", "send 4 of float32 to rank 1", "receive 4 of int32 from rank 0"});
  ExpectAll(meet(send, [](Communicator* w, Scratch& s) { return w->Send({}, s.F32(4), 0); }),
            {"wait for one another", "send 4 of float32 to rank 1", "send 4 of float32 to rank 0"});
  ExpectAll(meet(send, [](Communicator* w, Scratch&) { return w->Barrier({}); }),
            {"wait for one another", "rank 0 called exchange(send 4 of float32 to rank 1)",
             "rank 1 called barrier()"});
  // One message more than the other takes.
  const auto statuses = meet(
      [](Communicator* w, Scratch& s) {
        const Transfer two[] = {Transfer::Send(s.F32(4), 1), Transfer::Send(s.F32(4), 1)};
        return w->Exchange({}, two);
      },
      [](Communicator* w, Scratch& s) { return w->Receive({}, s.F32(4), 0); });
  EXPECT_TRUE(FailsWith(statuses[0], kFailed, "rank 1 has left"));
  EXPECT_TRUE(IsOk(statuses[1]));
}

TEST(InProcessFailureTest, TheSameMemoryOfTwoRanksIsAnError) {
  std::vector<float> shared(16);
  const TensorView view(shared.data(), DType::kFloat32, {8});
  ExpectAll(RunEach(3,
                    [&](Communicator* world) -> Status {
                      Scratch scratch;
                      return world->AllReduce({}, world->rank() == 0 ? scratch.F32(8) : view,
                                              ReduceOp::kSum);
                    }),
            {"ranks 1 and 2 gave the same memory"});
  ExpectAll(RunEach(2,
                    [&](Communicator* world) -> Status {
                      return world->rank() == 0 ? world->Send({}, view, 1)
                                                : world->Receive({}, view, 0);
                    }),
            {"gave the same memory"});
  // Reading it is allowed.
  for (const Status& status : RunEach(2, [&](Communicator* world) -> Status {
         Scratch scratch;
         return world->AllGather({}, view, scratch.F32(16));
       })) {
    EXPECT_TRUE(IsOk(status));
  }
}

TEST(InProcessFailureTest, TheTimeLimitIsTheLastResort) {
  const auto start = std::chrono::steady_clock::now();
  std::atomic<int> failed{0};
  const Status status = RunRanks({.ranks = 3, .time_limit = std::chrono::milliseconds(100)},
                                 [&](Communicator* world) {
                                   if (world->rank() == 1) {
                                     while (failed < 2)
                                       std::this_thread::yield();  // neither calls nor leaves
                                     return OkStatus();
                                   }
                                   const Status barrier = world->Barrier({});
                                   ++failed;
                                   return barrier;
                                 });
  EXPECT_TRUE(FailsWith(status, kFailed, "has waited for 0.1 s"));
  EXPECT_TRUE(FailsWith(status, kFailed, "rank 1 has not called"));
  EXPECT_GE(std::chrono::steady_clock::now() - start, std::chrono::milliseconds(100));
}

TEST(InProcessFailureTest, WrongArgumentsAreTheRanksOwnAndSendNothing) {
  const auto statuses = RunEach(2, [](Communicator* world) -> Status {
    Scratch s;
    const auto refused = [](const Status& status, const char* part) {
      EXPECT_TRUE(FailsWith(status, kInvalid, part));
    };
    if (world->rank() == 0) {
      const TensorView strided = s.F32(8).Reshape({4, 2}).Slice(1, 0, 1);
      refused(world->AllReduce({}, strided, ReduceOp::kSum), "expected a dense tensor");
      refused(world->AllReduce({}, TensorView(nullptr, DType::kFloat32, {3}), ReduceOp::kSum),
              "without memory");
      refused(world->AllReduce({}, s.Of(DType::kFloat8E4M3, 3), ReduceOp::kSum),
              "float8_e4m3 cannot be reduced");
      refused(world->AllReduce({}, s.F32(3), static_cast<ReduceOp>(9)), "op is 9");
      refused(world->AllReduce({}, s.F32(-1), ReduceOp::kSum), "is not a number of bytes");
      refused(world->AllReduce({}, s.F32(INT64_MAX), ReduceOp::kSum), "is not a number of bytes");
      refused(world->AllGather({}, s.F32(3), s.Other(5)), "expected 2 times as many");
      // 2^61 + 2^61 elements have more bytes than there are numbers.
      refused(world->AllGather({}, s.F32(INT64_MAX / 4), s.Other(1)), "expected 2 times as many");
      refused(world->AllGather({}, s.F32(2), s.Of(DType::kInt32, 4)), "expected one dtype");
      refused(world->AllGather({}, s.F32(4).Slice(0, 2, 4), s.F32(4)), "as part 0");
      refused(world->AllGather({}, s.F32(8).Slice(0, 3, 5), s.F32(4)), "overlap");
      refused(world->ReduceScatter({}, s.F32(5), s.Other(2)), "expected 2 times as many");
      refused(world->ReduceScatter({}, s.F32(4), s.F32(4).Slice(0, 1, 3)), "overlap");
      refused(world->Broadcast({}, s.F32(1), 2), "root is 2; expected 0 to 1");
      refused(world->Broadcast({}, s.F32(1), -1), "root is -1");
      refused(world->AllToAll({}, s.F32(3), s.Other(3)), "expected a multiple of 2");
      refused(world->AllToAll({}, s.F32(4), s.F32(4)), "overlap");
      const int64_t two[] = {1, 3}, negative[] = {5, -1}, huge[] = {INT64_MAX, INT64_MAX};
      refused(world->AllToAll({}, s.F32(4), s.Other(4), {two, 1}, two), "1 counts of in");
      refused(world->AllToAll({}, s.F32(5), s.Other(4), two, two), "add up to 4; expected its 5");
      refused(world->AllToAll({}, s.F32(4), s.Other(4), negative, two), "for rank 1 is -1");
      refused(world->AllToAll({}, s.F32(4), s.Other(4), two, huge), "for rank 1 is 92233720");
      refused(world->Send({}, s.F32(4), 0), "this rank itself");
      refused(world->Receive({}, s.F32(4), 2), "peer is 2; expected 0 to 1");
      const Transfer overlapping[] = {Transfer::Send(s.F32(4), 1), Transfer::Receive(s.F32(2), 1)};
      refused(world->Exchange({}, overlapping), "overlaps that of another message");
      refused(world->Split(-2, 0, "x").status(), "color is -2");
    }
    // And the ranks go on.
    return world->AllReduce({}, s.F32(4), ReduceOp::kSum);
  });
  for (const Status& status : statuses) EXPECT_TRUE(IsOk(status));
}

TEST(InProcessFailureTest, TwoThreadsOfARankAreRefused) {
  auto handles = MakeInProcessWorld({.ranks = 2});
  ASSERT_TRUE(IsOk(handles.status()));
  // Whichever comes first waits for rank 1, and the other one is refused.
  std::atomic<int> refused{0}, passed{0};
  const auto call = [&] {
    const Status status = (*handles)[0]->Barrier({});
    if (status.ok()) {
      ++passed;
      return;
    }
    EXPECT_TRUE(FailsWith(status, kFailed, "another thread of this rank is in a call"));
    ++refused;
  };
  std::thread a(call), b(call);
  while (refused == 0) std::this_thread::yield();
  EXPECT_TRUE(IsOk((*handles)[1]->Barrier({})));
  a.join();
  b.join();
  EXPECT_EQ(refused, 1);
  EXPECT_EQ(passed, 1);
}

TEST(InProcessFailureTest, WorldsThatCannotBe) {
  EXPECT_TRUE(FailsWith(MakeInProcessWorld({.ranks = 0}).status(), kInvalid, "ranks is 0"));
  EXPECT_TRUE(FailsWith(MakeInProcessWorld({.ranks = -3}).status(), kInvalid, "ranks is -3"));
  EXPECT_TRUE(FailsWith(MakeInProcessWorld({.ranks = 5000}).status(), kInvalid, "1 to 4096"));
  EXPECT_TRUE(FailsWith(
      MakeInProcessWorld({.ranks = 1, .time_limit = std::chrono::milliseconds(0)}).status(),
      kInvalid, "time_limit is 0 ms"));
  EXPECT_TRUE(
      FailsWith(RunRanks({.ranks = 2, .device = "tpu"}, [](Communicator*) { return OkStatus(); }),
                StatusCode::kUnsupported, "tpu"));
}

}  // namespace
}  // namespace te
