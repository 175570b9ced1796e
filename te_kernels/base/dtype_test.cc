// Conversions over every code, against arithmetic in double that looks at no float's bits.
#include "te_kernels/base/dtype.h"

#include <cmath>
#include <limits>

#include "gtest/gtest.h"

namespace te {
namespace {

// The value of a code by the definition of the format: sign, `exponent_bits`, `mantissa_bits`.
double ValueOf(uint16_t code, int exponent_bits, int mantissa_bits) {
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const int largest_exponent = (1 << exponent_bits) - 1;
  const int exponent = code >> mantissa_bits & largest_exponent;
  const int mantissa = code & ((1 << mantissa_bits) - 1);
  const double sign = code & 0x8000 ? -1 : 1;
  if (exponent == largest_exponent) return mantissa == 0 ? sign * HUGE_VAL : std::nan("");
  if (exponent == 0) return sign * std::ldexp(mantissa, 1 - bias - mantissa_bits);
  return sign * std::ldexp((1 << mantissa_bits) + mantissa, exponent - bias - mantissa_bits);
}

struct Format {
  const char* name;
  int exponent_bits;
  int mantissa_bits;
  float (*to_float)(uint16_t);
  uint16_t (*from_float)(float);
};

class Float16FormatsTest : public testing::TestWithParam<Format> {
 protected:
  double Value(int code) const {
    return ValueOf(static_cast<uint16_t>(code), GetParam().exponent_bits, GetParam().mantissa_bits);
  }
  int infinity() const { return ((1 << GetParam().exponent_bits) - 1) << GetParam().mantissa_bits; }
};

TEST_P(Float16FormatsTest, EveryCodeHasTheValueOfItsDefinitionAndComesBack) {
  for (int code = 0; code < 65536; ++code) {
    const float value = GetParam().to_float(static_cast<uint16_t>(code));
    const double want = Value(code);
    if (std::isnan(want)) {
      ASSERT_TRUE(std::isnan(value)) << code;
      const int back = GetParam().from_float(value);
      ASSERT_TRUE(std::isnan(Value(back))) << code;
      EXPECT_EQ(back & 0x8000, code & 0x8000) << "sign of NaN " << code;
      EXPECT_NE(back & (1 << (GetParam().mantissa_bits - 1)), 0) << "quiet NaN " << code;
      continue;
    }
    ASSERT_EQ(value, want) << code;
    ASSERT_EQ(std::signbit(value), code >= 0x8000) << code;
    ASSERT_EQ(GetParam().from_float(value), code);
  }
}

// Between each code and the next: the middle goes to the even one, a float beside it to its side.
// The neighbour of the largest finite code is infinity, where one more step would stand.
TEST_P(Float16FormatsTest, RoundsToNearestEvenBetweenAllNeighbours) {
  for (int sign : {0, 0x8000}) {
    for (int code = 0; code < infinity(); ++code) {
      const double low = Value(code);
      const double high = code + 1 < infinity() ? Value(code + 1) : 2 * low - Value(code - 1);
      const float middle = static_cast<float>((low + high) / 2) * (sign ? -1.0f : 1.0f);
      const float away = std::nextafter(middle, sign ? -HUGE_VALF : HUGE_VALF);
      const float toward = std::nextafter(middle, 0.0f);
      const int even = code % 2 == 0 ? code : code + 1;
      ASSERT_EQ(GetParam().from_float(middle), sign | even) << code;
      ASSERT_EQ(GetParam().from_float(away), sign | (code + 1)) << code;
      ASSERT_EQ(GetParam().from_float(toward), sign | code) << code;
    }
  }
}

TEST_P(Float16FormatsTest, LargeNumbersBecomeInfinityAndTinyOnesZero) {
  constexpr float kMax = std::numeric_limits<float>::max();
  constexpr float kMin = std::numeric_limits<float>::denorm_min();
  EXPECT_EQ(GetParam().from_float(kMax), infinity());
  EXPECT_EQ(GetParam().from_float(-kMax), infinity() | 0x8000);
  EXPECT_EQ(GetParam().from_float(kMin), 0);
  EXPECT_EQ(GetParam().from_float(-kMin), 0x8000);
}

INSTANTIATE_TEST_SUITE_P(
    Formats, Float16FormatsTest,
    testing::Values(Format{"bfloat16", 8, 7, BFloat16BitsToFloat, FloatToBFloat16Bits},
                    Format{"float16", 5, 10, Float16BitsToFloat, FloatToFloat16Bits}),
    [](const testing::TestParamInfo<Format>& info) { return info.param.name; });

TEST(DTypeTest, SizesAndNames) {
  EXPECT_EQ(SizeOf(DType::kFloat64), 8u);
  EXPECT_EQ(SizeOf(DType::kInt64), 8u);
  EXPECT_EQ(SizeOf(DType::kFloat32), 4u);
  EXPECT_EQ(SizeOf(DType::kInt32), 4u);
  EXPECT_EQ(SizeOf(DType::kBFloat16), 2u);
  EXPECT_EQ(SizeOf(DType::kFloat16), 2u);
  EXPECT_EQ(SizeOf(DType::kUInt8), 1u);
  EXPECT_EQ(SizeOf(DType::kFloat8E4M3), 1u);
  EXPECT_EQ(SizeOf(DType::kFloat8E5M2), 1u);
  EXPECT_STREQ(Name(DType::kBFloat16), "bfloat16");
  EXPECT_TRUE(IsFloating(DType::kFloat8E4M3));
  EXPECT_FALSE(IsFloating(DType::kInt64));
  EXPECT_FALSE(IsFloating(DType::kUInt8));
}

}  // namespace
}  // namespace te
