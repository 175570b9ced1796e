#include "te_kernels/cross_entropy/cross_entropy.h"

#include <algorithm>
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

// Loss, its error bound, and the exact gradient by the complex step, for every row.
void Reference(const Case& c, const Doubles& x, const Doubles& labels, Doubles* loss,
               Doubles* loss_tolerance, Doubles* gradient) {
  const double u = test::UnitRoundoff(DType::kFloat32);
  for (int64_t t = 0; t < c.rows; ++t) {
    std::vector<Complex> row(x.begin() + t * c.classes, x.begin() + (t + 1) * c.classes);
    const bool counted = labels[t] != kIgnoreIndex;
    const int64_t label = static_cast<int64_t>(labels[t]);
    loss->push_back(counted ? ref::CrossEntropy(row, label, c.smoothing).real() : 0);
    // The sum of exponentials errs by (V + 4) u relatively, so its logarithm absolutely; the three
    // terms, each of at most max|x| + log V, by a few roundings; the mean by V u max|x|.
    double most = 0;
    for (const Complex& v : row) most = std::max(most, std::abs(v.real()));
    loss_tolerance->push_back((c.classes + 4 + 6 * (most + 12) + c.smoothing * c.classes * most) *
                              u);
    for (Complex& v : row) {
      v += Complex(0, 1e-30);
      gradient->push_back(counted ? ref::CrossEntropy(row, label, c.smoothing).imag() / 1e-30 : 0);
      v -= Complex(0, 1e-30);
    }
  }
}

std::vector<Case> Cases() {
  std::vector<Case> out;
  for (DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    for (float smoothing : {0.0f, 0.1f}) {
      for (const auto& [rows, classes] :
           {std::pair<int64_t, int64_t>{1, 1}, {4, 7}, {3, 16}, {5, 33}, {2, 1031}, {0, 5}}) {
        out.push_back({rows, classes, 0, dtype, smoothing});
        out.push_back({rows, classes, 5, dtype, smoothing});
      }
    }
  }
  return out;
}

TEST(CrossEntropy, LossAndGradientAgree) {
  for (const Case& c : Cases()) {
    SCOPED_TRACE(fmt::format("{} {}x{} pad {} smoothing {}", Name(c.dtype), c.rows, c.classes,
                             c.pad, c.smoothing));
    const HostTensor logits = HostTensor::Normal(c.dtype, {c.rows, c.classes}, 1, 3, c.pad);
    const HostTensor labels(DType::kInt32, {c.rows}, Labels(c));
    HostTensor loss(DType::kFloat32, {c.rows}), dlogits(c.dtype, {c.rows, c.classes}, c.pad);
    Doubles want, tolerance, gradient;
    Reference(c, logits.ToDoubles(), labels.ToDoubles(), &want, &tolerance, &gradient);
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
    EXPECT_TRUE(test::Near(loss.ToDoubles(), want, tolerance));
    // Each probability <= 1 errs by the error of lse (the loss's bound) plus that of exp; the store
    // rounds once.
    const double u = test::UnitRoundoff(DType::kFloat32);
    const double gradient_tolerance =
        (tolerance.empty() ? 0 : *std::max_element(tolerance.begin(), tolerance.end())) + 30 * u +
        test::UnitRoundoff(c.dtype);
    EXPECT_TRUE(test::Near(dlogits.ToDoubles(), gradient, gradient_tolerance));
    EXPECT_TRUE(dlogits.GuardsIntact());
    if (c.rows > 0) {
      EXPECT_FALSE(test::Near(loss.ToDoubles(), test::Disturbed(want, 0, 0.01), tolerance));
      EXPECT_FALSE(
          test::Near(dlogits.ToDoubles(), test::Disturbed(gradient, 0, 0.05), gradient_tolerance));
    }
  }
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
  const HostTensor logits(DType::kFloat32, {2, 3});
  const HostTensor labels(DType::kInt32, {2}, Doubles{0, 3});
  HostTensor loss(DType::kFloat32, {2}, Doubles{5, 5});
  EXPECT_TRUE(
      test::FailsWith(TE_OP(CrossEntropy)(test::TestExec().exec(),
                                          {.logits = logits, .labels = labels, .loss = loss}),
                      StatusCode::kInvalidArgument, "labels[1] is 3"));
  EXPECT_TRUE(test::Near(loss.ToDoubles(), {5, 5}, 0));
}

}  // namespace
}  // namespace te
