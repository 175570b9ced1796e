// The calls of the in-process backend against loops in double, over 1 to 8 ranks.
#include "te_core/comm/in_process.h"

#include <atomic>
#include <cmath>
#include <string>
#include <thread>

#include "gtest/gtest.h"
#include "te_kernels/testing/host_tensor.h"
#include "te_kernels/testing/near.h"

namespace te {
namespace {

using test::HostTensor;
using test::IsOk;
using test::Near;

constexpr int kSizes[] = {1, 2, 3, 4, 8};
constexpr DType kReduced[] = {DType::kFloat32, DType::kBFloat16, DType::kFloat16, DType::kFloat64,
                              DType::kInt32,   DType::kInt64,    DType::kUInt8};
constexpr int64_t kCounts[] = {0, 1, 5, 1024, 2051};

// What rank `rank` holds: whole numbers where the dtype has no others.
std::vector<double> ValuesOf(DType dtype, int rank, int64_t count) {
  std::vector<double> values =
      test::UniformDoubles(count, 100 + static_cast<uint64_t>(rank), -20, 20);
  if (dtype == DType::kUInt8)
    for (double& value : values) value = std::floor(std::abs(value));
  if (dtype == DType::kInt32 || dtype == DType::kInt64)
    for (double& value : values) value = std::floor(value * 1000);
  return values;
}
HostTensor TensorOf(DType dtype, int rank, int64_t count) {
  return HostTensor(dtype, {count}, ValuesOf(dtype, rank, count));
}

struct Reduced {
  std::vector<double> values;
  std::vector<double> tolerance;
};
// size - 1 additions with one rounding each, and one rounding to the dtype.
Reduced Reduce(DType dtype, ReduceOp op, int size, int64_t count) {
  Reduced out;
  out.values = TensorOf(dtype, 0, count).ToDoubles();
  std::vector<double> sum(out.values.size());
  for (size_t i = 0; i < sum.size(); ++i) sum[i] = std::abs(out.values[i]);
  for (int r = 1; r < size; ++r) {
    const std::vector<double> other = TensorOf(dtype, r, count).ToDoubles();
    for (size_t i = 0; i < sum.size(); ++i) {
      double& value = out.values[i];
      sum[i] += std::abs(other[i]);
      value = op == ReduceOp::kSum   ? value + other[i]
              : op == ReduceOp::kMax ? std::max(value, other[i])
                                     : std::min(value, other[i]);
    }
  }
  const bool exact = op != ReduceOp::kSum || !IsFloating(dtype);
  const double add = test::UnitRoundoff(dtype == DType::kFloat64 ? dtype : DType::kFloat32);
  for (size_t i = 0; i < sum.size(); ++i) {
    out.tolerance.push_back(
        exact ? 0 : size * add * sum[i] + test::UnitRoundoff(dtype) * std::abs(out.values[i]));
  }
  return out;
}

TEST(InProcessTest, AllReduceIsTheLoopInDouble) {
  for (const int size : kSizes) {
    for (const DType dtype : kReduced) {
      for (const ReduceOp op : {ReduceOp::kSum, ReduceOp::kMax, ReduceOp::kMin}) {
        for (const int64_t count : kCounts) {
          const Reduced want = Reduce(dtype, op, size, count);
          std::vector<std::vector<uint8_t>> bytes(static_cast<size_t>(size));
          ASSERT_TRUE(IsOk(RunRanks({.ranks = size}, [&](Communicator* world) -> Status {
            const HostTensor data = TensorOf(dtype, world->rank(), count);
            TE_RETURN_IF_ERROR(world->AllReduce({}, data, op));
            EXPECT_TRUE(Near(data.ToDoubles(), want.values, want.tolerance))
                << size << " ranks, " << Name(dtype) << " " << Name(op) << " of " << count;
            EXPECT_TRUE(data.GuardsIntact());
            bytes[static_cast<size_t>(world->rank())] = data.Bytes();
            return OkStatus();
          })));
          for (const auto& other : bytes) EXPECT_EQ(other, bytes[0]);
          if (count > 0) {
            EXPECT_FALSE(
                Near(want.values, test::Disturbed(want.values, count - 1, 1), want.tolerance));
          }
        }
      }
    }
  }
}

TEST(InProcessTest, SumsAreMadeInRankOrderWhateverTheTiming) {
  // 1 is lost beside 2^24 in one order alone.
  const float values[] = {0x1p24f, 1, -0x1p24f, 0.5f};
  const float want = ((values[0] + values[1]) + values[2]) + values[3];
  EXPECT_EQ(want, 0.5f);
  EXPECT_NE(((values[0] + values[2]) + values[1]) + values[3], want);
  for (int round = 0; round < 24; ++round) {
    ASSERT_TRUE(IsOk(RunRanks({.ranks = 4}, [&](Communicator* world) -> Status {
      std::vector<float> data(9, values[world->rank()]);
      // Each round lets the ranks come in another order.
      std::this_thread::sleep_for(std::chrono::microseconds(300 * ((world->rank() + round) % 4)));
      TE_RETURN_IF_ERROR(
          world->AllReduce({}, TensorView(data.data(), DType::kFloat32, {3, 3}), ReduceOp::kSum));
      for (const float value : data) EXPECT_EQ(value, want);
      return OkStatus();
    })));
  }
}

TEST(InProcessTest, BFloat16IsSummedInFloat32AndRoundedOnce) {
  // 256 + 1 has no bfloat16 of its own; rounded after each addition it would stay 256.
  ASSERT_TRUE(IsOk(RunRanks({.ranks = 8}, [](Communicator* world) -> Status {
    const std::vector<double> value = {world->rank() == 0 ? 256.0 : 1.0};
    const HostTensor data(DType::kBFloat16, {1}, value);
    TE_RETURN_IF_ERROR(world->AllReduce({}, data, ReduceOp::kSum));
    EXPECT_EQ(data.ToDoubles()[0], 264);  // 263, to even
    return OkStatus();
  })));
}

TEST(InProcessTest, IntegersWrapAroundAndMaximaLeaveNanOut) {
  ASSERT_TRUE(IsOk(RunRanks({.ranks = 2}, [](Communicator* world) -> Status {
    int64_t count = INT64_MAX;
    TE_RETURN_IF_ERROR(
        world->AllReduce({}, TensorView(&count, DType::kInt64, {1}), ReduceOp::kSum));
    EXPECT_EQ(count, -2);
    for (const ReduceOp op : {ReduceOp::kMax, ReduceOp::kMin}) {
      float value = world->rank() == 1 ? 3.0f : std::nanf("");
      TE_RETURN_IF_ERROR(world->AllReduce({}, TensorView(&value, DType::kFloat32, {1}), op));
      EXPECT_EQ(value, 3.0f);
    }
    return OkStatus();
  })));
}

TEST(InProcessTest, ReduceScatterIsItsPartOfAllReduce) {
  for (const int size : kSizes) {
    for (const DType dtype : kReduced) {
      for (const bool in_place : {false, true}) {
        for (const int64_t part : {int64_t{0}, int64_t{1}, int64_t{700}}) {
          ASSERT_TRUE(IsOk(RunRanks({.ranks = size}, [&](Communicator* world) -> Status {
            const int64_t count = part * size, begin = part * world->rank();
            const HostTensor whole = TensorOf(dtype, world->rank(), count);
            const HostTensor in = TensorOf(dtype, world->rank(), count);
            const HostTensor apart(dtype, {part});
            const TensorView own = in.view().Slice(0, begin, begin + part);
            const TensorView out = in_place ? own : apart.view();
            TE_RETURN_IF_ERROR(world->ReduceScatter({}, in, out));
            TE_RETURN_IF_ERROR(world->AllReduce({}, whole, ReduceOp::kSum));
            EXPECT_TRUE(Near(test::ToDoubles(out),
                             test::ToDoubles(whole.view().Slice(0, begin, begin + part)), 0));
            std::vector<double> rest = in.ToDoubles(),
                                before = TensorOf(dtype, world->rank(), count).ToDoubles();
            if (in_place) {
              for (int64_t i = begin; i < begin + part; ++i)
                rest[static_cast<size_t>(i)] = before[static_cast<size_t>(i)];
            }
            EXPECT_EQ(rest, before);
            return OkStatus();
          })));
        }
      }
    }
  }
}

TEST(InProcessTest, AllGatherPutsTheRanksOneAfterTheOther) {
  for (const int size : kSizes) {
    for (const DType dtype : kReduced) {
      for (const bool in_place : {false, true}) {
        for (const int64_t part : {int64_t{0}, int64_t{1}, int64_t{333}}) {
          ASSERT_TRUE(IsOk(RunRanks({.ranks = size}, [&](Communicator* world) -> Status {
            const HostTensor out(dtype, {part * size});
            const HostTensor apart = TensorOf(dtype, world->rank(), part);
            const int64_t begin = part * world->rank();
            ConstTensorView in = apart;
            if (in_place) {
              in = out.view().Slice(0, begin, begin + part);
              test::FromDoubles(apart.ToDoubles(), out.view().Slice(0, begin, begin + part));
            }
            TE_RETURN_IF_ERROR(world->AllGather({}, in, out));
            std::vector<double> want;
            for (int r = 0; r < size; ++r) {
              const std::vector<double> theirs = TensorOf(dtype, r, part).ToDoubles();
              want.insert(want.end(), theirs.begin(), theirs.end());
            }
            EXPECT_EQ(out.ToDoubles(), want);
            EXPECT_TRUE(out.GuardsIntact());
            return OkStatus();
          })));
        }
      }
    }
  }
}

TEST(InProcessTest, MovesEveryDTypeAndFp8AmongThem) {
  ASSERT_TRUE(IsOk(RunRanks({.ranks = 3}, [](Communicator* world) -> Status {
    uint8_t code = static_cast<uint8_t>(0x41 + world->rank());
    uint8_t all[3] = {};
    TE_RETURN_IF_ERROR(world->AllGather({}, ConstTensorView(&code, DType::kFloat8E4M3, {1}),
                                        TensorView(all, DType::kFloat8E4M3, {3})));
    EXPECT_EQ(std::string(all, all + 3), "ABC");
    TE_RETURN_IF_ERROR(world->Broadcast({}, TensorView(&code, DType::kFloat8E5M2, {1}), 2));
    EXPECT_EQ(code, 'C');
    return OkStatus();
  })));
}

TEST(InProcessTest, BroadcastIsTheRootsFromEachRoot) {
  for (const int size : kSizes) {
    for (int root = 0; root < size; ++root) {
      for (const int64_t count : kCounts) {
        ASSERT_TRUE(IsOk(RunRanks({.ranks = size}, [&](Communicator* world) -> Status {
          const HostTensor data = TensorOf(DType::kBFloat16, world->rank(), count);
          TE_RETURN_IF_ERROR(world->Broadcast({}, data, root));
          EXPECT_EQ(data.Bytes(), TensorOf(DType::kBFloat16, root, count).Bytes());
          return OkStatus();
        })));
      }
    }
  }
}

// Element e of what rank `from` sends to rank `to`.
double Element(int from, int to, int64_t e) {
  return 10000 * from + 100 * to + static_cast<double>(e);
}

TEST(InProcessTest, AllToAllWithPartsOfAnySize) {
  for (const int size : kSizes) {
    const auto count = [](int from, int to) { return int64_t{(3 * from + 5 * to) % 4}; };
    ASSERT_TRUE(IsOk(RunRanks({.ranks = size}, [&](Communicator* world) -> Status {
      const int me = world->rank();
      std::vector<int64_t> in_counts, out_counts;
      std::vector<double> in, want;
      for (int r = 0; r < size; ++r) {
        in_counts.push_back(count(me, r));
        out_counts.push_back(count(r, me));
        for (int64_t e = 0; e < in_counts.back(); ++e) in.push_back(Element(me, r, e));
        for (int64_t e = 0; e < out_counts.back(); ++e) want.push_back(Element(r, me, e));
      }
      const auto elements = [](const auto& v) { return static_cast<int64_t>(v.size()); };
      const HostTensor from(DType::kFloat32, {elements(in)}, in),
          to(DType::kFloat32, {elements(want)});
      TE_RETURN_IF_ERROR(world->AllToAll({}, from, to, in_counts, out_counts));
      EXPECT_EQ(to.ToDoubles(), want);
      EXPECT_TRUE(to.GuardsIntact());
      // Equal parts: a transposition.
      std::vector<double> rows, columns;
      for (int r = 0; r < size; ++r) {
        for (int64_t e = 0; e < 2; ++e) {
          rows.push_back(Element(me, r, e));
          columns.push_back(Element(r, me, e));
        }
      }
      const HostTensor a(DType::kInt32, {size, 2}, rows), b(DType::kInt32, {size, 2});
      TE_RETURN_IF_ERROR(world->AllToAll({}, a, b));
      EXPECT_EQ(b.ToDoubles(), columns);
      return OkStatus();
    })));
  }
}

TEST(InProcessTest, ARingOfExchangesAndMessagesInOrder) {
  for (const int size : {2, 3, 4, 8}) {
    ASSERT_TRUE(IsOk(RunRanks({.ranks = size}, [&](Communicator* world) -> Status {
      const int next = (world->rank() + 1) % size, previous = (world->rank() + size - 1) % size;
      HostTensor own = TensorOf(DType::kFloat32, world->rank(), 50);
      // After size steps each has its own back.
      for (int step = 1; step <= size; ++step) {
        HostTensor got(DType::kFloat32, {50});
        const Transfer ring[] = {Transfer::Send(own, next), Transfer::Receive(got, previous)};
        TE_RETURN_IF_ERROR(world->Exchange({}, ring));
        EXPECT_EQ(got.Bytes(),
                  TensorOf(DType::kFloat32, (world->rank() + size - step) % size, 50).Bytes());
        own = std::move(got);
      }
      // Rank 0 sends in one call what rank 1 receives in three.
      int32_t values[3] = {7, 8, 9};
      const auto view = [&](int i) { return TensorView(&values[i], DType::kInt32, {1}); };
      if (world->rank() == 0) {
        const Transfer sends[] = {Transfer::Send(view(0), 1), Transfer::Send(view(1), 1),
                                  Transfer::Send(view(2), 1)};
        TE_RETURN_IF_ERROR(world->Exchange({}, sends));
      } else if (world->rank() == 1) {
        for (int i = 0; i < 3; ++i) TE_RETURN_IF_ERROR(world->Receive({}, view(2 - i), 0));
        EXPECT_EQ(std::vector<int32_t>(values, values + 3), (std::vector<int32_t>{9, 8, 7}));
      }
      return world->Exchange({}, {});
    })));
  }
}

TEST(InProcessTest, APipelineOfSendsAndReceives) {
  ASSERT_TRUE(IsOk(RunRanks({.ranks = 4}, [](Communicator* world) -> Status {
    for (int64_t micro_batch = 0; micro_batch < 20; ++micro_batch) {
      int64_t value = micro_batch;
      const TensorView view(&value, DType::kInt64, {1});
      if (world->rank() > 0) TE_RETURN_IF_ERROR(world->Receive({}, view, world->rank() - 1));
      EXPECT_EQ(value, micro_batch + 100 * world->rank());
      value += 100;
      if (world->rank() < 3) TE_RETURN_IF_ERROR(world->Send({}, view, world->rank() + 1));
    }
    return OkStatus();
  })));
}

TEST(InProcessTest, NobodyPassesABarrierBeforeAllHaveCome) {
  std::atomic<int> come{0};
  ASSERT_TRUE(IsOk(RunRanks({.ranks = 8}, [&](Communicator* world) -> Status {
    for (int round = 1; round <= 20; ++round) {
      ++come;
      TE_RETURN_IF_ERROR(world->Barrier({}));
      EXPECT_GE(come.load(), 8 * round);
      TE_RETURN_IF_ERROR(world->Barrier({}));
      EXPECT_LE(come.load(), 8 * round);
      TE_RETURN_IF_ERROR(world->Barrier({}));
    }
    return OkStatus();
  })));
}

TEST(InProcessTest, SplitGroupsByColorAndOrdersByKeyThenRank) {
  ASSERT_TRUE(IsOk(RunRanks({.ranks = 8}, [](Communicator* world) -> Status {
    const int me = world->rank();
    // Odd ranks in reverse order, even ones but 0 in theirs, 0 in none.
    const int color = me == 0 ? Communicator::kNoGroup : me % 2;
    TE_ASSIGN_OR_RETURN(const auto group, world->Split(color, me % 2 == 1 ? -me : 5, "half"));
    if (me == 0) {
      EXPECT_EQ(group, nullptr);
      EXPECT_EQ(GroupSize(group.get()), 1);
      return OkStatus();
    }
    EXPECT_EQ(group->name(), "half");
    EXPECT_EQ(group->size(), me % 2 == 1 ? 4 : 3);
    EXPECT_EQ(group->rank(), me % 2 == 1 ? (7 - me) / 2 : me / 2 - 1);
    int32_t sum = me;
    TE_RETURN_IF_ERROR(group->AllReduce({}, TensorView(&sum, DType::kInt32, {1}), ReduceOp::kSum));
    EXPECT_EQ(sum, me % 2 == 1 ? 16 : 12);
    // A group of a group.
    TE_ASSIGN_OR_RETURN(const auto pair, group->Split(group->rank() / 2, 0, "pair"));
    int32_t first = me;
    TE_RETURN_IF_ERROR(pair->Broadcast({}, TensorView(&first, DType::kInt32, {1}), 0));
    const int32_t want[] = {0, 3, 2, 3, 2, 7, 6, 7};
    EXPECT_EQ(first, want[me]);
    return OkStatus();
  })));
}

TEST(InProcessTest, GroupsWorkAtTheSameTime) {
  ASSERT_TRUE(IsOk(RunRanks({.ranks = 8}, [](Communicator* world) -> Status {
    TE_ASSIGN_OR_RETURN(const auto row, world->Split(world->rank() / 4, world->rank(), "row"));
    TE_ASSIGN_OR_RETURN(const auto column,
                        world->Split(world->rank() % 4, world->rank(), "column"));
    for (int round = 0; round < 50; ++round) {
      int64_t value = world->rank() + round;
      const TensorView view(&value, DType::kInt64, {1});
      // Rows of different ranks make different numbers of calls.
      for (int i = 0; i <= world->rank() / 4; ++i)
        TE_RETURN_IF_ERROR(row->AllReduce({}, view, ReduceOp::kMax));
      EXPECT_EQ(value, world->rank() / 4 * 4 + 3 + round);
      TE_RETURN_IF_ERROR(column->AllReduce({}, view, ReduceOp::kSum));
      EXPECT_EQ(value, 3 + 7 + 2 * round);
    }
    return OkStatus();
  })));
}

TEST(InProcessTest, TwoWorldsShareNothing) {
  ASSERT_TRUE(IsOk(RunRanks({.ranks = 2}, [](Communicator* outer) -> Status {
    // A world inside a rank: its calls are not the outer one's.
    return RunRanks({.ranks = 2}, [&](Communicator* inner) -> Status {
      int32_t value = 1 + outer->rank();
      TE_RETURN_IF_ERROR(
          inner->AllReduce({}, TensorView(&value, DType::kInt32, {1}), ReduceOp::kSum));
      EXPECT_EQ(value, 2 * (1 + outer->rank()));
      return OkStatus();
    });
  })));
}

}  // namespace
}  // namespace te
