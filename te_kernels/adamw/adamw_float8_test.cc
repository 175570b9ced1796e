// AdamW of FP8-only weights: the update of a float32 parameter between a decoding and a cast.
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "gtest/gtest.h"
#include "te_kernels/adamw/adamw.h"
#include "te_kernels/adamw/stochastic_float8.h"
#include "te_kernels/base/float8.h"
#include "te_kernels/testing/host_tensor.h"
#include "te_kernels/testing/near.h"
#include "te_kernels/testing/test_device.h"
#include "te_kernels/testing/test_memory.h"

namespace te {
namespace {

using adamw::StochasticFloat8E4M3Bits;
using test::FailsWith;
using test::HostTensor;
using test::IsOk;
using test::Shared;
using test::TestExec;

constexpr DType kF32 = DType::kFloat32;
constexpr DType kBf16 = DType::kBFloat16;
constexpr DType kU8 = DType::kUInt8;

// Values that E4M3 can hold: finite codes of both signs, subnormal ones among them.
std::vector<double> Codes(int64_t count) {
  std::vector<double> codes = test::UniformDoubles(count, 5, 0, 254);
  for (double& code : codes)
    code = std::floor(code) >= 127 ? std::floor(code) + 1 : std::floor(code);
  return codes;
}

struct alignas(16) Aligned {
  float value = -1;
};

struct Problem {
  Problem(DType grad_dtype, DType moments, int64_t rows, int64_t columns)
      : codes(kU8, {rows, columns}, Codes(rows * columns)),
        transposed(kU8, {columns, rows}),
        grad(HostTensor::Normal(grad_dtype, {rows, columns}, 2, 50)),
        m(HostTensor::Normal(moments, {rows, columns}, 3, 0.1)),
        v(HostTensor::Uniform(moments, {rows, columns}, 4, 0, 0.2)) {
    scalars->learning_rate = 0.01f;
    scalars->grad_scale = 0.02f;
    scalars->step = 3;
    scalars->rng_offset = 65536;
    args.grad = grad;
    args.m = m;
    args.v = v;
    args.weight_decay = 0.1;
    args.random = {.seed = 11, .stream = 12, .step_offset = &scalars->rng_offset};
    args.scalars = scalars.get();
    args.previous_scale_inv = previous_scale_inv.get();
    args.quantized_param.format = QuantFormat::kFloat8E4M3;
    args.quantized_param.scale = scale.get();
    args.quantized_param.scale_inv = &scale_inv->value;
    args.quantized_param.amax = amax.get();
    args.quantized_param.rowwise_data = codes;
    args.quantized_param.columnwise_data = transposed;
  }
  // The float32 parameter that the codes stand for.
  HostTensor Decoded() const {
    HostTensor out(kF32, codes.view().shape());
    for (int64_t i = 0; i < codes.view().elements(); ++i)
      out.view().as<float>()[i] = Value(codes.view().as<uint8_t>()[i]);
    return out;
  }
  float Value(uint8_t code) const { return kFloat8E4M3Values[code] * *previous_scale_inv; }
  std::vector<std::vector<uint8_t>> Bytes() const {
    return {codes.Bytes(), transposed.Bytes(), m.Bytes(), v.Bytes()};
  }
  void ExpectTransposed() const {
    const int64_t rows = codes.view().dim(0), columns = codes.view().dim(1);
    std::vector<uint8_t> want;
    for (int64_t c = 0; c < columns; ++c) {
      for (int64_t r = 0; r < rows; ++r)
        want.push_back(codes.view().as<uint8_t>()[r * columns + c]);
    }
    EXPECT_EQ(transposed.Bytes(), want);
    for (const HostTensor* t : {&codes, &transposed, &grad, &m, &v}) EXPECT_TRUE(t->GuardsIntact());
  }

  HostTensor codes, transposed, grad, m, v;
  Shared<float> previous_scale_inv{1 / 300.0f}, scale{280.0f}, amax{0.25f};
  Shared<Aligned> scale_inv;
  Shared<StepScalars> scalars;
  AdamWArgs args;
};

// What no rounding meets by itself: NaN and infinities among codes, gradients and moments, zeros of
// both signs, and weights whose codes clip.
void MakeSpecial(Problem* p) {
  const auto set = [](const HostTensor& t, const std::vector<double>& values) {
    std::vector<double> all = t.ToDoubles();
    for (size_t i = 0; i < values.size(); ++i) all[67 * i + 5] = values[i];
    test::FromDoubles(all, t);
  };
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  constexpr double kInf = HUGE_VAL;
  set(p->codes, {0x7f, 0xff, 0x00, 0x80, 0x7e, 0xfe, 0x01, 0x81});
  set(p->grad, {0, 0, 0, 0, -50, 50, 0, 0, kNan, kInf, -kInf, 1, 1, 1, 1, 1e30, -1e30});
  set(p->m, {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, kNan, kInf, -kInf, 1e30, 0, 0});
  set(p->v, {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, kNan, kInf, -1});
}

void ExpectTheFloat32Update(DType grad, DType moments, Rounding rounding, int64_t rows,
                            int64_t columns, bool columnwise = true, bool special = false) {
  SCOPED_TRACE(fmt::format(
      "grad {} moments {} {} [{}, {}] columnwise {}", Name(grad), Name(moments),
      rounding == Rounding::kStochastic ? "stochastic" : "nearest", rows, columns, columnwise));
  Problem p(grad, moments, rows, columns), wide(grad, moments, rows, columns);
  if (special) {
    MakeSpecial(&p);
    MakeSpecial(&wide);
  }
  p.args.rounding = rounding;
  if (!columnwise) p.args.quantized_param.columnwise_data = {};
  const HostTensor w = p.Decoded();
  wide.args.rounding = rounding;
  wide.args.param = w;
  wide.args.previous_scale_inv = nullptr;
  wide.args.quantized_param = {};
  TestExec exec;
  ASSERT_TRUE(IsOk(TE_OP(AdamW)(exec, wide.args)));
  ASSERT_TRUE(IsOk(TE_OP(AdamW)(exec, p.args)));
  const RandomState random = p.args.random.Resolved();
  std::vector<uint8_t> want(rows * columns);
  float amax = 0.25f;
  for (int64_t i = 0; i < rows * columns; ++i) {
    const float updated = w.view().as<float>()[i];
    amax = std::fmax(amax, std::fabs(updated));
    want[i] = rounding == Rounding::kStochastic
                  ? StochasticFloat8E4M3Bits(updated * 280.0f, Philox::At(random, i) & 0xffffu)
                  : FloatToFloat8E4M3Bits(updated * 280.0f);
  }
  EXPECT_EQ(p.codes.Bytes(), want);
  EXPECT_EQ(p.m.Bytes(), wide.m.Bytes());
  EXPECT_EQ(p.v.Bytes(), wide.v.Bytes());
  EXPECT_EQ(*p.amax, amax);
  EXPECT_EQ(p.scale_inv->value, 1 / 280.0f);
  if (columnwise) {
    p.ExpectTransposed();
  } else {
    EXPECT_EQ(p.transposed.Bytes(), std::vector<uint8_t>(rows * columns));
  }
  if (want.empty()) return;
  want.back() ^= 1;  // a twin: the neighbouring code
  EXPECT_NE(p.codes.Bytes(), want);
}

TEST(AdamWFloat8Test, EqualsTheUpdateOfAFloat32Parameter) {
  for (const DType grad : {kF32, kBf16}) {
    for (const DType moments : {kF32, kBf16}) {
      for (const Rounding rounding : {Rounding::kNearest, Rounding::kStochastic}) {
        ExpectTheFloat32Update(grad, moments, rounding, 128, 192);
        ExpectTheFloat32Update(grad, moments, rounding, 37, 53);
        ExpectTheFloat32Update(grad, moments, rounding, 64, 64, true, /*special=*/true);
        ExpectTheFloat32Update(grad, moments, rounding, 61, 64, true, /*special=*/true);
      }
    }
  }
  const int64_t shapes[][2] = {{0, 64},   {64, 0},  {1, 1},   {64, 64},
                               {64, 320}, {64, 72}, {72, 64}, {128, 520}};
  for (const auto& shape : shapes) {
    for (const bool columnwise : {true, false}) {
      ExpectTheFloat32Update(kBf16, kBf16, Rounding::kStochastic, shape[0], shape[1], columnwise);
    }
  }
}

// Every finite code under scales whose inverse is rounded: w * scale is not the code's value then,
// and yet no code may drift while the weight does not change.
TEST(AdamWFloat8Test, AWeightThatDoesNotChangeKeepsItsCode) {
  for (const Rounding rounding : {Rounding::kNearest, Rounding::kStochastic}) {
    for (const float scale : {1.0f, 3.0f, 300.0f, 1e-4f, 7.7e5f}) {
      Problem p(kBf16, kBf16, 64, 256);
      *p.scale = scale;
      *p.previous_scale_inv = 1 / scale;
      p.scalars->learning_rate = 0;
      p.args.rounding = rounding;
      std::vector<uint8_t> before = p.codes.Bytes();
      TestExec exec;
      ASSERT_TRUE(IsOk(TE_OP(AdamW)(exec, p.args)));
      std::vector<uint8_t> after = p.codes.Bytes();
      for (auto* codes : {&before, &after}) {
        for (uint8_t& code : *codes) code = code == 0x80 ? 0 : code;  // zero may change its sign
      }
      EXPECT_EQ(after, before) << scale;
    }
  }
}

// A sixteenth of the step between two codes is lost by nearest rounding and kept on average by
// stochastic rounding.
TEST(AdamWFloat8Test, StochasticRoundingIsUnbiasedWhereNearestLosesTheUpdate) {
  constexpr int64_t n = 1 << 16;
  for (const double start : {1.0, 0x1p-8}) {  // a normal and a subnormal code
    const double step = start == 1 ? 0x1p-3 : 0x1p-9;
    const auto mean_after = [&](Rounding rounding) {
      Problem p(kF32, kF32, 256, n / 256);
      const uint8_t code = FloatToFloat8E4M3Bits(static_cast<float>(start));
      test::FromDoubles(std::vector<double>(n, code), p.codes);
      test::FromDoubles(std::vector<double>(n, -1), p.grad);
      test::FromDoubles(std::vector<double>(n, 0), p.m);
      test::FromDoubles(std::vector<double>(n, 0), p.v);
      *p.previous_scale_inv = *p.scale = p.scalars->grad_scale = 1;
      p.scalars->step = 1;
      p.scalars->learning_rate = static_cast<float>(step / 16);  // the first step moves by it
      p.args.weight_decay = 0;
      p.args.rounding = rounding;
      TestExec exec;
      EXPECT_TRUE(IsOk(TE_OP(AdamW)(exec, p.args)));
      double sum = 0;
      for (const uint8_t c : p.codes.Bytes()) sum += kFloat8E4M3Values[c] - start;
      return sum / n;
    };
    EXPECT_EQ(mean_after(Rounding::kNearest), 0);
    // Five standard deviations of the mean of n draws of {0, step} with probability 1/16.
    EXPECT_NEAR(mean_after(Rounding::kStochastic), step / 16, 5 * step * std::sqrt(15.0 / 256 / n));
  }
}

// Over all 2^16 numbers: only the two neighbouring codes, each as often as the distance says, to
// half a number's share and the rounding of subnormals.
TEST(AdamWFloat8Test, StochasticCastTakesTheNeighboursAsOftenAsTheirDistanceSays) {
  for (const double value : test::UniformDoubles(200, 9, -9, 9)) {
    const auto y = static_cast<float>(std::copysign(std::exp2(std::abs(value) * 1.9 - 9), value));
    const double size = std::abs(y);
    int below = 0;  // the largest code of a magnitude not above y's
    while (below < 0x7e && kFloat8E4M3Values[below + 1] <= size) ++below;
    const double low = kFloat8E4M3Values[below];
    const double up = below == 0x7e ? 0 : (size - low) / (kFloat8E4M3Values[below + 1] - low);
    int64_t ups = 0;
    for (uint32_t r = 0; r < 65536; ++r) {
      const uint8_t code = StochasticFloat8E4M3Bits(y, r);
      ASSERT_EQ(code >= 0x80, y < 0);
      const int magnitude = code & 0x7f;
      ASSERT_TRUE(magnitude == below || magnitude == below + 1) << y << " " << magnitude;
      ups += magnitude - below;
    }
    EXPECT_NEAR(static_cast<double>(ups), 65536 * up, 0.5 + 0x1p-5) << y;
    EXPECT_GT(std::abs(static_cast<double>(ups) - 65536 * (up + 1e-4)), 0.5 + 0x1p-5);  // a twin
  }
}

TEST(AdamWFloat8Test, StochasticCastKeepsEveryCodeAndClips) {
  for (const uint32_t r : {0u, 1u, 0x8000u, 0xffffu}) {
    for (int code = 0; code < 256; ++code) {
      const float value = kFloat8E4M3Values[code];
      EXPECT_EQ(StochasticFloat8E4M3Bits(value, r), std::isnan(value) ? 0x7f : code) << code;
    }
    for (const float large : {449.0f, 480.0f, 1e38f, HUGE_VALF}) {
      EXPECT_EQ(StochasticFloat8E4M3Bits(large, r), 0x7e);
      EXPECT_EQ(StochasticFloat8E4M3Bits(-large, r), 0xfe);
    }
    EXPECT_EQ(StochasticFloat8E4M3Bits(-std::nanf(""), r), 0x7f);
  }
  EXPECT_EQ(StochasticFloat8E4M3Bits(1e-38f, 0xffff), 0);  // below half a number's share
}

TEST(AdamWFloat8Test, SkipKeepsCodesAndTheirScale) {
  for (const int64_t rows : {64, 61}) {
    Problem p(kBf16, kBf16, rows, 64);
    p.scalars->skip = 1;
    const auto before = p.Bytes();
    TestExec exec;
    ASSERT_TRUE(IsOk(TE_OP(AdamW)(exec, p.args)));
    EXPECT_EQ(p.codes.Bytes(), before[0]);
    EXPECT_EQ(p.m.Bytes(), before[2]);
    EXPECT_EQ(p.v.Bytes(), before[3]);
    EXPECT_EQ(p.scale_inv->value, *p.previous_scale_inv);
    EXPECT_EQ(*p.amax, test::MaxAbs(p.Decoded().ToDoubles()));
    p.ExpectTransposed();
    p.scalars->skip = 0;
    ASSERT_TRUE(IsOk(TE_OP(AdamW)(exec, p.args)));
    EXPECT_NE(p.codes.Bytes(), before[0]);
  }
}

// On the CPU for any number of threads.
TEST(AdamWFloat8Test, RepeatsBitwise) {
  std::vector<std::vector<uint8_t>> first;
  for (const int threads : {1, 1, 2, 3}) {
    Problem p(kBf16, kBf16, 320, 320);
    p.args.rounding = Rounding::kStochastic;
    TestExec exec(threads);
    ASSERT_TRUE(IsOk(TE_OP(AdamW)(exec, p.args)));
    if (first.empty()) first = p.Bytes();
    EXPECT_EQ(p.Bytes(), first) << threads;
  }
}

TEST(AdamWFloat8Test, RefusesWhatTheContractDoesNotTake) {
  const auto check = [](const auto& change, const char* part) {
    Problem p(kBf16, kBf16, 64, 64);
    const HostTensor weights(kBf16, {64, 64});
    change(p, weights);
    const auto before = p.Bytes();
    TestExec exec;
    EXPECT_TRUE(FailsWith(TE_OP(AdamW)(exec, p.args), StatusCode::kInvalidArgument, part));
    EXPECT_EQ(p.Bytes(), before);
  };
  using Weights = const HostTensor&;
  check([](Problem& p, Weights w) { p.args.param = w; }, "expected neither");
  check([](Problem& p, Weights w) { p.args.master = w; }, "expected neither");
  check([](Problem& p, Weights) { p.args.quantized_param = {}; }, "format none");
  check([](Problem& p, Weights) { p.args.quantized_param.format = QuantFormat::kFloat8E5M2; },
        "format e5m2");
  check([](Problem& p, Weights) { p.args.quantized_param.scaling = QuantScaling::kTensorCurrent; },
        "scaling tensor_current");
  check([](Problem& p, Weights) { p.args.quantized_param.rowwise_data = {}; }, "rowwise data");
  check([](Problem& p, Weights) { p.args.quantized_param.columnwise_data = p.m; },
        "columnwise data");
  check([](Problem& p, Weights) { p.args.quantized_param.scale = nullptr; }, "no scale");
  check([](Problem& p, Weights) { p.args.quantized_param.scale_inv = nullptr; }, "no scale_inv");
  check([](Problem& p, Weights) { p.args.previous_scale_inv = p.args.quantized_param.scale_inv; },
        "expected a copy");
  check([](Problem& p, Weights) { p.args.grad = p.args.grad.Slice(0, 0, 63); }, "grad is");
}

}  // namespace
}  // namespace te
