#include "te_kernels/adamw/adamw.h"

#include <bit>
#include <cmath>
#include <vector>

#include "gtest/gtest.h"
#include "te_kernels/adamw/adamw_ref.h"
#include "te_kernels/testing/host_tensor.h"
#include "te_kernels/testing/near.h"
#include "te_kernels/testing/test_device.h"
#include "te_kernels/testing/test_memory.h"

namespace te {
namespace {

using test::Disturbed;
using test::FailsWith;
using test::HostTensor;
using test::IsOk;
using test::Near;
using test::Shared;
using test::TestExec;
using test::ToDoubles;
using test::UnitRoundoff;

constexpr DType kF32 = DType::kFloat32;
constexpr DType kBf16 = DType::kBFloat16;
// Below, at and above the CPU loop's block of 1024, and not multiples of any register.
constexpr int64_t kSizes[] = {0, 1, 3, 17, 1023, 1025, 40961};

struct Dtypes {
  DType param;
  DType grad;
  DType moments;
  bool master;
};
constexpr Dtypes kDtypes[] = {
    {kF32, kF32, kF32, false}, {kBf16, kBf16, kBf16, false}, {kBf16, kBf16, kF32, false},
    {kBf16, kF32, kF32, true}, {kBf16, kBf16, kBf16, true},  {kF32, kBf16, kBf16, false},
    {kF32, kF32, kF32, true},  {kBf16, kF32, kBf16, false},
};

// One set of tensors and the arguments that name their elements from `offset` on: an offset of 1
// leaves no pointer aligned to a vector.
struct Problem {
  Problem(const Dtypes& d, int64_t n, int64_t offset = 0)
      : param(HostTensor::Normal(d.param, {n + offset}, 1)),
        grad(HostTensor::Normal(d.grad, {n + offset}, 2, 50)),
        m(HostTensor::Normal(d.moments, {n + offset}, 3, 0.1)),
        v(HostTensor::Uniform(d.moments, {n + offset}, 4, 0, 0.2)),
        master(kF32, {d.master ? n + offset : 0},
               d.master ? param.ToDoubles() : std::vector<double>{}) {
    scalars->learning_rate = 0.01f;
    scalars->grad_scale = 0.02f;
    scalars->step = 3;
    const auto from_offset = [&](const TensorView& x) { return x.Slice(0, offset, n + offset); };
    args.param = from_offset(param);
    args.grad = from_offset(grad);
    args.m = from_offset(m);
    args.v = from_offset(v);
    if (d.master) args.master = from_offset(master);
    args.weight_decay = 0.1;
    args.random = {.seed = 11, .stream = 12};
    args.scalars = scalars.get();
  }
  AdamWHyperparameters hyperparameters() const {
    return {.learning_rate = scalars->learning_rate,
            .beta1 = args.beta1,
            .beta2 = args.beta2,
            .epsilon = args.epsilon,
            .weight_decay = args.weight_decay,
            .grad_scale = scalars->grad_scale,
            .step = scalars->step};
  }
  std::vector<std::vector<uint8_t>> Bytes() const {
    return {param.Bytes(), m.Bytes(), v.Bytes(), master.Bytes()};
  }

  HostTensor param, grad, m, v, master;
  Shared<StepScalars> scalars;
  AdamWArgs args;
};

// Rounding of the arithmetic, at most a dozen float32 operations on terms no larger than `size`,
// and then of the store.
double Tolerance(double size, double result, DType stored, bool stochastic) {
  const double store = (stochastic ? 2 : 1) * UnitRoundoff(stored) * std::abs(result);
  return 12 * UnitRoundoff(kF32) * size + (stored == kF32 ? 0 : store);
}

void ExpectTheReference(const Dtypes& dtypes, int64_t n, Rounding rounding, int64_t offset) {
  SCOPED_TRACE(fmt::format("param {} grad {} moments {} master {} n {} {} offset {}",
                           Name(dtypes.param), Name(dtypes.grad), Name(dtypes.moments),
                           dtypes.master, n,
                           rounding == Rounding::kStochastic ? "stochastic" : "nearest", offset));
  Problem p(dtypes, n, offset);
  p.args.rounding = rounding;
  const bool stochastic = rounding == Rounding::kStochastic;
  const std::vector<double> grad = ToDoubles(p.args.grad);
  std::vector<double> w = ToDoubles(p.args.param), m = ToDoubles(p.args.m);
  std::vector<double> v = ToDoubles(p.args.v);
  const std::vector<double> w_before = w, m_before = m, v_before = v;
  AdamWRef(p.hyperparameters(), grad, &w, &m, &v);
  std::vector<double> w_tolerance(n), m_tolerance(n), v_tolerance(n), master_tolerance(n);
  for (int64_t i = 0; i < n; ++i) {
    const double g = std::abs(0.02 * grad[i]);
    const double update = std::abs(w[i] - w_before[i]);
    w_tolerance[i] = Tolerance(std::abs(w_before[i]) + update, w[i], dtypes.param, stochastic);
    // The moments' own error is relative to their terms, which may cancel in m.
    const double m_terms = std::abs(m_before[i]) + g;
    const double relative_update = 0.01 * m_terms / (std::sqrt(v[i]) + 1e-8) / 0.27;
    w_tolerance[i] += 12 * UnitRoundoff(kF32) * relative_update;
    master_tolerance[i] = Tolerance(std::abs(w_before[i]) + update, w[i], kF32, false) +
                          12 * UnitRoundoff(kF32) * relative_update;
    m_tolerance[i] = Tolerance(m_terms, m[i], dtypes.moments, stochastic);
    v_tolerance[i] = Tolerance(v_before[i] + g * g, v[i], dtypes.moments, stochastic);
  }
  const auto first = [&](const HostTensor& x) { return ToDoubles(x.view().Slice(0, 0, offset)); };
  const std::vector<double> outside[] = {first(p.param), first(p.m), first(p.v)};
  TestExec exec;
  ASSERT_TRUE(IsOk(TE_OP(AdamW)(exec, p.args)));
  const std::vector<double> got = ToDoubles(p.args.param), got_m = ToDoubles(p.args.m);
  const std::vector<double> got_v = ToDoubles(p.args.v);
  EXPECT_TRUE(Near(got, w, w_tolerance));
  EXPECT_TRUE(Near(got_m, m, m_tolerance));
  EXPECT_TRUE(Near(got_v, v, v_tolerance));
  if (dtypes.master) {
    EXPECT_TRUE(Near(ToDoubles(p.args.master), w, master_tolerance));
  }
  for (const HostTensor* t : {&p.param, &p.grad, &p.m, &p.v, &p.master}) {
    EXPECT_TRUE(t->GuardsIntact());
  }
  EXPECT_EQ(first(p.param), outside[0]);
  EXPECT_EQ(first(p.m), outside[1]);
  EXPECT_EQ(first(p.v), outside[2]);
  if (n == 0) return;
  // Twins: one value of each result, off by more than the tolerance.
  EXPECT_FALSE(Near(got, Disturbed(w, n / 2, 3 * w_tolerance[n / 2]), w_tolerance));
  EXPECT_FALSE(Near(got_m, Disturbed(m, n / 2, 3 * m_tolerance[n / 2]), m_tolerance));
  EXPECT_FALSE(Near(got_v, Disturbed(v, n / 2, 3 * v_tolerance[n / 2]), v_tolerance));
}

TEST(AdamWTest, EqualsTheReferenceInEveryCombinationOfDtypes) {
  for (const Dtypes& dtypes : kDtypes) {
    for (const Rounding rounding : {Rounding::kNearest, Rounding::kStochastic}) {
      for (const int64_t n : kSizes) ExpectTheReference(dtypes, n, rounding, 0);
      ExpectTheReference(dtypes, 1025, rounding, 1);
    }
  }
}

// More than the elements that all of a device's blocks take at a time (2.2 M on 132 SMs).
TEST(AdamWTest, EqualsTheReferenceOnALargeTensor) {
  const int64_t n = test::kOnCuda ? 5'000'003 : 300'003;
  ExpectTheReference({kBf16, kBf16, kBf16, false}, n, Rounding::kStochastic, 0);
  ExpectTheReference({kBf16, kBf16, kF32, true}, n, Rounding::kNearest, 1);
}

// torch.optim.AdamW (2.15, float64), lr 0.01, weight_decay 0.1, five steps with the gradients
// {0.1 (s + 1), -0.02, 0, (-1)^s 4}, s = 0 .. 4, from {0.5, -1.25, 3, 0.001}.
TEST(AdamWTest, FollowsTorchOverFiveSteps) {
  HostTensor param(kF32, {4}, {0.5, -1.25, 3.0, 1e-3});
  HostTensor m(kF32, {4}), v(kF32, {4});
  const Shared<StepScalars> scalars;
  scalars->learning_rate = 0.01f;
  TestExec exec;
  for (int s = 0; s < 5; ++s) {
    const HostTensor grad(kF32, {4}, {0.1 * (s + 1), -0.02, 0, s % 2 == 0 ? 4.0 : -4.0});
    scalars->step = s + 1;
    ASSERT_TRUE(IsOk(TE_OP(AdamW)(exec, {.param = param,
                                         .grad = grad,
                                         .m = m,
                                         .v = v,
                                         .weight_decay = 0.1,
                                         .scalars = scalars.get()})));
  }
  const std::vector<double> torch_param = {0.4490943092711583, -1.1938624125062762,
                                           2.9850299700149967, -0.01330989343614228};
  const std::vector<double> torch_m = {0.13144099999999997, -0.0081902, 0.0, 0.3348399999999999};
  const std::vector<double> torch_v = {0.0005495002699200105, 1.996003998000402e-06, 0.0,
                                       0.07984015992001607};
  // Five steps of a dozen roundings; the largest parameter is 3, an update at most 0.01.
  EXPECT_TRUE(Near(param.ToDoubles(), torch_param, 60 * UnitRoundoff(kF32) * 3));
  EXPECT_TRUE(Near(m.ToDoubles(), torch_m, 60 * UnitRoundoff(kF32) * 4));
  EXPECT_TRUE(Near(v.ToDoubles(), torch_v, 60 * UnitRoundoff(kF32) * 16 * 0.005));
  EXPECT_FALSE(
      Near(param.ToDoubles(), Disturbed(torch_param, 0, 1e-4), 60 * UnitRoundoff(kF32) * 3));
}

// With beta = 0 the moments are g and g^2 themselves, and the master is what param is rounded from:
// the numbers before rounding are known, and so is each result's every bit.
TEST(AdamWTest, StochasticRoundingAddsTheBitsThatTheContractNames) {
  constexpr int64_t n = 5003;
  for (const int64_t offset : {0, 1}) {
    SCOPED_TRACE(offset);
    Problem p({kBf16, kF32, kBf16, true}, n, offset);
    p.args.beta1 = 0;
    p.args.beta2 = 0;
    p.scalars->grad_scale = 1;
    const Shared<uint64_t> step_offset(7 * 65536);
    p.args.random = {.seed = 21, .stream = 22, .offset = 3, .step_offset = step_offset.get()};
    p.args.rounding = Rounding::kStochastic;
    TestExec exec;
    ASSERT_TRUE(IsOk(TE_OP(AdamW)(exec, p.args)));
    const auto rounded = [](float value, uint32_t random) {
      return static_cast<uint16_t>((std::bit_cast<uint32_t>(value) + random) >> 16);
    };
    const RandomState state = p.args.random.Resolved();
    int64_t differs_from_nearest = 0;
    for (int64_t i = 0; i < n; ++i) {
      const uint32_t number = Philox::At(state, i);
      const uint32_t low = number & 0xffffu, high = number >> 16;
      const float w = p.args.master.as<float>()[i];
      const float g = p.args.grad.as<float>()[i];
      ASSERT_EQ(p.args.param.as<bfloat16>()[i].bits, rounded(w, low)) << i;
      ASSERT_EQ(p.args.m.as<bfloat16>()[i].bits, rounded(g, high)) << i;
      ASSERT_EQ(p.args.v.as<bfloat16>()[i].bits, rounded(g * g, low ^ high)) << i;
      differs_from_nearest += p.args.param.as<bfloat16>()[i].bits != bfloat16(w).bits;
    }
    // A quarter on average: |fraction - 1/2| averages to 1/4.
    EXPECT_GT(differs_from_nearest, n / 8);
  }
}

// An update of a sixteenth of a bfloat16 step is lost by nearest rounding and kept on average by
// stochastic rounding.
TEST(AdamWTest, StochasticRoundingIsUnbiasedWhereNearestLosesTheUpdate) {
  constexpr int64_t n = 1 << 16;
  const auto mean_after = [&](Rounding rounding) {
    HostTensor param(kBf16, {n}, std::vector<double>(n, 1.0));
    const HostTensor grad(kF32, {n}, std::vector<double>(n, -1.0));
    HostTensor m(kF32, {n}), v(kF32, {n});
    const Shared<StepScalars> scalars;
    scalars->step = 1;
    scalars->learning_rate = 0x1p-7f / 16;  // the first step moves by the learning rate
    AdamWArgs args = {.param = param, .grad = grad, .m = m, .v = v};
    args.weight_decay = 0;
    args.rounding = rounding;
    args.random = {.seed = 1};
    args.scalars = scalars.get();
    TestExec exec;
    EXPECT_TRUE(IsOk(TE_OP(AdamW)(exec, args)));
    double sum = 0;
    for (double w : param.ToDoubles()) sum += w - 1;
    return sum / n;
  };
  EXPECT_EQ(mean_after(Rounding::kNearest), 0);
  // Five standard deviations of the mean of n draws of {0, 2^-7} with probability 1/16.
  const double deviation = 0x1p-7 * std::sqrt(15.0 / 256 / n);
  EXPECT_NEAR(mean_after(Rounding::kStochastic), 0x1p-7 / 16, 5 * deviation);
}

TEST(AdamWTest, StochasticRoundingKeepsInfinityAndNan) {
  HostTensor param(kBf16, {3}, {1, 1, 1});
  const HostTensor grad(kF32, {3}, {HUGE_VAL, -HUGE_VAL, std::nan("")});
  HostTensor m(kBf16, {3}), v(kBf16, {3});
  const Shared<StepScalars> scalars;
  scalars->step = 1;
  AdamWArgs args = {.param = param, .grad = grad, .m = m, .v = v};
  args.rounding = Rounding::kStochastic;
  args.scalars = scalars.get();
  TestExec exec;
  ASSERT_TRUE(IsOk(TE_OP(AdamW)(exec, args)));
  EXPECT_TRUE(Near(m.ToDoubles(), {HUGE_VAL, -HUGE_VAL, std::nan("")}, 0));
  EXPECT_TRUE(Near(v.ToDoubles(), {HUGE_VAL, HUGE_VAL, std::nan("")}, 0));
}

// On the CPU for any number of threads.
TEST(AdamWTest, RepeatsBitwise) {
  for (const Dtypes& dtypes : kDtypes) {
    for (const Rounding rounding : {Rounding::kNearest, Rounding::kStochastic}) {
      std::vector<std::vector<uint8_t>> first;
      for (const int threads : {1, 1, 2, 3}) {
        Problem p(dtypes, 100'003);
        p.args.rounding = rounding;
        TestExec exec(threads);
        ASSERT_TRUE(IsOk(TE_OP(AdamW)(exec, p.args)));
        if (first.empty()) first = p.Bytes();
        EXPECT_EQ(p.Bytes(), first) << threads;
      }
    }
  }
}

TEST(AdamWTest, SkipChangesNothing) {
  Problem p({kBf16, kBf16, kBf16, true}, 1000);
  const auto before = p.Bytes();
  p.scalars->skip = 1;
  TestExec exec;
  ASSERT_TRUE(IsOk(TE_OP(AdamW)(exec, p.args)));
  EXPECT_EQ(p.Bytes(), before);
  p.scalars->skip = 0;
  ASSERT_TRUE(IsOk(TE_OP(AdamW)(exec, p.args)));
  EXPECT_NE(p.Bytes(), before);
}

TEST(AdamWTest, RefusesWhatTheContractDoesNotTake) {
  const auto check = [](const auto& change, const char* part) {
    Problem p({kBf16, kBf16, kBf16, true}, 8);
    const HostTensor wide(kF32, {8});
    change(p, wide);
    const auto before = p.Bytes();
    TestExec exec;
    EXPECT_TRUE(FailsWith(TE_OP(AdamW)(exec, p.args), StatusCode::kInvalidArgument, part));
    EXPECT_EQ(p.Bytes(), before);
  };
  using Wide = const HostTensor&;
  check([](Problem& p, Wide) { p.args.grad = p.args.grad.Slice(0, 0, 7); }, "grad is");
  check([](Problem& p, Wide) { p.args.param = {}; }, "expected");
  check([](Problem& p, Wide wide) { p.args.v = wide; }, "m is bfloat16, v is float32");
  check([](Problem& p, Wide) { p.args.master = p.args.m; }, "master is bfloat16");
  check(
      [](Problem& p, Wide wide) { p.args.m = TensorView(wide.view().data(), DType::kInt32, {8}); },
      "m is int32");
  check(
      [](Problem& p, Wide) {
        p.args.param = TensorView(p.args.param.data(), kBf16, {4, 2}, {1, 4});
      },
      "dense");
  check([](Problem& p, Wide) { p.args.beta1 = 1; }, "beta1 is 1");
  check([](Problem& p, Wide) { p.args.beta2 = std::nan(""); }, "beta2 is nan");
  check([](Problem& p, Wide) { p.args.epsilon = -1; }, "epsilon is -1");
  check([](Problem& p, Wide) { p.args.weight_decay = -1; }, "weight_decay is -1");
  check([](Problem& p, Wide) { p.args.rounding = static_cast<Rounding>(7); }, "rounding is 7");
  check([](Problem& p, Wide) { p.args.scalars = nullptr; }, "scalars is null");
}

}  // namespace
}  // namespace te
