// Numbers worked out by hand.
#include <algorithm>
#include <bit>

#include "te_kernels/quantize/quantization_case.h"

namespace te {
namespace {

using test::Floats;
using test::HostTensor;
using test::Input;
using test::IsOk;
using test::kE2M1;
using test::kE4M3;
using test::kInf;
using test::kNaN;
using test::Quantization;
using test::Shared;
using test::TestExec;
using test::UnsupportedHere;

QuantSpec Spec(QuantFormat format, QuantScaling scaling) {
  QuantSpec spec;
  spec.format = format;
  spec.scaling = scaling;
  return spec;
}

using Codes = std::vector<uint8_t>;

TEST(QuantizeByHandTest, TensorReadsTheScaleAndRaisesTheAmax) {
  Quantization q(HostTensor(DType::kFloat32, {2, 3}, {1, -2, 3.1, 1000, kNaN, -0.0}),
                 Spec(kE4M3, QuantScaling::kTensor));
  *q.scale = 2;
  q.amax->of_x = 2000;
  TestExec exec;
  ASSERT_TRUE(IsOk(q.Run(exec)));
  // 2, -4, 6 (6.2 is nearer to it than to 6.5), 448, NaN, -0.
  EXPECT_EQ(q.rowwise.Bytes(), Codes({0x40, 0xc8, 0x4c, 0x7e, 0x7f, 0x80}));
  EXPECT_EQ(q.columnwise.Bytes(), Codes({0x40, 0x7e, 0xc8, 0x7f, 0x4c, 0x80}));
  EXPECT_EQ(Floats(q.scale_inv), std::vector<float>{0.5f});
  EXPECT_EQ(q.amax->of_x, 2000) << "what was there is larger";
  q.amax->of_x = 999;
  ASSERT_TRUE(IsOk(q.Run(exec)));
  EXPECT_EQ(q.amax->of_x, 1000);
  q.spec.amax = nullptr;
  EXPECT_TRUE(IsOk(q.Run(exec))) << "amax is optional";
}

TEST(QuantizeByHandTest, CurrentScaleFromTheAmax) {
  const struct {
    std::vector<double> x;
    bool power_of_2;
    float epsilon;
    float amax, scale;
  } cases[] = {
      {{7, -14, 3}, false, 0, 14, 32},
      {{0, 0, -0.0}, false, 0, 0, 1},
      {{7, kInf, 3}, false, 0, kInf, 1},
      {{7, kNaN, -14}, false, 0, 14, 32},
      {{kNaN, kNaN, kNaN}, false, 0, 0, 1},
      {{7, -10, 3}, true, 0, 10, 32},
      {{0, 0, 0}, false, 0.5f, 0, 896},
      {{7, 14, 3}, false, 28, 14, 16},
      {{1e-37, 0, 0}, false, 0, 1e-37f, std::numeric_limits<float>::max()},
      {{1e-37, 0, 0}, true, 0, 1e-37f, 0x1p127f},
  };
  for (const auto& c : cases) {
    QuantSpec spec = Spec(kE4M3, QuantScaling::kTensorCurrent);
    spec.power_of_2_scales = c.power_of_2;
    spec.amax_epsilon = c.epsilon;
    Quantization q(HostTensor(DType::kFloat32, {1, 3}, c.x), spec);
    q.amax->of_x = 1e9f;
    TestExec exec;
    ASSERT_TRUE(IsOk(q.Run(exec)));
    EXPECT_EQ(q.amax->of_x, c.amax) << "written, not accumulated";
    EXPECT_EQ(Floats(q.scale_inv)[0], 1 / c.scale) << c.amax;
    EXPECT_TRUE(q.Equals(q.Want()));
  }
}

TEST(QuantizeByHandTest, BlockScalesLieWhereTheMatrixProductReadsThem) {
  std::vector<double> values(3 * 130, 0.0);
  for (int64_t r = 0; r < 3; ++r) {
    values[r * 130 + 7] = 448.0 * (1 << r);
    values[r * 130 + 129] = -448.0 / (2 << r);
  }
  TestExec exec;
  Quantization rows(HostTensor(DType::kFloat32, {3, 130}, values),
                    Spec(kE4M3, QuantScaling::kBlock1x128));
  ASSERT_TRUE(IsOk(rows.Run(exec)));
  EXPECT_EQ(rows.rowwise_scales.ToDoubles(),
            std::vector<double>({1, 2, 4, 0, 0.5, 0.25, 0.125, 0}));
  const std::vector<double> columns = rows.columnwise_scales.ToDoubles();
  ASSERT_EQ(columns.size(), 132u);
  EXPECT_EQ(columns[7], 4);
  EXPECT_EQ(columns[129], 0.5);
  EXPECT_EQ(columns[0], 1) << "a block of zeros";
  EXPECT_EQ(columns[130], 0) << "beyond the tensor";
  Quantization squares(HostTensor(DType::kFloat32, {3, 130}, values),
                       Spec(kE4M3, QuantScaling::kBlock128x128));
  ASSERT_TRUE(IsOk(squares.Run(exec)));
  EXPECT_EQ(squares.rowwise_scales.ToDoubles(), std::vector<double>({4, 0.5, 0, 0}));
  EXPECT_EQ(squares.columnwise_scales.ToDoubles(), std::vector<double>({4, 0, 0, 0, 0.5, 0, 0, 0}));
}

// Below 448 / FLT_MAX = 1.32e-36 the quotient is infinite: Transformer Engine's scale is then the
// largest number of the input's type.
TEST(QuantizeByHandTest, BlockScalesAreBoundedByTheInputsDtype) {
  TestExec exec;
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    const float largest = dtype == DType::kFloat32 ? 0x1.fffffep127f : 0x1.fep127f;
    for (const QuantScaling scaling : {QuantScaling::kBlock1x128, QuantScaling::kBlock128x128}) {
      for (const bool power_of_2 : {false, true}) {
        const auto scale_inv_of = [&](double amax, uint8_t* code) {
          QuantSpec spec = Spec(kE4M3, scaling);
          spec.power_of_2_scales = power_of_2;
          Quantization q(HostTensor(dtype, {1, 2}, {0, amax}), spec);
          EXPECT_TRUE(IsOk(q.Run(exec)));
          EXPECT_TRUE(q.Equals(q.Want()));
          *code = q.rowwise.Bytes()[1];
          return Floats(q.rowwise_scales)[0];
        };
        uint8_t code = 0;
        // 2^-123 times the largest number: 32, less a little.
        EXPECT_EQ(scale_inv_of(0x1p-123, &code), power_of_2 ? 0x1p-127f : 1.0f / largest);
        EXPECT_EQ(code, power_of_2 ? 0x58 : 0x60);  // 16; 32
        // The least power of two whose quotient is a number, 448 * 2^119.
        EXPECT_EQ(scale_inv_of(0x1p-119, &code), power_of_2 ? 0x1p-127f : 1.0f / 0x1.cp127f);
        EXPECT_EQ(code, power_of_2 ? 0x78 : 0x7e);  // 256; 448
      }
    }
  }
}

TEST(QuantizeByHandTest, MxScalesArePowersOfTwoThatHoldTheAmax) {
  if (UnsupportedHere(QuantScaling::kMx1x32)) GTEST_SKIP() << "see RefusesOnCuda";
  const struct {
    float amax;
    uint8_t scale;
    uint8_t code;
  } cases[] = {{448, 127, 0x7e},  {449, 128, 0x76},  {224, 126, 0x7e}, {0, 0, 0x00},
               {kInf, 254, 0x7e}, {1e-45f, 0, 0x00}, {kNaN, 0, 0x7f}};
  for (const auto& c : cases) {
    std::vector<double> values(32, 0.0);
    values[3] = c.amax;
    Quantization q(HostTensor(DType::kFloat32, {1, 32}, values),
                   Spec(kE4M3, QuantScaling::kMx1x32));
    TestExec exec;
    ASSERT_TRUE(IsOk(q.Run(exec)));
    EXPECT_EQ(q.rowwise_scales.Bytes(), Codes({c.scale})) << c.amax;
    EXPECT_EQ(q.rowwise.Bytes()[3], c.code) << c.amax;
  }
}

TEST(QuantizeByHandTest, Nvfp4HasTwoLevelsOfScales) {
  if (UnsupportedHere(QuantScaling::kNvfp4_1x16)) GTEST_SKIP() << "see RefusesOnCuda";
  std::vector<double> values(48, 0.0);
  values[0] = 2688;   // S = 448 * 6 / 2688 = 1; this block's scale is 448
  values[1] = -1344;  // half the block's largest: 3
  values[16] = 6;     // scale 1
  values[17] = 2.4;
  values[18] = -0.3;
  values[32] = 1e-3;  // scale 1e-3 / 6 is below half of E4M3's smallest number
  TestExec exec;
  Quantization q(HostTensor(DType::kFloat32, {1, 48}, values),
                 Spec(kE2M1, QuantScaling::kNvfp4_1x16));
  ASSERT_TRUE(IsOk(q.Run(exec)));
  EXPECT_EQ(Floats(q.scale_inv)[0], 1);
  EXPECT_EQ(q.rowwise_scales.Bytes(), Codes({0x7e, 0x38, 0x00}));
  Codes want(24, 0);
  want[0] = 0xd7;   // -3, 6
  want[8] = 0x47;   // 2, 6
  want[9] = 0x09;   // -0.5
  want[16] = 0x07;  // clips: x times the largest float32
  EXPECT_EQ(q.rowwise.Bytes(), want);
  for (const float x : {0.0f, kInf}) {
    Quantization none(HostTensor(DType::kFloat32, {1, 16}, std::vector<double>(16, x)),
                      Spec(kE2M1, QuantScaling::kNvfp4_1x16));
    ASSERT_TRUE(IsOk(none.Run(exec)));
    EXPECT_EQ(Floats(none.scale_inv)[0], 1) << x;
    EXPECT_EQ(none.amax->of_x, x);
    EXPECT_EQ(none.rowwise_scales.Bytes(), Codes({static_cast<uint8_t>(x == 0 ? 0 : 0x7e)}));
    EXPECT_EQ(none.rowwise.Bytes(), Codes(8, x == 0 ? 0x00 : 0x77));
  }
}

// A product over 37 rows of two transformed tensors is the product of the tensors, those beyond the
// last 16 included: the transform is orthogonal. In float32 of numbers below 1, sums of 16
// products: 37 terms off by less than 2^-20 each.
TEST(QuantizeByHandTest, TheHadamardTransformKeepsProducts) {
  constexpr int64_t kRows = 37;
  std::vector<float> a, b;
  double want = 0;
  const std::vector<double> values = test::UniformDoubles(2 * kRows, 9);
  for (int64_t i = 0; i < kRows; ++i) {
    a.push_back(static_cast<float>(values[i]));
    b.push_back(static_cast<float>(values[kRows + i]));
    want += static_cast<double>(a[i]) * b[i];
  }
  const auto ha = HadamardRef(a, 1, kRows, DType::kFloat32);
  const auto hb = HadamardRef(b, 1, kRows, DType::kFloat32);
  double got = 0;
  for (int64_t i = 0; i < kRows; ++i) got += static_cast<double>(ha[i]) * hb[i];
  EXPECT_NEAR(got, want, kRows * 0x1p-20);
  EXPECT_GT(std::fabs(ha[0] * hb[0] - a[0] * b[0]), kRows * 0x1p-20) << "it does something";
  // The first element's row is that of D: all + but for the signs of the element itself.
  std::vector<float> unit(16, 0.0f);
  unit[3] = 1;
  for (float v : HadamardRef(unit, 1, 16, DType::kFloat32)) EXPECT_EQ(std::fabs(v), 0.25f);
  EXPECT_EQ(HadamardRef(unit, 1, 16, DType::kFloat32)[0], -0.25f);
}

// What the columnwise copy stands for is x^T, transformed, as near as the format comes, up to the
// largest numbers there are.
TEST(QuantizeByHandTest, TheHadamardTransformHoldsHugeNumbers) {
  if (UnsupportedHere(QuantScaling::kNvfp4_1x16)) GTEST_SKIP() << "see RefusesOnCuda";
  constexpr int64_t kRows = 37, kColumns = 3;
  constexpr int kSigns[16] = {1, 1, 1, -1, 1, -1, -1, -1, -1, -1, -1, 1, -1, 1, -1, -1};
  TestExec exec;
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    for (const double magnitude : {1.0, 1e30, 2.2e37, 8.4e37, 8.6e37, 1e38, 3.38e38}) {
      SCOPED_TRACE(magnitude);
      std::vector<double> values = test::UniformDoubles(kRows * kColumns, 12, 0.7, 1.0);
      // The second row of sixteen in D's own signs: all terms of one sum add up.
      for (int64_t i = 0; i < kRows * kColumns; ++i) {
        const int64_t r = i / kColumns;
        values[i] *= magnitude * (r < 16 ? 1 - 2 * (i * 7 % 11 % 2) : r < 32 ? kSigns[r - 16] : 1);
      }
      const HostTensor x(dtype, {kRows, kColumns}, values);
      QuantSpec spec = Spec(kE2M1, QuantScaling::kNvfp4_1x16);
      spec.random_hadamard = true;
      Quantization q(HostTensor(dtype, {kRows, kColumns}, values), spec);
      ASSERT_TRUE(IsOk(q.Run(exec)));
      EXPECT_TRUE(q.Equals(q.Want()));
      const std::vector<double> in = x.ToDoubles();
      const double scale_inv = Floats(q.columnwise_tensor_scale_inv)[0];
      EXPECT_TRUE(std::isfinite(scale_inv));
      for (int64_t c = 0; c < kColumns; ++c) {
        for (int64_t first = 0; first < kRows; first += 16) {
          const int64_t n = std::min<int64_t>(16, kRows - first);
          std::vector<double> want;
          double largest = 0;
          for (int64_t i = 0; i < n; ++i) {
            double sum = n < 16 ? in[(first + i) * kColumns + c] : 0;
            for (int64_t j = 0; n == 16 && j < 16; ++j) {
              const int sign = std::popcount(static_cast<uint64_t>(i & j)) % 2 == 0 ? 1 : -1;
              sum += sign * kSigns[j] * in[(first + j) * kColumns + c] / 4;
            }
            want.push_back(sum);
            largest = std::max(largest, std::fabs(sum));
          }
          const double block = Float8E4M3BitsToFloat(
              q.columnwise_scales.view()
                  .as<uint8_t>()[c * q.columnwise_scales.view().dim(1) + first / 16]);
          for (int64_t i = 0; i < n; ++i) {
            const int64_t at = first + i;
            const uint8_t byte =
                q.columnwise.view().as<uint8_t>()[c * q.columnwise.view().dim(1) + at / 2];
            const double got =
                Float4E2M1BitsToFloat(byte >> (at % 2 * 4) & 0xf) * block * scale_inv;
            // Half of E2M1's widest step is 1/6 of its largest; an E4M3 scale is off by 1/16.
            EXPECT_NEAR(got, want[static_cast<size_t>(i)], largest * (1.0 / 6 + 1.0 / 16 + 0x1p-7))
                << c << " " << at;
          }
          if (first == 16) {
            EXPECT_GT(largest, 2.7 * magnitude);  // four times 0.7
          }
        }
      }
    }
  }
}

// 6, 4, 4, ...: with 6 for the largest, all are exact. 6, 5, 5, ...: with 6 for the largest, 5 goes
// to 4 (even) and is off by 1; with 4 for it, scale 1.5, 5 is 3.33 and goes to 3 * 1.5 = 4.5.
TEST(QuantizeByHandTest, FourOverSixTakesTheScaleOfTheLowerError) {
  if (UnsupportedHere(QuantScaling::kNvfp4_1x16)) GTEST_SKIP() << "see RefusesOnCuda";
  for (const bool use_256 : {false, true}) {
    for (const FourOverSix mode : {FourOverSix::kMAE, FourOverSix::kMSE}) {
      // The tensor's amax makes S = 1.
      std::vector<double> values(48, 4.0);
      values[0] = use_256 ? 1536 : 2688;
      values[16] = values[32] = 6;
      for (int i = 33; i < 48; ++i) values[i] = 5;
      QuantSpec spec = Spec(kE2M1, QuantScaling::kNvfp4_1x16);
      spec.four_over_six = mode;
      spec.e4m3_use_256 = use_256;
      Quantization q(HostTensor(DType::kFloat32, {1, 48}, values), spec);
      TestExec exec;
      ASSERT_TRUE(IsOk(q.Run(exec)));
      EXPECT_EQ(Floats(q.scale_inv), std::vector<float>{1});
      const Codes scales = q.rowwise_scales.Bytes(), codes = q.rowwise.Bytes();
      // 256 or 448; or 384, which 256 leaves room for: 1536 is then 4 * 384, and as exact.
      EXPECT_EQ(scales[0], use_256 ? 0x78 : 0x7e) << "of equal errors the first";
      EXPECT_EQ(scales[1], 0x38) << "1";
      EXPECT_EQ(scales[2], 0x3c) << "1.5";
      Codes want(8, 0x66);  // 4, 4
      want[0] = 0x67;       // 6, 4
      EXPECT_EQ(Codes(codes.begin() + 8, codes.begin() + 16), want);
      Codes of_four(8, 0x55);  // 3, 3
      of_four[0] = 0x56;       // 4, 3
      EXPECT_EQ(Codes(codes.begin() + 16, codes.end()), of_four);
    }
  }
}

// MAE and MSE part ways: many small errors against one large one.
TEST(QuantizeByHandTest, TheErrorsMeasureDecides) {
  if (UnsupportedHere(QuantScaling::kNvfp4_1x16)) GTEST_SKIP() << "see RefusesOnCuda";
  TestExec exec;
  int differ = 0;
  for (uint64_t seed = 0; seed < 4; ++seed) {
    QuantSpec spec = Spec(kE2M1, QuantScaling::kNvfp4_1x16);
    std::vector<Codes> scales;
    for (const FourOverSix mode : {FourOverSix::kOff, FourOverSix::kMAE, FourOverSix::kMSE}) {
      spec.four_over_six = mode;
      Quantization q(HostTensor::Normal(DType::kFloat32, {32, 64}, 40 + seed), spec);
      ASSERT_TRUE(IsOk(q.Run(exec)));
      scales.push_back(q.rowwise_scales.Bytes());
    }
    EXPECT_NE(scales[0], scales[1]);
    differ += scales[1] != scales[2];
  }
  EXPECT_GT(differ, 0);
}

// Rows of which one outweighs the others 2^20 times: one scale for all loses the small ones.
TEST(QuantizeByHandTest, RowScalesKeepSmallRows) {
  if (UnsupportedHere(QuantScaling::kNvfp4_1x16)) GTEST_SKIP() << "see RefusesOnCuda";
  std::vector<double> values(2 * 16, 6.0);
  for (int i = 0; i < 16; ++i) values[i] = 0x6p20;
  TestExec exec;
  for (const bool row_scaled : {false, true}) {
    QuantSpec spec = Spec(kE2M1, QuantScaling::kNvfp4_1x16);
    spec.row_scaled = row_scaled;
    Quantization q(HostTensor(DType::kFloat32, {2, 16}, values), spec);
    ASSERT_TRUE(IsOk(q.Run(exec)));
    EXPECT_EQ(q.amax->of_x, 0x6p20f);
    // 448 * 6 / (6 * 2^20), or / 6.
    const std::vector<float> of_rows = {0x1p20f / 448, 1.0f / 448};
    EXPECT_EQ(Floats(q.scale_inv), row_scaled ? of_rows : std::vector<float>{0x1p20f / 448});
    EXPECT_EQ(q.rowwise_scales.Bytes(), Codes({0x7e, static_cast<uint8_t>(row_scaled ? 0x7e : 0)}));
    EXPECT_EQ(Floats(q.columnwise_tensor_scale_inv)[0] == 0x1p20f / 448, row_scaled);
  }
}

TEST(QuantizeByHandTest, StochasticRoundingFollowsTheStepsOffset) {
  if (UnsupportedHere(QuantScaling::kNvfp4_1x16)) GTEST_SKIP() << "see RefusesOnCuda";
  QuantSpec spec = Spec(kE2M1, QuantScaling::kNvfp4_1x16);
  spec.stochastic_rounding = true;
  Shared<uint64_t> step_offset(5);
  spec.random = {.seed = 1, .stream = 2, .offset = 3, .step_offset = step_offset.get()};
  Quantization device(Input(DType::kFloat32, 30, 40, 8), spec);
  spec.random = {.seed = 1, .stream = 2, .offset = 8};
  Quantization host(Input(DType::kFloat32, 30, 40, 8), spec);
  TestExec exec;
  ASSERT_TRUE(IsOk(device.Run(exec)) && IsOk(host.Run(exec)));
  EXPECT_EQ(device.rowwise.Bytes(), host.rowwise.Bytes());
  EXPECT_EQ(device.columnwise.Bytes(), host.columnwise.Bytes());
  *step_offset = 6;
  ASSERT_TRUE(IsOk(device.Run(exec)));
  EXPECT_NE(device.rowwise.Bytes(), host.rowwise.Bytes());
}

}  // namespace
}  // namespace te
