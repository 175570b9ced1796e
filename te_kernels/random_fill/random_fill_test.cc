#include "te_kernels/random_fill/random_fill.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "gtest/gtest.h"
#include "te_kernels/random_fill/random_fill_ref.h"
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
constexpr RandomState kState = {.seed = 0x123456789, .stream = 5, .offset = 3};

TEST(RandomFillTest, NormalEqualsBoxAndMullerElementByElement) {
  for (const DType dtype : kDtypes) {
    for (const int64_t n : {0, 1, 2, 7, 1023, 1025, 5000}) {
      const HostTensor out(dtype, {n});
      TestExec exec;
      ASSERT_TRUE(
          IsOk(TE_OP(RandomFill)(exec, {.a = 0.5f, .b = 0.02f, .random = kState, .out = out})));
      std::vector<double> want(n), tolerance(n);
      for (int64_t i = 0; i < n; ++i) {
        want[i] = RandomNormalRef(kState, i, 0.5f, 0.02f);
        // Computed in double, then rounded to float32 and to the dtype.
        tolerance[i] = (UnitRoundoff(DType::kFloat32) + UnitRoundoff(dtype)) * std::abs(want[i]);
      }
      EXPECT_TRUE(Near(out.ToDoubles(), want, tolerance)) << n;
      EXPECT_TRUE(out.GuardsIntact());
      if (n == 0) continue;
      EXPECT_FALSE(Near(out.ToDoubles(), Disturbed(want, n - 1, 3 * tolerance[n - 1]), tolerance));
    }
  }
}

TEST(RandomFillTest, UniformEqualsTheReferenceAndStaysBelowHigh) {
  for (const DType dtype : kDtypes) {
    for (const auto& [low, high] :
         {std::pair(-1.0f, 1.0f), std::pair(0.0f, 1.0f), std::pair(-3.0f, -1.0f),
          std::pair(-1.0f, 0.0f), std::pair(2.0f, 2.0f)}) {
      constexpr int64_t n = 20'000;
      const HostTensor out(dtype, {n});
      TestExec exec;
      ASSERT_TRUE(IsOk(TE_OP(RandomFill)(exec, {.distribution = RandomDistribution::kUniform,
                                                .a = low,
                                                .b = high,
                                                .random = kState,
                                                .out = out})));
      std::vector<double> want(n), tolerance(n);
      for (int64_t i = 0; i < n; ++i) {
        want[i] = RandomUniformRef(kState, i, low, high);
        // Twice: what would round up to `high` is the number below it.
        tolerance[i] = 2 * (UnitRoundoff(DType::kFloat32) + UnitRoundoff(dtype)) *
                       std::max(std::abs(want[i]), 1e-6);
      }
      const std::vector<double> got = out.ToDoubles();
      EXPECT_TRUE(Near(got, want, tolerance)) << low << " " << high;
      for (double v : got) {
        ASSERT_GE(v, low);
        ASSERT_TRUE(v < high || low == high) << v;
      }
    }
  }
}

// Moments of 200000 draws, within five standard errors.
TEST(RandomFillTest, NormalHasMeanVarianceSkewAndTailsOfANormal) {
  constexpr int64_t n = 200'000;
  const HostTensor out(DType::kFloat32, {n});
  TestExec exec(2);
  ASSERT_TRUE(IsOk(TE_OP(RandomFill)(exec, {.random = kState, .out = out})));
  double sum = 0, square = 0, cube = 0, product = 0;
  int64_t beyond = 0;
  const std::vector<double> x = out.ToDoubles();
  for (int64_t i = 0; i < n; ++i) {
    sum += x[i];
    square += x[i] * x[i];
    cube += x[i] * x[i] * x[i];
    beyond += std::abs(x[i]) > 2;
    if (i % 2 == 1) product += x[i] * x[i - 1];  // the cosine and sine of a pair
  }
  EXPECT_NEAR(sum / n, 0, 5 / std::sqrt(n));
  EXPECT_NEAR(square / n, 1, 5 * std::sqrt(2.0 / n));
  EXPECT_NEAR(cube / n, 0, 5 * std::sqrt(15.0 / n));
  EXPECT_NEAR(product / (n / 2), 0, 5 / std::sqrt(n / 2));
  const double tail = std::erfc(2 / std::sqrt(2.0));
  EXPECT_NEAR(static_cast<double>(beyond) / n, tail, 5 * std::sqrt(tail / n));
}

TEST(RandomFillTest, AnElementDependsOnItsIndexAndItsNameAlone) {
  const HostTensor longer(DType::kFloat32, {5003}), shorter(DType::kFloat32, {17});
  TestExec one(1), two(2);
  ASSERT_TRUE(IsOk(TE_OP(RandomFill)(two, {.random = kState, .out = longer})));
  ASSERT_TRUE(IsOk(TE_OP(RandomFill)(one, {.random = kState, .out = shorter})));
  EXPECT_EQ(test::ToDoubles(longer.view().Slice(0, 0, 17)), shorter.ToDoubles());
  RandomState next = kState;
  next.stream += 1;
  const HostTensor other(DType::kFloat32, {17});
  ASSERT_TRUE(IsOk(TE_OP(RandomFill)(one, {.random = next, .out = other})));
  EXPECT_NE(other.ToDoubles(), shorter.ToDoubles());
}

TEST(RandomFillTest, RepeatsBitwiseForAnyNumberOfThreads) {
  for (const DType dtype : kDtypes) {
    for (const RandomDistribution distribution :
         {RandomDistribution::kNormal, RandomDistribution::kUniform}) {
      std::vector<uint8_t> first;
      for (const int threads : {1, 1, 2, 3}) {
        const HostTensor out(dtype, {50'003});
        TestExec exec(threads);
        ASSERT_TRUE(IsOk(
            TE_OP(RandomFill)(exec, {.distribution = distribution, .random = kState, .out = out})));
        if (first.empty()) first = out.Bytes();
        EXPECT_EQ(out.Bytes(), first);
      }
    }
  }
}

TEST(RandomFillTest, RefusesWhatTheContractDoesNotTake) {
  const HostTensor out(DType::kFloat32, {4, 4}), half(DType::kFloat16, {4}),
      strided(DType::kFloat32, {4, 4}, 1);
  TestExec exec;
  const auto check = [&](const RandomFillArgs& args, const char* part) {
    EXPECT_TRUE(FailsWith(TE_OP(RandomFill)(exec, args), StatusCode::kInvalidArgument, part));
  };
  constexpr RandomDistribution kUniform = RandomDistribution::kUniform;
  check({.out = half}, "out is float16");
  check({.out = strided}, "out is float32 [4, 4] strides");
  check({.out = TensorView(nullptr, DType::kFloat32, {3})}, "out is nothing");
  check({.b = -1, .out = out}, "standard deviation -1");
  check({.a = std::numeric_limits<float>::infinity(), .out = out}, "mean inf");
  check({.distribution = kUniform, .a = 2, .b = 1, .out = out}, "uniform in [2, 1)");
  check({.distribution = static_cast<RandomDistribution>(9), .out = out}, "distribution is 9");
}

}  // namespace
}  // namespace te
