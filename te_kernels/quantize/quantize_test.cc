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
  Quantization q(Input(dtype(), 700, 500, 5), spec());
  for (const int threads : {1, 2, 3, 8}) {
    Quantization other(Input(dtype(), 700, 500, 5), spec());
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
  constexpr int64_t kRows = 256, kColumns = 300;
  const std::vector<float> kinds = {0.0f, 1e-40f, kInf, kNaN, 3e38f, 1e-37f, -0.0f, 1.0f};
  for (size_t only = 0; only <= kinds.size(); ++only) {
    SCOPED_TRACE(only < kinds.size() ? kinds[only] : 12345);
    std::vector<double> values = test::NormalDoubles(kRows * kColumns, 6);
    for (int64_t i = 0; i < kRows * kColumns; ++i) {
      const int64_t r = i / kColumns, c = i % kColumns;
      const float kind =
          only < kinds.size() ? kinds[only] : kinds[(r / 128 * 3 + c / 128 * 5 + r / 16) % 8];
      const bool spiked = std::isinf(kind) || std::isnan(kind);
      if (!spiked || (r * 31 + c * 17) % 7 == 0) values[i] = kind * (r % 3 == 0 ? -1 : 1);
      if (std::isnan(kind) && r % 128 < 16) values[i] = kind;
      if (!spiked && (r + c) % 5 == 0) values[i] *= 0.3;
    }
    Quantization q(HostTensor(dtype(), {kRows, kColumns}, values), spec());
    TestExec exec(2);
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

}  // namespace
}  // namespace te
