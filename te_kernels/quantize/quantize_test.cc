#include "te_kernels/quantize/quantize.h"

#include <tuple>

#include "te_kernels/quantize/quantization_case.h"

namespace te {
namespace {

using test::FailsWith;
using test::Floats;
using test::HostTensor;
using test::Input;
using test::IsOk;
using test::kE2M1;
using test::kE4M3;
using test::kInf;
using test::kNaN;
using test::kOptions;
using test::Quantization;
using test::QuantizeOptions;
using test::SpecOf;
using test::TestExec;
using test::UnsupportedHere;

class QuantizeTest : public testing::TestWithParam<std::tuple<QuantizeOptions, DType>> {
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

std::string NameOf(const testing::TestParamInfo<std::tuple<QuantizeOptions, DType>>& info) {
  return std::string(std::get<0>(info.param).name) + "_" + te::Name(std::get<1>(info.param));
}

INSTANTIATE_TEST_SUITE_P(All, QuantizeTest,
                         testing::Combine(testing::ValuesIn(kOptions),
                                          testing::Values(DType::kFloat32, DType::kBFloat16)),
                         NameOf);

// ---- Refusals ----

TEST(QuantizeArgumentsTest, RefusesOnCuda) {
  if (!test::kOnCuda) GTEST_SKIP() << "the CPU takes every scaling";
  for (const QuantizeOptions& options : kOptions) {
    if (!UnsupportedHere(options.scaling)) continue;
    Quantization q(Input(DType::kFloat32, 16, 32, 1), SpecOf(options));
    TestExec exec;
    EXPECT_TRUE(FailsWith(q.Run(exec), StatusCode::kUnsupported, "compute capability"))
        << options.name;
    EXPECT_EQ(q.rowwise.Bytes(), std::vector<uint8_t>(q.rowwise.view().bytes(), 0x55));
  }
}

TEST(QuantizeArgumentsTest, RefusesWhatTheContractDoesNotTake) {
  TestExec exec;
  const auto refuses = [&](const QuantizeOptions& options, const auto& change, const char* part) {
    Quantization q(Input(DType::kFloat32, 6, 8, 1), SpecOf(options));
    QuantizeArgs args = {.x = q.x, .out = q.spec};
    change(args);
    return FailsWith(TE_OP(Quantize)(exec, args), StatusCode::kInvalidArgument, part);
  };
  const QuantizeOptions tensor = {"", kE4M3, QuantScaling::kTensor},
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
      nvfp4, [](QuantizeArgs& a) { a.out.four_over_six = FourOverSix::kMAE; },
      "neither with four_over_six or row_scaled"));
  EXPECT_TRUE(refuses(
      nvfp4, [](QuantizeArgs& a) { a.out.row_scaled = true; },
      "neither with four_over_six or row_scaled"));
  EXPECT_TRUE(refuses(
      nvfp4, [](QuantizeArgs& a) { a.out.e4m3_use_256 = true; }, "e4m3_use_256 true"));
  EXPECT_TRUE(refuses(
      nvfp4, [](QuantizeArgs& a) { a.out.four_over_six = static_cast<FourOverSix>(7); },
      "four_over_six is 7"));
  EXPECT_TRUE(refuses(
      block, [](QuantizeArgs& a) { a.out.four_over_six = FourOverSix::kMSE; },
      "four_over_six MSE"));
  EXPECT_TRUE(refuses(
      tensor, [](QuantizeArgs& a) { a.out.row_scaled = true; }, "row_scaled true"));
  EXPECT_TRUE(refuses(
      nvfp4,
      [](QuantizeArgs& a) {
        a.out.random_hadamard = false;
        a.out.row_scaled = true;
        a.out.columnwise_tensor_scale_inv = nullptr;
      },
      "which row_scaled needs"));
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
