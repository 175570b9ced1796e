#include "te_kernels/layer_norm/layer_norm.h"

#include <algorithm>
#include <cmath>
#include <complex>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "te_kernels/layer_norm/layer_norm_ref.h"
#include "te_kernels/rms_norm/many_rows_test.h"
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
        beta(HostTensor::Normal(c.parameter, {c.hidden}, 5)),
        mean(DType::kFloat32, {c.tokens}),
        rstd(DType::kFloat32, {c.tokens}),
        xs(x.ToDoubles()),
        dys(dy.ToDoubles()),
        adds(add.ToDoubles()),
        g(gamma.ToDoubles()),
        betas(beta.ToDoubles()) {
    for (double& v : g) v += c.zero_centered ? 1 : 0;
  }

  Doubles Want(const Doubles& xs, const Doubles& g, const Doubles& betas) const {
    Doubles out;
    for (int64_t t = 0; t < c.tokens; ++t) {
      for (double v : ref::LayerNorm(RowOf(xs, t, c.hidden), g, betas, kEpsilon)) out.push_back(v);
    }
    return out;
  }
  struct RowMoments {
    Doubles mean, rstd, magnitude;  // mean |x|
  };
  RowMoments WantMoments() const {
    RowMoments out;
    const auto n = static_cast<double>(c.hidden);
    for (int64_t t = 0; t < c.tokens; ++t) {
      double sum = 0, absolute = 0, square = 0;
      for (double v : RowOf(xs, t, c.hidden)) {
        sum += v;
        absolute += std::abs(v);
      }
      for (double v : RowOf(xs, t, c.hidden)) square += (v - sum / n) * (v - sum / n);
      out.mean.push_back(sum / n);
      out.rstd.push_back(1 / std::sqrt(square / n + kEpsilon));
      out.magnitude.push_back(absolute / n);
    }
    return out;
  }
  // The mean is off by a sum's error, relative to mean |x|; that enters xhat times rstd, and rstd
  // itself through the centered squares. rstd is off by half the error of a sum of `hidden`
  // squares.
  double Error() const { return (static_cast<double>(c.hidden) + 10) * kFloat; }
  Doubles ForwardTolerance(const Doubles& want) const {
    const RowMoments m = WantMoments();
    Doubles out;
    for (int64_t i = 0; i < c.tokens * c.hidden; ++i) {
      const int64_t t = i / c.hidden, h = i % c.hidden;
      const double xhat = (std::abs(xs[i]) + m.magnitude[t]) * m.rstd[t];
      out.push_back(std::abs(want[i]) * test::UnitRoundoff(c.dtype) +
                    Error() * (2 * xhat * std::abs(g[h]) + std::abs(betas[h])));
    }
    return out;
  }

  LayerNormForwardArgs ForwardArgs(const HostTensor& y) const {
    LayerNormForwardArgs args;
    args.x = x;
    args.gamma = gamma;
    args.beta = beta;
    args.zero_centered_gamma = c.zero_centered;
    args.y = Sink(y);
    args.mean = mean;
    args.rstd = rstd;
    return args;
  }

  struct Gradients {
    Doubles dx, dx_tolerance, dgamma, dgamma_tolerance, dbeta, dbeta_tolerance;
  };
  // Relative to the terms' magnitude: sums of `hidden` (dx) and `tokens` (parameters) products,
  // besides the error of the given mean and rstd and the final rounding.
  Gradients WantGradients(const Doubles& dys, bool with_add) const {
    Gradients out;
    out.dgamma.assign(c.hidden, 0);
    out.dbeta.assign(c.hidden, 0);
    Doubles gamma_terms(c.hidden, 0), beta_terms(c.hidden, 0);
    const auto n = static_cast<double>(c.hidden);
    const RowMoments m = WantMoments();
    for (int64_t t = 0; t < c.tokens; ++t) {
      const Doubles row = RowOf(xs, t, c.hidden), gradient = RowOf(dys, t, c.hidden);
      const ref::LayerNormGradients want = ref::LayerNormBackward(gradient, row, g, kEpsilon);
      double dot = 0, sum = 0;
      const auto xhat = [&](int64_t h) {
        return (std::abs(row[h]) + std::abs(m.mean[t])) * m.rstd[t];
      };
      for (int64_t h = 0; h < c.hidden; ++h) {
        dot += std::abs(gradient[h] * g[h]) * xhat(h);
        sum += std::abs(gradient[h] * g[h]);
      }
      for (int64_t h = 0; h < c.hidden; ++h) {
        const double added = with_add ? adds[t * c.hidden + h] : 0;
        const double terms =
            m.rstd[t] * (std::abs(gradient[h] * g[h]) + sum / n + xhat(h) * dot / n) +
            std::abs(added);
        out.dx.push_back(want.dx[h] + added);
        out.dx_tolerance.push_back(test::UnitRoundoff(c.dtype) * std::abs(out.dx.back()) +
                                   (n + 10) * kFloat * terms);
        out.dgamma[h] += want.dgamma[h];
        out.dbeta[h] += gradient[h];
        gamma_terms[h] += std::abs(gradient[h]) * xhat(h);
        beta_terms[h] += std::abs(gradient[h]);
      }
    }
    const double u = test::UnitRoundoff(c.parameter);
    const double sum_error = (static_cast<double>(c.tokens) + 10) * kFloat;
    for (int64_t h = 0; h < c.hidden; ++h) {
      out.dgamma_tolerance.push_back(u * std::abs(out.dgamma[h]) + sum_error * gamma_terms[h]);
      out.dbeta_tolerance.push_back(u * std::abs(out.dbeta[h]) + sum_error * beta_terms[h]);
    }
    return out;
  }
  LayerNormBackwardArgs BackwardArgs(const HostTensor& dx, const HostTensor& dgamma) {
    const RowMoments moments = WantMoments();
    test::FromDoubles(moments.mean, mean);
    test::FromDoubles(moments.rstd, rstd);
    LayerNormBackwardArgs args;
    args.dy = dy;
    args.x = x;
    args.gamma = gamma;
    args.mean = mean;
    args.rstd = rstd;
    args.zero_centered_gamma = c.zero_centered;
    args.dx = Sink(dx);
    args.dgamma = dgamma;
    return args;
  }

  Case c;
  HostTensor x, dy, add, gamma, beta, mean, rstd;
  Doubles xs, dys, adds, g, betas;
};

TEST(LayerNormRefTest, BackwardIsTheDerivativeOfForward) {
  using Complex = std::complex<double>;
  constexpr double kStep = 1e-100;
  const int64_t hidden = 7;
  const Doubles x = test::NormalDoubles(hidden, 1), g = test::NormalDoubles(hidden, 2),
                dy = test::NormalDoubles(hidden, 3), beta = test::NormalDoubles(hidden, 4);
  const ref::LayerNormGradients got = ref::LayerNormBackward(dy, x, g, kEpsilon);
  for (int64_t h = 0; h < hidden; ++h) {
    std::vector<Complex> x_step(x.begin(), x.end()), g_step(g.begin(), g.end());
    const std::vector<Complex> x_plain = x_step, g_plain = g_step, b(beta.begin(), beta.end());
    x_step[h] += Complex(0, kStep);
    g_step[h] += Complex(0, kStep);
    const auto y_x = ref::LayerNorm(x_step, g_plain, b, kEpsilon);
    const auto y_g = ref::LayerNorm(x_plain, g_step, b, kEpsilon);
    double dx = 0, dgamma = 0;
    for (int64_t i = 0; i < hidden; ++i) {
      dx += dy[i] * y_x[i].imag() / kStep;
      dgamma += dy[i] * y_g[i].imag() / kStep;
    }
    EXPECT_NEAR(got.dx[h], dx, 1e-13);
    EXPECT_NEAR(got.dgamma[h], dgamma, 1e-13);
  }
}

TEST(LayerNormTest, ForwardAgreesWithTheReference) {
  const test::TestExec exec;
  for (const Case& c : Cases()) {
    Problem p(c);
    const HostTensor y(c.dtype, {c.tokens, c.hidden}, c.pad);
    ASSERT_TRUE(test::IsOk(TE_OP(LayerNormForward)(exec, p.ForwardArgs(y))));
    const Doubles want = p.Want(p.xs, p.g, p.betas);
    const Doubles tolerance = p.ForwardTolerance(want);
    EXPECT_TRUE(test::Near(y.ToDoubles(), want, tolerance)) << c.tokens << " x " << c.hidden;
    EXPECT_TRUE(y.GuardsIntact());
    const Problem::RowMoments m = p.WantMoments();
    EXPECT_TRUE(test::Near(p.mean.ToDoubles(), m.mean, p.Error() * test::MaxAbs(m.magnitude)));
    if (c.hidden > 1) {  // of one element the variance is 0, whatever is lost in the mean
      EXPECT_TRUE(test::Near(p.rstd.ToDoubles(), m.rstd, 4 * p.Error() * test::MaxAbs(m.rstd)));
    }
    if (c.tokens == 0) continue;
    EXPECT_FALSE(test::Near(
        y.ToDoubles(), p.Want(p.xs, p.g, test::Disturbed(p.betas, c.hidden - 1, 0.1)), tolerance));
    if (c.hidden == 1) continue;  // y is beta
    const int64_t largest =       // of the first row: its xhat is far from 0
        std::max_element(p.xs.begin(), p.xs.begin() + c.hidden) - p.xs.begin();
    EXPECT_FALSE(test::Near(y.ToDoubles(),
                            p.Want(p.xs, test::Disturbed(p.g, largest, 0.2), p.betas), tolerance));
    EXPECT_FALSE(test::Near(y.ToDoubles(),
                            p.Want(test::Disturbed(p.xs, p.xs.size() - 1, 0.2), p.g, p.betas),
                            tolerance));
  }
}

// A mean much larger than the deviation: the formula mean(x^2) - mean(x)^2 loses every digit here.
TEST(LayerNormTest, LargeMeanDoesNotCancel) {
  const test::TestExec exec;
  Problem p({3, 256, DType::kFloat32, DType::kFloat32, false, 0});
  Doubles shifted = p.xs;
  for (double& v : shifted) v = static_cast<float>(v + 4096);
  test::FromDoubles(shifted, p.x);
  p.xs = shifted;
  const HostTensor y(DType::kFloat32, {3, 256});
  ASSERT_TRUE(test::IsOk(TE_OP(LayerNormForward)(exec, p.ForwardArgs(y))));
  const Doubles want = p.Want(p.xs, p.g, p.betas);
  // The mean rounds to 2^-12 at this size; the sum of 256 in 32 partial sums adds a few of them.
  EXPECT_TRUE(test::Near(y.ToDoubles(), want, 16 * 0x1p-12));
  EXPECT_FALSE(test::Near(y.ToDoubles(), test::Disturbed(want, 9, 0.01), 16 * 0x1p-12));
}

TEST(LayerNormTest, BackwardAgreesWithTheReference) {
  const test::TestExec exec;
  for (const Case& c : Cases()) {
    for (const bool with_add : {false, true}) {
      Problem p(c);
      const HostTensor dx(c.dtype, {c.tokens, c.hidden}, c.pad), dgamma(c.parameter, {c.hidden}),
          dbeta(c.parameter, {c.hidden});
      LayerNormBackwardArgs args = p.BackwardArgs(dx, dgamma);
      args.dbeta = dbeta;
      if (with_add) args.add = p.add;
      ASSERT_TRUE(test::IsOk(TE_OP(LayerNormBackward)(exec, args)));
      const auto want = p.WantGradients(p.dys, with_add);
      EXPECT_TRUE(test::Near(dx.ToDoubles(), want.dx, want.dx_tolerance));
      EXPECT_TRUE(test::Near(dgamma.ToDoubles(), want.dgamma, want.dgamma_tolerance));
      EXPECT_TRUE(test::Near(dbeta.ToDoubles(), want.dbeta, want.dbeta_tolerance));
      EXPECT_TRUE(dx.GuardsIntact() && dgamma.GuardsIntact() && dbeta.GuardsIntact());
      if (c.tokens == 0 || c.hidden == 1) continue;
      const auto twin = p.WantGradients(test::Disturbed(p.dys, p.dys.size() - 1, 8), with_add);
      EXPECT_FALSE(test::Near(dx.ToDoubles(), twin.dx, twin.dx_tolerance));
      EXPECT_FALSE(test::Near(dgamma.ToDoubles(), twin.dgamma, twin.dgamma_tolerance));
      EXPECT_FALSE(test::Near(dbeta.ToDoubles(), twin.dbeta, twin.dbeta_tolerance));
    }
  }
}

TEST(LayerNormTest, ParametersMayDifferInDType) {
  const test::TestExec exec;
  Problem p({6, 40, DType::kBFloat16, DType::kBFloat16, false, 0});
  const Shape shape = {6, 40};
  const HostTensor want(p.c.dtype, shape), got(p.c.dtype, shape), gamma(DType::kFloat32, {40}, p.g),
      beta(DType::kFloat32, {40}, p.betas);
  ASSERT_TRUE(test::IsOk(TE_OP(LayerNormForward)(exec, p.ForwardArgs(want))));
  LayerNormForwardArgs args = p.ForwardArgs(got);
  args.gamma = gamma;
  ASSERT_TRUE(test::IsOk(TE_OP(LayerNormForward)(exec, args)));
  EXPECT_EQ(got.Bytes(), want.Bytes());
  args.gamma = p.gamma;
  args.beta = beta;
  ASSERT_TRUE(test::IsOk(TE_OP(LayerNormForward)(exec, args)));
  EXPECT_EQ(got.Bytes(), want.Bytes());
}

// More rows than a grid's second dimension, and than its blocks: each block sums many.
TEST(LayerNormTest, ManyRows) {
  const test::TestExec exec;
  Problem p({70'003, 8, DType::kBFloat16, DType::kFloat32, false, 0});
  const HostTensor y(p.c.dtype, {p.c.tokens, 8}), dx(p.c.dtype, {p.c.tokens, 8}),
      dgamma(DType::kFloat32, {8}), dbeta(DType::kFloat32, {8});
  ASSERT_TRUE(test::IsOk(TE_OP(LayerNormForward)(exec, p.ForwardArgs(y))));
  const Doubles want_y = p.Want(p.xs, p.g, p.betas), tolerance = p.ForwardTolerance(want_y);
  EXPECT_TRUE(test::Near(y.ToDoubles(), want_y, tolerance));
  EXPECT_FALSE(test::Near(y.ToDoubles(), test::Disturbed(want_y, 70'002 * 8, 0.5), tolerance));
  LayerNormBackwardArgs args = p.BackwardArgs(dx, dgamma);
  args.dbeta = dbeta;
  ASSERT_TRUE(test::IsOk(TE_OP(LayerNormBackward)(exec, args)));
  auto want = p.WantGradients(p.dys, false);
  EXPECT_TRUE(test::Near(dx.ToDoubles(), want.dx, want.dx_tolerance));
  EXPECT_FALSE(test::Near(dx.ToDoubles(), test::Disturbed(want.dx, 9, 2), want.dx_tolerance));
  // Sums in pieces err far less than the bound for one after the other: by the pieces' lengths.
  for (double& v : want.dgamma_tolerance) v *= 2048 / 70'003.0;
  for (double& v : want.dbeta_tolerance) v *= 2048 / 70'003.0;
  EXPECT_TRUE(test::Near(dgamma.ToDoubles(), want.dgamma, want.dgamma_tolerance));
  EXPECT_TRUE(test::Near(dbeta.ToDoubles(), want.dbeta, want.dbeta_tolerance));
  EXPECT_FALSE(
      test::Near(dgamma.ToDoubles(), test::Disturbed(want.dgamma, 3, 40), want.dgamma_tolerance));
  EXPECT_FALSE(
      test::Near(dbeta.ToDoubles(), test::Disturbed(want.dbeta, 3, 40), want.dbeta_tolerance));
}

class LayerNormManyRows : public testing::TestWithParam<test::ManyRowsCase> {};

TEST_P(LayerNormManyRows, AreWhatFewAre) {
  const test::TestExec exec;
  test::ExpectManyRowsAreWhatFewAre(GetParam(), 2, 2.25, [&](const test::NormBackwardCall& call) {
    return TE_OP(LayerNormBackward)(exec, {.dy = call.dy,
                                           .x = call.x,
                                           .gamma = call.gamma,
                                           .mean = call.mean,
                                           .rstd = call.rstd,
                                           .add = call.add,
                                           .dx = call.dx,
                                           .dgamma = call.gradients[0],
                                           .dbeta = call.gradients[1],
                                           .accumulate_parameter_gradients = call.accumulate});
  });
}

INSTANTIATE_TEST_SUITE_P(Shapes, LayerNormManyRows,
                         testing::ValuesIn(test::ManyRowsCases({1'600, 4096, DType::kFloat32})),
                         test::NameOf);

TEST(LayerNormTest, EitherParameterGradientAloneIsTheSame) {
  const test::TestExec exec;
  Problem p({40, 19, DType::kFloat32, DType::kFloat32, false, 0});
  const HostTensor dx(DType::kFloat32, {40, 19}), dgamma(DType::kFloat32, {19}),
      dbeta(DType::kFloat32, {19}), alone(DType::kFloat32, {19});
  LayerNormBackwardArgs args = p.BackwardArgs(dx, dgamma);
  args.dbeta = dbeta;
  ASSERT_TRUE(test::IsOk(TE_OP(LayerNormBackward)(exec, args)));
  args.dbeta = TensorView();
  args.dgamma = alone;
  ASSERT_TRUE(test::IsOk(TE_OP(LayerNormBackward)(exec, args)));
  EXPECT_EQ(alone.Bytes(), dgamma.Bytes());
  args.dgamma = TensorView();
  args.dbeta = alone;
  ASSERT_TRUE(test::IsOk(TE_OP(LayerNormBackward)(exec, args)));
  EXPECT_EQ(alone.Bytes(), dbeta.Bytes());
}

TEST(LayerNormTest, ParameterGradientsAccumulate) {
  const test::TestExec exec;
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    Problem p({20, 33, dtype, dtype, false, 0});
    const HostTensor dx(dtype, {20, 33});
    const HostTensor dgamma(dtype, {33}, Doubles(33, 100.0));
    LayerNormBackwardArgs args = p.BackwardArgs(dx, dgamma);
    args.accumulate_parameter_gradients = true;
    const HostTensor dbeta(dtype, {33}, Doubles(33, 50.0));
    args.dbeta = dbeta;
    ASSERT_TRUE(test::IsOk(TE_OP(LayerNormBackward)(exec, args)));
    auto want = p.WantGradients(p.dys, false);
    for (double& v : want.dgamma) v += 100;
    for (double& v : want.dbeta) v += 50;
    const double tolerance = 200 * test::UnitRoundoff(dtype) + 1e-4;
    EXPECT_TRUE(test::Near(dgamma.ToDoubles(), want.dgamma, tolerance));
    EXPECT_FALSE(test::Near(dgamma.ToDoubles(), test::Disturbed(want.dgamma, 5, 4), tolerance));
    EXPECT_TRUE(test::Near(dbeta.ToDoubles(), want.dbeta, tolerance));
    EXPECT_FALSE(test::Near(dbeta.ToDoubles(), test::Disturbed(want.dbeta, 5, 4), tolerance));
  }
}

TEST(LayerNormTest, ThreadsRepetitionAndAliasesDoNotChangeABit) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    Problem p({200, 515, dtype, dtype, false, 0});
    const Shape shape = {200, 515};
    const test::TestExec one(1), two(2);
    const HostTensor y(dtype, shape), dx(dtype, shape), dgamma(dtype, {515});
    ASSERT_TRUE(test::IsOk(TE_OP(LayerNormForward)(one, p.ForwardArgs(y))));
    const auto rstd = p.rstd.Bytes();
    LayerNormBackwardArgs backward = p.BackwardArgs(dx, dgamma);
    backward.add = p.add;
    ASSERT_TRUE(test::IsOk(TE_OP(LayerNormBackward)(one, backward)));
    for (int repeat = 0; repeat < 2; ++repeat) {
      Problem q({200, 515, dtype, dtype, false, 0});
      LayerNormForwardArgs args = q.ForwardArgs(q.x);  // in place
      const HostTensor dgamma2(dtype, {515});
      LayerNormBackwardArgs backward2 = p.BackwardArgs(repeat == 0 ? q.add : q.dy, dgamma2);
      backward2.add = q.add;
      backward2.dy = q.dy;
      ASSERT_TRUE(test::IsOk(TE_OP(LayerNormForward)(two, args)));
      ASSERT_TRUE(test::IsOk(TE_OP(LayerNormBackward)(two, backward2)));
      EXPECT_EQ(q.x.Bytes(), y.Bytes());
      EXPECT_EQ(q.rstd.Bytes(), rstd);
      EXPECT_EQ((repeat == 0 ? q.add : q.dy).Bytes(), dx.Bytes());
      EXPECT_EQ(dgamma2.Bytes(), dgamma.Bytes());
    }
  }
}

TEST(LayerNormTest, FrozenParametersAndMomentsAreOptional) {
  const test::TestExec exec;
  Problem p({4, 9, DType::kFloat32, DType::kFloat32, false, 0});
  const HostTensor y(DType::kFloat32, {4, 9}), dx(DType::kFloat32, {4, 9}),
      dx2(DType::kFloat32, {4, 9}), dgamma(DType::kFloat32, {9});
  LayerNormForwardArgs args = p.ForwardArgs(y);
  args.mean = TensorView();
  args.rstd = TensorView();
  EXPECT_TRUE(test::IsOk(TE_OP(LayerNormForward)(exec, args)));
  LayerNormBackwardArgs backward = p.BackwardArgs(dx, dgamma);
  EXPECT_TRUE(test::IsOk(TE_OP(LayerNormBackward)(exec, backward)));
  backward.dgamma = TensorView();
  backward.dx = Sink(dx2);
  EXPECT_TRUE(test::IsOk(TE_OP(LayerNormBackward)(exec, backward)));
  EXPECT_EQ(dx.Bytes(), dx2.Bytes());
}

TEST(LayerNormTest, NanInARowStaysInThatRow) {
  const test::TestExec exec;
  Problem p({2, 20, DType::kBFloat16, DType::kBFloat16, false, 0});
  p.x.view().as<bfloat16>()[3] = bfloat16(std::nanf(""));
  const HostTensor y(DType::kBFloat16, {2, 20});
  ASSERT_TRUE(test::IsOk(TE_OP(LayerNormForward)(exec, p.ForwardArgs(y))));
  const Doubles got = y.ToDoubles();
  for (int64_t i = 0; i < 40; ++i) EXPECT_EQ(std::isnan(got[i]), i < 20) << i;
}

TEST(LayerNormTest, QuantizedSinksHoldTheQuantizedDenseResult) {
  const test::TestExec exec;
  const int64_t shapes[][2] = {{16, 16}, {48, 512}, {0, 16}, {7, 13}, {17, 31}};
  for (const auto& [tokens, hidden] : shapes) {
    for (const DType dtype : {DType::kBFloat16, DType::kFloat32}) {
      Problem p({tokens, hidden, dtype, DType::kFloat32, false, 8});
      const auto forward = [&](const Exec& e, const Sink& sink) {
        LayerNormForwardArgs args = p.ForwardArgs(p.x);
        args.y = sink;
        return TE_OP(LayerNormForward)(e, args);
      };
      test::ExpectSinksQuantizeTheDenseResult(exec, dtype, {tokens, hidden}, tokens, hidden,
                                              nullptr, forward);
      const HostTensor dgamma(DType::kFloat32, {hidden}), dbeta(DType::kFloat32, {hidden});
      const auto backward = [&](const Exec& e, const Sink& sink) {
        LayerNormBackwardArgs args = p.BackwardArgs(p.dy, dgamma);
        args.dbeta = dbeta;
        args.dx = sink;
        return TE_OP(LayerNormBackward)(e, args);
      };
      test::ExpectSinksQuantizeTheDenseResult(exec, dtype, {tokens, hidden}, tokens, hidden,
                                              nullptr, backward);
    }
  }
}

TEST(LayerNormTest, RefusesWhatDoesNotFitByName) {
  const test::TestExec exec;
  Problem p({2, 4, DType::kFloat32, DType::kFloat32, false, 0});
  const HostTensor y(DType::kFloat32, {2, 4}), wrong(DType::kFloat32, {2, 5}),
      dgamma(DType::kFloat32, {4}), half(DType::kFloat16, {2, 4});
  constexpr StatusCode kBad = StatusCode::kInvalidArgument;
  const LayerNormForwardArgs good = p.ForwardArgs(y);
  LayerNormForwardArgs args = good;
  args.y = Sink(wrong);
  EXPECT_TRUE(test::FailsWith(TE_OP(LayerNormForward)(exec, args), kBad, "y is float32 [2, 5]"));
  args = good;
  args.x = half;
  EXPECT_TRUE(test::FailsWith(TE_OP(LayerNormForward)(exec, args), kBad, "x is float16 [2, 4]"));
  args = good;
  args.gamma = wrong;
  EXPECT_TRUE(test::FailsWith(TE_OP(LayerNormForward)(exec, args), kBad, "gamma is"));
  args = good;
  args.rstd = wrong;
  EXPECT_TRUE(test::FailsWith(TE_OP(LayerNormForward)(exec, args), kBad, "rstd is"));
  args = good;
  args.epsilon = -1;
  EXPECT_TRUE(test::FailsWith(TE_OP(LayerNormForward)(exec, args), kBad, "epsilon is -1"));
  args = good;
  args.y = Sink();
  EXPECT_TRUE(test::FailsWith(TE_OP(LayerNormForward)(exec, args), kBad, "y is nothing"));
  args.y.quant.format = QuantFormat::kFloat8E4M3;
  args.y.quant.rowwise_data = wrong;
  EXPECT_TRUE(test::FailsWith(TE_OP(LayerNormForward)(exec, args), kBad,
                              "y's rowwise data is float32 [2, 5]"));
  const LayerNormBackwardArgs good_backward = p.BackwardArgs(y, dgamma);
  LayerNormBackwardArgs backward = good_backward;
  backward.dy = wrong;
  EXPECT_TRUE(test::FailsWith(TE_OP(LayerNormBackward)(exec, backward), kBad, "dy is"));
  backward = good_backward;
  backward.rstd = ConstTensorView();
  EXPECT_TRUE(test::FailsWith(TE_OP(LayerNormBackward)(exec, backward), kBad, "rstd is nothing"));
  backward = good_backward;
  backward.add = wrong;
  EXPECT_TRUE(test::FailsWith(TE_OP(LayerNormBackward)(exec, backward), kBad, "add is"));
  backward = good_backward;
  backward.dgamma = wrong;
  EXPECT_TRUE(test::FailsWith(TE_OP(LayerNormBackward)(exec, backward), kBad, "dgamma is"));
}

}  // namespace
}  // namespace te
