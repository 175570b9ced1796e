#include "te_kernels/repeat_kv/repeat_kv.h"

#include <vector>

#include "gtest/gtest.h"
#include "te_kernels/repeat_kv/repeat_kv_ref.h"
#include "te_kernels/testing/host_tensor.h"
#include "te_kernels/testing/near.h"
#include "te_kernels/testing/test_device.h"

namespace te {
namespace {

using test::HostTensor;
using Doubles = std::vector<double>;

constexpr int64_t kShapes[][5] = {  // B, g, n, S, d
    {1, 1, 1, 1, 1},  {2, 2, 6, 3, 7}, {1, 3, 3, 5, 16},
    {2, 1, 8, 2, 33}, {1, 2, 4, 0, 8}, {3, 4, 8, 17, 64}};

TEST(RepeatKvTest, ForwardCopiesTheReferencesElements) {
  const test::TestExec exec;
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    for (const auto& s : kShapes) {
      for (const int64_t pad : {0, 3}) {
        const HostTensor x = HostTensor::Normal(dtype, {s[0], s[1], s[3], s[4]}, 1, 1, pad);
        const HostTensor y(dtype, {s[0], s[2], s[3], s[4]}, pad);
        ASSERT_TRUE(test::IsOk(TE_OP(RepeatKvForward)(exec, {x, y})));
        const Doubles want = ref::RepeatKv(x.ToDoubles(), s[0], s[1], s[2], s[3] * s[4]);
        EXPECT_TRUE(test::Near(y.ToDoubles(), want, 0));
        EXPECT_TRUE(y.GuardsIntact());
        if (want.empty()) continue;
        EXPECT_FALSE(test::Near(y.ToDoubles(), test::Disturbed(want, want.size() - 1, 1e-6), 0));
      }
    }
  }
}

TEST(RepeatKvTest, BackwardSumsTheHeadsOfAGroup) {
  const test::TestExec exec;
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    for (const auto& s : kShapes) {
      for (const int64_t pad : {0, 3}) {
        const HostTensor dy = HostTensor::Normal(dtype, {s[0], s[2], s[3], s[4]}, 1, 1, pad);
        const HostTensor dx(dtype, {s[0], s[1], s[3], s[4]}, pad);
        ASSERT_TRUE(test::IsOk(TE_OP(RepeatKvBackward)(exec, {dy, dx})));
        const Doubles dys = dy.ToDoubles();
        const Doubles want = ref::RepeatKvBackward(dys, s[0], s[1], s[2], s[3] * s[4]);
        // A float32 sum of n / g terms, then one rounding.
        const double repeats = static_cast<double>(s[2]) / static_cast<double>(s[1]);
        const double tolerance = test::MaxAbs(want) * test::UnitRoundoff(dtype) +
                                 repeats * repeats * 0x1p-24 * test::MaxAbs(dys);
        EXPECT_TRUE(test::Near(dx.ToDoubles(), want, tolerance));
        EXPECT_TRUE(dx.GuardsIntact());
        if (want.empty()) continue;
        const Doubles twin = ref::RepeatKvBackward(test::Disturbed(dys, dys.size() - 1, 0.5), s[0],
                                                   s[1], s[2], s[3] * s[4]);
        EXPECT_FALSE(test::Near(dx.ToDoubles(), twin, tolerance));
      }
    }
  }
}

// <repeat(x), z> = <x, backward(z)>: exact in small integers.
TEST(RepeatKvTest, BackwardIsTheTransposeOfForward) {
  const test::TestExec exec;
  Doubles xs, zs;
  for (int i = 0; i < 2 * 2 * 3 * 5; ++i) xs.push_back(i % 7 - 3);
  for (int i = 0; i < 2 * 6 * 3 * 5; ++i) zs.push_back(i % 11 - 5);
  const HostTensor x(DType::kFloat32, {2, 2, 3, 5}, xs), z(DType::kFloat32, {2, 6, 3, 5}, zs);
  const HostTensor y(DType::kFloat32, {2, 6, 3, 5}), dx(DType::kFloat32, {2, 2, 3, 5});
  ASSERT_TRUE(test::IsOk(TE_OP(RepeatKvForward)(exec, {x, y})));
  ASSERT_TRUE(test::IsOk(TE_OP(RepeatKvBackward)(exec, {z, dx})));
  double left = 0, right = 0;
  const Doubles ys = y.ToDoubles(), ds = dx.ToDoubles();
  for (size_t i = 0; i < zs.size(); ++i) left += ys[i] * zs[i];
  for (size_t i = 0; i < xs.size(); ++i) right += xs[i] * ds[i];
  EXPECT_EQ(left, right);
  EXPECT_NE(left + ys[0] * 1.0, right);  // z[0] off by one
}

TEST(RepeatKvTest, WorksOnTransposedMemoryAndAnyThreads) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    const HostTensor x = HostTensor::Normal(dtype, {2, 33, 3, 64}, 1);  // [B, S, g, d]
    const HostTensor y(dtype, {2, 12, 33, 64}), y2(dtype, {2, 12, 33, 64}),
        dx(dtype, {2, 3, 33, 64}), dx2(dtype, {2, 33, 3, 64});
    const TensorView bgsd = x.view().Transpose(1, 2);
    ASSERT_TRUE(test::IsOk(TE_OP(RepeatKvForward)(test::TestExec(1), {bgsd, y})));
    ASSERT_TRUE(test::IsOk(TE_OP(RepeatKvBackward)(test::TestExec(1), {y, dx})));
    ASSERT_TRUE(test::IsOk(TE_OP(RepeatKvForward)(test::TestExec(2), {bgsd, y2})));
    ASSERT_TRUE(
        test::IsOk(TE_OP(RepeatKvBackward)(test::TestExec(2), {y, dx2.view().Transpose(1, 2)})));
    EXPECT_TRUE(
        test::Near(y.ToDoubles(), ref::RepeatKv(test::ToDoubles(bgsd), 2, 3, 12, 33 * 64), 0));
    EXPECT_EQ(y2.Bytes(), y.Bytes());
    EXPECT_EQ(test::BytesOf(dx2.view().Transpose(1, 2)), dx.Bytes());
  }
}

TEST(RepeatKvTest, RefusesWhatDoesNotFitByName) {
  const test::TestExec exec;
  constexpr StatusCode kBad = StatusCode::kInvalidArgument;
  const HostTensor x(DType::kFloat32, {1, 2, 3, 4}), odd(DType::kFloat32, {1, 5, 3, 4}),
      other(DType::kFloat32, {1, 4, 3, 5}), half(DType::kBFloat16, {1, 4, 3, 4});
  EXPECT_TRUE(test::FailsWith(TE_OP(RepeatKvForward)(exec, {x, odd}), kBad,
                              "y has 5 heads; expected a multiple of x's 2"));
  EXPECT_TRUE(
      test::FailsWith(TE_OP(RepeatKvForward)(exec, {x, other}), kBad, "y is float32 [1, 4, 3, 5]"));
  EXPECT_TRUE(test::FailsWith(TE_OP(RepeatKvForward)(exec, {x, half}), kBad, "y is bfloat16"));
  EXPECT_TRUE(test::FailsWith(TE_OP(RepeatKvBackward)(exec, {odd, x}), kBad, "dy has 5 heads"));
}

}  // namespace
}  // namespace te
