#include "te_kernels/softmax/softmax.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "gtest/gtest.h"
#include "te_kernels/attention/attention_ref.h"
#include "te_kernels/testing/host_tensor.h"
#include "te_kernels/testing/near.h"
#include "te_kernels/testing/test_device.h"

namespace te {
namespace {

using test::HostTensor;
using Doubles = std::vector<double>;

constexpr float kScale = 0.7f;

// Row by row, from the definition; the mask is the attention reference's.
Doubles Reference(const HostTensor& x, const AttentionMask& mask) {
  const ConstTensorView view = x;
  const ref::AttentionShape s{
      view.dim(0), view.dim(2), view.dim(3), view.dim(1), view.dim(1), 1, 1};
  const Doubles in = x.ToDoubles();
  Doubles out(in.size(), 0.0);
  int64_t row = 0;
  for (int64_t b = 0; b < s.batch; ++b) {
    for (int64_t h = 0; h < s.heads; ++h) {
      for (int64_t i = 0; i < s.queries; ++i, ++row) {
        double sum = 0, most = -1e300;
        for (int64_t j = 0; j < s.keys; ++j) {
          if (ref::Visible(mask, s, b, h, i, j))
            most = std::max(most, kScale * in[row * s.keys + j]);
        }
        for (int64_t j = 0; j < s.keys; ++j) {
          if (ref::Visible(mask, s, b, h, i, j))
            sum += out[row * s.keys + j] = std::exp(kScale * in[row * s.keys + j] - most);
        }
        for (int64_t j = 0; j < s.keys; ++j) {
          if (sum > 0) out[row * s.keys + j] /= sum;
        }
      }
    }
  }
  return out;
}

struct Case {
  Shape shape;
  DType dtype;
  AttentionMaskType type;
};

std::vector<Case> Cases() {
  std::vector<Case> out;
  for (DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    for (AttentionMaskType type :
         {AttentionMaskType::kNoMask, AttentionMaskType::kPadding, AttentionMaskType::kCausal,
          AttentionMaskType::kPaddingCausal, AttentionMaskType::kCausalBottomRight,
          AttentionMaskType::kPaddingCausalBottomRight, AttentionMaskType::kArbitrary}) {
      for (const Shape& shape : {Shape{1, 1, 1, 1},
                                 {2, 3, 5, 7},
                                 {1, 2, 16, 16},
                                 {1, 1, 3, 131},
                                 {0, 2, 3, 4},
                                 // One for each way of the CUDA kernels to hold a row, or not.
                                 {1, 2, 2, 256},
                                 {1, 1, 2, 1000},
                                 {1, 1, 2, 4096},
                                 {1, 1, 1, 10'000},
                                 {1, 1, 1, 40'000},
                                 {1, 1, 1, 1001},
                                 {1, 1, 1, 9001}}) {
        out.push_back({shape, dtype, type});
      }
    }
  }
  return out;
}

AttentionMask MaskOf(const Case& c, const HostTensor& padding, const HostTensor& arbitrary) {
  return {.type = c.type, .padding = padding, .arbitrary = arbitrary};
}

HostTensor Bits(const Shape& shape, uint64_t seed) {
  Doubles values = test::UniformDoubles(shape.elements(), seed, 0, 1);
  for (double& v : values) v = v < 0.3 ? 1 : 0;
  return HostTensor(DType::kUInt8, shape, values);
}

// exp errs by 2 ulp, its argument by 2 roundings of at most |scale x| <= 8; the sum of `keys`
// positive terms and the quotient add their own. p <= 1, and the store rounds once.
double Tolerance(const Case& c) {
  const double u = test::UnitRoundoff(DType::kFloat32);
  return (2 * 8 + 8 + static_cast<double>(c.shape[3])) * u + test::UnitRoundoff(c.dtype);
}

TEST(Softmax, ForwardAndBackwardAgreeForEveryMask) {
  for (const Case& c : Cases()) {
    SCOPED_TRACE(fmt::format("{} {} {}", Name(c.dtype), c.shape.ToString(), Name(c.type)));
    const HostTensor x = HostTensor::Normal(c.dtype, c.shape, 1, 2);
    const HostTensor dy = HostTensor::Normal(c.dtype, c.shape, 2);
    const HostTensor padding = Bits({c.shape[0], c.shape[3]}, 3),
                     arbitrary = Bits({1, 1, c.shape[2], c.shape[3]}, 4);
    const AttentionMask mask = MaskOf(c, padding, arbitrary);
    HostTensor y(c.dtype, c.shape), dx(c.dtype, c.shape);
    std::vector<uint8_t> first_y, first_dx;
    for (int threads : {1, 2, 2}) {
      test::TestExec exec(threads);
      ASSERT_TRUE(
          test::IsOk(TE_OP(SoftmaxForward)(exec, {.x = x, .mask = mask, .scale = kScale, .y = y})));
      ASSERT_TRUE(
          test::IsOk(TE_OP(SoftmaxBackward)(exec, {.y = y, .dy = dy, .scale = kScale, .dx = dx})));
      if (threads == 1) first_y = y.Bytes(), first_dx = dx.Bytes();
      EXPECT_EQ(y.Bytes(), first_y);
      EXPECT_EQ(dx.Bytes(), first_dx);
    }
    const Doubles want = Reference(x, mask);
    EXPECT_TRUE(test::Near(y.ToDoubles(), want, Tolerance(c)));
    if (!want.empty()) {
      EXPECT_FALSE(test::Near(y.ToDoubles(), test::Disturbed(want, 0, 0.05), Tolerance(c)));
    }
    // dx from the y that was stored: scale y (dy - sum dy y), a sum of `keys` products.
    const Doubles ys = y.ToDoubles(), dys = dy.ToDoubles();
    Doubles want_dx, tolerance;
    const auto keys = static_cast<size_t>(c.shape[3]);
    for (size_t row = 0; row < ys.size(); row += keys) {
      double dot = 0, size = 0;
      for (size_t i = row; i < row + keys; ++i) {
        dot += ys[i] * dys[i];
        size += std::abs(ys[i] * dys[i]);
      }
      for (size_t i = row; i < row + keys; ++i) {
        want_dx.push_back(kScale * ys[i] * (dys[i] - dot));
        tolerance.push_back(kScale * ys[i] * (size + std::abs(dys[i])) *
                            ((static_cast<double>(keys) + 4) * test::UnitRoundoff(DType::kFloat32) +
                             1.01 * test::UnitRoundoff(c.dtype)));
      }
    }
    EXPECT_TRUE(test::Near(dx.ToDoubles(), want_dx, tolerance));
  }
}

TEST(Softmax, WindowsAndMasksOfEveryHead) {
  const Shape shape = {2, 3, 9, 24};
  const HostTensor x = HostTensor::Normal(DType::kFloat32, shape, 1, 2);
  const HostTensor padding = Bits({2, 24}, 3), arbitrary = Bits(shape, 4);
  const HostTensor y(DType::kFloat32, shape);
  test::TestExec exec;
  const Case c{shape, DType::kFloat32, AttentionMaskType::kNoMask};
  for (AttentionMaskType type :
       {AttentionMaskType::kNoMask, AttentionMaskType::kPadding, AttentionMaskType::kCausal,
        AttentionMaskType::kCausalBottomRight, AttentionMaskType::kArbitrary}) {
    for (const int64_t left : {-1, 0, 4}) {
      for (const int64_t right : {-1, 0, 2}) {
        const AttentionMask mask = {.type = type,
                                    .padding = padding,
                                    .arbitrary = arbitrary,
                                    .window_left = left,
                                    .window_right = right};
        ASSERT_TRUE(test::IsOk(
            TE_OP(SoftmaxForward)(exec, {.x = x, .mask = mask, .scale = kScale, .y = y})));
        const Doubles want = Reference(x, mask);
        EXPECT_TRUE(test::Near(y.ToDoubles(), want, Tolerance(c))) << left << " " << right;
        EXPECT_FALSE(test::Near(y.ToDoubles(), test::Disturbed(want, 30, 0.05), Tolerance(c)));
      }
    }
  }
}

TEST(Softmax, OutputsMayBeInputs) {
  for (const int64_t keys : {24, 33, 40'000}) {
    const Shape shape = {1, 2, 3, keys};
    test::TestExec exec;
    const HostTensor x = HostTensor::Normal(DType::kBFloat16, shape, 1, 2);
    const HostTensor dy = HostTensor::Normal(DType::kBFloat16, shape, 2);
    const HostTensor y(DType::kBFloat16, shape), dx(DType::kBFloat16, shape);
    ASSERT_TRUE(test::IsOk(TE_OP(SoftmaxForward)(exec, {.x = x, .y = y})));
    ASSERT_TRUE(test::IsOk(TE_OP(SoftmaxForward)(exec, {.x = x, .y = x})));
    EXPECT_EQ(x.Bytes(), y.Bytes());
    ASSERT_TRUE(test::IsOk(TE_OP(SoftmaxBackward)(exec, {.y = y, .dy = dy, .dx = dx})));
    ASSERT_TRUE(test::IsOk(TE_OP(SoftmaxBackward)(exec, {.y = y, .dy = dy, .dx = dy})));
    EXPECT_EQ(dy.Bytes(), dx.Bytes());
  }
}

TEST(Softmax, ManyRowsAndInfinities) {
  const Shape shape = {1, 70'001, 1, 2};
  const HostTensor x = HostTensor::Normal(DType::kFloat32, shape, 1, 2);
  float* values = x.view().as<float>();
  values[0] = values[1] = values[2] = -HUGE_VALF;  // the first row sees nothing, the second half
  const HostTensor y(DType::kFloat32, shape);
  test::TestExec exec;
  const AttentionMask mask = {.type = AttentionMaskType::kNoMask};
  ASSERT_TRUE(
      test::IsOk(TE_OP(SoftmaxForward)(exec, {.x = x, .mask = mask, .scale = kScale, .y = y})));
  Doubles want = Reference(x, mask);
  want[0] = want[1] = 0;
  const double tolerance = Tolerance({shape, DType::kFloat32, AttentionMaskType::kNoMask});
  EXPECT_TRUE(test::Near(y.ToDoubles(), want, tolerance));
  EXPECT_FALSE(test::Near(y.ToDoubles(), test::Disturbed(want, 140'001, 0.01), tolerance));
}

TEST(Softmax, BadArgumentsAreNamed) {
  test::TestExec exec;
  const HostTensor x(DType::kFloat32, {1, 1, 2, 3}), small(DType::kFloat32, {1, 1, 2, 2});
  EXPECT_TRUE(test::FailsWith(TE_OP(SoftmaxForward)(exec, {.x = x, .y = small}),
                              StatusCode::kInvalidArgument, "softmax_forward: y is"));
  EXPECT_TRUE(test::FailsWith(TE_OP(SoftmaxForward)(exec, {.x = x, .scale = -1, .y = x}),
                              StatusCode::kInvalidArgument, "scale is -1"));
}

}  // namespace
}  // namespace te
