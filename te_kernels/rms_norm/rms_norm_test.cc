#include "te_kernels/rms_norm/rms_norm.h"

#include <algorithm>
#include <cmath>
#include <complex>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "gtest/gtest.h"
#include "te_kernels/rms_norm/many_rows_test.h"
#include "te_kernels/rms_norm/rms_norm_ref.h"
#include "te_kernels/testing/host_tensor.h"
#include "te_kernels/testing/near.h"
#include "te_kernels/testing/quantized_sink.h"
#include "te_kernels/testing/test_device.h"

namespace te {
namespace {

using test::HostTensor;
using Doubles = std::vector<double>;

constexpr double kEpsilon = 1e-5f;
constexpr double kFloat = 0x1p-24;  // unit roundoff of the arithmetic

Doubles RowOf(const Doubles& matrix, int64_t t, int64_t hidden) {
  return Doubles(matrix.begin() + t * hidden, matrix.begin() + (t + 1) * hidden);
}

struct Case {
  int64_t tokens, hidden;
  DType dtype, parameter;
  bool zero_centered;
  int64_t pad;
};

std::vector<Case> Cases() {
  std::vector<Case> out;
  // Behind the empty one: one for each way of the CUDA kernels to hold a row, or not.
  const int64_t shapes[][2] = {{1, 1},     {3, 7},    {5, 16},   {2, 31},   {37, 33},
                               {130, 64},  {1, 2048}, {0, 8},    {7, 256},  {6, 512},
                               {5, 1024},  {3, 4096}, {2, 5120}, {1, 8192}, {1, 20000},
                               {1, 40000}, {9, 515},  {2, 4097}, {1, 9001}};
  for (const auto& shape : shapes) {
    for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
      out.push_back({shape[0], shape[1], dtype, dtype, false, 0});
      out.push_back({shape[0], shape[1], dtype, DType::kFloat32, true, 5});
    }
  }
  // With a pad of 5 elements no rows are read in vectors; with 8 these are.
  for (const auto& [tokens, hidden] : {std::pair<int64_t, int64_t>(5, 1024), {3, 4096}}) {
    out.push_back({tokens, hidden, DType::kBFloat16, DType::kFloat32, true, 8});
  }
  return out;
}

// One case's tensors and what the reference makes of them.
struct Problem {
  explicit Problem(const Case& c)
      : c(c),
        x(HostTensor::Normal(c.dtype, {c.tokens, c.hidden}, 1, 1.5, c.pad)),
        dy(HostTensor::Normal(c.dtype, {c.tokens, c.hidden}, 2, 1, c.pad)),
        add(HostTensor::Normal(c.dtype, {c.tokens, c.hidden}, 3, 1, c.pad)),
        gamma(HostTensor::Uniform(c.parameter, {c.hidden}, 4, 0.5, 1.5)),
        rstd(DType::kFloat32, {c.tokens}),
        xs(x.ToDoubles()),
        dys(dy.ToDoubles()),
        adds(add.ToDoubles()),
        g(gamma.ToDoubles()) {
    for (double& v : g) v += c.zero_centered ? 1 : 0;
  }

  Doubles Want(const Doubles& xs, const Doubles& g) const {
    Doubles out;
    for (int64_t t = 0; t < c.tokens; ++t) {
      for (double v : ref::RmsNorm(RowOf(xs, t, c.hidden), g, kEpsilon)) out.push_back(v);
    }
    return out;
  }
  Doubles WantRstd() const {
    Doubles out;
    for (int64_t t = 0; t < c.tokens; ++t) {
      double sum = 0;
      for (double v : RowOf(xs, t, c.hidden)) sum += v * v;
      out.push_back(1 / std::sqrt(sum / static_cast<double>(c.hidden) + kEpsilon));
    }
    return out;
  }
  // rstd's relative error: half of that of a sum of `hidden` squares, and a few roundings.
  double RstdError() const { return (static_cast<double>(c.hidden) / 2 + 6) * kFloat; }

  RmsNormForwardArgs ForwardArgs(const HostTensor& y) const {
    RmsNormForwardArgs args;
    args.x = x;
    args.gamma = gamma;
    args.zero_centered_gamma = c.zero_centered;
    args.y = Sink(y);
    args.rstd = rstd;
    return args;
  }

  struct Gradients {
    Doubles dx, dx_tolerance, dgamma, dgamma_tolerance;
  };
  // Relative to the terms' magnitude: sums of `hidden` (dx) and `tokens` (dgamma) products, besides
  // the error of rstd and the final rounding.
  Gradients WantGradients(const Doubles& dys, bool with_add) const {
    Gradients out;
    out.dgamma.assign(c.hidden, 0);
    Doubles magnitude(c.hidden, 0);
    const auto n = static_cast<double>(c.hidden);
    const Doubles rstds = WantRstd();
    for (int64_t t = 0; t < c.tokens; ++t) {
      const Doubles row = RowOf(xs, t, c.hidden), gradient = RowOf(dys, t, c.hidden);
      const ref::RmsNormGradients want = ref::RmsNormBackward(gradient, row, g, kEpsilon);
      double dot = 0;
      for (int64_t h = 0; h < c.hidden; ++h)
        dot += std::abs(gradient[h] * g[h] * row[h] * rstds[t]);
      for (int64_t h = 0; h < c.hidden; ++h) {
        const double added = with_add ? adds[t * c.hidden + h] : 0;
        const double terms =
            rstds[t] * (std::abs(gradient[h] * g[h]) + std::abs(row[h] * rstds[t]) * dot / n) +
            std::abs(added);
        out.dx.push_back(want.dx[h] + added);
        out.dx_tolerance.push_back(test::UnitRoundoff(c.dtype) * std::abs(out.dx.back()) +
                                   (n + 10) * kFloat * terms);
        out.dgamma[h] += want.dgamma[h];
        magnitude[h] += std::abs(want.dgamma[h]);
      }
    }
    for (int64_t h = 0; h < c.hidden; ++h) {
      out.dgamma_tolerance.push_back(test::UnitRoundoff(c.parameter) * std::abs(out.dgamma[h]) +
                                     (static_cast<double>(c.tokens) + 10) * kFloat * magnitude[h]);
    }
    return out;
  }
  RmsNormBackwardArgs BackwardArgs(const HostTensor& dx, const HostTensor& dgamma) {
    test::FromDoubles(WantRstd(), rstd);
    RmsNormBackwardArgs args;
    args.dy = dy;
    args.x = x;
    args.gamma = gamma;
    args.rstd = rstd;
    args.zero_centered_gamma = c.zero_centered;
    args.dx = Sink(dx);
    args.dgamma = dgamma;
    return args;
  }

  Case c;
  HostTensor x, dy, add, gamma, rstd;
  Doubles xs, dys, adds, g;
};

TEST(RmsNormRefTest, BackwardIsTheDerivativeOfForward) {
  using Complex = std::complex<double>;
  constexpr double kStep = 1e-100;
  const int64_t hidden = 7;
  const Doubles x = test::NormalDoubles(hidden, 1), g = test::NormalDoubles(hidden, 2),
                dy = test::NormalDoubles(hidden, 3);
  const ref::RmsNormGradients got = ref::RmsNormBackward(dy, x, g, kEpsilon);
  for (int64_t h = 0; h < hidden; ++h) {
    std::vector<Complex> x_step(x.begin(), x.end()), g_step(g.begin(), g.end());
    const std::vector<Complex> x_plain = x_step, g_plain = g_step;
    x_step[h] += Complex(0, kStep);
    g_step[h] += Complex(0, kStep);
    const auto y_x = ref::RmsNorm(x_step, g_plain, kEpsilon);
    const auto y_g = ref::RmsNorm(x_plain, g_step, kEpsilon);
    double dx = 0, dgamma = 0;
    for (int64_t i = 0; i < hidden; ++i) {
      dx += dy[i] * y_x[i].imag() / kStep;
      dgamma += dy[i] * y_g[i].imag() / kStep;
    }
    EXPECT_NEAR(got.dx[h], dx, 1e-13);
    EXPECT_NEAR(got.dgamma[h], dgamma, 1e-13);
  }
}

TEST(RmsNormTest, ForwardAgreesWithTheReference) {
  const test::TestExec exec;
  for (const Case& c : Cases()) {
    Problem p(c);
    const HostTensor y(c.dtype, {c.tokens, c.hidden}, c.pad);
    ASSERT_TRUE(test::IsOk(TE_OP(RmsNormForward)(exec, p.ForwardArgs(y))));
    const Doubles want = p.Want(p.xs, p.g);
    Doubles tolerance;
    for (double v : want) {
      tolerance.push_back(std::abs(v) * (test::UnitRoundoff(c.dtype) + p.RstdError() + 3 * kFloat));
    }
    EXPECT_TRUE(test::Near(y.ToDoubles(), want, tolerance)) << c.tokens << " x " << c.hidden;
    EXPECT_TRUE(y.GuardsIntact());
    const Doubles want_rstd = p.WantRstd();
    EXPECT_TRUE(test::Near(p.rstd.ToDoubles(), want_rstd, p.RstdError() * test::MaxAbs(want_rstd)));
    if (c.tokens == 0) continue;
    EXPECT_FALSE(test::Near(y.ToDoubles(), p.Want(p.xs, test::Disturbed(p.g, c.hidden - 1, 0.1)),
                            tolerance));
    if (c.hidden == 1) continue;  // x's size cancels
    EXPECT_FALSE(test::Near(y.ToDoubles(), p.Want(test::Disturbed(p.xs, p.xs.size() - 1, 0.1), p.g),
                            tolerance));
  }
}

TEST(RmsNormTest, BackwardAgreesWithTheReference) {
  const test::TestExec exec;
  for (const Case& c : Cases()) {
    for (const bool with_add : {false, true}) {
      Problem p(c);
      const HostTensor dx(c.dtype, {c.tokens, c.hidden}, c.pad), dgamma(c.parameter, {c.hidden});
      RmsNormBackwardArgs args = p.BackwardArgs(dx, dgamma);
      if (with_add) args.add = p.add;
      ASSERT_TRUE(test::IsOk(TE_OP(RmsNormBackward)(exec, args)));
      const auto want = p.WantGradients(p.dys, with_add);
      EXPECT_TRUE(test::Near(dx.ToDoubles(), want.dx, want.dx_tolerance));
      EXPECT_TRUE(test::Near(dgamma.ToDoubles(), want.dgamma, want.dgamma_tolerance));
      EXPECT_TRUE(dx.GuardsIntact() && dgamma.GuardsIntact());
      if (c.tokens == 0 || c.hidden == 1) continue;
      const auto twin = p.WantGradients(test::Disturbed(p.dys, p.dys.size() - 1, 8), with_add);
      EXPECT_FALSE(test::Near(dx.ToDoubles(), twin.dx, twin.dx_tolerance));
      EXPECT_FALSE(test::Near(dgamma.ToDoubles(), twin.dgamma, twin.dgamma_tolerance));
    }
  }
}

// More rows than a grid's second dimension, and than its blocks: each block sums many.
TEST(RmsNormTest, ManyRows) {
  const test::TestExec exec;
  Problem p({70'003, 8, DType::kBFloat16, DType::kFloat32, false, 0});
  const HostTensor y(p.c.dtype, {p.c.tokens, 8}), dx(p.c.dtype, {p.c.tokens, 8}),
      dgamma(DType::kFloat32, {8});
  ASSERT_TRUE(test::IsOk(TE_OP(RmsNormForward)(exec, p.ForwardArgs(y))));
  const Doubles want_y = p.Want(p.xs, p.g);
  Doubles tolerance;
  for (double v : want_y) {
    tolerance.push_back(std::abs(v) * (test::UnitRoundoff(p.c.dtype) + p.RstdError() + 3 * kFloat));
  }
  EXPECT_TRUE(test::Near(y.ToDoubles(), want_y, tolerance));
  EXPECT_FALSE(test::Near(y.ToDoubles(), test::Disturbed(want_y, 70'002 * 8, 0.5), tolerance));
  ASSERT_TRUE(test::IsOk(TE_OP(RmsNormBackward)(exec, p.BackwardArgs(dx, dgamma))));
  const auto want = p.WantGradients(p.dys, false);
  EXPECT_TRUE(test::Near(dx.ToDoubles(), want.dx, want.dx_tolerance));
  EXPECT_FALSE(test::Near(dx.ToDoubles(), test::Disturbed(want.dx, 9, 1), want.dx_tolerance));
  // Sums in pieces err far less than the bound for one after the other: by the pieces' lengths.
  Doubles pieces = want.dgamma_tolerance;
  for (double& v : pieces) v *= 2048 / 70'003.0;
  EXPECT_TRUE(test::Near(dgamma.ToDoubles(), want.dgamma, pieces));
  EXPECT_FALSE(test::Near(dgamma.ToDoubles(), test::Disturbed(want.dgamma, 3, 20), pieces));
}

class RmsNormManyRows : public testing::TestWithParam<test::ManyRowsCase> {};

TEST_P(RmsNormManyRows, AreWhatFewAre) {
  const test::TestExec exec;
  test::ExpectManyRowsAreWhatFewAre(GetParam(), 1, 1.5, [&](const test::NormBackwardCall& call) {
    return TE_OP(RmsNormBackward)(exec, {.dy = call.dy,
                                         .x = call.x,
                                         .gamma = call.gamma,
                                         .rstd = call.rstd,
                                         .add = call.add,
                                         .dx = call.dx,
                                         .dgamma = call.gradients[0],
                                         .accumulate_dgamma = call.accumulate});
  });
}

INSTANTIATE_TEST_SUITE_P(Shapes, RmsNormManyRows,
                         testing::ValuesIn(test::ManyRowsCases({900, 8192, DType::kFloat32})),
                         test::NameOf);

// Rows whose strides allow vectors and whose addresses do not.
TEST(RmsNormTest, MisalignedAddressesAreTheSame) {
  const test::TestExec exec;
  Problem p({5, 64, DType::kBFloat16, DType::kBFloat16, false, 0});
  const HostTensor y(DType::kBFloat16, {5, 64}), x(DType::kBFloat16, {5, 72}),
      dx(DType::kBFloat16, {5, 64}), dgamma(DType::kBFloat16, {64});
  const TensorView shifted = x.view().Slice(1, 3, 67);
  test::FromDoubles(p.xs, shifted);
  const auto want = p.Want(p.xs, p.g);
  RmsNormForwardArgs args = p.ForwardArgs(y);
  args.x = shifted;
  ASSERT_TRUE(test::IsOk(TE_OP(RmsNormForward)(exec, args)));
  Doubles tolerance;
  for (double v : want) {
    tolerance.push_back(std::abs(v) * (test::UnitRoundoff(p.c.dtype) + p.RstdError() + 3 * kFloat));
  }
  EXPECT_TRUE(test::Near(y.ToDoubles(), want, tolerance));
  EXPECT_FALSE(test::Near(y.ToDoubles(), test::Disturbed(want, 77, 0.5), tolerance));
  RmsNormBackwardArgs backward = p.BackwardArgs(dx, dgamma);
  backward.x = shifted;
  ASSERT_TRUE(test::IsOk(TE_OP(RmsNormBackward)(exec, backward)));
  const auto gradients = p.WantGradients(p.dys, false);
  EXPECT_TRUE(test::Near(dx.ToDoubles(), gradients.dx, gradients.dx_tolerance));
  EXPECT_TRUE(test::Near(dgamma.ToDoubles(), gradients.dgamma, gradients.dgamma_tolerance));
  EXPECT_FALSE(
      test::Near(dx.ToDoubles(), test::Disturbed(gradients.dx, 77, 1), gradients.dx_tolerance));
}

TEST(RmsNormTest, GammaGradientAccumulates) {
  const test::TestExec exec;
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    Problem p({20, 33, dtype, dtype, false, 0});
    const HostTensor dx(dtype, {20, 33});
    const HostTensor dgamma(dtype, {33}, Doubles(33, 100.0));
    RmsNormBackwardArgs args = p.BackwardArgs(dx, dgamma);
    args.accumulate_dgamma = true;
    ASSERT_TRUE(test::IsOk(TE_OP(RmsNormBackward)(exec, args)));
    auto want = p.WantGradients(p.dys, false);
    for (double& v : want.dgamma) v += 100;
    const double tolerance = 200 * test::UnitRoundoff(dtype) + 1e-4;
    EXPECT_TRUE(test::Near(dgamma.ToDoubles(), want.dgamma, tolerance));
    EXPECT_FALSE(test::Near(dgamma.ToDoubles(), test::Disturbed(want.dgamma, 5, 4), tolerance));
  }
}

TEST(RmsNormTest, ThreadsRepetitionAndAliasesDoNotChangeABit) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    Problem p({200, 515, dtype, dtype, false, 0});
    const Shape shape = {200, 515};
    const test::TestExec one(1), two(2);
    const HostTensor y(dtype, shape), dx(dtype, shape), dgamma(dtype, {515});
    ASSERT_TRUE(test::IsOk(TE_OP(RmsNormForward)(one, p.ForwardArgs(y))));
    const auto rstd = p.rstd.Bytes();
    RmsNormBackwardArgs backward = p.BackwardArgs(dx, dgamma);
    backward.add = p.add;
    ASSERT_TRUE(test::IsOk(TE_OP(RmsNormBackward)(one, backward)));
    for (int repeat = 0; repeat < 2; ++repeat) {
      Problem q({200, 515, dtype, dtype, false, 0});
      RmsNormForwardArgs args = q.ForwardArgs(q.x);  // in place
      const HostTensor dgamma2(dtype, {515});
      RmsNormBackwardArgs backward2 = p.BackwardArgs(repeat == 0 ? q.add : q.dy, dgamma2);
      backward2.add = q.add;
      backward2.dy = q.dy;
      ASSERT_TRUE(test::IsOk(TE_OP(RmsNormForward)(two, args)));
      ASSERT_TRUE(test::IsOk(TE_OP(RmsNormBackward)(two, backward2)));
      EXPECT_EQ(q.x.Bytes(), y.Bytes());
      EXPECT_EQ(q.rstd.Bytes(), rstd);
      EXPECT_EQ((repeat == 0 ? q.add : q.dy).Bytes(), dx.Bytes());
      EXPECT_EQ(dgamma2.Bytes(), dgamma.Bytes());
    }
  }
}

TEST(RmsNormTest, FrozenGammaAndNoRstdAreOptional) {
  const test::TestExec exec;
  Problem p({4, 9, DType::kFloat32, DType::kFloat32, false, 0});
  const HostTensor y(DType::kFloat32, {4, 9}), dx(DType::kFloat32, {4, 9}),
      dx2(DType::kFloat32, {4, 9}), dgamma(DType::kFloat32, {9});
  RmsNormForwardArgs args = p.ForwardArgs(y);
  args.rstd = TensorView();
  EXPECT_TRUE(test::IsOk(TE_OP(RmsNormForward)(exec, args)));
  RmsNormBackwardArgs backward = p.BackwardArgs(dx, dgamma);
  EXPECT_TRUE(test::IsOk(TE_OP(RmsNormBackward)(exec, backward)));
  backward.dgamma = TensorView();
  backward.dx = Sink(dx2);
  EXPECT_TRUE(test::IsOk(TE_OP(RmsNormBackward)(exec, backward)));
  EXPECT_EQ(dx.Bytes(), dx2.Bytes());
}

TEST(RmsNormTest, NanInARowStaysInThatRow) {
  const test::TestExec exec;
  Problem p({2, 20, DType::kBFloat16, DType::kBFloat16, false, 0});
  p.x.view().as<bfloat16>()[3] = bfloat16(std::nanf(""));
  const HostTensor y(DType::kBFloat16, {2, 20});
  ASSERT_TRUE(test::IsOk(TE_OP(RmsNormForward)(exec, p.ForwardArgs(y))));
  const Doubles got = y.ToDoubles();
  for (int64_t i = 0; i < 40; ++i) EXPECT_EQ(std::isnan(got[i]), i < 20) << i;
}

struct SinkShape {
  int64_t tokens, hidden;
  bool fuses;
};

std::vector<SinkShape> SinkShapes() {
  std::vector<SinkShape> out = {{16, 16, true},   {48, 512, true},  {32, 1024, true},
                                {16, 2048, true}, {32, 4096, true}, {16, 5136, true},
                                {0, 16, false},   {7, 13, false},   {20, 64, false},
                                {16, 24, false},  {17, 31, false}};
  if (test::kOnCuda) {  // several tiles a block; the longest rows that fit, and longer ones
    for (const SinkShape& more : {SinkShape{4304, 144, true}, SinkShape{16, 10240, true},
                                  SinkShape{16, 10256, false}, SinkShape{16, 20000, false}}) {
      out.push_back(more);
    }
  }
  return out;
}

class RmsNormSinks : public testing::TestWithParam<SinkShape> {};

TEST_P(RmsNormSinks, HoldTheQuantizedDenseResult) {
  const test::TestExec exec;
  const SinkShape& shape = GetParam();
  for (const auto& [dtype, parameter] :
       {std::pair(DType::kBFloat16, DType::kBFloat16), std::pair(DType::kBFloat16, DType::kFloat32),
        std::pair(DType::kFloat32, DType::kFloat32)}) {
    const bool zero_centered = parameter == DType::kFloat32;
    Problem p({shape.tokens, shape.hidden, dtype, parameter, zero_centered, 8});
    const bool fuses = shape.fuses && dtype == DType::kBFloat16;
    const auto forward = [&](const Exec& e, const Sink& sink) {
      RmsNormForwardArgs args = p.ForwardArgs(p.x);
      args.y = sink;
      return TE_OP(RmsNormForward)(e, args);
    };
    test::ExpectSinksQuantizeTheDenseResult(exec, dtype, {shape.tokens, shape.hidden}, shape.tokens,
                                            shape.hidden,
                                            fuses ? "rms_norm_forward_fp8_cuda" : nullptr, forward);
    EXPECT_TRUE(
        test::Near(p.rstd.ToDoubles(), p.WantRstd(), p.RstdError() * test::MaxAbs(p.WantRstd())));
    for (const bool with_add : {false, true}) {
      const HostTensor dgamma(parameter, {shape.hidden});
      const auto backward = [&](const Exec& e, const Sink& sink) {
        RmsNormBackwardArgs args = p.BackwardArgs(p.dy, dgamma);
        if (with_add) args.add = p.add;
        args.dx = sink;
        return TE_OP(RmsNormBackward)(e, args);
      };
      test::ExpectSinksQuantizeTheDenseResult(
          exec, dtype, {shape.tokens, shape.hidden}, shape.tokens, shape.hidden,
          fuses ? "rms_norm_backward_fp8_cuda" : nullptr, backward);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, RmsNormSinks, testing::ValuesIn(SinkShapes()),
                         [](const auto& info) {
                           return fmt::format("{}x{}", info.param.tokens, info.param.hidden);
                         });

// The parameter's gradient, which a kernel that writes FP8 copies sums in other pieces.
TEST(RmsNormTest, QuantizedSinksDoNotDisturbTheGammaGradient) {
  const test::TestExec exec;
  const int64_t hiddens[] = {16, 144, 512, 1024, 4096};
  for (const int64_t hidden : hiddens) {
    Problem p({160, hidden, DType::kBFloat16, DType::kFloat32, false, 0});
    const test::QuantizedTensor codes({}, 160, hidden), again({}, 160, hidden);
    const HostTensor dgamma(DType::kFloat32, {hidden}), dgamma2(DType::kFloat32, {hidden});
    RmsNormBackwardArgs args = p.BackwardArgs(p.dy, dgamma);
    args.dx = Sink();
    args.dx.quant = codes.spec();
    ASSERT_TRUE(test::IsOk(TE_OP(RmsNormBackward)(exec, args)));
    const auto want = p.WantGradients(p.dys, false);
    EXPECT_TRUE(test::Near(dgamma.ToDoubles(), want.dgamma, want.dgamma_tolerance));
    EXPECT_FALSE(test::Near(dgamma.ToDoubles(), test::Disturbed(want.dgamma, hidden - 1, 1),
                            want.dgamma_tolerance));
    // Again, in place, and without the gradient.
    args.dx.quant = again.spec();
    args.dx.dense = p.dy;
    args.dgamma = dgamma2;
    ASSERT_TRUE(test::IsOk(TE_OP(RmsNormBackward)(exec, args)));
    EXPECT_TRUE(dgamma2.Bytes() == dgamma.Bytes());
    EXPECT_TRUE(again.Bytes() == codes.Bytes());
    EXPECT_TRUE(test::Near(p.dy.ToDoubles(), want.dx, want.dx_tolerance));
  }
}

// More tiles than blocks: on CUDA a block writes the codes of two to four, of 16 or (where 32
// divides the rows, up to 4096 columns) of 32 rows, from two places in shared memory or (4096
// columns and more) from one.
class RmsNormManyTiles : public testing::TestWithParam<std::pair<int64_t, int64_t>> {};

TEST_P(RmsNormManyTiles, HoldTheQuantizedDenseResult) {
  const test::TestExec exec;
  constexpr DType kType = DType::kBFloat16;
  const auto& [tokens, hidden] = GetParam();
  const HostTensor rows = HostTensor::Uniform(kType, {tokens + 1, hidden}, 1, -1, 1, 16),
                   add = HostTensor::Uniform(kType, {tokens, hidden}, 2, -1, 1, 16),
                   gamma = HostTensor::Uniform(kType, {hidden}, 3, 0.5, 1.5),
                   rstd = HostTensor::Uniform(DType::kFloat32, {tokens}, 4, 0.5, 1.5),
                   dgamma(DType::kFloat32, {hidden}), dense_dgamma(DType::kFloat32, {hidden});
  const TensorView x = rows.view().Slice(0, 0, tokens), dy = rows.view().Slice(0, 1, tokens + 1);
  const Shape shape = {tokens, hidden};
  test::ExpectSinksQuantizeTheDenseResult(exec, kType, shape, tokens, hidden,
                                          "rms_norm_forward_fp8_cuda",
                                          [&](const Exec& e, const Sink& sink) {
                                            RmsNormForwardArgs args = {.x = x, .gamma = gamma};
                                            args.y = sink;
                                            return TE_OP(RmsNormForward)(e, args);
                                          },
                                          {{.dense = true}});
  test::ExpectSinksQuantizeTheDenseResult(
      exec, kType, shape, tokens, hidden, "rms_norm_backward_fp8_cuda",
      [&](const Exec& e, const Sink& sink) {
        RmsNormBackwardArgs args = {.dy = dy, .x = x, .gamma = gamma, .rstd = rstd};
        args.add = add;
        args.dx = sink;
        args.dgamma = sink.quantized() ? dgamma : dense_dgamma;
        return TE_OP(RmsNormBackward)(e, args);
      },
      {{.format = QuantFormat::kFloat8E5M2, .dense = true}});
  // As in ManyRows' AreWhatFewAre.
  const double tolerance = 2 * 256 * kFloat * 1.5 * static_cast<double>(tokens);
  const Doubles want = dense_dgamma.ToDoubles();
  EXPECT_TRUE(test::Near(dgamma.ToDoubles(), want, tolerance));
  EXPECT_FALSE(test::Near(dgamma.ToDoubles(), test::Disturbed(want, hidden - 1, 1), tolerance));
}

std::vector<std::pair<int64_t, int64_t>> ManyTilesShapes() {
  if (!test::kOnCuda) return {{48, 144}, {64, 144}};
  return {{6'512, 2048}, {8'512, 2048}, {4'256, 4096}, {4'240, 6144}};
}

INSTANTIATE_TEST_SUITE_P(Shapes, RmsNormManyTiles, testing::ValuesIn(ManyTilesShapes()),
                         [](const auto& info) {
                           return fmt::format("{}x{}", info.param.first, info.param.second);
                         });

// Rows at addresses that allow no vectors are written unfused.
TEST(RmsNormTest, MisalignedQuantizedSinksAreTheSame) {
  const test::TestExec exec;
  Problem p({16, 64, DType::kBFloat16, DType::kBFloat16, false, 0});
  const HostTensor wide(DType::kBFloat16, {16, 72});
  const TensorView shifted = wide.view().Slice(1, 3, 67);
  test::FromDoubles(p.xs, shifted);
  const test::QuantizedTensor aligned({}, 16, 64), misaligned({}, 16, 64);
  RmsNormForwardArgs args = p.ForwardArgs(p.x);
  args.y = Sink();
  args.y.quant = aligned.spec();
  ASSERT_TRUE(test::IsOk(TE_OP(RmsNormForward)(exec, args)));
  args.x = shifted;
  args.y.quant = misaligned.spec();
  ASSERT_TRUE(test::IsOk(TE_OP(RmsNormForward)(exec, args)));
  if (!test::kOnCuda) {  // CUDA's two ways sum in other orders
    EXPECT_TRUE(misaligned.Bytes() == aligned.Bytes());
  }
  const HostTensor y(DType::kBFloat16, {16, 64});
  args.y = Sink(y);
  ASSERT_TRUE(test::IsOk(TE_OP(RmsNormForward)(exec, args)));
  const test::QuantizedTensor want({}, 16, 64), twin({}, 16, 64);
  ASSERT_TRUE(test::IsOk(TE_OP(Quantize)(exec, {.x = y, .out = want.spec()})));
  EXPECT_TRUE(misaligned.Bytes() == want.Bytes());
  ASSERT_TRUE(test::IsOk(TE_OP(Quantize)(exec, {.x = p.x, .out = twin.spec()})));
  EXPECT_FALSE(misaligned.Bytes() == twin.Bytes());
}

TEST(RmsNormTest, RefusesWhatDoesNotFitByName) {
  const test::TestExec exec;
  Problem p({2, 4, DType::kFloat32, DType::kFloat32, false, 0});
  const HostTensor y(DType::kFloat32, {2, 4}), wrong(DType::kFloat32, {2, 5}),
      dgamma(DType::kFloat32, {4}), half(DType::kFloat16, {2, 4});
  constexpr StatusCode kBad = StatusCode::kInvalidArgument;
  const RmsNormForwardArgs good = p.ForwardArgs(y);
  RmsNormForwardArgs args = good;
  args.y = Sink(wrong);
  EXPECT_TRUE(test::FailsWith(TE_OP(RmsNormForward)(exec, args), kBad, "y is float32 [2, 5]"));
  args = good;
  args.x = half;
  EXPECT_TRUE(test::FailsWith(TE_OP(RmsNormForward)(exec, args), kBad, "x is float16 [2, 4]"));
  args = good;
  args.gamma = wrong;
  EXPECT_TRUE(test::FailsWith(TE_OP(RmsNormForward)(exec, args), kBad, "gamma is"));
  args = good;
  args.rstd = wrong;
  EXPECT_TRUE(test::FailsWith(TE_OP(RmsNormForward)(exec, args), kBad, "rstd is"));
  args = good;
  args.epsilon = -1;
  EXPECT_TRUE(test::FailsWith(TE_OP(RmsNormForward)(exec, args), kBad, "epsilon is -1"));
  args = good;
  args.y = Sink();
  EXPECT_TRUE(test::FailsWith(TE_OP(RmsNormForward)(exec, args), kBad, "y is nothing"));
  args.y.quant.format = QuantFormat::kFloat8E4M3;
  args.y.quant.rowwise_data = wrong;
  EXPECT_TRUE(test::FailsWith(TE_OP(RmsNormForward)(exec, args), kBad,
                              "y's rowwise data is float32 [2, 5]"));
  const RmsNormBackwardArgs good_backward = p.BackwardArgs(y, dgamma);
  RmsNormBackwardArgs backward = good_backward;
  backward.dy = wrong;
  EXPECT_TRUE(test::FailsWith(TE_OP(RmsNormBackward)(exec, backward), kBad, "dy is"));
  backward = good_backward;
  backward.rstd = ConstTensorView();
  EXPECT_TRUE(test::FailsWith(TE_OP(RmsNormBackward)(exec, backward), kBad, "rstd is nothing"));
  backward = good_backward;
  backward.add = wrong;
  EXPECT_TRUE(test::FailsWith(TE_OP(RmsNormBackward)(exec, backward), kBad, "add is"));
  backward = good_backward;
  backward.dgamma = wrong;
  EXPECT_TRUE(test::FailsWith(TE_OP(RmsNormBackward)(exec, backward), kBad, "dgamma is"));
}

}  // namespace
}  // namespace te
