#include "te_kernels/cast/cast.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "gtest/gtest.h"
#include "te_kernels/cast/cast_ref.h"
#include "te_kernels/testing/host_tensor.h"
#include "te_kernels/testing/near.h"
#include "te_kernels/testing/test_device.h"

namespace te {
namespace {

using test::FailsWith;
using test::HostTensor;
using test::IsOk;
using test::TestExec;

constexpr DType kFloating[] = {DType::kFloat32, DType::kBFloat16, DType::kFloat16, DType::kFloat64};

// Bitwise but for the sign of NaN: what CastRef says of each element, scaled by arithmetic in
// `scale`'s precision.
void ExpectCast(const std::vector<double>& x, const ConstTensorView& y, float scale, bool wide) {
  const std::vector<double> got = test::ToDoubles(y);
  ASSERT_EQ(got.size(), x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    const double product = wide ? x[i] * scale : static_cast<float>(x[i]) * scale;
    const double want = CastRef(product, y.dtype());
    if (std::isnan(want)) {
      ASSERT_TRUE(std::isnan(got[i])) << x[i];
    } else {
      ASSERT_EQ(got[i], want) << x[i] << " to " << Name(y.dtype());
      ASSERT_EQ(std::signbit(got[i]), std::signbit(want)) << x[i];
    }
  }
}

// Random magnitudes over the whole range of the widest format, and the corners of all.
std::vector<double> Values(DType dtype) {
  std::vector<double> out = {
      0.0,        -0.0,         1,           -1,          65504,        65519.99,
      65520,      3.4e38,       -3.4e38,     1e-45,       1e-40,        6e-8,
      3e-8,       2.98e-8,      HUGE_VAL,    -HUGE_VAL,   std::nan(""), 1 + 0x1p-8,
      1 + 0x1p-9, 1 + 0x1.8p-8, 1 + 0x1p-24, 1 + 0x1p-11, 1 + 0x1.8p-10};
  const std::vector<double> mantissa = test::UniformDoubles(2000, 1);
  const std::vector<double> exponent = test::UniformDoubles(2000, 2, -150, 130);
  for (size_t i = 0; i < mantissa.size(); ++i) out.push_back(mantissa[i] * std::exp2(exponent[i]));
  const HostTensor rounded(dtype, {static_cast<int64_t>(out.size())}, out);
  return rounded.ToDoubles();
}

TEST(CastTest, RoundsOnceToNearestEvenBetweenAllPairs) {
  for (const DType from : kFloating) {
    for (const DType to : kFloating) {
      for (const float scale : {1.0f, 0.3f}) {
        const std::vector<double> values = Values(from);
        const Shape shape = {static_cast<int64_t>(values.size())};
        const HostTensor x(from, shape, values), y(to, shape);
        TestExec exec;
        ASSERT_TRUE(IsOk(TE_OP(Cast)(exec, {.x = x, .y = y, .scale = scale})));
        ExpectCast(values, y, scale, from == DType::kFloat64 || to == DType::kFloat64);
        EXPECT_TRUE(y.GuardsIntact());
      }
    }
  }
}

// Just above and below the middle between two bfloat16 or float16 numbers, by less than float32 can
// tell: rounding through float32 would call it a tie.
TEST(CastTest, Float64IsNotRoundedTwice) {
  for (const DType to : {DType::kBFloat16, DType::kFloat16}) {
    const double half = to == DType::kBFloat16 ? 0x1p-8 : 0x1p-11;
    const std::vector<double> values = {1 + half + 0x1p-40,     1 + half - 0x1p-40,
                                        1 + 3 * half + 0x1p-40, 1 + 3 * half - 0x1p-40,
                                        -(1 + half + 0x1p-40),  -(1 + 3 * half - 0x1p-40)};
    const HostTensor x(DType::kFloat64, {6}, values), y(to, {6});
    TestExec exec;
    ASSERT_TRUE(IsOk(TE_OP(Cast)(exec, {.x = x, .y = y})));
    EXPECT_EQ(y.ToDoubles(), (std::vector<double>{1 + 2 * half, 1, 1 + 4 * half, 1 + 2 * half,
                                                  -1 - 2 * half, -1 - 2 * half}));
  }
}

TEST(CastTest, StridedViewsOnEitherSide) {
  for (const DType from : {DType::kFloat32, DType::kBFloat16}) {
    for (const DType to : {DType::kFloat32, DType::kFloat16}) {
      for (const int threads : {1, 2}) {
        const HostTensor x = HostTensor::Normal(from, {5, 6, 70, 41}, 1, 1, 3);
        const TensorView views[] = {x, x.view().Transpose(1, 2),
                                    x.view().Transpose(0, 3).Slice(1, 1, 5), x.view().Select(2, 3),
                                    x.view().Slice(0, 2, 2)};
        for (const TensorView& view : views) {
          TestExec exec(threads);
          const HostTensor dense(to, view.shape()), padded(to, view.shape(), 2);
          ASSERT_TRUE(IsOk(TE_OP(Cast)(exec, {.x = view, .y = dense})));
          ASSERT_TRUE(IsOk(TE_OP(Cast)(exec, {.x = view, .y = padded})));
          ExpectCast(test::ToDoubles(view), dense, 1, false);
          ExpectCast(test::ToDoubles(view), padded, 1, false);
          EXPECT_TRUE(dense.GuardsIntact() && padded.GuardsIntact());
          // Back through a transposed view of the target.
          if (view.rank() < 2) continue;
          const HostTensor other(to, view.Transpose(0, 1).shape());
          ASSERT_TRUE(IsOk(TE_OP(Cast)(exec, {.x = view, .y = other.view().Transpose(0, 1)})));
          EXPECT_EQ(test::BytesOf(other.view().Transpose(0, 1)), dense.Bytes());
        }
      }
    }
  }
}

TEST(CastTest, InPlaceScales) {
  const HostTensor x = HostTensor::Normal(DType::kBFloat16, {70'000}, 1);
  const std::vector<double> before = x.ToDoubles();
  TestExec exec(2);
  ASSERT_TRUE(IsOk(TE_OP(Cast)(exec, {.x = x, .y = x, .scale = 0.7f})));
  ExpectCast(before, x, 0.7f, false);
}

TEST(CastTest, EqualTypesOfAnyKindAreCopiedBitByBit) {
  for (const DType dtype :
       {DType::kFloat32, DType::kBFloat16, DType::kFloat16, DType::kFloat64, DType::kInt32,
        DType::kInt64, DType::kUInt8, DType::kFloat8E4M3, DType::kFloat8E5M2}) {
    const int64_t bytes = 16 * static_cast<int64_t>(SizeOf(dtype));
    const HostTensor from(DType::kUInt8, {bytes});
    // Among them signalling NaN, which a conversion would make quiet.
    for (int64_t i = 0; i < bytes; ++i) {
      from.view().as<uint8_t>()[i] = static_cast<uint8_t>(i % 3 == 0 ? 0x7f : 0x81 + 17 * i);
    }
    TestExec exec;
    for (const auto& strides :
         {std::array<int64_t, kMaxRank>{4, 1}, std::array<int64_t, kMaxRank>{1, 4}}) {
      const HostTensor to(DType::kUInt8, {bytes});
      const ConstTensorView x(from.view().data(), dtype, {4, 4}, strides);
      ASSERT_TRUE(IsOk(
          TE_OP(Cast)(exec, {.x = x, .y = TensorView(to.view().data(), dtype, {4, 4}, strides)})));
      EXPECT_EQ(to.Bytes(), from.Bytes()) << Name(dtype);
    }
  }
}

TEST(CastTest, IntegersSaturate) {
  const std::vector<int64_t> wide = {
      0,           -1,          2147483647,       2147483648,
      -2147483648, -2147483649, int64_t{1} << 32, std::numeric_limits<int64_t>::min()};
  const HostTensor x(DType::kInt64, {8}), y(DType::kInt32, {8}), back(DType::kInt64, {8});
  std::copy(wide.begin(), wide.end(), x.view().as<int64_t>());
  TestExec exec;
  ASSERT_TRUE(IsOk(TE_OP(Cast)(exec, {.x = x, .y = y})));
  constexpr int32_t kMax = std::numeric_limits<int32_t>::max(),
                    kMin = std::numeric_limits<int32_t>::min();
  const int32_t* narrow = y.view().as<int32_t>();
  EXPECT_EQ(std::vector<int32_t>(narrow, narrow + 8),
            (std::vector<int32_t>{0, -1, kMax, kMax, kMin, kMin, kMax, kMin}));
  ASSERT_TRUE(IsOk(TE_OP(Cast)(exec, {.x = y, .y = back})));
  const int64_t* again = back.view().as<int64_t>();
  EXPECT_EQ(std::vector<int64_t>(again, again + 8), std::vector<int64_t>(narrow, narrow + 8));
}

// Dense tensors whose addresses or sizes do not allow vectors, and rows that do.
TEST(CastTest, AnyAddressAndTail) {
  const HostTensor x = HostTensor::Normal(DType::kFloat32, {40'019}, 1);
  const HostTensor rows = HostTensor::Normal(DType::kBFloat16, {3, 50, 64}, 2, 1, 8);
  for (const DType to : kFloating) {
    for (const int64_t begin : {0, 1, 4}) {
      const TensorView from = x.view().Slice(0, begin, 40'019);
      const HostTensor y(to, from.shape()), shifted(to, {40'019 - begin + 3});
      const TensorView tail = shifted.view().Slice(0, 3, 40'019 - begin + 3);
      TestExec exec;
      ASSERT_TRUE(IsOk(TE_OP(Cast)(exec, {.x = from, .y = y})));
      ASSERT_TRUE(IsOk(TE_OP(Cast)(exec, {.x = from, .y = tail})));
      ExpectCast(test::ToDoubles(from), y, 1, to == DType::kFloat64);
      ExpectCast(test::ToDoubles(from), tail, 1, to == DType::kFloat64);
      EXPECT_TRUE(y.GuardsIntact() && shifted.GuardsIntact());
    }
    const HostTensor y(to, {50, 3, 64});
    TestExec exec;
    ASSERT_TRUE(IsOk(TE_OP(Cast)(exec, {.x = rows.view().Transpose(0, 1), .y = y})));
    ExpectCast(test::ToDoubles(rows.view().Transpose(0, 1)), y, 1, to == DType::kFloat64);
  }
}

TEST(CastTest, EmptyTensorsAreFine) {
  TestExec exec;
  EXPECT_TRUE(IsOk(TE_OP(Cast)(exec, {.x = ConstTensorView(nullptr, DType::kFloat32, {0, 3}),
                                      .y = TensorView(nullptr, DType::kBFloat16, {0, 3})})));
}

TEST(CastTest, RefusesWhatTheContractDoesNotTake) {
  const HostTensor x(DType::kFloat32, {4, 4}), other(DType::kFloat32, {2, 8}),
      integers(DType::kInt32, {4, 4});
  const HostTensor fp8_like(DType::kUInt8, {4, 4});
  TestExec exec;
  const auto check = [&](const CastArgs& args, StatusCode code, const char* part) {
    EXPECT_TRUE(FailsWith(TE_OP(Cast)(exec, args), code, part));
  };
  check({.x = x, .y = other}, StatusCode::kInvalidArgument, "y is float32 [2, 8]");
  check({.x = x, .y = integers}, StatusCode::kUnsupported, "from float32 to int32");
  check({.x = fp8_like, .y = x}, StatusCode::kUnsupported, "from uint8 to float32");
  check({.x = integers, .y = integers, .scale = 2}, StatusCode::kInvalidArgument, "scale is 2");
  check({.x = x, .y = x.view().Transpose(0, 1)}, StatusCode::kInvalidArgument, "share memory");
  check({.x = x, .y = TensorView(x.view().data(), DType::kBFloat16, {4, 4})},
        StatusCode::kInvalidArgument, "share memory");
  check({.x = x, .y = TensorView(nullptr, DType::kFloat32, {4, 4})}, StatusCode::kInvalidArgument,
        "y is nothing");
}

}  // namespace
}  // namespace te
