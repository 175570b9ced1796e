#include "te_kernels/embedding/embedding.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "te_kernels/embedding/embedding_ref.h"
#include "te_kernels/testing/host_tensor.h"
#include "te_kernels/testing/near.h"
#include "te_kernels/testing/test_device.h"

namespace te {
namespace {

using test::Disturbed;
using test::FailsWith;
using test::HostTensor;
using test::IsOk;
using test::Near;
using test::TestExec;
using test::UnitRoundoff;

constexpr DType kDtypes[] = {DType::kFloat32, DType::kBFloat16};

struct Case {
  int64_t tokens, vocabulary, hidden;
};
// Many tokens a row, few, none; widths around the block of 256 columns.
constexpr Case kCases[] = {{1, 1, 1},    {0, 5, 3},       {7, 3, 0},
                           {300, 7, 33}, {50, 1000, 256}, {41, 11, 523}};

std::vector<int32_t> Ids(const Case& c, uint64_t seed) {
  std::mt19937_64 engine(seed);
  std::vector<int32_t> ids(c.tokens);
  for (int32_t& id : ids) id = static_cast<int32_t>(engine() % c.vocabulary);
  return ids;
}

HostTensor IdTensor(const std::vector<int32_t>& ids) {
  return HostTensor(DType::kInt32, {static_cast<int64_t>(ids.size())},
                    std::vector<double>(ids.begin(), ids.end()));
}

TEST(EmbeddingForwardTest, CopiesTheRowsBitByBit) {
  for (const DType dtype : kDtypes) {
    for (const Case& c : kCases) {
      const std::vector<int32_t> ids = Ids(c, 1);
      const HostTensor table = HostTensor::Normal(dtype, {c.vocabulary, c.hidden}, 2);
      const HostTensor id_tensor = IdTensor(ids);
      for (const int threads : {1, 2}) {
        const HostTensor out(dtype, {c.tokens, c.hidden});
        TestExec exec(threads);
        ASSERT_TRUE(
            IsOk(TE_OP(EmbeddingForward)(exec, {.ids = id_tensor, .table = table, .out = out})));
        EXPECT_EQ(out.ToDoubles(), EmbeddingForwardRef(ids, table.ToDoubles(), c.hidden));
        EXPECT_TRUE(out.GuardsIntact());
      }
    }
  }
}

TEST(EmbeddingBackwardTest, SumsTheRowsOfEachId) {
  for (const DType dtype : kDtypes) {
    for (const Case& c : kCases) {
      for (const bool accumulate : {false, true}) {
        const std::vector<int32_t> ids = Ids(c, 1);
        const HostTensor dout = HostTensor::Normal(dtype, {c.tokens, c.hidden}, 2);
        const HostTensor dtable = HostTensor::Normal(dtype, {c.vocabulary, c.hidden}, 3);
        std::vector<double> before = dtable.ToDoubles();
        if (!accumulate) before.assign(before.size(), 0);
        TestExec exec;
        ASSERT_TRUE(IsOk(TE_OP(EmbeddingBackward)(
            exec,
            {.ids = IdTensor(ids), .dout = dout, .dtable = dtable, .accumulate = accumulate})));
        const std::vector<double> want =
            EmbeddingBackwardRef(ids, dout.ToDoubles(), c.hidden, before);
        // n additions in float32 err by n u times the sum of magnitudes; the store rounds once
        // more.
        std::vector<double> magnitudes = dout.ToDoubles();
        for (double& v : magnitudes) v = std::abs(v);
        for (double& v : before) v = std::abs(v);
        const std::vector<double> sums = EmbeddingBackwardRef(ids, magnitudes, c.hidden, before);
        std::vector<int64_t> terms(c.vocabulary, 1);
        for (int32_t id : ids) ++terms[id];
        std::vector<double> tolerance(want.size());
        for (size_t i = 0; i < want.size(); ++i) {
          const auto n = static_cast<double>(terms[i / c.hidden]);
          tolerance[i] = n * UnitRoundoff(DType::kFloat32) * sums[i];
          if (dtype == DType::kBFloat16) tolerance[i] += UnitRoundoff(dtype) * std::abs(want[i]);
        }
        EXPECT_TRUE(Near(dtable.ToDoubles(), want, tolerance));
        EXPECT_TRUE(dtable.GuardsIntact());
        if (ids.empty() || c.hidden == 0) continue;
        const int64_t named = ids.back() * c.hidden;
        EXPECT_FALSE(
            Near(dtable.ToDoubles(), Disturbed(want, named, 3 * tolerance[named]), tolerance));
      }
    }
  }
}

// The padding row: zero, or as it was. The others as ever, bit by bit; long runs (of the padding
// row, too), a row that no id names, the first and the last.
TEST(EmbeddingBackwardTest, ThePaddingRowGetsNoGradient) {
  for (const DType dtype : kDtypes) {
    for (const int64_t hidden : {1, 33, 64, 523}) {
      std::vector<int32_t> ids = Ids({1200, 6, hidden}, 1);
      std::fill(ids.begin() + 100, ids.begin() + 400, 2);
      std::fill(ids.begin() + 500, ids.begin() + 700, 5);
      const HostTensor dout = HostTensor::Normal(dtype, {1200, hidden}, 2);
      for (const bool accumulate : {false, true}) {
        const auto run = [&](int64_t padding_idx) {
          const HostTensor dtable = HostTensor::Normal(dtype, {7, hidden}, 3);
          TestExec exec(2);
          EXPECT_TRUE(IsOk(TE_OP(EmbeddingBackward)(exec, {.ids = IdTensor(ids),
                                                           .dout = dout,
                                                           .dtable = dtable,
                                                           .accumulate = accumulate,
                                                           .padding_idx = padding_idx})));
          EXPECT_TRUE(dtable.GuardsIntact());
          return dtable.ToDoubles();
        };
        const std::vector<double> all = run(-1),
                                  before = HostTensor::Normal(dtype, {7, hidden}, 3).ToDoubles();
        for (const int64_t padding_idx : {0, 2, 5, 6}) {
          std::vector<double> want = all;
          for (int64_t i = padding_idx * hidden; i < (padding_idx + 1) * hidden; ++i) {
            want[static_cast<size_t>(i)] = accumulate ? before[static_cast<size_t>(i)] : 0.0;
          }
          EXPECT_EQ(run(padding_idx), want) << padding_idx;
          // The twin: row 6 alone has no token to lose.
          EXPECT_EQ(want == all, padding_idx == 6) << padding_idx;
          const std::vector<double> start =
              accumulate ? before : std::vector<double>(before.size(), 0.0);
          const auto reference =
              EmbeddingBackwardRef(ids, dout.ToDoubles(), hidden, start, padding_idx);
          const auto row = reference.begin() + padding_idx * hidden;
          EXPECT_TRUE(std::equal(row, row + hidden, want.begin() + padding_idx * hidden));
        }
      }
    }
  }
}

// In bfloat16 256 + 1 rounds back to 256: only a float32 sum counts the ones.
TEST(EmbeddingBackwardTest, SumsInFloat32AndRoundsOnce) {
  std::vector<double> values(257, 1);
  values[0] = 256;
  const HostTensor dout(DType::kBFloat16, {257, 1}, values);
  const HostTensor dtable(DType::kBFloat16, {1, 1});
  TestExec exec;
  ASSERT_TRUE(IsOk(TE_OP(EmbeddingBackward)(
      exec, {.ids = IdTensor(std::vector<int32_t>(257, 0)), .dout = dout, .dtable = dtable})));
  EXPECT_EQ(dtable.ToDoubles()[0], 512);
}

// Bit by bit what one float32 sum in the order of t gives, whatever kernel adds a row: one id for
// all tokens, runs around the length from which another one does (128 on CUDA), many tokens
// between ids that are rare, rows that no id names.
TEST(EmbeddingBackwardTest, LongRunsAreSummedInTheOrderOfTokens) {
  for (const DType dtype : kDtypes) {
    for (const int64_t hidden : {1, 33, 64, 200, 523}) {
      for (const std::vector<int64_t>& runs :
           {std::vector<int64_t>{1000}, {2000, 0, 3}, {127, 128, 129, 1, 256, 0, 257, 600}}) {
        for (const bool accumulate : {false, true}) {
          SCOPED_TRACE(std::to_string(hidden) + " " + std::to_string(runs.size()));
          std::vector<int32_t> ids;
          for (size_t row = 0; row < runs.size(); ++row)
            ids.insert(ids.end(), static_cast<size_t>(runs[row]), static_cast<int32_t>(row));
          std::shuffle(ids.begin(), ids.end(), std::mt19937_64(7));
          const auto rows = static_cast<int64_t>(runs.size());
          const HostTensor dout =
              HostTensor::Normal(dtype, {static_cast<int64_t>(ids.size()), hidden}, 2);
          const HostTensor dtable = HostTensor::Normal(dtype, {rows, hidden}, 3);
          const std::vector<double> terms = dout.ToDoubles(), before = dtable.ToDoubles();
          std::vector<float> sums(static_cast<size_t>(rows * hidden), 0.0f);
          if (accumulate) sums.assign(before.begin(), before.end());
          const auto add = [&](size_t t) {
            for (int64_t h = 0; h < hidden; ++h) {
              sums[static_cast<size_t>(ids[t] * hidden + h)] += static_cast<float>(
                  terms[t * static_cast<size_t>(hidden) + static_cast<size_t>(h)]);
            }
          };
          for (size_t t = 0; t < ids.size(); ++t) add(t);
          TestExec exec(2);
          ASSERT_TRUE(IsOk(TE_OP(EmbeddingBackward)(
              exec,
              {.ids = IdTensor(ids), .dout = dout, .dtable = dtable, .accumulate = accumulate})));
          const HostTensor want(dtype, {rows, hidden},
                                std::vector<double>(sums.begin(), sums.end()));
          EXPECT_EQ(dtable.Bytes(), want.Bytes());
          EXPECT_TRUE(dtable.GuardsIntact());
          // The twin: another order has other bits.
          if (dtype != DType::kFloat32 || hidden < 200) continue;
          sums.assign(sums.size(), 0.0f);
          if (accumulate) sums.assign(before.begin(), before.end());
          for (size_t t = ids.size(); t-- > 0;) add(t);
          const HostTensor reversed(dtype, {rows, hidden},
                                    std::vector<double>(sums.begin(), sums.end()));
          EXPECT_NE(dtable.Bytes(), reversed.Bytes());
        }
      }
    }
  }
}

// Ids outside the table are the longest run of all, behind its last row's.
TEST(EmbeddingBackwardTest, ManyIdsOutsideTheTableAreLeftOutOnCuda) {
  if (!test::kOnCuda) GTEST_SKIP() << "an error on the CPU";
  std::vector<int32_t> ids(900, 5);
  std::fill(ids.begin() + 200, ids.begin() + 350, 2);
  for (const bool accumulate : {false, true}) {
    const HostTensor dout(DType::kFloat32, {900, 8}, std::vector<double>(7200, 1.0));
    const HostTensor dtable(DType::kFloat32, {3, 8}, std::vector<double>(24, 4.0));
    TestExec exec;
    ASSERT_TRUE(IsOk(TE_OP(EmbeddingBackward)(
        exec, {.ids = IdTensor(ids), .dout = dout, .dtable = dtable, .accumulate = accumulate})));
    std::vector<double> want(24, accumulate ? 4.0 : 0.0);
    std::fill(want.begin() + 16, want.end(), accumulate ? 154.0 : 150.0);
    EXPECT_EQ(dtable.ToDoubles(), want);
    EXPECT_TRUE(dtable.GuardsIntact());
  }
}

TEST(EmbeddingBackwardTest, RepeatsBitwiseForAnyNumberOfThreads) {
  for (const DType dtype : kDtypes) {
    const Case c = {2000, 37, 300};
    const HostTensor ids = IdTensor(Ids(c, 1));
    const HostTensor dout = HostTensor::Normal(dtype, {c.tokens, c.hidden}, 2);
    std::vector<uint8_t> first;
    for (const int threads : {1, 1, 2, 3}) {
      const HostTensor dtable(dtype, {c.vocabulary, c.hidden});
      TestExec exec(threads);
      ASSERT_TRUE(
          IsOk(TE_OP(EmbeddingBackward)(exec, {.ids = ids, .dout = dout, .dtable = dtable})));
      if (first.empty()) first = dtable.Bytes();
      EXPECT_EQ(dtable.Bytes(), first) << threads;
    }
  }
}

TEST(EmbeddingTest, AnIdOutsideTheTableIsNamedAndNothingIsWritten) {
  for (const int32_t bad : {-1, 3, 1 << 30}) {
    const HostTensor ids = IdTensor({0, 2, bad, 1});
    const HostTensor table = HostTensor::Normal(DType::kFloat32, {3, 2}, 1);
    const HostTensor out = HostTensor::Normal(DType::kFloat32, {4, 2}, 2);
    const auto table_before = table.Bytes(), out_before = out.Bytes();
    TestExec exec;
    if (test::kOnCuda) {  // its row is NaN, and its gradient goes nowhere
      ASSERT_TRUE(IsOk(TE_OP(EmbeddingForward)(exec, {.ids = ids, .table = table, .out = out})));
      const std::vector<double> got = out.ToDoubles(), rows = table.ToDoubles();
      for (size_t i = 0; i < 8; ++i) EXPECT_EQ(std::isnan(got[i]), i / 2 == 2) << i;
      EXPECT_EQ(got[7], rows[3]);
      const HostTensor ones(DType::kFloat32, {4, 2}, std::vector<double>(8, 1.0)),
          dtable(DType::kFloat32, {3, 2});
      ASSERT_TRUE(
          IsOk(TE_OP(EmbeddingBackward)(exec, {.ids = ids, .dout = ones, .dtable = dtable})));
      EXPECT_EQ(dtable.ToDoubles(), std::vector<double>(6, 1.0));
      EXPECT_TRUE(dtable.GuardsIntact());
      continue;
    }
    const std::string part = "ids[2] is " + std::to_string(bad) + "; expected a value in [0, 3)";
    EXPECT_TRUE(FailsWith(TE_OP(EmbeddingForward)(exec, {.ids = ids, .table = table, .out = out}),
                          StatusCode::kInvalidArgument, part.c_str()));
    EXPECT_TRUE(
        FailsWith(TE_OP(EmbeddingBackward)(exec, {.ids = ids, .dout = out, .dtable = table}),
                  StatusCode::kInvalidArgument, part.c_str()));
    EXPECT_EQ(table.Bytes(), table_before);
    EXPECT_EQ(out.Bytes(), out_before);
  }
}

TEST(EmbeddingTest, RefusesWhatTheContractDoesNotTake) {
  const HostTensor ids = IdTensor({0, 1}), wide_ids(DType::kInt64, {2});
  const HostTensor table(DType::kFloat32, {3, 4}), out(DType::kFloat32, {2, 4});
  const HostTensor narrow(DType::kBFloat16, {2, 4}), longer(DType::kFloat32, {3, 4});
  const HostTensor half(DType::kFloat16, {3, 4}), strided(DType::kFloat32, {3, 4}, 1);
  TestExec exec;
  const auto forward = [&](const EmbeddingForwardArgs& args, const char* part) {
    EXPECT_TRUE(FailsWith(TE_OP(EmbeddingForward)(exec, args), StatusCode::kInvalidArgument, part));
  };
  forward({.ids = wide_ids, .table = table, .out = out}, "ids is int64");
  forward({.ids = ids, .table = half, .out = out}, "table is float16");
  forward({.ids = ids, .table = strided, .out = out}, "table is float32 [3, 4] strides");
  forward({.ids = ids, .table = table, .out = narrow}, "out is bfloat16");
  forward({.ids = ids, .table = table, .out = longer}, "expected dense float32 [2, 4]");
  const auto backward = [&](const EmbeddingBackwardArgs& args, const char* part) {
    EXPECT_TRUE(
        FailsWith(TE_OP(EmbeddingBackward)(exec, args), StatusCode::kInvalidArgument, part));
  };
  backward({.ids = ids, .dout = narrow, .dtable = table}, "dout is bfloat16");
  backward({.ids = ids, .dout = out, .dtable = half}, "dtable is float16");
  backward({.ids = {}, .dout = out, .dtable = table}, "ids is nothing");
  for (const int64_t padding_idx : {-2, 3}) {
    backward({.ids = ids, .dout = out, .dtable = table, .padding_idx = padding_idx},
             "expected -1 (none) or a row of dtable float32 [3, 4]");
  }
}

}  // namespace
}  // namespace te
