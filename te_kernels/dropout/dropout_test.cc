#include "te_kernels/dropout/dropout.h"

#include <cmath>
#include <limits>
#include <vector>

#include "gtest/gtest.h"
#include "te_kernels/dropout/dropout_ref.h"
#include "te_kernels/testing/host_tensor.h"
#include "te_kernels/testing/near.h"
#include "te_kernels/testing/test_device.h"
#include "te_kernels/testing/test_memory.h"

namespace te {
namespace {

using test::HostTensor;
using Doubles = std::vector<double>;

constexpr RandomState kRandom = {.seed = 0x123456789abcdef0, .stream = 7, .offset = 0x500000003};

struct Problem {
  Problem(DType dtype, int64_t tokens, int64_t hidden)
      : dtype(dtype),
        shape{tokens, hidden},
        x(HostTensor::Normal(dtype, shape, 1)),
        residual(HostTensor::Normal(dtype, shape, 2)),
        bias(HostTensor::Normal(dtype, {hidden}, 3)) {}

  Doubles Want(float p, bool with_bias, bool with_residual, const RandomState& random) const {
    Doubles xs = x.ToDoubles(), rs = residual.ToDoubles(), bs = bias.ToDoubles(), out;
    for (size_t i = 0; i < xs.size(); ++i) {
      const double value = xs[i] + (with_bias ? bs[i % bs.size()] : 0);
      out.push_back(ref::Dropout(value, ref::Keeps(random, i, p), p) + (with_residual ? rs[i] : 0));
    }
    return out;
  }
  // Four operations in float32 (1 - p rounds, too) on values below `largest`, and one rounding.
  double Tolerance(const Doubles& want) const {
    const double largest = test::MaxAbs(want) + test::MaxAbs(residual.ToDoubles());
    return largest * (test::UnitRoundoff(dtype) + 16 * 0x1p-24);
  }

  DType dtype;
  Shape shape;
  HostTensor x, residual, bias;
};

TEST(DropoutTest, ForwardAgreesWithTheReference) {
  const test::TestExec exec;
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    const int64_t shapes[][2] = {{1, 1}, {3, 7}, {5, 64}, {2, 257}, {37, 33}, {0, 4}};
    for (const auto& s : shapes) {
      for (const float p : {0.0f, 0.1f, 0.75f, 1.0f}) {
        for (int options = 0; options < 4; ++options) {
          const Problem problem(dtype, s[0], s[1]);
          const bool with_bias = options & 1, with_residual = options & 2;
          const HostTensor out(dtype, problem.shape);
          DropoutForwardArgs args;
          args.x = problem.x;
          if (with_bias) args.bias = problem.bias;
          if (with_residual) args.residual = problem.residual;
          args.p = p;
          args.random = kRandom;
          args.out = out;
          ASSERT_TRUE(test::IsOk(TE_OP(DropoutForward)(exec, args)));
          const Doubles want = problem.Want(p, with_bias, with_residual, kRandom);
          const double tolerance = problem.Tolerance(want);
          EXPECT_TRUE(test::Near(out.ToDoubles(), want, tolerance));
          EXPECT_TRUE(out.GuardsIntact());
          if (want.empty()) continue;
          EXPECT_FALSE(test::Near(out.ToDoubles(),
                                  test::Disturbed(want, want.size() - 1, 3 * tolerance + 0.1),
                                  tolerance));
        }
      }
    }
  }
}

TEST(DropoutTest, EveryPartOfTheRandomStateChoosesOtherElements) {
  const test::TestExec exec;
  const Problem p(DType::kFloat32, 8, 33);
  const HostTensor out(DType::kFloat32, p.shape);
  DropoutForwardArgs args;
  args.x = p.x;
  args.p = 0.5f;
  args.out = out;
  const test::Shared<uint64_t> step(9);
  RandomState states[5] = {kRandom, kRandom, kRandom, kRandom, kRandom};
  states[0].seed ^= uint64_t{1} << 40;
  states[1].stream += 1;
  states[2].offset += 1;
  states[3].offset += uint64_t{1} << 32;
  states[4].step_offset = step.get();
  for (const RandomState& state : states) {
    args.random = state;
    ASSERT_TRUE(test::IsOk(TE_OP(DropoutForward)(exec, args)));
    const Doubles want = p.Want(0.5f, false, false, state.Resolved());
    EXPECT_TRUE(test::Near(out.ToDoubles(), want, p.Tolerance(want)));
    EXPECT_FALSE(
        test::Near(out.ToDoubles(), p.Want(0.5f, false, false, kRandom), p.Tolerance(want)));
  }
}

TEST(DropoutTest, BackwardDropsWhatForwardDropped) {
  const test::TestExec exec;
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    const Problem p(dtype, 19, 41);
    const HostTensor dx(dtype, p.shape), out(dtype, p.shape);
    DropoutBackwardArgs args;
    args.dout = p.x;
    args.p = 0.3f;
    args.random = kRandom;
    args.dx = dx;
    ASSERT_TRUE(test::IsOk(TE_OP(DropoutBackward)(exec, args)));
    const Doubles want = p.Want(0.3f, false, false, kRandom);
    EXPECT_TRUE(test::Near(dx.ToDoubles(), want, p.Tolerance(want)));
    EXPECT_FALSE(test::Near(dx.ToDoubles(), p.Want(0.3f, false, true, kRandom), p.Tolerance(want)));
    DropoutForwardArgs forward;
    forward.x = p.x;
    forward.p = 0.3f;
    forward.random = kRandom;
    forward.out = out;
    ASSERT_TRUE(test::IsOk(TE_OP(DropoutForward)(exec, forward)));
    EXPECT_EQ(out.Bytes(), dx.Bytes());
  }
}

// The share of kept elements is binomial: six standard deviations.
TEST(DropoutTest, KeepsTheShareItShould) {
  const test::TestExec exec;
  const int64_t n = 200000;
  const HostTensor ones(DType::kFloat32, {1, n}, Doubles(n, 1.0)), out(DType::kFloat32, {1, n});
  for (const float p : {0.1f, 0.5f}) {
    DropoutForwardArgs args;
    args.x = ones;
    args.p = p;
    args.random = kRandom;
    args.out = out;
    ASSERT_TRUE(test::IsOk(TE_OP(DropoutForward)(exec, args)));
    int64_t kept = 0;
    for (double v : out.ToDoubles()) kept += v != 0;
    EXPECT_NEAR(static_cast<double>(kept), n * (1.0 - p), 6 * std::sqrt(n * p * (1.0 - p)));
  }
}

TEST(DropoutTest, DroppedInfinitiesAndNansAreZero) {
  const test::TestExec exec;
  Doubles values(64, std::nan(""));
  for (size_t i = 0; i < 64; i += 2) values[i] = std::numeric_limits<double>::infinity();
  const HostTensor x(DType::kBFloat16, {1, 64}, values), out(DType::kBFloat16, {1, 64});
  DropoutForwardArgs args;
  args.x = x;
  args.p = 1;
  args.random = kRandom;
  args.out = out;
  ASSERT_TRUE(test::IsOk(TE_OP(DropoutForward)(exec, args)));
  EXPECT_EQ(out.ToDoubles(), Doubles(64, 0.0));
  args.p = 0;
  ASSERT_TRUE(test::IsOk(TE_OP(DropoutForward)(exec, args)));
  EXPECT_TRUE(test::Near(out.ToDoubles(), values, 0));
}

TEST(DropoutTest, ThreadsRepetitionAndAliasesDoNotChangeABit) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    const Problem p(dtype, 50, 515);
    const HostTensor out(dtype, p.shape);
    DropoutForwardArgs args;
    args.x = p.x;
    args.bias = p.bias;
    args.residual = p.residual;
    args.p = 0.2f;
    args.random = kRandom;
    args.out = out;
    ASSERT_TRUE(test::IsOk(TE_OP(DropoutForward)(test::TestExec(1), args)));
    for (int repeat = 0; repeat < 3; ++repeat) {
      const Problem q(dtype, 50, 515);
      const HostTensor fresh(dtype, p.shape);
      args.x = q.x;
      args.residual = q.residual;
      args.out = repeat == 0 ? fresh : repeat == 1 ? q.x : q.residual;
      ASSERT_TRUE(test::IsOk(TE_OP(DropoutForward)(test::TestExec(2), args)));
      EXPECT_EQ(test::BytesOf(args.out), out.Bytes());
    }
    const HostTensor dx(dtype, p.shape);
    DropoutBackwardArgs backward;
    backward.dout = p.x;
    backward.p = 0.2f;
    backward.random = kRandom;
    backward.dx = dx;
    ASSERT_TRUE(test::IsOk(TE_OP(DropoutBackward)(test::TestExec(1), backward)));
    backward.dx = p.x;
    ASSERT_TRUE(test::IsOk(TE_OP(DropoutBackward)(test::TestExec(2), backward)));
    EXPECT_EQ(p.x.Bytes(), dx.Bytes());
  }
}

TEST(DropoutTest, RefusesWhatDoesNotFitByName) {
  const test::TestExec exec;
  constexpr StatusCode kBad = StatusCode::kInvalidArgument;
  const Problem p(DType::kFloat32, 2, 4);
  const HostTensor out(DType::kFloat32, {2, 4}), wrong(DType::kFloat32, {2, 5}),
      strided(DType::kFloat32, {2, 4}, 1);
  DropoutForwardArgs good;
  good.x = p.x;
  good.out = out;
  DropoutForwardArgs args = good;
  args.p = 1.5f;
  EXPECT_TRUE(test::FailsWith(TE_OP(DropoutForward)(exec, args), kBad, "p is 1.5"));
  args.p = std::nanf("");
  EXPECT_TRUE(test::FailsWith(TE_OP(DropoutForward)(exec, args), kBad, "p is nan"));
  args = good;
  args.out = wrong;
  EXPECT_TRUE(test::FailsWith(TE_OP(DropoutForward)(exec, args), kBad, "out is"));
  args = good;
  args.x = strided;
  EXPECT_TRUE(test::FailsWith(TE_OP(DropoutForward)(exec, args), kBad, "expected a dense tensor"));
  args = good;
  args.residual = wrong;
  EXPECT_TRUE(test::FailsWith(TE_OP(DropoutForward)(exec, args), kBad, "residual is"));
  args = good;
  args.bias = wrong;
  EXPECT_TRUE(test::FailsWith(TE_OP(DropoutForward)(exec, args), kBad, "bias is"));
  DropoutBackwardArgs backward;
  backward.dout = p.x;
  backward.dx = wrong;
  EXPECT_TRUE(test::FailsWith(TE_OP(DropoutBackward)(exec, backward), kBad, "dx is"));
  backward.dx = out;
  backward.p = -0.5f;
  EXPECT_TRUE(test::FailsWith(TE_OP(DropoutBackward)(exec, backward), kBad, "p is -0.5"));
}

}  // namespace
}  // namespace te
