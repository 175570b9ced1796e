#include "te_kernels/cross_entropy/cross_entropy.h"

#include <algorithm>
#include <cmath>
#include <complex>
#include <vector>

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

// Rows of one CUDA block, of clusters of 4 and 8 small blocks and of 8 large ones; aligned to no
// vector; longer than what a cluster keeps. The CPU has one way for all. (Tests of their own, and
// the next as well: a sanitizer takes minutes over these sizes.)
TEST(CrossEntropy, LongRowsAgree) {
  std::vector<Case> cases;
  for (DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    for (int64_t classes : {32000, 50257, 128256, 200000, 300007}) {
      if (test::kOnCuda || classes == 50257) cases.push_back({2, classes, 0, dtype, 0.1f});
    }
  }
  ExpectAgreement(cases);
}

// More than a grid's second dimension has.
TEST(CrossEntropy, ManyRowsAgree) {
  const int64_t rows = test::kOnCuda ? 70001 : 701;
  ExpectAgreement({{rows, 9, 7, DType::kFloat32, 0.1f}, {rows, 9, 7, DType::kBFloat16, 0.1f}});
}

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
    const HostTensor logits(DType::kFloat32, {3, 3});
    const HostTensor labels(DType::kInt32, {3}, Doubles{0, bad, kIgnoreIndex});
    HostTensor loss(DType::kFloat32, {3}), dlogits(DType::kFloat32, {3, 3});
    ASSERT_TRUE(test::IsOk(TE_OP(CrossEntropy)(
        test::TestExec().exec(),
        {.logits = logits, .labels = labels, .loss = loss, .dlogits = dlogits})));
    const double nan = std::nan("");
    EXPECT_TRUE(test::Near(loss.ToDoubles(), {std::log(3), nan, 0}, 0x1p-20));
    EXPECT_TRUE(test::Near(dlogits.ToDoubles(),
                           {-2.0 / 3, 1.0 / 3, 1.0 / 3, nan, nan, nan, 0, 0, 0}, 0x1p-20));
  }
}

}  // namespace
}  // namespace te
