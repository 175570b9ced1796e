#include "te_kernels/delayed_scaling/delayed_scaling.h"

#include <cmath>
#include <limits>

#include "gtest/gtest.h"
#include "te_kernels/delayed_scaling/delayed_scaling_ref.h"
#include "te_kernels/testing/host_tensor.h"
#include "te_kernels/testing/near.h"
#include "te_kernels/testing/test_device.h"

namespace te {
namespace {

using test::FailsWith;
using test::HostTensor;
using test::IsOk;
using test::TestExec;

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr auto kMax = AmaxComputeAlgo::kMax, kMostRecent = AmaxComputeAlgo::kMostRecent;
constexpr auto kE4M3 = QuantFormat::kFloat8E4M3, kE5M2 = QuantFormat::kFloat8E5M2;

// One tensor: what casts put into row 0 before each update, and its state.
struct OneTensor {
  explicit OneTensor(std::vector<double> start)
      : history(DType::kFloat32, {static_cast<int64_t>(start.size()), 1}, start),
        scale(DType::kFloat32, {1}, std::vector<double>{1.0}) {}

  void Update(double amax, AmaxComputeAlgo algo, int margin = 0, QuantFormat format = kE4M3) {
    if (amax != 0) history.view().as<float>()[0] = static_cast<float>(amax);
    ASSERT_TRUE(IsOk(TE_OP(DelayedScaling)(
        exec,
        {.history = history, .scale = scale, .algo = algo, .margin = margin, .format = format})));
  }
  std::vector<double> History() const { return history.ToDoubles(); }
  double Scale() const { return scale.ToDoubles()[0]; }

  TestExec exec;
  HostTensor history;
  HostTensor scale;
};

using Numbers = std::vector<double>;

// By hand; 448 / 7 = 64, 448 / 3.5 = 128, ...
TEST(DelayedScalingTest, MaxOverAHistoryOfFour) {
  OneTensor t({0, 0, 0, 0});
  t.Update(7, kMax);
  EXPECT_EQ(t.History(), Numbers({0, 0, 0, 7}));
  EXPECT_EQ(t.Scale(), 64);
  t.Update(3.5, kMax);
  EXPECT_EQ(t.History(), Numbers({0, 0, 7, 3.5}));
  EXPECT_EQ(t.Scale(), 64) << "the largest of the history, not the last";
  t.Update(14, kMax);
  EXPECT_EQ(t.History(), Numbers({0, 7, 3.5, 14}));
  EXPECT_EQ(t.Scale(), 32);
  t.Update(1.75, kMax);
  EXPECT_EQ(t.History(), Numbers({0, 3.5, 14, 1.75}));
  t.Update(1.75, kMax);
  EXPECT_EQ(t.History(), Numbers({0, 14, 1.75, 1.75}));
  t.Update(1.75, kMax);
  EXPECT_EQ(t.History(), Numbers({0, 1.75, 1.75, 1.75}));
  EXPECT_EQ(t.Scale(), 32) << "the entry that this update drops still counts";
  t.Update(1.75, kMax);
  EXPECT_EQ(t.Scale(), 256);
}

TEST(DelayedScalingTest, MostRecentLooksAtTheLastAlone) {
  OneTensor t({0, 1, 2, 3});
  t.Update(7, kMostRecent);
  EXPECT_EQ(t.History(), Numbers({0, 2, 3, 7}));
  EXPECT_EQ(t.Scale(), 64);
  t.Update(3.5, kMostRecent);
  EXPECT_EQ(t.History(), Numbers({0, 3, 7, 3.5}));
  EXPECT_EQ(t.Scale(), 128);
}

TEST(DelayedScalingTest, AHistoryOfOneIsCleared) {
  for (const auto algo : {kMax, kMostRecent}) {
    OneTensor t({0});
    t.Update(7, algo);
    EXPECT_EQ(t.History(), Numbers({0}));
    EXPECT_EQ(t.Scale(), 64);
    t.Update(14, algo);
    EXPECT_EQ(t.Scale(), 32);
    t.Update(0, algo);
    EXPECT_EQ(t.Scale(), 32);
    EXPECT_EQ(t.History(), Numbers({0}));
  }
}

// An update without a cast since the last one: no roll, the old scale.
TEST(DelayedScalingTest, AnAmaxOfZeroChangesNothing) {
  for (const auto algo : {kMax, kMostRecent}) {
    OneTensor t({0, 1, 2, 3});
    t.Update(0, algo);
    EXPECT_EQ(t.History(), Numbers({0, 1, 2, 3}));
    EXPECT_EQ(t.Scale(), 1);
  }
}

TEST(DelayedScalingTest, InfiniteAmaxKeepsTheScaleWhileItStaysInTheHistory) {
  OneTensor t({0, 7, 7});
  t.Update(kInf, kMax);
  EXPECT_EQ(t.History(), Numbers({0, 7, kInf}));
  EXPECT_EQ(t.Scale(), 1);
  t.Update(7, kMax);
  EXPECT_EQ(t.History(), Numbers({0, kInf, 7}));
  EXPECT_EQ(t.Scale(), 1);
  t.Update(7, kMax);
  EXPECT_EQ(t.Scale(), 1);
  t.Update(7, kMax);
  EXPECT_EQ(t.Scale(), 64);
  OneTensor recent({0, 7, 7});
  recent.Update(kInf, kMostRecent);
  EXPECT_EQ(recent.Scale(), 1);
  recent.Update(7, kMostRecent);
  EXPECT_EQ(recent.Scale(), 64);
}

TEST(DelayedScalingTest, NaNIsRolledInAndNotCounted) {
  OneTensor t({0, 14, 7});
  t.Update(kNaN, kMax);
  EXPECT_TRUE(std::isnan(t.History()[2]));
  EXPECT_EQ(t.History()[1], 7);
  EXPECT_EQ(t.Scale(), 32) << "14 was there";
  OneTensor recent({0, 14, 7});
  recent.Update(kNaN, kMostRecent);
  EXPECT_EQ(recent.Scale(), 1);
  EXPECT_TRUE(std::isnan(recent.History()[2]));
}

TEST(DelayedScalingTest, TinyAmaxGivesTheLargestFloat) {
  OneTensor t({0, 0});
  t.Update(1e-38, kMax);
  EXPECT_EQ(t.Scale(), std::numeric_limits<float>::max());
}

TEST(DelayedScalingTest, MarginDividesTheFormatsMaximum) {
  OneTensor t({0, 0});
  t.Update(7, kMax, 2);
  EXPECT_EQ(t.Scale(), 16);
  OneTensor gradient({0, 0});
  gradient.Update(7, kMax, 2, kE5M2);
  EXPECT_EQ(gradient.Scale(), 2048);
  gradient.Update(3.5, kMostRecent, -1, kE5M2);
  EXPECT_EQ(gradient.Scale(), 32768);
}

// A spike of 448 stays for as many updates as the history is long, itself included.
TEST(DelayedScalingTest, ASpikeLeavesLongHistories) {
  for (const int64_t length : {31, 1024}) {
    OneTensor t(Numbers(length, 0.0));
    t.Update(448, kMax);
    EXPECT_EQ(t.Scale(), 1);
    for (int64_t i = 1; i < length; ++i) {
      t.Update(1, kMax);
      ASSERT_EQ(t.Scale(), 1) << i << " of " << length;
    }
    t.Update(1, kMax);
    EXPECT_EQ(t.Scale(), 448) << length;
  }
}

// Many tensors over many updates; among their amaxes are zeros, infinities and NaN.
TEST(DelayedScalingTest, EqualsTheReference) {
  for (const auto algo : {kMax, kMostRecent}) {
    for (const int64_t length : {1, 2, 31, 1024}) {
      for (const int64_t n : {1, 7, 300}) {
        SCOPED_TRACE(testing::Message() << length << " x " << n);
        const Numbers start = test::UniformDoubles(length * n, 1, 0.1, 5);
        HostTensor history(DType::kFloat32, {length, n}, start);
        HostTensor scale(DType::kFloat32, {n}, Numbers(n, 0.5));
        float* entries = history.view().as<float>();
        std::vector<DelayedScalingState> want(n);
        for (int64_t i = 0; i < n; ++i) {
          want[i].scale = 0.5f;
          for (int64_t j = 0; j < length; ++j) want[i].history.push_back(entries[j * n + i]);
        }
        TestExec exec(3);
        for (int step = 0; step < 5; ++step) {
          const Numbers amaxes = test::UniformDoubles(n, 10 + step, 0.01, 100);
          for (int64_t i = 0; i < n; ++i) {
            const int64_t kind = (i * 5 + step * 3) % 23;
            const double amax = kind == 0   ? 0
                                : kind == 1 ? kInf
                                : kind == 2 ? kNaN
                                : kind == 3 ? 1e-39
                                            : amaxes[i];
            entries[i] = want[i].history[0] = static_cast<float>(amax);
            want[i] = DelayedScalingRef(want[i], algo, 1, kE5M2);
          }
          ASSERT_TRUE(IsOk(TE_OP(DelayedScaling)(
              exec,
              {.history = history, .scale = scale, .algo = algo, .margin = 1, .format = kE5M2})));
        }
        Numbers want_history(length * n), want_scale;
        for (int64_t i = 0; i < n; ++i) {
          want_scale.push_back(want[i].scale);
          for (int64_t j = 0; j < length; ++j) want_history[j * n + i] = want[i].history[j];
        }
        EXPECT_TRUE(test::Near(history.ToDoubles(), want_history, 0.0));
        EXPECT_TRUE(test::Near(scale.ToDoubles(), want_scale, 0.0));
        const int64_t end = length * n - 1;
        EXPECT_FALSE(
            test::Near(history.ToDoubles(), test::Disturbed(want_history, end, 1e-3), 0.0));
        EXPECT_FALSE(test::Near(scale.ToDoubles(),
                                test::Disturbed(want_scale, n / 2, want_scale[n / 2]), 0.0));
        EXPECT_TRUE(history.GuardsIntact() && scale.GuardsIntact());
      }
    }
  }
}

TEST(DelayedScalingTest, NoTensorsAreFine) {
  const HostTensor history(DType::kFloat32, {4, 0}), scale(DType::kFloat32, {0});
  TestExec exec;
  EXPECT_TRUE(IsOk(TE_OP(DelayedScaling)(exec, {.history = history, .scale = scale})));
}

TEST(DelayedScalingTest, RefusesWhatTheContractDoesNotTake) {
  const HostTensor history(DType::kFloat32, {4, 3}), scale(DType::kFloat32, {3});
  const HostTensor empty(DType::kFloat32, {0, 3}), half(DType::kBFloat16, {4, 3}),
      flat(DType::kFloat32, {12}), strided(DType::kFloat32, {4, 3}, 2),
      short_scale(DType::kFloat32, {2});
  TestExec exec;
  const auto refuses = [&](const DelayedScalingArgs& args, const char* part) {
    return FailsWith(TE_OP(DelayedScaling)(exec, args), StatusCode::kInvalidArgument, part);
  };
  EXPECT_TRUE(refuses({.history = empty, .scale = scale}, "history is float32 [0, 3]"));
  EXPECT_TRUE(refuses({.history = half, .scale = scale}, "history is bfloat16 [4, 3]"));
  EXPECT_TRUE(refuses({.history = flat, .scale = scale}, "history is float32 [12]"));
  EXPECT_TRUE(refuses({.history = strided, .scale = scale}, "expected a dense tensor"));
  EXPECT_TRUE(refuses({.history = history, .scale = short_scale}, "scale is float32 [2]"));
  EXPECT_TRUE(refuses({.history = history, .scale = scale, .margin = 200}, "margin is 200"));
  EXPECT_TRUE(refuses({.history = history, .scale = scale, .margin = -200}, "margin is -200"));
  EXPECT_TRUE(refuses({.history = history, .scale = scale, .format = QuantFormat::kNone},
                      "format is none"));
  EXPECT_TRUE(refuses({.history = history, .scale = scale, .algo = static_cast<AmaxComputeAlgo>(2)},
                      "algo is 2"));
  EXPECT_EQ(history.ToDoubles(), Numbers(12, 0.0));
}

}  // namespace
}  // namespace te
