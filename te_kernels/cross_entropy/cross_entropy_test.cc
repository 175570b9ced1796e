#include "te_kernels/cross_entropy/cross_entropy.h"

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstring>
#include <limits>
#include <vector>

#include "fmt/format.h"
#include "gtest/gtest.h"
#include "te_kernels/cross_entropy/cross_entropy_ref.h"
#include "te_kernels/testing/host_tensor.h"
#include "te_kernels/testing/near.h"
#include "te_kernels/testing/test_device.h"

namespace te {
namespace {

using test::HostTensor;
using Complex = std::complex<double>;
using Doubles = std::vector<double>;

struct Case {
  int64_t rows, classes, pad;
  DType dtype;
  float smoothing;
};

Doubles Labels(const Case& c) {
  Doubles out;
  for (int64_t t = 0; t < c.rows; ++t)
    out.push_back(t % 3 == 1 ? kIgnoreIndex : static_cast<double>(t * 7 % c.classes));
  return out;
}

struct Expected {
  Doubles loss, loss_tolerance, gradient, gradient_tolerance;
};

// Loss and gradient of every row, and bounds of their errors.
Expected Reference(const Case& c, const Doubles& x, const Doubles& labels) {
  const double u = test::UnitRoundoff(DType::kFloat32);
  const double smoothing = c.smoothing, classes = static_cast<double>(c.classes);
  // Every backend adds in at least 8 lanes.
  const double sum_error = (classes / 8 + 16) * u;
  Expected out;
  for (int64_t t = 0; t < c.rows; ++t) {
    std::vector<Complex> row(x.begin() + t * c.classes, x.begin() + (t + 1) * c.classes);
    const bool counted = labels[t] != kIgnoreIndex;
    const int64_t label = static_cast<int64_t>(labels[t]);
    if (!counted) {
      out.loss.push_back(0);
      out.loss_tolerance.push_back(0);
      out.gradient.insert(out.gradient.end(), c.classes, 0.0);
      out.gradient_tolerance.insert(out.gradient_tolerance.end(), c.classes, 0.0);
      continue;
    }
    double most = 0;
    for (const Complex& v : row) most = std::max(most, std::abs(v.real()));
    // The sum of exponentials errs relatively, so its logarithm absolutely; the terms, each of at
    // most max|x| + log V, by a few roundings; the mean by the error of its sum.
    const double lse = ref::CrossEntropy(row, label, 0).real() + row[label].real();
    const double lse_error = sum_error + (4 + 6 * (most + 12)) * u;
    out.loss.push_back(ref::CrossEntropy(row, label, smoothing).real());
    out.loss_tolerance.push_back(lse_error + smoothing * sum_error * most);
    for (int64_t j = 0; j < c.classes; ++j) {
      const double p = std::exp(row[j].real() - lse);
      const double gradient = p - smoothing / classes - (j == label ? 1 - smoothing : 0);
      // Exact, by the complex step, where rows are short enough for it.
      if (c.classes < 2000) {
        row[j] += Complex(0, 1e-30);
        EXPECT_NEAR(ref::CrossEntropy(row, label, smoothing).imag() / 1e-30, gradient, 1e-14);
        row[j] -= Complex(0, 1e-30);
      }
      out.gradient.push_back(gradient);
      // The probability errs by lse's error, that of exp, and the rounding of exp's argument; the
      // other terms round a few times; the store rounds once.
      out.gradient_tolerance.push_back(
          p * (lse_error + 30 * u + 2 * std::abs(row[j].real() - lse) * u) +
          4 * u * (smoothing / classes + (j == label)) +
          test::UnitRoundoff(c.dtype) * std::abs(gradient));
    }
  }
  return out;
}

void ExpectAgreement(const std::vector<Case>& cases) {
  for (const Case& c : cases) {
    SCOPED_TRACE(fmt::format("{} {}x{} pad {} smoothing {}", Name(c.dtype), c.rows, c.classes,
                             c.pad, c.smoothing));
    const HostTensor logits = HostTensor::Normal(c.dtype, {c.rows, c.classes}, 1, 3, c.pad);
    const HostTensor labels(DType::kInt32, {c.rows}, Labels(c));
    HostTensor loss(DType::kFloat32, {c.rows}), dlogits(c.dtype, {c.rows, c.classes}, c.pad);
    const Expected want = Reference(c, logits.ToDoubles(), labels.ToDoubles());
    std::vector<uint8_t> first;
    for (int threads : {1, 2}) {
      ASSERT_TRUE(test::IsOk(
          TE_OP(CrossEntropy)(test::TestExec(threads).exec(), {.logits = logits,
                                                               .labels = labels,
                                                               .label_smoothing = c.smoothing,
                                                               .loss = loss,
                                                               .dlogits = dlogits})));
      if (first.empty()) first = dlogits.Bytes();
      EXPECT_EQ(dlogits.Bytes(), first);
    }
    EXPECT_TRUE(test::Near(loss.ToDoubles(), want.loss, want.loss_tolerance));
    EXPECT_TRUE(test::Near(dlogits.ToDoubles(), want.gradient, want.gradient_tolerance));
    EXPECT_TRUE(dlogits.GuardsIntact());
    if (c.rows == 0) continue;
    EXPECT_FALSE(test::Near(loss.ToDoubles(),
                            test::Disturbed(want.loss, 0, 3 * want.loss_tolerance[0]),
                            want.loss_tolerance));
    const int64_t last = c.classes - 1;
    EXPECT_FALSE(
        test::Near(dlogits.ToDoubles(),
                   test::Disturbed(want.gradient, last, 3 * want.gradient_tolerance[last] + 1e-7),
                   want.gradient_tolerance));
  }
}

TEST(CrossEntropy, LossAndGradientAgree) {
  std::vector<Case> cases;
  for (DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    for (float smoothing : {0.0f, 0.1f}) {
      for (const auto& [rows, classes] :
           {std::pair<int64_t, int64_t>{1, 1}, {4, 7}, {3, 16}, {5, 33}, {2, 1031}, {0, 5}}) {
        cases.push_back({rows, classes, 0, dtype, smoothing});
        cases.push_back({rows, classes, 5, dtype, smoothing});
      }
    }
  }
  ExpectAgreement(cases);
}

// Rows of one CUDA block, of clusters of 2 to 8 blocks, aligned to no vector, aligned with a tail,
// and longer than what a cluster keeps. The CPU has one way for all. (Tests of their own, and the
// next as well: a sanitizer takes minutes over these sizes.)
TEST(CrossEntropy, LongRowsAgree) {
  std::vector<Case> cases;
  for (DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    for (int64_t classes : {32000, 50257, 128256, 200000, 300007}) {
      if (test::kOnCuda || classes == 50257) cases.push_back({2, classes, 0, dtype, 0.1f});
    }
    if (test::kOnCuda) cases.push_back({2, 300007, 1, dtype, 0.1f});
  }
  ExpectAgreement(cases);
}

// More than a grid's second dimension has.
TEST(CrossEntropy, ManyRowsAgree) {
  const int64_t rows = test::kOnCuda ? 70001 : 701;
  ExpectAgreement({{rows, 9, 7, DType::kFloat32, 0.1f}, {rows, 9, 7, DType::kBFloat16, 0.1f}});
}

// CUDA's blocks stay for many rows: each gets what it gets alone, whatever its neighbours' labels
// are, with and without a gradient and in place.
struct ManyRowsCase {
  DType dtype;
  int64_t rows, classes, pad;
};

// On CUDA some three rows for each block, or cluster of 2, 4 or 8, that an H200 holds; and two rows
// for a few clusters, which compute-sanitizer's racecheck gets through.
std::vector<ManyRowsCase> ManyRowsCases() {
  if (!test::kOnCuda) return {{DType::kBFloat16, 19, 77, 3}, {DType::kFloat32, 19, 77, 3}};
  return {{DType::kBFloat16, 900, 32000, 0},  {DType::kBFloat16, 210, 128256, 0},
          {DType::kBFloat16, 70, 128256, 0},  {DType::kFloat32, 70, 65001, 3},
          {DType::kBFloat16, 105, 200000, 0}, {DType::kBFloat16, 55, 300007, 1},
          {DType::kFloat32, 900, 9000, 0},    {DType::kFloat32, 210, 65001, 3},
          {DType::kFloat32, 105, 128256, 0},  {DType::kFloat32, 55, 200000, 0}};
}

class CrossEntropyManyRows : public testing::TestWithParam<ManyRowsCase> {};

TEST_P(CrossEntropyManyRows, AreWhatEachIsAlone) {
  const auto& [dtype, rows, classes, pad] = GetParam();
  // Row t: the values from t on.
  const HostTensor values = HostTensor::Normal(dtype, {1, classes + rows}, 1, 3);
  HostTensor logits(dtype, {rows, classes}, pad), dlogits(dtype, {rows, classes}, pad);
  for (int64_t t = 0; t < rows; ++t) {
    const TensorView row = logits.view().Select(0, t);
    const ConstTensorView from = values.view().Select(0, 0).Slice(0, t, t + classes);
    std::memcpy(row.data(), from.data(), row.bytes());
  }
  Doubles label_of;
  const bool bad_labels = test::kOnCuda;  // where they are no error
  for (int64_t t = 0; t < rows; ++t) {
    const int64_t label[] = {kIgnoreIndex, bad_labels ? -1 : 1, bad_labels ? classes : 2, 0,
                             classes - 1,  t * 16384 % classes, t * 7919 % classes};
    label_of.push_back(static_cast<double>(label[t % 7]));
  }
  const HostTensor labels(DType::kInt32, {rows}, label_of);
  const HostTensor loss(DType::kFloat32, {rows}), loss_alone(DType::kFloat32, {rows});
  CrossEntropyArgs args;
  args.logits = logits;
  args.labels = labels;
  args.loss = loss;
  args.dlogits = dlogits;
  test::TestExec exec(1);
  ASSERT_TRUE(test::IsOk(TE_OP(CrossEntropy)(exec, args)));
  const std::vector<uint8_t> losses = loss.Bytes(), gradients = dlogits.Bytes();
  EXPECT_TRUE(dlogits.GuardsIntact());

  HostTensor alone(dtype, {rows, classes}, pad);
  // So few that each has a block, or a cluster of 8, to itself.
  constexpr int64_t kFew = 8;
  for (int64_t t = 0; t < rows; t += kFew) {
    const int64_t end = std::min(t + kFew, rows);
    ASSERT_TRUE(test::IsOk(TE_OP(CrossEntropy)(exec, {.logits = logits.view().Slice(0, t, end),
                                                      .labels = labels.view().Slice(0, t, end),
                                                      .loss = loss_alone.view().Slice(0, t, end),
                                                      .dlogits = alone.view().Slice(0, t, end)})));
  }
  EXPECT_TRUE(loss_alone.Bytes() == losses);
  EXPECT_TRUE(alone.Bytes() == gradients);

  args.dlogits = {};
  ASSERT_TRUE(test::IsOk(TE_OP(CrossEntropy)(exec, args)));
  EXPECT_TRUE(loss.Bytes() == losses) << "without a gradient";
  args.dlogits = logits;
  ASSERT_TRUE(test::IsOk(TE_OP(CrossEntropy)(exec, args)));
  EXPECT_TRUE(loss.Bytes() == losses) << "in place";
  EXPECT_TRUE(logits.Bytes() == gradients) << "in place";
}

INSTANTIATE_TEST_SUITE_P(Shapes, CrossEntropyManyRows, testing::ValuesIn(ManyRowsCases()),
                         [](const auto& info) {
                           const ManyRowsCase& c = info.param;
                           return fmt::format("{}_{}x{}", Name(c.dtype), c.rows, c.classes);
                         });

TEST(CrossEntropy, InPlaceGivesTheSameBits) {
  for (DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    HostTensor logits = HostTensor::Normal(dtype, {6, 77}, 1, 3);
    const HostTensor labels(DType::kInt32, {6}, Labels({6, 77, 0, dtype, 0}));
    HostTensor loss(DType::kFloat32, {6}), dlogits(dtype, {6, 77});
    test::TestExec exec(2);
    ASSERT_TRUE(test::IsOk(TE_OP(CrossEntropy)(
        exec, {.logits = logits, .labels = labels, .loss = loss, .dlogits = dlogits})));
    const std::vector<uint8_t> losses = loss.Bytes();
    ASSERT_TRUE(
        test::IsOk(TE_OP(CrossEntropy)(exec, {.logits = logits, .labels = labels, .loss = loss})));
    EXPECT_EQ(loss.Bytes(), losses) << "without a gradient";
    ASSERT_TRUE(test::IsOk(TE_OP(CrossEntropy)(
        exec, {.logits = logits, .labels = labels, .loss = loss, .dlogits = logits})));
    EXPECT_EQ(loss.Bytes(), losses);
    EXPECT_EQ(logits.Bytes(), dlogits.Bytes());
  }
}

void ExpectRow(DType dtype, const Doubles& x, int64_t label, int64_t pad, double loss_wanted,
               const Doubles& gradient_wanted) {
  const auto classes = static_cast<int64_t>(x.size());
  const HostTensor logits(dtype, {1, classes}, x, pad);
  const HostTensor labels(DType::kInt32, {1}, Doubles{static_cast<double>(label)});
  HostTensor loss(DType::kFloat32, {1}), dlogits(dtype, {1, classes}, pad);
  ASSERT_TRUE(test::IsOk(
      TE_OP(CrossEntropy)(test::TestExec().exec(),
                          {.logits = logits, .labels = labels, .loss = loss, .dlogits = dlogits})));
  EXPECT_TRUE(test::Near(loss.ToDoubles(), {loss_wanted}, 0x1p-20));
  EXPECT_TRUE(test::Near(dlogits.ToDoubles(), gradient_wanted, test::UnitRoundoff(dtype)));
}

// Masked logits are finite and large, or infinite; the others have what they have without them.
TEST(CrossEntropy, MaskedLogitsTakeNoPart) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  for (DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    for (int64_t pad : {0, 1}) {  // whole vectors, and none
      for (double mask : {-1e3, -1e9, -1e10, -1e12, -1e30, -3.3e38, -kInfinity}) {
        SCOPED_TRACE(fmt::format("{} mask {} pad {}", Name(dtype), mask, pad));
        Doubles x(32, 0.0), want(32, 1.0 / 16);
        for (int64_t j = 0; j < 16; ++j) x[j] = mask, want[j] = 0;
        want[20] -= 1;
        ExpectRow(dtype, x, 20, pad, std::log(16), want);
      }
    }
  }
}

TEST(CrossEntropy, ARowOfOneLargeValueIsUniform) {
  for (DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    for (double value : {-3.3e38, -1e30, -1e10, -100.0, 100.0, 1e10, 1e30, 3.3e38}) {
      SCOPED_TRACE(fmt::format("{} of {}", value, Name(dtype)));
      Doubles want(32, 1.0 / 32);
      want[7] -= 1;
      ExpectRow(dtype, Doubles(32, value), 7, 0, std::log(32), want);
    }
  }
}

TEST(CrossEntropy, AnInfiniteLossIsInfiniteAndNanStaysNan) {
  const double nan = std::nan(""), infinity = std::numeric_limits<double>::infinity();
  const HostTensor labels(DType::kInt32, {4}, Doubles{1, 1, 1, 1});
  // The label's logit -infinity; another NaN; all -infinity; nothing of the kind.
  const HostTensor logits(DType::kFloat32, {4, 4},
                          Doubles{0, -infinity, 0, 0, 0, 0, nan, 0, -infinity, -infinity, -infinity,
                                  -infinity, 0, 0, 0, 0});
  for (float smoothing : {0.0f, 0.1f}) {
    HostTensor loss(DType::kFloat32, {4}), dlogits(DType::kFloat32, {4, 4});
    ASSERT_TRUE(
        test::IsOk(TE_OP(CrossEntropy)(test::TestExec().exec(), {.logits = logits,
                                                                 .labels = labels,
                                                                 .label_smoothing = smoothing,
                                                                 .loss = loss,
                                                                 .dlogits = dlogits})));
    const double third = 1.0 / 3 - smoothing / 4, fourth = (1 - smoothing) / 4;
    const double label = -(1 - smoothing) - smoothing / 4;
    EXPECT_TRUE(test::Near(loss.ToDoubles(), {infinity, nan, nan, std::log(4)}, 0x1p-20));
    EXPECT_TRUE(test::Near(dlogits.ToDoubles(),
                           {third, label, third, third, nan, nan, nan, nan, nan, nan, nan, nan,
                            fourth, fourth - (1 - smoothing), fourth, fourth},
                           0x1p-20));
  }
}

TEST(CrossEntropy, LargeLogitsDoNotOverflow) {
  const HostTensor logits(DType::kFloat32, {1, 3}, {1e4, -1e4, 9.9e3});
  const HostTensor labels(DType::kInt32, {1}, Doubles{1});
  HostTensor loss(DType::kFloat32, {1}), dlogits(DType::kFloat32, {1, 3});
  ASSERT_TRUE(test::IsOk(
      TE_OP(CrossEntropy)(test::TestExec().exec(),
                          {.logits = logits, .labels = labels, .loss = loss, .dlogits = dlogits})));
  EXPECT_TRUE(test::Near(loss.ToDoubles(), {2e4}, 2e4 * 0x1p-22));
  EXPECT_TRUE(test::Near(dlogits.ToDoubles(), {1, -1, 0}, 0x1p-22));
}

TEST(CrossEntropy, ABadLabelIsNamedBeforeAnythingIsWritten) {
  if (test::kOnCuda) GTEST_SKIP() << "labels are on the device: the next test";
  const HostTensor logits(DType::kFloat32, {2, 3});
  const HostTensor labels(DType::kInt32, {2}, Doubles{0, 3});
  HostTensor loss(DType::kFloat32, {2}, Doubles{5, 5});
  EXPECT_TRUE(
      test::FailsWith(TE_OP(CrossEntropy)(test::TestExec().exec(),
                                          {.logits = logits, .labels = labels, .loss = loss}),
                      StatusCode::kInvalidArgument, "labels[1] is 3"));
  EXPECT_TRUE(test::Near(loss.ToDoubles(), {5, 5}, 0));
}

TEST(CrossEntropy, ABadLabelMakesItsRowNanOnADevice) {
  if (!test::kOnCuda) GTEST_SKIP() << "the CPU reports it: the test before";
  for (double bad : {3.0, -1.0}) {
    for (int64_t pad : {0, 5}) {  // aligned to no vector, and aligned
      const HostTensor logits(DType::kFloat32, {3, 3}, pad);
      const HostTensor labels(DType::kInt32, {3}, Doubles{0, bad, kIgnoreIndex});
      HostTensor loss(DType::kFloat32, {3}), dlogits(DType::kFloat32, {3, 3}, pad);
      ASSERT_TRUE(test::IsOk(TE_OP(CrossEntropy)(
          test::TestExec().exec(),
          {.logits = logits, .labels = labels, .loss = loss, .dlogits = dlogits})));
      const double nan = std::nan("");
      EXPECT_TRUE(test::Near(loss.ToDoubles(), {std::log(3), nan, 0}, 0x1p-20));
      EXPECT_TRUE(test::Near(dlogits.ToDoubles(),
                             {-2.0 / 3, 1.0 / 3, 1.0 / 3, nan, nan, nan, 0, 0, 0}, 0x1p-20));
    }
  }
}

}  // namespace
}  // namespace te
