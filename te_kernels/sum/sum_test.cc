#include "te_kernels/sum/sum.h"

#include <cmath>
#include <cstring>
#include <vector>

#include "gtest/gtest.h"
#include "te_kernels/sum/sum_ref.h"
#include "te_kernels/testing/host_tensor.h"
#include "te_kernels/testing/near.h"
#include "te_kernels/testing/test_device.h"
#include "te_kernels/testing/test_memory.h"

namespace te {
namespace {

using test::FailsWith;
using test::HostTensor;
using test::IsOk;
using test::TestExec;

constexpr DType kDtypes[] = {DType::kFloat32, DType::kBFloat16, DType::kFloat64};

TEST(SumTest, EqualsTheReference) {
  for (const DType dtype : kDtypes) {
    // Around the lanes (32) and the chunk (4096).
    for (const int64_t n : {0, 1, 31, 33, 4095, 4097, 100'003}) {
      for (const bool squared : {false, true}) {
        for (const bool accumulate : {false, true}) {
          const HostTensor x = HostTensor::Normal(dtype, {n}, 1, 3);
          const double before = 1.25;
          const test::Shared<double> out(before);
          TestExec exec;
          ASSERT_TRUE(IsOk(TE_OP(Sum)(
              exec, {.x = x, .squared = squared, .accumulate = accumulate, .out = out.get()})));
          std::vector<double> values = x.ToDoubles();
          const double want = SumRef(values, squared, accumulate ? before : 0);
          // n additions err by n 2^-53 of the magnitudes (the reference adds one after the other,
          // the operation in a tree), and squares of float64 by 2^-53 (those of float32 are exact).
          for (double& v : values) v = std::abs(v);
          const double tolerance =
              2 * static_cast<double>(n + 1) * 0x1p-53 * SumRef(values, squared, before);
          EXPECT_NEAR(*out, want, tolerance) << n;
          if (n == 0) continue;
          // The twin: one element counted with the other sign, or moved.
          values = x.ToDoubles();
          values[n / 2] += 1e-3;
          EXPECT_GT(std::abs(*out - SumRef(values, squared, accumulate ? before : 0)), tolerance);
        }
      }
    }
  }
}

// 2^24 + 9 ones: a float32 running sum would stop at 2^24; squares of 1e25 overflow float32.
TEST(SumTest, SumsInDouble) {
  const HostTensor large(DType::kFloat32, {3}, {1e25, 1e25, 1e25});
  const test::Shared<double> out;
  TestExec exec;
  ASSERT_TRUE(IsOk(TE_OP(Sum)(exec, {.x = large, .out = out.get()})));
  EXPECT_NEAR(*out, 3e50, 1e-6 * 3e50);
  const HostTensor ones(DType::kFloat32, {(1 << 24) + 9}, std::vector<double>((1 << 24) + 9, 1.0));
  ASSERT_TRUE(IsOk(TE_OP(Sum)(exec, {.x = ones, .squared = false, .out = out.get()})));
  EXPECT_EQ(*out, (1 << 24) + 9);
}

TEST(SumTest, AnyAddress) {
  for (const DType dtype : kDtypes) {
    const HostTensor x = HostTensor::Normal(dtype, {50'003}, 1);
    for (const int64_t begin : {1, 3}) {
      const TensorView tail = x.view().Slice(0, begin, 50'003);
      const test::Shared<double> out;
      TestExec exec;
      ASSERT_TRUE(IsOk(TE_OP(Sum)(exec, {.x = tail, .out = out.get()})));
      const double want = SumRef(test::ToDoubles(tail), true);
      EXPECT_NEAR(*out, want, 2 * 50'003 * 0x1p-53 * want);
      EXPECT_GT(std::abs(*out - SumRef(x.ToDoubles(), true)), 2 * 50'003 * 0x1p-53 * want);
    }
  }
}

TEST(SumTest, NanAndInfinityShow) {
  const HostTensor x(DType::kBFloat16, {3}, {1, HUGE_VAL, 2});
  const test::Shared<double> out;
  TestExec exec;
  ASSERT_TRUE(IsOk(TE_OP(Sum)(exec, {.x = x, .out = out.get()})));
  EXPECT_EQ(*out, HUGE_VAL);
  const HostTensor y(DType::kBFloat16, {3}, {1, std::nan(""), 2});
  ASSERT_TRUE(IsOk(TE_OP(Sum)(exec, {.x = y, .out = out.get()})));
  EXPECT_TRUE(std::isnan(*out));
}

TEST(SumTest, RepeatsBitwiseForAnyNumberOfThreads) {
  for (const DType dtype : kDtypes) {
    const HostTensor x = HostTensor::Normal(dtype, {500'001}, 1);
    const test::Shared<double> first;
    TestExec one;
    ASSERT_TRUE(IsOk(TE_OP(Sum)(one, {.x = x, .out = first.get()})));
    for (const int threads : {1, 2, 3}) {
      const test::Shared<double> out;
      TestExec exec(threads);
      ASSERT_TRUE(IsOk(TE_OP(Sum)(exec, {.x = x, .out = out.get()})));
      EXPECT_EQ(std::memcmp(out.get(), first.get(), sizeof(double)), 0) << threads;
    }
  }
}

TEST(SumTest, RefusesWhatTheContractDoesNotTake) {
  const HostTensor x(DType::kFloat32, {4, 6}), integers(DType::kInt32, {4}),
      strided(DType::kFloat32, {4, 6}, 1);
  const test::Shared<double> out(7);
  TestExec exec;
  const auto check = [&](const SumArgs& args, const char* part) {
    EXPECT_TRUE(FailsWith(TE_OP(Sum)(exec, args), StatusCode::kInvalidArgument, part));
    EXPECT_EQ(*out, 7);
  };
  check({.x = integers, .out = out.get()}, "x is int32");
  check({.x = strided, .out = out.get()}, "x is float32 [4, 6] strides");
  check({.x = x, .out = nullptr}, "out is null");
  check({.x = ConstTensorView(nullptr, DType::kFloat32, {3}), .out = out.get()}, "x is nothing");
}

}  // namespace
}  // namespace te
