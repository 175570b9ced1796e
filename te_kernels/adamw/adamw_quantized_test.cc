// AdamW's quantized_param: the update beside it, and the copies, are those of two separate calls.
#include <cmath>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "te_kernels/adamw/adamw.h"
#include "te_kernels/quantize/quantize.h"
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

constexpr DType kF32 = DType::kFloat32;
constexpr DType kBf16 = DType::kBFloat16;
constexpr QuantFormat kE4M3 = QuantFormat::kFloat8E4M3;

struct Dtypes {
  DType param;
  DType grad;
  DType moments;
  bool master;
};
constexpr Dtypes kAllBf16 = {kBf16, kBf16, kBf16, false};
// Every combination that the fused kernels have, and a float32 param.
constexpr Dtypes kDtypes[] = {
    kAllBf16,
    {kBf16, kBf16, kBf16, true},
    {kBf16, kBf16, kF32, false},
    {kBf16, kBf16, kF32, true},
    {kBf16, kF32, kBf16, false},
    {kBf16, kF32, kBf16, true},
    {kBf16, kF32, kF32, false},
    {kBf16, kF32, kF32, true},
    {kF32, kF32, kF32, false},
};

// The tensors of one update of a matrix; `offset` elements before each leave it misaligned.
struct Problem {
  Problem(const Dtypes& d, int64_t rows, int64_t columns, int64_t offset = 0)
      : param(HostTensor::Normal(d.param, {rows * columns + offset}, 1)),
        grad(HostTensor::Normal(d.grad, {rows * columns + offset}, 2, 50)),
        m(HostTensor::Normal(d.moments, {rows * columns + offset}, 3, 0.1)),
        v(HostTensor::Uniform(d.moments, {rows * columns + offset}, 4, 0, 0.2)),
        master(kF32, {d.master ? rows * columns + offset : 0},
               d.master ? param.ToDoubles() : std::vector<double>{}) {
    scalars->learning_rate = 0.01f;
    scalars->grad_scale = 0.02f;
    scalars->step = 3;
    scalars->rng_offset = 65536;
    const auto matrix = [&](const TensorView& x) {
      return x.Slice(0, offset, rows * columns + offset).Reshape({rows, columns});
    };
    args.param = matrix(param);
    args.grad = matrix(grad);
    args.m = matrix(m);
    args.v = matrix(v);
    if (d.master) args.master = matrix(master);
    args.weight_decay = 0.1;
    args.random = {.seed = 11, .stream = 12, .step_offset = &scalars->rng_offset};
    args.scalars = scalars.get();
  }
  std::vector<std::vector<uint8_t>> Bytes() const {
    return {param.Bytes(), m.Bytes(), v.Bytes(), master.Bytes()};
  }

  HostTensor param, grad, m, v, master;
  Shared<StepScalars> scalars;
  AdamWArgs args;
};

enum Wanted { kNeither = 0, kRowwise = 1, kColumnwise = 2, kBoth = 3 };

// A quantized matrix and all that belongs to it, filled with what nobody writes by chance.
struct Copies {
  Copies(QuantFormat format, QuantScaling scaling, int64_t rows, int64_t columns,
         int wanted = kBoth, bool has_amax = true)
      : rowwise(Codes(format, rows, columns)),
        columnwise(Codes(format, columns, rows)),
        row_scales(BlockScaleDType(scaling), BlockScaleShape(scaling, rows, columns)),
        column_scales(BlockScaleDType(scaling), BlockScaleShape(scaling, columns, rows)) {
    spec.format = format;
    spec.scaling = scaling;
    spec.scale = scale.get();
    if (BlockOf(scaling).rows == 0) spec.scale_inv = &scale_inv->value;
    if (has_amax) spec.amax = amax.get();
    if ((wanted & kRowwise) != 0) {
      spec.rowwise_data = rowwise;
      if (row_scales.view().rank() != 0) spec.rowwise_scale_inv = row_scales;
    }
    if ((wanted & kColumnwise) != 0) {
      spec.columnwise_data = columnwise;
      if (column_scales.view().rank() != 0) spec.columnwise_scale_inv = column_scales;
    }
  }
  static HostTensor Codes(QuantFormat format, int64_t rows, int64_t columns) {
    const Shape shape = QuantDataShape(format, rows, columns);
    return {DType::kUInt8, shape, std::vector<double>(shape.elements(), 0x5a)};
  }
  std::vector<std::vector<uint8_t>> Bytes() const {
    const auto bytes = [](const float& x) {
      const auto* first = reinterpret_cast<const uint8_t*>(&x);
      return std::vector<uint8_t>(first, first + sizeof(x));
    };
    return {rowwise.Bytes(),       columnwise.Bytes(),      row_scales.Bytes(),
            column_scales.Bytes(), bytes(scale_inv->value), bytes(*amax)};
  }
  bool GuardsIntact() const {
    return rowwise.GuardsIntact() && columnwise.GuardsIntact() && row_scales.GuardsIntact() &&
           column_scales.GuardsIntact();
  }

  struct alignas(16) Aligned {
    float value = -1;
  };
  HostTensor rowwise, columnwise, row_scales, column_scales;
  Shared<float> scale{300.0f};  // normal weights: some values beyond 1.49 clip
  Shared<float> amax{0.25f};    // below some weights: they raise it
  Shared<Aligned> scale_inv;
  QuantSpec spec;
};

struct Case {
  Dtypes dtypes = kAllBf16;
  int64_t rows = 128;
  int64_t columns = 192;
  Rounding rounding = Rounding::kNearest;
  int64_t offset = 0;
  QuantFormat format = kE4M3;
  QuantScaling scaling = QuantScaling::kTensor;
  int wanted = kBoth;
  bool has_amax = true;
  bool skip = false;

  std::string ToString() const {
    return fmt::format(
        "param {} grad {} moments {} master {} [{}, {}] {} offset {} {} {} wanted {} amax {} skip "
        "{}",
        Name(dtypes.param), Name(dtypes.grad), Name(dtypes.moments), dtypes.master, rows, columns,
        rounding == Rounding::kStochastic ? "stochastic" : "nearest", offset, Name(format),
        Name(scaling), wanted, has_amax, skip);
  }
};

void ExpectTheDenseUpdateThenQuantize(const Case& c) {
  SCOPED_TRACE(c.ToString());
  Problem dense(c.dtypes, c.rows, c.columns, c.offset), p(c.dtypes, c.rows, c.columns, c.offset);
  const Copies want(c.format, c.scaling, c.rows, c.columns, c.wanted, c.has_amax);
  const Copies got(c.format, c.scaling, c.rows, c.columns, c.wanted, c.has_amax);
  for (Problem* problem : {&dense, &p}) {
    problem->args.rounding = c.rounding;
    problem->scalars->skip = c.skip ? 1 : 0;
  }
  p.args.quantized_param = got.spec;
  const auto before = p.Bytes();
  TestExec exec;
  ASSERT_TRUE(IsOk(TE_OP(AdamW)(exec, dense.args)));
  ASSERT_TRUE(IsOk(TE_OP(Quantize)(exec, {.x = dense.args.param, .out = want.spec})));
  ASSERT_TRUE(IsOk(TE_OP(AdamW)(exec, p.args)));
  EXPECT_EQ(p.Bytes(), dense.Bytes());
  EXPECT_EQ(p.Bytes() == before, c.skip || c.rows * c.columns == 0);
  EXPECT_EQ(got.Bytes(), want.Bytes());
  EXPECT_TRUE(got.GuardsIntact());
  for (const HostTensor* t : {&p.param, &p.grad, &p.m, &p.v, &p.master})
    EXPECT_TRUE(t->GuardsIntact());
  if (c.rows * c.columns == 0 || (c.wanted == kNeither && !c.has_amax)) return;
  // A twin: one weight, the last of all, of another sign and size.
  const TensorView last =
      dense.args.param.Slice(0, c.rows - 1, c.rows).Slice(1, c.columns - 1, c.columns);
  const double old = test::ToDoubles(last)[0];
  test::FromDoubles({std::copysign(1.25 * std::abs(old) + 5, -old)}, last);
  ASSERT_TRUE(IsOk(TE_OP(Quantize)(exec, {.x = dense.args.param, .out = want.spec})));
  EXPECT_NE(got.Bytes(), want.Bytes());
}

TEST(AdamWQuantizedTest, EqualsTheDenseUpdateThenQuantizeInEveryCombinationOfDtypes) {
  for (const Dtypes& dtypes : kDtypes) {
    for (const Rounding rounding : {Rounding::kNearest, Rounding::kStochastic}) {
      for (const QuantScaling scaling : {QuantScaling::kTensor, QuantScaling::kTensorCurrent}) {
        for (const bool skip : {false, true}) {
          ExpectTheDenseUpdateThenQuantize(
              {.dtypes = dtypes, .rounding = rounding, .scaling = scaling, .skip = skip});
        }
      }
    }
  }
}

// The fused kernel (tiles of 64 x 256, whole and not) and everything but.
TEST(AdamWQuantizedTest, EqualsTheDenseUpdateThenQuantizeInEveryShape) {
  const int64_t shapes[][2] = {{64, 64},  {64, 128}, {128, 64},  {192, 320}, {320, 64}, {0, 64},
                               {64, 0},   {1, 1},    {37, 53},   {64, 72},   {72, 64},  {1, 128},
                               {128, 65}, {65, 128}, {128, 520}, {192, 264}};
  for (const auto& shape : shapes) {
    for (const int wanted : {kNeither, kRowwise, kColumnwise, kBoth}) {
      for (const QuantScaling scaling : {QuantScaling::kTensor, QuantScaling::kTensorCurrent}) {
        ExpectTheDenseUpdateThenQuantize({.rows = shape[0],
                                          .columns = shape[1],
                                          .scaling = scaling,
                                          .wanted = wanted,
                                          .has_amax = wanted != kRowwise});
      }
    }
  }
  for (const QuantScaling scaling : {QuantScaling::kTensor, QuantScaling::kTensorCurrent})
    ExpectTheDenseUpdateThenQuantize({.offset = 1, .scaling = scaling});
  if (test::kOnCuda) {  // more tiles than an H200 holds at a time
    ExpectTheDenseUpdateThenQuantize(
        {.rows = 4096, .columns = 1344, .rounding = Rounding::kStochastic});
  }
}

TEST(AdamWQuantizedTest, EqualsTheDenseUpdateThenQuantizeInEveryScaling) {
  for (const bool skip : {false, true}) {
    for (const QuantScaling scaling : {QuantScaling::kTensor, QuantScaling::kTensorCurrent,
                                       QuantScaling::kBlock1x128, QuantScaling::kBlock128x128}) {
      for (const QuantFormat format : {kE4M3, QuantFormat::kFloat8E5M2}) {
        ExpectTheDenseUpdateThenQuantize({.format = format, .scaling = scaling, .skip = skip});
        ExpectTheDenseUpdateThenQuantize(
            {.rows = 96, .columns = 200, .format = format, .scaling = scaling, .skip = skip});
      }
    }
    if (!test::kOnCuda)
      ExpectTheDenseUpdateThenQuantize({.scaling = QuantScaling::kMx32x32, .skip = skip});
  }
}

// What no rounding meets by itself: NaN, infinities, values beyond the largest code and below the
// smallest. Step size and decay are 0: the weights stay as they are.
TEST(AdamWQuantizedTest, SpecialValuesAreQuantizedAsTheyAre) {
  for (const Rounding rounding : {Rounding::kNearest, Rounding::kStochastic}) {
    Problem p(kAllBf16, 64, 64);
    const Copies want(kE4M3, QuantScaling::kTensor, 64, 64);
    const Copies got(kE4M3, QuantScaling::kTensor, 64, 64);
    std::vector<double> weights = p.param.ToDoubles();
    const double special[] = {std::nan(""), HUGE_VAL, -HUGE_VAL, 1e30, -1e30, 0.0, 1e-30};
    for (size_t i = 0; i < std::size(special); ++i) weights[67 * i] = special[i];
    test::FromDoubles(weights, p.args.param);
    p.scalars->learning_rate = 0;
    p.args.rounding = rounding;
    p.args.quantized_param = got.spec;
    const std::vector<double> before = p.param.ToDoubles();
    TestExec exec;
    ASSERT_TRUE(IsOk(TE_OP(Quantize)(exec, {.x = p.args.param, .out = want.spec})));
    ASSERT_TRUE(IsOk(TE_OP(AdamW)(exec, p.args)));
    EXPECT_TRUE(test::Near(p.param.ToDoubles(), before, 0));  // whatever the bits of a NaN
    EXPECT_EQ(got.Bytes(), want.Bytes());
    EXPECT_EQ(*got.amax, HUGE_VALF);
  }
}

TEST(AdamWQuantizedTest, AmaxKeepsALargerValue) {
  Problem p(kAllBf16, 64, 64);
  const Copies copies(kE4M3, QuantScaling::kTensor, 64, 64);
  *copies.amax = 100;
  p.args.quantized_param = copies.spec;
  TestExec exec;
  ASSERT_TRUE(IsOk(TE_OP(AdamW)(exec, p.args)));
  EXPECT_EQ(*copies.amax, 100);
  *copies.amax = 0;
  p.scalars->skip = 1;
  ASSERT_TRUE(IsOk(TE_OP(AdamW)(exec, p.args)));
  EXPECT_EQ(*copies.amax, test::MaxAbs(p.param.ToDoubles()));
}

// Weights that halve, call after call, beside an amax from before that is larger than all: neither
// that, nor the old weights, nor the call before may be in what is written.
TEST(AdamWQuantizedTest, CurrentScalingIsThatOfTheNewWeightsAlone) {
  for (const Dtypes& dtypes : {kAllBf16, {kBf16, kBf16, kF32, true}, {kF32, kF32, kF32, false}}) {
    for (const bool has_amax : {true, false}) {
      SCOPED_TRACE(fmt::format("param {} amax {}", Name(dtypes.param), has_amax));
      constexpr auto kCurrent = QuantScaling::kTensorCurrent;
      Problem p(dtypes, 96, 200);
      const Copies want(kE4M3, kCurrent, 96, 200, kBoth, has_amax);
      const Copies got(kE4M3, kCurrent, 96, 200, kBoth, has_amax);
      for (const HostTensor* t : {&p.grad, &p.m})
        test::FromDoubles(std::vector<double>(96 * 200, 0), *t);
      p.scalars->learning_rate = 1;
      p.args.weight_decay = 0.5;
      p.args.quantized_param = got.spec;
      *got.amax = *want.amax = 1000;
      TestExec exec;
      for (const bool skip : {false, false, true, false}) {
        p.scalars->skip = skip ? 1 : 0;
        const double before = test::MaxAbs(p.param.ToDoubles());
        ASSERT_TRUE(IsOk(TE_OP(AdamW)(exec, p.args)));
        const double after = test::MaxAbs(p.param.ToDoubles());
        EXPECT_EQ(after, skip ? before : before / 2);
        EXPECT_EQ(got.scale_inv->value, 1 / (448 / static_cast<float>(after)));
        EXPECT_EQ(*got.amax, has_amax ? after : 1000);
        ASSERT_TRUE(IsOk(TE_OP(Quantize)(exec, {.x = p.args.param, .out = want.spec})));
        EXPECT_EQ(got.Bytes(), want.Bytes());
      }
    }
  }
}

// The amax is that of what is stored: NaN is not counted, and a rounding may end at infinity, which
// makes the scale 1. Step size and decay are 0.
TEST(AdamWQuantizedTest, CurrentScalingIsThatOfTheStoredWeights) {
  struct Special {
    float master;
    float stored;
  };
  constexpr float kLargest = 3.4028234664e38f;
  const Special specials[] = {{0, 0},
                              {9.96875f, 10.0f},  // halfway between 9.9375 and 10
                              {-9.9843f, -10.0f},
                              {-9.9531f, -9.9375f},
                              {kLargest, HUGE_VALF},
                              {-HUGE_VALF, -HUGE_VALF}};
  for (const Special& special : specials) {
    SCOPED_TRACE(special.master);
    Problem p({kBf16, kBf16, kBf16, true}, 64, 64);
    const Copies want(kE4M3, QuantScaling::kTensorCurrent, 64, 64);
    const Copies got(kE4M3, QuantScaling::kTensorCurrent, 64, 64);
    std::vector<double> weights(64 * 64, 1e-3);
    weights[5] = weights[4095] = std::nan("");
    weights[4000] = special.master;
    test::FromDoubles(weights, p.args.master);
    p.scalars->learning_rate = 0;
    p.args.quantized_param = got.spec;
    TestExec exec;
    ASSERT_TRUE(IsOk(TE_OP(AdamW)(exec, p.args)));
    EXPECT_EQ(static_cast<float>(p.param.ToDoubles()[4000]), special.stored);
    EXPECT_EQ(*got.amax, special.stored == 0 ? static_cast<float>(p.param.ToDoubles()[0])
                                             : std::abs(special.stored));
    EXPECT_EQ(got.scale_inv->value == 1, std::isinf(special.stored));
    ASSERT_TRUE(IsOk(TE_OP(Quantize)(exec, {.x = p.args.param, .out = want.spec})));
    EXPECT_EQ(got.Bytes(), want.Bytes());
  }
}

TEST(AdamWQuantizedTest, RecordsOnePassOrTwo) {
  if (!test::kOnCuda) GTEST_SKIP() << "the CPU backend keeps no records";
  const auto kernels = [](int64_t rows, QuantScaling scaling) {
    Problem p(kAllBf16, rows, 64);
    const Copies copies(kE4M3, scaling, rows, 64);
    p.args.quantized_param = copies.spec;
    TestExec test_exec;
    KernelLog log;
    Exec exec = test_exec.exec();
    exec.log = &log;
    EXPECT_TRUE(IsOk(TE_OP(AdamW)(exec, p.args)));
    std::vector<std::string> lines;
    for (const KernelRecord& record : log.records())
      lines.push_back(fmt::format("{} {}", record.kernel, record.bytes / (rows * 64)));
    return lines;
  };
  using Lines = std::vector<std::string>;  // with bytes an element
  EXPECT_EQ(kernels(64, QuantScaling::kTensor), (Lines{"adamw_fp8_cuda 16"}));
  EXPECT_EQ(kernels(63, QuantScaling::kTensor), (Lines{"adamw_cuda 14", "quantize_tensor_cuda 4"}));
  for (const int64_t rows : {63, 64}) {
    EXPECT_EQ(kernels(rows, QuantScaling::kTensorCurrent),
              (Lines{"adamw_cuda 14", "quantize_with_amax_cuda 4"}));
  }
}

TEST(AdamWQuantizedTest, RefusesWhatTheContractDoesNotTake) {
  const auto check = [](const auto& change, const char* part) {
    Problem p(kAllBf16, 64, 64);
    Copies copies(kE4M3, QuantScaling::kTensor, 64, 64);
    p.args.quantized_param = copies.spec;
    change(p);
    const auto before = p.Bytes();
    const auto copies_before = copies.Bytes();
    TestExec exec;
    EXPECT_TRUE(FailsWith(TE_OP(AdamW)(exec, p.args), StatusCode::kInvalidArgument, part));
    EXPECT_EQ(p.Bytes(), before);
    EXPECT_EQ(copies.Bytes(), copies_before);
  };
  check([](Problem& p) { p.args.param = p.args.param.Reshape({64 * 64}); }, "expected rank 2");
  check([](Problem& p) { p.args.param = p.args.param.Reshape({32, 128}); }, "rowwise data");
  check([](Problem& p) { p.args.quantized_param.scale = nullptr; }, "no scale");
  check([](Problem& p) { p.args.quantized_param.scale_inv = nullptr; }, "no scale_inv");
  check([](Problem& p) { p.args.quantized_param.scaling = QuantScaling::kNvfp4_1x16; }, "e2m1");
}

// Before anything is updated.
TEST(AdamWQuantizedTest, RefusesScalingsOfNewerDevices) {
  if (!test::kOnCuda) GTEST_SKIP() << "the CPU backend takes every scaling";
  Problem p(kAllBf16, 64, 64);
  const Copies copies(kE4M3, QuantScaling::kMx32x32, 64, 64);
  p.args.quantized_param = copies.spec;
  const auto before = p.Bytes();
  TestExec exec;
  EXPECT_TRUE(FailsWith(TE_OP(AdamW)(exec, p.args), StatusCode::kUnsupported, "compute"));
  EXPECT_EQ(p.Bytes(), before);
}

}  // namespace
}  // namespace te
