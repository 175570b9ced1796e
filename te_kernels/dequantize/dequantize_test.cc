#include "te_kernels/dequantize/dequantize.h"

#include <cmath>
#include <random>
#include <string>

#include "gtest/gtest.h"
#include "te_kernels/dequantize/dequantize_ref.h"
#include "te_kernels/quantize/quantize.h"
#include "te_kernels/testing/host_tensor.h"
#include "te_kernels/testing/near.h"
#include "te_kernels/testing/quantized_sink.h"
#include "te_kernels/testing/test_device.h"
#include "te_kernels/testing/test_memory.h"

namespace te {
namespace {

using test::FailsWith;
using test::HostTensor;
using test::IsOk;
using test::Shared;
using test::TestExec;

constexpr QuantFormat kE4M3 = QuantFormat::kFloat8E4M3, kE5M2 = QuantFormat::kFloat8E5M2,
                      kE2M1 = QuantFormat::kFloat4E2M1;

struct Kind {
  QuantFormat format;
  QuantScaling scaling;
  bool row_scaled = false;
};

const Kind kKinds[] = {
    {kE4M3, QuantScaling::kTensor},           {kE5M2, QuantScaling::kTensor},
    {kE4M3, QuantScaling::kTensorCurrent},    {kE4M3, QuantScaling::kBlock1x128},
    {kE5M2, QuantScaling::kBlock1x128},       {kE4M3, QuantScaling::kBlock128x128},
    {kE4M3, QuantScaling::kMx1x32},           {kE5M2, QuantScaling::kMx32x32},
    {kE2M1, QuantScaling::kNvfp4_1x16},       {kE2M1, QuantScaling::kNvfp4_16x16},
    {kE2M1, QuantScaling::kNvfp4_1x16, true},
};

// Both orientations of a [rows, columns] tensor.
struct Storage {
  Storage(const Kind& kind, int64_t rows, int64_t columns)
      : rowwise(DType::kUInt8, QuantDataShape(kind.format, rows, columns)),
        columnwise(DType::kUInt8, QuantDataShape(kind.format, columns, rows)),
        rowwise_scales(BlockScaleDType(kind.scaling), ScaleShape(kind, rows, columns)),
        columnwise_scales(BlockScaleDType(kind.scaling), ScaleShape(kind, columns, rows)),
        scale_inv(TensorScales(kind, rows, 0.3)),
        columnwise_tensor_scale_inv(TensorScales(kind, columns, 0.7)) {
    spec.row_scaled = kind.row_scaled;
    spec.format = kind.format;
    spec.scaling = kind.scaling;
    spec.rowwise_data = rowwise;
    spec.columnwise_data = columnwise;
    if (BlockScaleShape(kind.scaling, 1, 1).rank() != 0) {
      spec.rowwise_scale_inv = rowwise_scales;
      spec.columnwise_scale_inv = columnwise_scales;
    }
    spec.scale = scale.get();
    spec.scale_inv = scale_inv.view().as<float>();
    spec.columnwise_tensor_scale_inv = columnwise_tensor_scale_inv.view().as<float>();
  }
  // One, or a different one for each row.
  static HostTensor TensorScales(const Kind& kind, int64_t rows, double first) {
    std::vector<double> values = {first};
    for (int64_t r = 1; kind.row_scaled && r < rows; ++r)
      values.push_back(values.back() * (r % 9 == 0 ? 0.04 : 1.5));
    return HostTensor(DType::kFloat32, {static_cast<int64_t>(values.size())}, values);
  }
  static Shape ScaleShape(const Kind& kind, int64_t r, int64_t c) {
    const Shape shape = BlockScaleShape(kind.scaling, r, c);
    return shape.rank() == 0 ? Shape{0} : shape;
  }

  // Any codes, scales of any size; E8M0 and E4M3 scales of every code, NaN among them.
  void FillAtRandom(uint64_t seed) {
    std::mt19937_64 engine(seed);
    for (const HostTensor* t : {&rowwise, &columnwise, &rowwise_scales, &columnwise_scales}) {
      for (int64_t i = 0; i < t->view().elements(); ++i) {
        if (t->view().dtype() == DType::kUInt8) {
          t->view().as<uint8_t>()[i] = static_cast<uint8_t>(engine());
        } else {
          t->view().as<float>()[i] = std::ldexp(1.0f + static_cast<float>(engine() % 1000) / 1000,
                                                static_cast<int>(engine() % 60) - 30);
        }
      }
    }
  }

  std::vector<float> Want(Orientation orientation, int64_t rows, int64_t columns) const {
    const bool row = orientation == Orientation::kRowwise;
    const HostTensor& scales = row ? rowwise_scales : columnwise_scales;
    std::vector<float> floats;
    if (scales.view().dtype() == DType::kFloat32) {
      const std::vector<double> values = scales.ToDoubles();
      floats.assign(values.begin(), values.end());
    }
    const bool own = !row && spec.columnwise_has_own_scale();
    const std::vector<double> tensor = (own ? columnwise_tensor_scale_inv : scale_inv).ToDoubles();
    return DequantizeRef(spec.format, spec.scaling, rows, columns,
                         (row ? rowwise : columnwise).Bytes(), floats, scales.Bytes(),
                         {tensor.begin(), tensor.end()});
  }

  QuantSpec spec;
  HostTensor rowwise, columnwise, rowwise_scales, columnwise_scales;
  HostTensor scale_inv, columnwise_tensor_scale_inv;
  Shared<float> scale{3.0f};
};

std::vector<double> Rounded(const std::vector<float>& values, DType dtype) {
  std::vector<double> out;
  for (float v : values) {
    out.push_back(dtype == DType::kBFloat16 ? static_cast<float>(bfloat16(v)) : v);
  }
  return out;
}

class DequantizeTest : public testing::TestWithParam<Kind> {
 protected:
  void SetUp() override {
    const QuantScaling s = GetParam().scaling;
    const bool native =
        s == QuantScaling::kMx1x32 || s == QuantScaling::kMx32x32 || GetParam().format == kE2M1;
    if (test::kOnCuda && native) GTEST_SKIP() << "CUDA takes this format from capability 10.0 on";
  }
};

TEST_P(DequantizeTest, EqualsTheReference) {
  for (const auto& [m, k] : {std::pair<int64_t, int64_t>{128, 128},
                             {1, 1},
                             {5, 3},
                             {33, 17},
                             {130, 257},
                             {0, 4},
                             {4, 0}}) {
    for (const auto orientation : {Orientation::kRowwise, Orientation::kColumnwise}) {
      for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
        for (const bool hadamard : {false, true}) {
          if (hadamard && (GetParam().format != kE2M1 || GetParam().row_scaled)) continue;
          SCOPED_TRACE(testing::Message() << m << " x " << k << " " << te::Name(dtype));
          Storage storage(GetParam(), m, k);
          storage.FillAtRandom(1);
          storage.spec.random_hadamard = hadamard;
          const bool row = orientation == Orientation::kRowwise;
          const int64_t rows = row ? m : k, columns = row ? k : m;
          const HostTensor y(dtype, {rows, columns}, row ? 3 : 0);
          TestExec exec(2);
          ASSERT_TRUE(IsOk(TE_OP(Dequantize)(
              exec, {.x = storage.spec, .orientation = orientation, .y = Sink(y)})));
          const auto want = Rounded(storage.Want(orientation, rows, columns), dtype);
          EXPECT_TRUE(test::Near(y.ToDoubles(), want, 0.0));
          EXPECT_TRUE(y.GuardsIntact());
        }
      }
    }
  }
}

TEST_P(DequantizeTest, ADisturbedCodeOrScaleShows) {
  Storage storage(GetParam(), 40, 48);
  storage.FillAtRandom(2);
  // A code that is not 0 or NaN, in a block whose scale is neither.
  storage.rowwise.view().as<uint8_t>()[0] = 0x35;
  if (storage.rowwise_scales.view().elements() != 0 &&
      storage.rowwise_scales.view().dtype() == DType::kUInt8) {
    storage.rowwise_scales.view().as<uint8_t>()[0] = 0x40;
  }
  const HostTensor y(DType::kFloat32, {40, 48});
  TestExec exec;
  ASSERT_TRUE(IsOk(TE_OP(Dequantize)(exec, {.x = storage.spec, .y = Sink(y)})));
  const auto want = [&] {
    return Rounded(storage.Want(Orientation::kRowwise, 40, 48), DType::kFloat32);
  };
  EXPECT_TRUE(test::Near(y.ToDoubles(), want(), 0.0));
  storage.rowwise.view().as<uint8_t>()[0] = 0x34;
  EXPECT_FALSE(test::Near(y.ToDoubles(), want(), 0.0)) << "code";
  storage.rowwise.view().as<uint8_t>()[0] = 0x35;
  if (storage.rowwise_scales.view().elements() == 0) {
    *storage.spec.scale_inv *= 1.001f;
  } else if (storage.rowwise_scales.view().dtype() == DType::kUInt8) {
    storage.rowwise_scales.view().as<uint8_t>()[0] = 0x41;
  } else {
    storage.rowwise_scales.view().as<float>()[0] *= 1.001f;
  }
  EXPECT_FALSE(test::Near(y.ToDoubles(), want(), 0.0)) << "scale";
  if (GetParam().format != kE2M1) return;
  storage.rowwise_scales.view().as<uint8_t>()[0] = 0x40;
  EXPECT_TRUE(test::Near(y.ToDoubles(), want(), 0.0));
  storage.spec.scale_inv[0] *= 1.001f;
  EXPECT_FALSE(test::Near(y.ToDoubles(), want(), 0.0)) << "the tensor's or row's scale";
}

// What quantize wrote comes back: an element is off by at most half a step of its format. With u
// the format's unit roundoff (2^-4, 2^-3, 2^-2) that is u |x|, or u times the smallest normal value
// over the scale; the scale itself is off by 2^-23 and its own format's rounding: E4M3's 2^-4 of
// NVFP4 lets the largest value clip by that much. The smallest normal values are 2^-6 of 448, 2^-14
// of 57344, 1 of 6, in units of the block's amax; power-of-two scales (MX) waste up to a factor 2.
TEST_P(DequantizeTest, BringsBackWhatQuantizeWrote) {
  const Kind kind = GetParam();
  const bool nvfp4 = kind.format == kE2M1;
  const bool mx = kind.scaling == QuantScaling::kMx1x32 || kind.scaling == QuantScaling::kMx32x32;
  constexpr int64_t kRows = 150, kColumns = 170;
  const HostTensor x = HostTensor::Normal(DType::kFloat32, {kRows, kColumns}, 3);
  Storage storage(kind, kRows, kColumns);
  Shared<std::array<float, 2>> amax;
  storage.spec.amax = amax->data();
  TestExec exec;
  ASSERT_TRUE(IsOk(TE_OP(Quantize)(exec, {.x = x, .out = storage.spec})));
  const std::vector<double> values = x.ToDoubles();
  const double unit = kind.format == kE4M3 ? 0x1p-4 : kind.format == kE5M2 ? 0x1p-3 : 0x1p-2;
  const double smallest = kind.format == kE4M3 ? 0x1p-6 : kind.format == kE5M2 ? 0x1p-14 : 1.0;
  const double largest_step =
      kind.scaling == QuantScaling::kTensor
          ? smallest / *storage.scale
          : smallest * test::MaxAbs(values) / QuantMax(kind.format) * (mx ? 2 : 1);
  const double scale_error = nvfp4 ? 0x1p-4 : 0x1p-22;
  for (const auto orientation : {Orientation::kRowwise, Orientation::kColumnwise}) {
    const bool row = orientation == Orientation::kRowwise;
    const HostTensor y(DType::kFloat32, row ? Shape{kRows, kColumns} : Shape{kColumns, kRows});
    ASSERT_TRUE(IsOk(
        TE_OP(Dequantize)(exec, {.x = storage.spec, .orientation = orientation, .y = Sink(y)})));
    std::vector<double> want, tolerance;
    for (int64_t i = 0; i < kRows * kColumns; ++i) {
      want.push_back(row ? values[i] : values[i % kRows * kColumns + i / kRows]);
      tolerance.push_back(unit * std::max(std::fabs(want.back()), largest_step) *
                              (1 + scale_error) +
                          scale_error * std::fabs(want.back()));
    }
    EXPECT_TRUE(test::Near(y.ToDoubles(), want, tolerance));
    const int64_t at = 77;
    EXPECT_FALSE(
        test::Near(y.ToDoubles(), test::Disturbed(want, at, 3 * tolerance[at]), tolerance));
  }
}

// All codes of x, NaN and infinities among them: the quantized copies are those of the dense
// result, and its amax counts no NaN.
TEST(DequantizeSinkTest, QuantizedSinksHoldTheQuantizedDenseResult) {
  const Kind kinds[] = {{kE4M3, QuantScaling::kTensor},
                        {kE5M2, QuantScaling::kTensor},
                        {kE4M3, QuantScaling::kTensorCurrent},
                        {kE4M3, QuantScaling::kBlock1x128}};
  KernelLog log;
  const TestExec plain_exec(2);
  Exec exec = plain_exec;
  exec.log = &log;
  for (const auto& [m, k] :
       {std::pair<int64_t, int64_t>{16, 16}, {272, 144}, {48, 400}, {33, 17}, {128, 24}, {0, 16}}) {
    for (const Kind& kind : kinds) {
      for (const auto orientation : {Orientation::kRowwise, Orientation::kColumnwise}) {
        for (const DType dtype : {DType::kBFloat16, DType::kFloat32}) {
          Storage storage(kind, m, k);
          storage.FillAtRandom(1);
          const bool row = orientation == Orientation::kRowwise;
          const TensorView codes = row ? storage.rowwise : storage.columnwise;
          for (int64_t i = 0; i < codes.elements(); ++i)
            codes.as<uint8_t>()[i] = static_cast<uint8_t>(i * 37 + i / 256);
          const int64_t rows = codes.dim(0), columns = codes.dim(1);
          const HostTensor y(dtype, {rows, columns}), other(dtype, {rows, columns});
          DequantizeArgs args = {
              .x = storage.spec, .orientation = orientation, .y = Sink(y), .dtype = dtype};
          ASSERT_TRUE(IsOk(TE_OP(Dequantize)(exec, args)));
          if (codes.elements() != 0) codes.as<uint8_t>()[0] ^= 0x80;
          args.y = Sink(other);
          ASSERT_TRUE(IsOk(TE_OP(Dequantize)(exec, args)));
          if (codes.elements() != 0) codes.as<uint8_t>()[0] ^= 0x80;
          for (const test::SinkCase& c : test::SinkCases()) {
            SCOPED_TRACE(testing::Message()
                         << te::Name(kind.format) << " " << te::Name(kind.scaling) << " " << rows
                         << " x " << columns << " " << te::Name(dtype) << " to " << c.ToString());
            const test::QuantizedTensor want(c, rows, columns), twin(c, rows, columns),
                got(c, rows, columns);
            ASSERT_TRUE(IsOk(TE_OP(Quantize)(exec, {.x = y, .out = want.spec()})));
            ASSERT_TRUE(IsOk(TE_OP(Quantize)(exec, {.x = other, .out = twin.spec()})));
            const HostTensor again(dtype, {rows, columns}, 8);
            args.y = c.dense ? Sink(again) : Sink();
            args.y.quant = got.spec();
            log.Clear();
            ASSERT_TRUE(IsOk(TE_OP(Dequantize)(exec, args)));
            EXPECT_TRUE(got.Bytes() == want.Bytes());
            EXPECT_TRUE(got.GuardsIntact() && again.GuardsIntact());
            if (c.dense) {
              EXPECT_TRUE(again.Bytes() == y.Bytes());
            }
            // A code of the other sign; 0x80 is -0, whose code has the other sign, too.
            if (codes.elements() != 0 && (c.rowwise || c.columnwise)) {
              EXPECT_FALSE(got.Bytes() == twin.Bytes());
            }
            if (!test::kOnCuda || codes.elements() == 0) continue;
            const bool fuses = c.CanFuse() && !c.dense && dtype == DType::kBFloat16 &&
                               kind.scaling != QuantScaling::kBlock1x128 && rows % 16 == 0 &&
                               columns % 16 == 0;
            ASSERT_EQ(log.records().size(), fuses ? 1u : 2u);
            EXPECT_EQ(log.records()[0].kernel, fuses ? "dequantize_fp8_cuda" : "dequantize_cuda");
          }
        }
      }
    }
  }
}

TEST(DequantizeArgumentsTest, RefusesWhatTheContractDoesNotTake) {
  const Kind kind = {kE4M3, QuantScaling::kBlock1x128};
  Storage storage(kind, 6, 8);
  const HostTensor y(DType::kFloat32, {6, 8}), other(DType::kFloat32, {8, 8}),
      bytes(DType::kUInt8, {6, 8});
  TestExec exec;
  const auto refuses = [&](const DequantizeArgs& args, const char* part) {
    return FailsWith(TE_OP(Dequantize)(exec, args), StatusCode::kInvalidArgument, part);
  };
  EXPECT_TRUE(refuses({.y = Sink(y)}, "format is none"));
  EXPECT_TRUE(refuses({.x = storage.spec, .y = Sink(bytes)}, "y is uint8 [6, 8]"));
  EXPECT_TRUE(refuses({.x = storage.spec, .y = Sink(other)}, "rowwise data is uint8 [6, 8]"));
  EXPECT_TRUE(refuses({.x = storage.spec, .orientation = Orientation::kColumnwise, .y = Sink(y)},
                      "columnwise"));
  QuantSpec one = storage.spec;
  one.columnwise_data = TensorView();
  EXPECT_TRUE(IsOk(TE_OP(Dequantize)(exec, {.x = one, .y = Sink(y)})));
  EXPECT_TRUE(refuses({.x = one, .orientation = Orientation::kColumnwise, .y = Sink(other)},
                      "x has no columnwise data"));
  one.rowwise_scale_inv = TensorView();
  EXPECT_TRUE(refuses({.x = one, .y = Sink(y)}, "rowwise block scales"));
  Storage tensor({kE4M3, QuantScaling::kTensor}, 6, 8);
  tensor.spec.scale_inv = nullptr;
  EXPECT_TRUE(refuses({.x = tensor.spec, .y = Sink(y)}, "no scale_inv"));
  EXPECT_TRUE(refuses({.x = storage.spec}, "y is nothing"));
  const test::QuantizedTensor into({}, 6, 8), turned({}, 8, 6);
  DequantizeArgs args = {.x = storage.spec};
  args.y.quant = into.spec();
  EXPECT_TRUE(IsOk(TE_OP(Dequantize)(exec, args)));
  args.dtype = DType::kUInt8;
  EXPECT_TRUE(refuses(args, "dtype is uint8"));
  args.dtype = DType::kBFloat16;
  args.y.quant = turned.spec();
  EXPECT_TRUE(refuses(args, "y's rowwise data"));
  args.y.quant = into.spec();
  args.x.rowwise_data = TensorView();
  EXPECT_TRUE(refuses(args, "x's rowwise data is nothing"));
  Storage fp4({kE2M1, QuantScaling::kNvfp4_1x16}, 6, 8);
  args.x = fp4.spec;
  EXPECT_TRUE(FailsWith(TE_OP(Dequantize)(exec, args), StatusCode::kUnsupported,
                        "x is e2m1 and y quantized"));
}

INSTANTIATE_TEST_SUITE_P(All, DequantizeTest, testing::ValuesIn(kKinds), [](const auto& info) {
  return std::string(te::Name(info.param.scaling)) + "_" + te::Name(info.param.format) +
         (info.param.row_scaled ? "_rows" : "");
});

}  // namespace
}  // namespace te
