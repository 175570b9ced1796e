#include "te_kernels/activation/activation.h"

#include <cmath>
#include <complex>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "te_kernels/activation/activation_ref.h"
#include "te_kernels/testing/host_tensor.h"
#include "te_kernels/testing/near.h"
#include "te_kernels/testing/quantized_sink.h"
#include "te_kernels/testing/test_device.h"

namespace te {
namespace {

using test::HostTensor;
using Complex = std::complex<double>;
using Doubles = std::vector<double>;

constexpr ActivationKind kKinds[] = {
    ActivationKind::kGelu,  ActivationKind::kGeglu,  ActivationKind::kGlu,
    ActivationKind::kQgelu, ActivationKind::kQgeglu, ActivationKind::kRelu,
    ActivationKind::kReglu, ActivationKind::kSrelu,  ActivationKind::kSreglu,
    ActivationKind::kSilu,  ActivationKind::kSwiglu, ActivationKind::kClampedSwiglu};

// What y, or a derivative by complex step, should be, and how far off it may be.
struct Wanted {
  Doubles values, tolerance;
};

// The element functions are within a few units of float32 of the size of their factors: |u| + 1 for
// the sigmoid's argument error (its relative error grows with |argument|), times the other factors.
double Tolerance(DType dtype, double value, double gate, double others) {
  const double argument = 1 + std::abs(gate);
  return test::UnitRoundoff(dtype) * std::abs(value) +
         16 * 0x1p-24 * argument * argument * std::abs(others) + 1e-30;
}

struct Problem {
  Problem(ActivationKind kind, DType dtype, int64_t tokens, int64_t width, int64_t pad)
      : kind(kind),
        dtype(dtype),
        tokens(tokens),
        width(width),
        halves(IsGated(kind) ? 2 : 1),
        // Wide enough to pass clamped_swiglu's limit and the saturation of exp.
        x(HostTensor::Normal(dtype, {tokens, halves * width}, 1, 5, pad)),
        dy(HostTensor::Normal(dtype, {tokens, width}, 2, 1, pad)),
        xs(x.ToDoubles()),
        dys(dy.ToDoubles()) {
    params.limit = 4;
  }

  Complex Reference(const Complex& gate, const Complex& linear) const {
    return halves == 2 ? ref::GatedActivate(kind, params, gate, linear) : ref::Activate(kind, gate);
  }

  Wanted WantY(const Doubles& xs) const {
    Wanted out;
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t f = 0; f < width; ++f) {
        const double gate = xs[t * halves * width + f];
        const double linear = halves == 2 ? xs[t * halves * width + width + f] : 1;
        const double y = Reference(gate, linear).real();
        out.values.push_back(y);
        out.tolerance.push_back(Tolerance(dtype, y, gate, std::abs(linear) + 1));
      }
    }
    return out;
  }

  Wanted WantDx(const Doubles& xs) const {
    constexpr double kStep = 1e-100;
    Wanted out;
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t f = 0; f < halves * width; ++f) {
        const double gate = xs[t * halves * width + f % width];
        const double linear = halves == 2 ? xs[t * halves * width + width + f % width] : 1;
        const double gradient = dys[t * width + f % width];
        const Complex y = f < width ? Reference(Complex(gate, kStep), linear)
                                    : Reference(gate, Complex(linear, kStep));
        const double dx = gradient * y.imag() / kStep;
        out.values.push_back(dx);
        out.tolerance.push_back(Tolerance(dtype, dx, gate, gradient * (std::abs(linear) + 1)));
      }
    }
    return out;
  }

  ActivationForwardArgs ForwardArgs(const TensorView& y) const {
    ActivationForwardArgs args;
    args.kind = kind;
    args.params = params;
    args.x = x;
    args.y = Sink(y);
    return args;
  }
  ActivationBackwardArgs BackwardArgs(const TensorView& dx) const {
    ActivationBackwardArgs args;
    args.kind = kind;
    args.params = params;
    args.x = x;
    args.dy = dy;
    args.dx = Sink(dx);
    return args;
  }

  ActivationKind kind;
  DType dtype;
  int64_t tokens, width, halves;
  ActivationParams params;
  HostTensor x, dy;
  Doubles xs, dys;
};

template <typename Body>
void ForEachProblem(const Body& body) {
  const int64_t shapes[][3] = {{1, 1, 0}, {3, 16, 0}, {5, 37, 3}, {2, 2100, 0}, {0, 8, 0}};
  for (const ActivationKind kind : kKinds) {
    for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
      for (const auto& shape : shapes) {
        SCOPED_TRACE(std::string(Name(kind)) + " " + Name(dtype) + " " + std::to_string(shape[1]));
        body(Problem(kind, dtype, shape[0], shape[1], shape[2]));
      }
    }
  }
}

// The twin's disturbed element: one that counts (relu and the clamps pass nothing on one side).
int64_t ActiveElement(const Problem& p) {
  for (int64_t i = 0; i < static_cast<int64_t>(p.xs.size()); ++i) {
    if (i % (p.halves * p.width) < p.width && p.xs[i] > 0.2 && p.xs[i] < 3) return i;
  }
  return -1;
}

TEST(ActivationTest, ForwardAgreesWithTheReference) {
  const test::TestExec exec;
  int twins = 0;
  ForEachProblem([&](const Problem& p) {
    const HostTensor y(p.dtype, {p.tokens, p.width}, 2);
    ASSERT_TRUE(test::IsOk(TE_OP(ActivationForward)(exec, p.ForwardArgs(y))));
    const Wanted want = p.WantY(p.xs);
    EXPECT_TRUE(test::Near(y.ToDoubles(), want.values, want.tolerance));
    EXPECT_TRUE(y.GuardsIntact());
    const int64_t i = ActiveElement(p);
    if (i < 0) return;
    const Wanted twin = p.WantY(test::Disturbed(p.xs, i, 0.25));
    EXPECT_FALSE(test::Near(y.ToDoubles(), twin.values, want.tolerance));
    ++twins;
  });
  EXPECT_GT(twins, 60);
}

TEST(ActivationTest, BackwardIsTheDerivativeOfTheReferenceByComplexStep) {
  const test::TestExec exec;
  int twins = 0;
  ForEachProblem([&](const Problem& p) {
    const HostTensor dx(p.dtype, {p.tokens, p.halves * p.width}, 2);
    ASSERT_TRUE(test::IsOk(TE_OP(ActivationBackward)(exec, p.BackwardArgs(dx))));
    const Wanted want = p.WantDx(p.xs);
    EXPECT_TRUE(test::Near(dx.ToDoubles(), want.values, want.tolerance));
    EXPECT_TRUE(dx.GuardsIntact());
    if (p.tokens == 0) return;
    Problem other(p.kind, p.dtype, p.tokens, p.width, 0);
    const int64_t i = ActiveElement(p);
    if (i < 0) return;
    double& gradient = other.dys[i / (p.halves * p.width) * p.width + i % (p.halves * p.width)];
    gradient = -gradient;
    EXPECT_FALSE(test::Near(dx.ToDoubles(), other.WantDx(p.xs).values, want.tolerance));
    ++twins;
  });
  EXPECT_GT(twins, 60);
}

TEST(ActivationTest, GatedBackwardWritesTheForwardsOutputAgain) {
  const test::TestExec exec;
  ForEachProblem([&](const Problem& p) {
    if (p.halves == 1) return;
    const HostTensor y(p.dtype, {p.tokens, p.width}), again(p.dtype, {p.tokens, p.width}, 1),
        dx(p.dtype, {p.tokens, 2 * p.width}), dx2(p.dtype, {p.tokens, 2 * p.width});
    ASSERT_TRUE(test::IsOk(TE_OP(ActivationForward)(exec, p.ForwardArgs(y))));
    ActivationBackwardArgs args = p.BackwardArgs(dx);
    ASSERT_TRUE(test::IsOk(TE_OP(ActivationBackward)(exec, args)));
    args.dx = Sink(dx2);
    args.y = again;
    ASSERT_TRUE(test::IsOk(TE_OP(ActivationBackward)(exec, args)));
    EXPECT_EQ(again.Bytes(), y.Bytes());
    EXPECT_EQ(dx2.Bytes(), dx.Bytes());
    EXPECT_TRUE(again.GuardsIntact());
  });
}

TEST(ActivationTest, ThreadsRepetitionAndAliasesDoNotChangeABit) {
  for (const ActivationKind kind : {ActivationKind::kGelu, ActivationKind::kSwiglu}) {
    for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
      const Problem p(kind, dtype, 40, 1111, 0);
      const test::TestExec one(1), two(2);
      const HostTensor y(dtype, {40, 1111}), y2(dtype, {40, 1111}),
          dx(dtype, {40, p.halves * 1111}), dx2(dtype, {40, p.halves * 1111});
      ASSERT_TRUE(test::IsOk(TE_OP(ActivationForward)(one, p.ForwardArgs(y))));
      ASSERT_TRUE(test::IsOk(TE_OP(ActivationBackward)(one, p.BackwardArgs(dx))));
      for (int repeat = 0; repeat < 2; ++repeat) {
        ASSERT_TRUE(test::IsOk(TE_OP(ActivationForward)(two, p.ForwardArgs(y2))));
        ASSERT_TRUE(test::IsOk(TE_OP(ActivationBackward)(two, p.BackwardArgs(dx2))));
        EXPECT_EQ(y2.Bytes(), y.Bytes());
        EXPECT_EQ(dx2.Bytes(), dx.Bytes());
      }
      if (p.halves == 2) continue;
      ASSERT_TRUE(test::IsOk(TE_OP(ActivationBackward)(two, p.BackwardArgs(p.dy))));
      EXPECT_EQ(p.dy.Bytes(), dx.Bytes());
    }
  }
}

TEST(ActivationTest, ExtremesSaturateAndNanStays) {
  const test::TestExec exec;
  const Doubles values = {1e30, -1e30, 200, -200, 88.5, -88.5, 0, std::nan("")};
  const HostTensor x(DType::kFloat32, {1, 8}, values), y(DType::kFloat32, {1, 8}),
      dy(DType::kFloat32, {1, 8}, Doubles(8, 1.0)), dx(DType::kFloat32, {1, 8});
  for (const ActivationKind kind : kKinds) {
    if (IsGated(kind) || kind == ActivationKind::kSrelu) continue;  // srelu of 1e30 is infinite
    SCOPED_TRACE(Name(kind));
    ActivationForwardArgs args;
    args.kind = kind;
    args.x = x;
    args.y = Sink(y);
    ASSERT_TRUE(test::IsOk(TE_OP(ActivationForward)(exec, args)));
    const float big = 1e30f;
    EXPECT_TRUE(test::Near(y.ToDoubles(), {big, 0, 200, 0, 88.5, 0, 0, std::nan("")}, 1e-30));
    ActivationBackwardArgs backward;
    backward.kind = kind;
    backward.x = x;
    backward.dy = dy;
    backward.dx = Sink(dx);
    ASSERT_TRUE(test::IsOk(TE_OP(ActivationBackward)(exec, backward)));
    const Doubles got = dx.ToDoubles();
    EXPECT_TRUE(test::Near(Doubles(got.begin(), got.begin() + 6), {1, 0, 1, 0, 1, 0}, 1e-30));
  }
}

TEST(ActivationTest, ClampedSwigluStopsGradientsOnlyWhereItClamps) {
  const test::TestExec exec;
  // gates, then linear halves: at, beyond and within the limit of 7
  const HostTensor x(DType::kFloat32, {1, 8}, {7, 7.5, -9, 1, 7, 1, -7.5, 8}),
      dy(DType::kFloat32, {1, 4}, Doubles(4, 1.0)), dx(DType::kFloat32, {1, 8});
  ActivationBackwardArgs args;
  args.kind = ActivationKind::kClampedSwiglu;
  args.x = x;
  args.dy = dy;
  args.dx = Sink(dx);
  ASSERT_TRUE(test::IsOk(TE_OP(ActivationBackward)(exec, args)));
  const Doubles got = dx.ToDoubles();
  const bool nonzero[] = {true, false, true, true, true, true, false, false};
  for (int i = 0; i < 8; ++i) EXPECT_EQ(got[i] != 0, nonzero[i]) << i;
}

void ExpectQuantizedSinks(const Exec& exec, const Problem& p, bool fuses) {
  SCOPED_TRACE(std::string(Name(p.kind)) + " " + std::to_string(p.tokens) + " x " +
               std::to_string(p.width));
  fuses = fuses && p.dtype == DType::kBFloat16;
  test::ExpectSinksQuantizeTheDenseResult(exec, p.dtype, {p.tokens, p.width}, p.tokens, p.width,
                                          fuses ? "activation_forward_fp8_cuda" : nullptr,
                                          [&](const Exec& e, const Sink& sink) {
                                            ActivationForwardArgs args = p.ForwardArgs(p.x);
                                            args.y = sink;
                                            return TE_OP(ActivationForward)(e, args);
                                          });
  const HostTensor y(p.dtype, {p.tokens, p.width}), again(p.dtype, {p.tokens, p.width}, 8);
  ASSERT_TRUE(test::IsOk(TE_OP(ActivationForward)(exec, p.ForwardArgs(y))));
  test::ExpectSinksQuantizeTheDenseResult(
      exec, p.dtype, {p.tokens, p.halves * p.width}, p.tokens, p.halves * p.width,
      fuses ? "activation_backward_fp8_cuda" : nullptr, [&](const Exec& e, const Sink& sink) {
        ActivationBackwardArgs args = p.BackwardArgs(p.x);
        args.dx = sink;
        if (p.halves == 2) args.y = again;
        return TE_OP(ActivationBackward)(e, args);
      });
  if (p.halves == 2) {
    EXPECT_TRUE(again.Bytes() == y.Bytes());
  }
}

TEST(ActivationTest, QuantizedSinksHoldTheQuantizedDenseResult) {
  const test::TestExec exec;
  for (const ActivationKind kind : kKinds)
    ExpectQuantizedSinks(exec, Problem(kind, DType::kBFloat16, 80, 144, 8), true);
  struct {
    int64_t tokens, width;
    bool fuses;
  } const shapes[] = {{16, 16, true}, {64, 128, true}, {144, 400, true}, {0, 8, false},
                      {5, 37, false}, {17, 64, false}, {16, 40, false},  {31, 101, false}};
  for (const auto& shape : shapes) {
    for (const ActivationKind kind : {ActivationKind::kSwiglu, ActivationKind::kGelu}) {
      for (const DType dtype : {DType::kBFloat16, DType::kFloat32})
        ExpectQuantizedSinks(exec, Problem(kind, dtype, shape.tokens, shape.width, 8), shape.fuses);
    }
  }
}

// A gradient in place, and inputs at addresses that allow no vectors.
TEST(ActivationTest, QuantizedSinksMayAliasAndBeMisaligned) {
  const test::TestExec exec;
  const Problem p(ActivationKind::kGelu, DType::kBFloat16, 32, 48, 0);
  const test::QuantizedTensor want({}, 32, 48), in_place({}, 32, 48), misaligned({}, 32, 48),
      twin({}, 32, 48);
  const HostTensor dx(DType::kBFloat16, {32, 48}), wide(DType::kBFloat16, {32, 56});
  ActivationBackwardArgs args = p.BackwardArgs(dx);
  ASSERT_TRUE(test::IsOk(TE_OP(ActivationBackward)(exec, args)));
  ASSERT_TRUE(test::IsOk(TE_OP(Quantize)(exec, {.x = dx, .out = want.spec()})));
  ASSERT_TRUE(test::IsOk(TE_OP(Quantize)(exec, {.x = p.dy, .out = twin.spec()})));
  const TensorView shifted = wide.view().Slice(1, 1, 49);
  test::FromDoubles(p.xs, shifted);
  args.x = shifted;
  args.dx = Sink();
  args.dx.quant = misaligned.spec();
  ASSERT_TRUE(test::IsOk(TE_OP(ActivationBackward)(exec, args)));
  args.x = p.x;
  args.dx = Sink(p.dy);
  args.dx.quant = in_place.spec();
  ASSERT_TRUE(test::IsOk(TE_OP(ActivationBackward)(exec, args)));
  EXPECT_TRUE(misaligned.Bytes() == want.Bytes());
  EXPECT_TRUE(in_place.Bytes() == want.Bytes());
  EXPECT_TRUE(p.dy.Bytes() == dx.Bytes());
  EXPECT_FALSE(in_place.Bytes() == twin.Bytes());
}

TEST(ActivationTest, NamesRoundTripAndUnknownOnesListTheKnown) {
  for (const ActivationKind kind : kKinds) {
    const auto parsed = ParseActivation(Name(kind));
    ASSERT_TRUE(parsed.ok());
    EXPECT_EQ(*parsed, kind);
    const std::string name = Name(kind);
    EXPECT_EQ(IsGated(kind), name.find("glu") != std::string::npos && name != "qgelu");
  }
  EXPECT_TRUE(test::FailsWith(ParseActivation("swish").status(), StatusCode::kInvalidArgument,
                              "'swish' is unknown; expected one of: gelu, geglu, glu"));
}

TEST(ActivationTest, RefusesWhatDoesNotFitByName) {
  const test::TestExec exec;
  constexpr StatusCode kBad = StatusCode::kInvalidArgument;
  const Problem p(ActivationKind::kSwiglu, DType::kFloat32, 2, 4, 0);
  const HostTensor y(DType::kFloat32, {2, 4}), odd(DType::kFloat32, {2, 7}),
      dx(DType::kFloat32, {2, 8});
  ActivationForwardArgs args = p.ForwardArgs(odd);
  EXPECT_TRUE(test::FailsWith(TE_OP(ActivationForward)(exec, args), kBad, "y is float32 [2, 7]"));
  args = p.ForwardArgs(y);
  args.x = odd;
  EXPECT_TRUE(test::FailsWith(TE_OP(ActivationForward)(exec, args), kBad, "swiglu is gated"));
  args = p.ForwardArgs(y);
  args.kind = static_cast<ActivationKind>(99);
  EXPECT_TRUE(test::FailsWith(TE_OP(ActivationForward)(exec, args), kBad, "kind is 99"));
  args = p.ForwardArgs(y);
  args.kind = ActivationKind::kClampedSwiglu;
  args.params.limit = 0;
  EXPECT_TRUE(test::FailsWith(TE_OP(ActivationForward)(exec, args), kBad, "params.limit is 0"));
  args = p.ForwardArgs(y);
  args.y = Sink();
  EXPECT_TRUE(test::FailsWith(TE_OP(ActivationForward)(exec, args), kBad, "y is nothing"));
  args.y.quant.format = QuantFormat::kFloat8E4M3;
  args.y.quant.columnwise_data = y;
  EXPECT_TRUE(test::FailsWith(TE_OP(ActivationForward)(exec, args), kBad,
                              "y's columnwise data is float32 [2, 4]"));
  ActivationBackwardArgs backward = p.BackwardArgs(y);
  EXPECT_TRUE(test::FailsWith(TE_OP(ActivationBackward)(exec, backward), kBad, "dx is"));
  backward = p.BackwardArgs(dx);
  backward.dy = odd;
  EXPECT_TRUE(test::FailsWith(TE_OP(ActivationBackward)(exec, backward), kBad, "dy is"));
  const Problem plain(ActivationKind::kRelu, DType::kFloat32, 2, 4, 0);
  backward = plain.BackwardArgs(y);
  backward.y = y;
  EXPECT_TRUE(
      test::FailsWith(TE_OP(ActivationBackward)(exec, backward), kBad, "relu is not gated"));
}

}  // namespace
}  // namespace te
