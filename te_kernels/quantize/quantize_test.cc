#include "te_kernels/quantize/quantize.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <tuple>

#include "gtest/gtest.h"
#include "te_kernels/quantize/quantize_ref.h"
#include "te_kernels/testing/host_tensor.h"
#include "te_kernels/testing/near.h"
#include "te_kernels/testing/test_device.h"
#include "te_kernels/testing/test_memory.h"

namespace te {
namespace {

using test::FailsWith;
using test::HostTensor;
using test::IsOk;
using test::Shared;
using test::TestExec;

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

bool IsMx(QuantScaling s) { return s == QuantScaling::kMx1x32 || s == QuantScaling::kMx32x32; }
bool IsNvfp4(QuantScaling s) {
  return s == QuantScaling::kNvfp4_1x16 || s == QuantScaling::kNvfp4_16x16;
}
bool UnsupportedHere(QuantScaling s) { return test::kOnCuda && (IsMx(s) || IsNvfp4(s)); }

std::vector<float> Floats(const HostTensor& tensor) {
  const std::vector<double> values = tensor.ToDoubles();
  return {values.begin(), values.end()};
}

// Bit for bit; NaN agrees with NaN.
template <typename T>
testing::AssertionResult Same(const char* what, const std::vector<T>& got,
                              const std::vector<T>& want) {
  if (got.size() != want.size()) {
    return testing::AssertionFailure() << what << ": " << got.size() << " of " << want.size();
  }
  for (size_t i = 0; i < got.size(); ++i) {
    if (std::memcmp(&got[i], &want[i], sizeof(T)) != 0 && !(got[i] != got[i] && want[i] != want[i]))
      return testing::AssertionFailure()
             << what << " [" << i << "] is " << +got[i] << ", expected " << +want[i];
  }
  return testing::AssertionSuccess();
}

// A tensor, a spec with both orientations, and where its results go.
struct Quantization {
  Quantization(HostTensor input, QuantSpec options)
      : x(std::move(input)),
        rows(x.view().dim(0)),
        columns(x.view().dim(1)),
        spec(options),
        rowwise(DType::kUInt8, QuantDataShape(spec.format, rows, columns)),
        columnwise(DType::kUInt8, QuantDataShape(spec.format, columns, rows)),
        rowwise_scales(BlockScaleDType(spec.scaling), ScaleShape(rows, columns)),
        columnwise_scales(BlockScaleDType(spec.scaling), ScaleShape(columns, rows)) {
    spec.rowwise_data = rowwise;
    spec.columnwise_data = columnwise;
    if (BlockScaleShape(spec.scaling, 1, 1).rank() != 0) {
      spec.rowwise_scale_inv = rowwise_scales;
      spec.columnwise_scale_inv = columnwise_scales;
    } else {
      spec.scale = scale.get();
    }
    spec.scale_inv = scale_inv.get();
    spec.columnwise_tensor_scale_inv = columnwise_tensor_scale_inv.get();
    spec.amax = amax.get();
    // What nobody writes must show.
    for (const HostTensor* t : {&rowwise, &columnwise, &rowwise_scales, &columnwise_scales}) {
      if (t->view().elements() != 0) std::memset(t->view().data(), 0x55, t->view().bytes());
    }
  }

  Shape ScaleShape(int64_t r, int64_t c) const {
    const Shape shape = BlockScaleShape(spec.scaling, r, c);
    return shape.rank() == 0 ? Shape{0} : shape;
  }
  bool TensorScaled() const {
    return spec.scaling == QuantScaling::kTensor || spec.scaling == QuantScaling::kTensorCurrent ||
           IsNvfp4(spec.scaling);
  }

  Status Run(const Exec& exec) { return TE_OP(Quantize)(exec, {.x = x, .out = spec}); }
  QuantizedRef Want() const {
    return QuantizeRef(Floats(x), rows, columns, x.view().dtype(), spec, *scale);
  }

  testing::AssertionResult Equals(const QuantizedRef& want) const {
    testing::AssertionResult same = testing::AssertionSuccess();
    const auto check = [&](const testing::AssertionResult& result) {
      if (same && !result) same = result;
    };
    if (spec.rowwise_data.rank() != 0) {
      check(Same("rowwise code", rowwise.Bytes(), want.rowwise.codes));
      check(Scales("rowwise block scale", rowwise_scales, want.rowwise));
    }
    if (spec.columnwise_data.rank() != 0) {
      check(Same("columnwise code", columnwise.Bytes(), want.columnwise.codes));
      check(Scales("columnwise block scale", columnwise_scales, want.columnwise));
    }
    if (TensorScaled()) {
      check(Same<float>("scale_inv", {*scale_inv}, {want.scale_inv}));
      check(Same<float>("amax", {amax->of_x}, {want.amax}));
    }
    if (IsNvfp4(spec.scaling) && spec.columnwise_data.rank() != 0) {
      check(Same<float>("columnwise amax", {amax->of_columnwise}, {want.columnwise_amax}));
      if (spec.random_hadamard) {
        check(Same<float>("columnwise_tensor_scale_inv", {*columnwise_tensor_scale_inv},
                          {want.columnwise_tensor_scale_inv}));
      }
    }
    for (const HostTensor* t : {&rowwise, &columnwise, &rowwise_scales, &columnwise_scales}) {
      if (same && !t->GuardsIntact()) same = testing::AssertionFailure() << "wrote beyond";
    }
    return same;
  }

  testing::AssertionResult Scales(const char* what, const HostTensor& got,
                                  const OrientationRef& want) const {
    if (BlockScaleDType(spec.scaling) == DType::kFloat32) {
      return Same(what, Floats(got), want.float_scales);
    }
    return Same(what, got.Bytes(), want.byte_scales);
  }

  struct Amax {
    float of_x = 0;
    float of_columnwise = -1;
  };
  HostTensor x;
  int64_t rows;
  int64_t columns;
  QuantSpec spec;
  HostTensor rowwise, columnwise, rowwise_scales, columnwise_scales;
  Shared<float> scale{0.75f};
  Shared<float> scale_inv{-1.0f};
  Shared<float> columnwise_tensor_scale_inv{-1.0f};
  Shared<Amax> amax_values;
  struct AmaxPointer {
    Shared<Amax>& values;
    float* get() const { return &values->of_x; }
    Amax* operator->() const { return values.get(); }
  } amax{amax_values};
};

// Numbers of many magnitudes: neighbouring blocks differ in theirs.
HostTensor Input(DType dtype, int64_t rows, int64_t columns, uint64_t seed, int64_t pad = 0) {
  std::vector<double> values = test::NormalDoubles(rows * columns, seed);
  for (int64_t i = 0; i < rows * columns; ++i) {
    const int64_t r = i / columns, c = i % columns;
    values[i] = std::ldexp(values[i], static_cast<int>((r / 9 * 7 + c / 11 * 5) % 40) - 20);
  }
  return HostTensor(dtype, {rows, columns}, values, pad);
}

struct Options {
  const char* name;
  QuantFormat format;
  QuantScaling scaling;
  bool power_of_2_scales = false;
  float amax_epsilon = 0;
  bool stochastic_rounding = false;
  bool random_hadamard = false;
};

constexpr QuantFormat kE4M3 = QuantFormat::kFloat8E4M3, kE5M2 = QuantFormat::kFloat8E5M2,
                      kE2M1 = QuantFormat::kFloat4E2M1;

const Options kOptions[] = {
    {"tensor_e4m3", kE4M3, QuantScaling::kTensor},
    {"tensor_e5m2", kE5M2, QuantScaling::kTensor},
    {"current_e4m3", kE4M3, QuantScaling::kTensorCurrent},
    {"current_e5m2", kE5M2, QuantScaling::kTensorCurrent},
    {"current_power_of_2", kE4M3, QuantScaling::kTensorCurrent, true},
    {"current_epsilon", kE4M3, QuantScaling::kTensorCurrent, false, 1e9f},
    {"block_1x128", kE4M3, QuantScaling::kBlock1x128, true},
    {"block_1x128_float32", kE5M2, QuantScaling::kBlock1x128},
    {"block_1x128_epsilon", kE4M3, QuantScaling::kBlock1x128, true, 0.5f},
    {"block_128x128", kE4M3, QuantScaling::kBlock128x128, true},
    {"block_128x128_float32", kE4M3, QuantScaling::kBlock128x128},
    {"block_128x128_e5m2", kE5M2, QuantScaling::kBlock128x128, true, 1e-3f},
    {"mx_1x32_e4m3", kE4M3, QuantScaling::kMx1x32},
    {"mx_1x32_e5m2", kE5M2, QuantScaling::kMx1x32},
    {"mx_32x32", kE4M3, QuantScaling::kMx32x32},
    {"nvfp4_1x16", kE2M1, QuantScaling::kNvfp4_1x16},
    {"nvfp4_1x16_stochastic", kE2M1, QuantScaling::kNvfp4_1x16, false, 0, true},
    {"nvfp4_1x16_hadamard", kE2M1, QuantScaling::kNvfp4_1x16, false, 0, false, true},
    {"nvfp4_1x16_both", kE2M1, QuantScaling::kNvfp4_1x16, false, 0, true, true},
    {"nvfp4_16x16", kE2M1, QuantScaling::kNvfp4_16x16},
    {"nvfp4_16x16_both", kE2M1, QuantScaling::kNvfp4_16x16, false, 0, true, true},
};

QuantSpec SpecOf(const Options& options) {
  QuantSpec spec;
  spec.format = options.format;
  spec.scaling = options.scaling;
  spec.power_of_2_scales = options.power_of_2_scales;
  spec.amax_epsilon = options.amax_epsilon;
  spec.stochastic_rounding = options.stochastic_rounding;
  spec.random_hadamard = options.random_hadamard;
  if (options.stochastic_rounding) spec.random = {.seed = 7, .stream = 3, .offset = 11};
  return spec;
}

class QuantizeTest : public testing::TestWithParam<std::tuple<Options, DType>> {
 protected:
  QuantSpec spec() const { return SpecOf(std::get<0>(GetParam())); }
  DType dtype() const { return std::get<1>(GetParam()); }
  bool unsupported() const { return UnsupportedHere(spec().scaling); }
};

constexpr struct {
  int64_t rows, columns;
} kShapes[] = {{128, 128}, {1, 1},     {3, 5},  {16, 16}, {17, 33},  {130, 255},
               {257, 8},   {31, 1000}, {0, 40}, {40, 0},  {144, 264}};

TEST_P(QuantizeTest, EqualsTheReference) {
  if (unsupported()) GTEST_SKIP() << "see RefusesOnCuda";
  for (const auto& shape : kShapes) {
    for (const int64_t pad : {0, 3}) {
      SCOPED_TRACE(testing::Message()
                   << shape.rows << " x " << shape.columns << ", row padding " << pad);
      Quantization q(Input(dtype(), shape.rows, shape.columns, 1, pad), spec());
      TestExec exec(2);
      ASSERT_TRUE(IsOk(q.Run(exec)));
      EXPECT_TRUE(q.Equals(q.Want()));
    }
  }
}

// The comparison sees one element that is off, in either orientation.
TEST_P(QuantizeTest, ADisturbedElementShows) {
  if (unsupported()) GTEST_SKIP() << "see RefusesOnCuda";
  Quantization q(Input(dtype(), 40, 72, 2), spec());
  TestExec exec;
  ASSERT_TRUE(IsOk(q.Run(exec)));
  std::vector<float> x = Floats(q.x);
  x[17 * 72 + 5] = x[17 * 72 + 5] > 0 ? -1e7f : 1e7f;
  const QuantizedRef disturbed = QuantizeRef(x, 40, 72, dtype(), q.spec, *q.scale);
  QuantizedRef want = q.Want();
  EXPECT_TRUE(q.Equals(want));
  EXPECT_FALSE(q.Equals(disturbed));
  want.rowwise.codes = disturbed.rowwise.codes;
  EXPECT_FALSE(q.Equals(want)) << "rowwise";
  want = q.Want();
  want.columnwise.codes = disturbed.columnwise.codes;
  EXPECT_FALSE(q.Equals(want)) << "columnwise";
}

TEST_P(QuantizeTest, OneOrientationAloneIsTheSame) {
  if (unsupported()) GTEST_SKIP() << "see RefusesOnCuda";
  for (const bool rowwise : {false, true}) {
    Quantization q(Input(dtype(), 150, 70, 3), spec());
    HostTensor& untouched = rowwise ? q.columnwise : q.rowwise;
    (rowwise ? q.spec.columnwise_data : q.spec.rowwise_data) = TensorView();
    (rowwise ? q.spec.columnwise_scale_inv : q.spec.rowwise_scale_inv) = TensorView();
    TestExec exec;
    ASSERT_TRUE(IsOk(q.Run(exec)));
    EXPECT_TRUE(q.Equals(q.Want()));
    EXPECT_EQ(untouched.Bytes(), std::vector<uint8_t>(untouched.view().bytes(), 0x55));
  }
}

TEST_P(QuantizeTest, WithNeitherOrientationTheAmaxAlone) {
  if (unsupported()) GTEST_SKIP() << "see RefusesOnCuda";
  Quantization q(Input(dtype(), 150, 70, 4), spec());
  q.spec.rowwise_data = q.spec.columnwise_data = TensorView();
  q.spec.rowwise_scale_inv = q.spec.columnwise_scale_inv = TensorView();
  q.spec.scale = nullptr;
  q.spec.scale_inv = nullptr;
  TestExec exec;
  ASSERT_TRUE(IsOk(q.Run(exec)));
  EXPECT_EQ(q.amax->of_x, q.TensorScaled() ? AmaxRef(Floats(q.x)) : 0.0f);
}

TEST_P(QuantizeTest, AnyNumberOfThreadsGivesTheSameBits) {
  if (unsupported()) GTEST_SKIP() << "see RefusesOnCuda";
  Quantization q(Input(dtype(), 500, 300, 5), spec());
  for (const int threads : {1, 2, 5}) {
    Quantization other(Input(dtype(), 500, 300, 5), spec());
    TestExec exec(threads);
    ASSERT_TRUE(IsOk(other.Run(exec)));
    if (threads == 1) {
      ASSERT_TRUE(IsOk(q.Run(exec)));
    }
    EXPECT_EQ(q.rowwise.Bytes(), other.rowwise.Bytes());
    EXPECT_EQ(q.columnwise.Bytes(), other.columnwise.Bytes());
    EXPECT_EQ(q.rowwise_scales.Bytes(), other.rowwise_scales.Bytes());
    EXPECT_EQ(q.columnwise_scales.Bytes(), other.columnwise_scales.Bytes());
    EXPECT_EQ(q.amax->of_x, other.amax->of_x);
  }
}

// Blocks of zeros, of numbers whose scale overflows, with infinities, with NaN, of NaN alone, and
// of the largest numbers; rows 16 apart make a square of each kind.
TEST_P(QuantizeTest, NumbersThatAreNotOrdinary) {
  if (unsupported()) GTEST_SKIP() << "see RefusesOnCuda";
  constexpr int64_t kRows = 144, kColumns = 150;
  const std::vector<float> kinds = {0.0f, 1e-40f, kInf, kNaN, 3e38f, 1e-37f, -0.0f, 1.0f};
  for (size_t only = 0; only <= kinds.size(); ++only) {
    SCOPED_TRACE(only < kinds.size() ? kinds[only] : 12345);
    std::vector<double> values = test::NormalDoubles(kRows * kColumns, 6);
    for (int64_t i = 0; i < kRows * kColumns; ++i) {
      const int64_t r = i / kColumns, c = i % kColumns;
      const float kind = only < kinds.size()
                             ? kinds[only]
                             : kinds[(r / 128 * 3 + c / 128 * 5 + r / 16) % kinds.size()];
      const bool spiked = std::isinf(kind) || std::isnan(kind);
      if (!spiked || (r * 31 + c * 17) % 7 == 0) values[i] = kind * (r % 3 == 0 ? -1 : 1);
      if (std::isnan(kind) && r % 128 < 16) values[i] = kind;
      if (!spiked && (r + c) % 5 == 0) values[i] *= 0.3;
    }
    Quantization q(HostTensor(dtype(), {kRows, kColumns}, values), spec());
    TestExec exec;
    ASSERT_TRUE(IsOk(q.Run(exec)));
    EXPECT_TRUE(q.Equals(q.Want()));
  }
}

std::string NameOf(const testing::TestParamInfo<std::tuple<Options, DType>>& info) {
  return std::string(std::get<0>(info.param).name) + "_" + te::Name(std::get<1>(info.param));
}

INSTANTIATE_TEST_SUITE_P(All, QuantizeTest,
                         testing::Combine(testing::ValuesIn(kOptions),
                                          testing::Values(DType::kFloat32, DType::kBFloat16)),
                         NameOf);

// ---- By hand ----

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
  EXPECT_EQ(*q.scale_inv, 0.5f);
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
    EXPECT_EQ(*q.scale_inv, 1 / c.scale) << c.amax;
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
  EXPECT_EQ(*q.scale_inv, 1);
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
    EXPECT_EQ(*none.scale_inv, 1) << x;
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

// ---- Refusals ----

TEST(QuantizeArgumentsTest, RefusesOnCuda) {
  if (!test::kOnCuda) GTEST_SKIP() << "the CPU takes every scaling";
  for (const Options& options : kOptions) {
    if (!UnsupportedHere(options.scaling)) continue;
    Quantization q(Input(DType::kFloat32, 16, 32, 1), SpecOf(options));
    TestExec exec;
    EXPECT_TRUE(FailsWith(q.Run(exec), StatusCode::kUnsupported, "compute capability"))
        << options.name;
    EXPECT_EQ(q.rowwise.Bytes(), Codes(q.rowwise.view().bytes(), 0x55));
  }
}

TEST(QuantizeArgumentsTest, RefusesWhatTheContractDoesNotTake) {
  TestExec exec;
  const auto refuses = [&](const Options& options, const auto& change, const char* part) {
    Quantization q(Input(DType::kFloat32, 6, 8, 1), SpecOf(options));
    QuantizeArgs args = {.x = q.x, .out = q.spec};
    change(args);
    return FailsWith(TE_OP(Quantize)(exec, args), StatusCode::kInvalidArgument, part);
  };
  const Options tensor = {"", kE4M3, QuantScaling::kTensor},
                block = {"", kE4M3, QuantScaling::kBlock1x128},
                mx = {"", kE4M3, QuantScaling::kMx1x32},
                nvfp4 = {"", kE2M1, QuantScaling::kNvfp4_1x16, false, 0, false, true};
  const HostTensor integers(DType::kInt32, {6, 8}), cube(DType::kFloat32, {6, 8, 1});
  EXPECT_TRUE(refuses(
      tensor, [&](QuantizeArgs& a) { a.x = integers; }, "x is int32 [6, 8]"));
  EXPECT_TRUE(refuses(
      tensor, [&](QuantizeArgs& a) { a.x = cube; }, "x is float32 [6, 8, 1]"));
  EXPECT_TRUE(refuses(
      tensor, [](QuantizeArgs& a) { a.out.format = QuantFormat::kNone; }, "format is none"));
  EXPECT_TRUE(refuses(
      tensor, [](QuantizeArgs& a) { a.out.format = kE2M1; }, "format e2m1"));
  EXPECT_TRUE(refuses(
      tensor, [](QuantizeArgs& a) { a.out.scale = nullptr; }, "has no scale,"));
  EXPECT_TRUE(refuses(
      tensor, [](QuantizeArgs& a) { a.out.scale_inv = nullptr; }, "no scale_inv"));
  EXPECT_TRUE(refuses(
      tensor, [](QuantizeArgs& a) { a.out.power_of_2_scales = true; }, "power_of_2_scales true"));
  EXPECT_TRUE(refuses(
      mx, [](QuantizeArgs& a) { a.out.amax_epsilon = 1; }, "amax_epsilon 1"));
  EXPECT_TRUE(refuses(
      block, [](QuantizeArgs& a) { a.out.amax_epsilon = -1; }, "is -1"));
  EXPECT_TRUE(refuses(
      block, [](QuantizeArgs& a) { a.out.amax_epsilon = kNaN; }, "is nan"));
  EXPECT_TRUE(refuses(
      block, [](QuantizeArgs& a) { a.out.stochastic_rounding = true; },
      "stochastic_rounding true"));
  EXPECT_TRUE(refuses(
      tensor, [](QuantizeArgs& a) { a.out.random_hadamard = true; }, "random_hadamard true"));
  EXPECT_TRUE(refuses(
      nvfp4, [](QuantizeArgs& a) { a.out.columnwise_tensor_scale_inv = nullptr; },
      "no columnwise_tensor_scale_inv"));
  EXPECT_TRUE(refuses(
      block, [](QuantizeArgs& a) { std::swap(a.out.rowwise_data, a.out.columnwise_data); },
      "rowwise data is uint8 [8, 6]; expected dense uint8 [6, 8]"));
  EXPECT_TRUE(refuses(
      block, [](QuantizeArgs& a) { a.out.columnwise_scale_inv = TensorView(); },
      "columnwise block scales"));
  EXPECT_TRUE(refuses(
      tensor,
      [](QuantizeArgs& a) {
        a.out.rowwise_data = TensorView(nullptr, DType::kUInt8, {6, 8});
      },
      "without an address"));
}

}  // namespace
}  // namespace te
