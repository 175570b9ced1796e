// Products of quantized operands against a float64 product of what their codes mean, decoded here
// after the formats' definitions.
#include <algorithm>
#include <cmath>
#include <optional>
#include <vector>

#include "gtest/gtest.h"
#include "te_kernels/base/float8.h"
#include "te_kernels/gemm/gemm.h"
#include "te_kernels/gemm/gemm_ref.h"
#include "te_kernels/testing/host_tensor.h"
#include "te_kernels/testing/near.h"
#include "te_kernels/testing/test_device.h"
#include "te_kernels/testing/test_memory.h"
#ifndef TE_TEST_CUDA
#include "te_kernels/gemm/onednn_exec.h"
#endif

namespace te {
namespace {

using test::HostTensor;
using Doubles = std::vector<double>;
constexpr auto kE4M3 = QuantFormat::kFloat8E4M3;
constexpr auto kE5M2 = QuantFormat::kFloat8E5M2;
constexpr auto kE2M1 = QuantFormat::kFloat4E2M1;

double Decode(int code, int exponent_bits, int mantissa_bits) {
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const int exponent = (code >> mantissa_bits) & ((1 << exponent_bits) - 1);
  const int mantissa = code & ((1 << mantissa_bits) - 1);
  const double value =
      exponent == 0 ? std::ldexp(mantissa, 1 - bias - mantissa_bits)
                    : std::ldexp(mantissa + (1 << mantissa_bits), exponent - bias - mantissa_bits);
  return (code >> (exponent_bits + mantissa_bits)) != 0 ? -value : value;
}

double Decode(QuantFormat format, int code) {
  return format == kE4M3   ? Decode(code, 4, 3)
         : format == kE5M2 ? Decode(code, 5, 2)
                           : Decode(code, 2, 1);
}

int Encode(QuantFormat format, float value) {
  return format == kE4M3   ? FloatToFloat8E4M3Bits(value)
         : format == kE5M2 ? FloatToFloat8E5M2Bits(value)
                           : FloatToFloat4E2M1Bits(value);
}

bool IsNvfp4(QuantScaling scaling) {
  return scaling == QuantScaling::kNvfp4_1x16 || scaling == QuantScaling::kNvfp4_16x16;
}

// What the codes stand for: normal numbers and any scales, or small integers and scales of 1 and 2,
// whose sums of up to 512 terms 14 bits hold exactly.
enum class Contents { kNormal, kIntegers };

// One orientation [rows, columns] of codes with its scales, and its values.
class Codes {
 public:
  Codes(QuantFormat format, QuantScaling scaling, bool columnwise, int64_t rows, int64_t columns,
        uint64_t seed, Contents contents = Contents::kNormal, bool row_scaled = false)
      : columnwise_(columnwise),
        data_(DType::kUInt8, QuantDataShape(format, rows, columns)),
        row_scales_(DType::kFloat32, {rows}, test::UniformDoubles(rows, seed + 200, 0.01, 3.0)) {
    const bool integers = contents == Contents::kIntegers;
    Doubles raw = test::NormalDoubles(rows * columns, seed, integers ? 1.0 : 1.5);
    if (integers)
      for (double& x : raw) x = std::clamp(std::round(x), -2.0, 2.0);
    const Shape scale_shape = BlockScaleShape(scaling, rows, columns);
    const QuantBlock block = BlockOf(scaling);
    if (scale_shape.rank() != 0) scales_.emplace(BlockScaleDType(scaling), scale_shape);
    const bool tensor = block.rows == 0 || IsNvfp4(scaling);
    if (tensor) *scale_inv_ = integers ? 2.0f : 0.37f;
    const Doubles random = test::UniformDoubles(rows * columns + 1, seed + 100, 0.5, 2);
    uint8_t* bytes = data_.view().as<uint8_t>();
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < columns; ++c) {
        const int code = Encode(format, static_cast<float>(raw[r * columns + c]));
        if (format == kE2M1) {
          bytes[r * data_.view().dim(1) + c / 2] |= static_cast<uint8_t>(c % 2 ? code << 4 : code);
        } else {
          bytes[r * columns + c] = static_cast<uint8_t>(code);
        }
        double scale = row_scaled ? row_scales_.view().as<float>()[r] : tensor ? *scale_inv_ : 1.0;
        if (block.rows != 0) {
          // The same number for all of a block.
          const int64_t i = r / block.rows, j = c / block.columns;
          const double drawn = random[(i * columns + j) % static_cast<int64_t>(random.size())];
          scale *= SetScale(scaling, r, j, integers ? (drawn < 1 ? 1.0 : 2.0) : drawn);
        }
        values_.push_back(Decode(format, code) * scale);
      }
    }
    quant_.format = format;
    quant_.scaling = scaling;
    quant_.power_of_2_scales = integers;
    if (tensor) quant_.scale_inv = scale_inv_.get();
    quant_.row_scaled = row_scaled;
    if (row_scaled) {
      (columnwise ? quant_.columnwise_tensor_scale_inv : quant_.scale_inv) =
          row_scales_.view().as<float>();
    }
    (columnwise ? quant_.columnwise_data : quant_.rowwise_data) = data_;
    if (scales_) (columnwise ? quant_.columnwise_scale_inv : quant_.rowwise_scale_inv) = *scales_;
  }

  Operand operand() const {
    Operand out;
    out.quant = quant_;
    return out;
  }
  const Doubles& values() const { return values_; }  // [rows, columns]

 private:
  // Writes the scale of block j of row r where quant_spec.h puts it; returns its value.
  double SetScale(QuantScaling scaling, int64_t r, int64_t j, double scale) {
    const TensorView& view = scales_->view();
    switch (scaling) {
      case QuantScaling::kBlock1x128:
        return view.as<float>()[j * view.dim(1) + r] = static_cast<float>(scale);
      case QuantScaling::kBlock128x128:
        return view.as<float>()[r / 128 * view.dim(1) + j] = static_cast<float>(scale);
      case QuantScaling::kMx1x32:
      case QuantScaling::kMx32x32: {
        const int exponent = static_cast<int>(std::floor(std::log2(scale)));
        view.as<uint8_t>()[r * view.dim(1) + j] = static_cast<uint8_t>(exponent + 127);
        return std::ldexp(1.0, exponent);
      }
      default: {
        const int code = FloatToFloat8E4M3Bits(static_cast<float>(scale));
        view.as<uint8_t>()[r * view.dim(1) + j] = static_cast<uint8_t>(code);
        return Decode(kE4M3, code);
      }
    }
  }

  bool columnwise_;
  HostTensor data_;
  std::optional<HostTensor> scales_;
  HostTensor row_scales_;
  test::Shared<float> scale_inv_;
  QuantSpec quant_;
  Doubles values_;
};

struct Case {
  GemmKind kind;
  int64_t tokens, out_features, in_features;
  QuantFormat a_format, b_format;
  QuantScaling a_scaling, b_scaling;
  DType d_dtype = DType::kFloat32;
  bool split = true;
  bool bias = false;
  float beta = 0;
  bool separate_c = false;
  int64_t pad = 0;
  Contents contents = Contents::kNormal;
  bool a_row_scaled = false, b_row_scaled = false;

  int64_t terms() const {
    return kind == GemmKind::kFprop   ? in_features
           : kind == GemmKind::kDgrad ? out_features
                                      : tokens;
  }
  Shape d() const {
    return kind == GemmKind::kFprop   ? Shape{tokens, out_features}
           : kind == GemmKind::kDgrad ? Shape{tokens, in_features}
                                      : Shape{out_features, in_features};
  }
  std::string ToString() const {
    return fmt::format(
        "kind {} {}x{}x{} {}/{} * {}/{} -> {} split {} bias {} beta {} c {} pad {} rows {} {}",
        static_cast<int>(kind), tokens, out_features, in_features, Name(a_format), Name(a_scaling),
        Name(b_format), Name(b_scaling), Name(d_dtype), split, bias, beta, separate_c, pad,
        a_row_scaled, b_row_scaled);
  }
};

class Product {
 public:
  explicit Product(const Case& c)
      : case_(c),
        a_(c.a_format, c.a_scaling, c.kind == GemmKind::kWgrad, c.d()[0], c.terms(), 1, c.contents,
           c.a_row_scaled),
        b_(c.b_format, c.b_scaling, c.kind != GemmKind::kFprop, c.d()[1], c.terms(), 2, c.contents,
           c.b_row_scaled),
        c_in_(HostTensor::Normal(c.d_dtype, c.d(), 3, 1, c.pad)),
        bias_(HostTensor::Normal(c.d_dtype, {c.d()[1]}, 4)),
        d_(c.d_dtype, c.d(), c.pad) {}

  Status Run(const Exec& exec) {
    test::FromDoubles(case_.separate_c ? Doubles(c_in_.view().elements(), 77.0) : c_in_.ToDoubles(),
                      d_);
    GemmArgs args;
    args.kind = case_.kind;
    args.a = a_.operand();
    args.b = b_.operand();
    if (case_.bias) args.bias = bias_;
    if (case_.separate_c) args.c = c_in_;
    args.d = d_;
    args.beta = case_.beta;
    args.split_accumulator = case_.split;
    return TE_OP(Gemm)(exec, args);
  }

  Doubles Got() const { return d_.ToDoubles(); }
  std::vector<uint8_t> Bytes() const { return d_.Bytes(); }
  bool GuardsIntact() const { return d_.GuardsIntact(); }
  const Doubles& A() const { return a_.values(); }
  Doubles Want(const Doubles& a) const {
    return Add(Multiply(a, b_.values()), c_in_.ToDoubles(), bias_.ToDoubles());
  }

  // With S = sum |a b|: float32 sums in any order err by K u S (Higham 2002, section 3.1), the
  // values' scaling by 2 u S more, bias and c by a rounding each, and stores by one of d's dtype
  // (two with a bias).
  // Hopper's FP8 tensor cores align the 32 products of an instruction and the sum so far to the
  // largest and cut each of these 33 to 13 bits below it: 33 * 2^-13 S an instruction at most.
  // Sums of a 128-term interval then go to float32 (split), or stay for all K (fast).
  Doubles Tolerance() const {
    const auto magnitude = [](Doubles v) {
      for (double& x : v) x = std::abs(x);
      return v;
    };
    const Doubles products = Multiply(magnitude(a_.values()), magnitude(b_.values()));
    const Doubles sums = Add(products, magnitude(c_in_.ToDoubles()), magnitude(bias_.ToDoubles()));
    const double float_error =
        static_cast<double>(case_.terms() + 6) * test::UnitRoundoff(DType::kFloat32);
    const double stores = (case_.bias ? 2.02 : 1.01) * test::UnitRoundoff(case_.d_dtype);
    const auto instructions = static_cast<double>((case_.terms() + 31) / 32);
    const double summed_there = case_.split ? std::min(instructions, 4.0) : instructions;
    const double tensor_cores = test::kOnCuda ? summed_there * 33 * 0x1p-13 : 0;
    Doubles out;
    for (size_t i = 0; i < sums.size(); ++i)
      out.push_back((float_error + stores) * sums[i] + tensor_cores * products[i]);
    return out;
  }

 private:
  Doubles Multiply(const Doubles& a, const Doubles& b) const {
    return ref::MatMul(a, false, b, true, case_.d()[0], case_.d()[1], case_.terms());
  }
  Doubles Add(Doubles sum, const Doubles& c, const Doubles& bias) const {
    for (size_t i = 0; i < sum.size(); ++i)
      sum[i] += (case_.beta != 0 ? c[i] : 0) + (case_.bias ? bias[i % case_.d()[1]] : 0);
    return sum;
  }

  Case case_;
  Codes a_, b_;
  HostTensor c_in_, bias_, d_;
};

struct Types {
  QuantFormat a_format, b_format;
  QuantScaling a_scaling, b_scaling;
};

// hybrid has E5M2 in dy alone, which is the first operand; wgrad and dgrad take it.
std::vector<Types> TypesOf(GemmKind kind) {
  using S = QuantScaling;
  // Weights come in squares.
  const bool wgrad = kind == GemmKind::kWgrad;
  const S square = wgrad ? S::kBlock1x128 : S::kBlock128x128;
  std::vector<Types> out;
  for (const QuantFormat a : {kE4M3, kE5M2}) {
    out.push_back({a, kE4M3, S::kTensor, S::kTensor});
    out.push_back({a, kE4M3, S::kTensorCurrent, S::kTensor});
    out.push_back({a, kE4M3, S::kBlock1x128, square});
  }
  out.push_back({kE4M3, kE5M2, S::kTensor, S::kTensor});
  out.push_back({kE4M3, kE4M3, S::kBlock1x128, S::kBlock1x128});
  out.push_back({kE4M3, kE4M3, S::kBlock128x128, S::kBlock1x128});
  if (test::kOnCuda) return out;
  out.push_back({kE4M3, kE4M3, S::kMx1x32, S::kMx1x32});
  out.push_back({kE5M2, kE4M3, S::kMx1x32, S::kMx32x32});
  out.push_back({kE2M1, kE2M1, S::kNvfp4_1x16, S::kNvfp4_1x16});
  out.push_back({kE2M1, kE2M1, S::kNvfp4_1x16, S::kNvfp4_16x16});
  return out;
}

constexpr GemmKind kKinds[] = {GemmKind::kFprop, GemmKind::kDgrad, GemmKind::kWgrad};

void CheckAll(const Exec& exec) {
  std::vector<std::array<int64_t, 3>> shapes = {{16, 32, 48}, {144, 272, 400}};
  if (!test::kOnCuda)
    shapes = {{1, 1, 1},   {5, 7, 9}, {33, 18, 257}, {258, 19, 34},
              {3, 140, 5}, {0, 4, 3}, {4, 0, 3},     {5, 6, 0}};
  for (const auto& [m, n, k] : shapes) {
    for (const GemmKind kind : kKinds) {
      for (const Types& t : TypesOf(kind)) {
        const Case base = {kind, m, n, k, t.a_format, t.b_format, t.a_scaling, t.b_scaling};
        for (int variant = 0; variant < 4; ++variant) {
          Case c = base;
          c.d_dtype = variant % 2 == 0 ? DType::kFloat32 : DType::kBFloat16;
          c.split = variant < 2;
          c.bias = kind == GemmKind::kFprop && variant != 1;
          c.beta = variant == 1 || variant == 2 ? 1 : 0;
          c.separate_c = variant == 2;
          c.pad = variant == 3 ? 16 : 0;
          SCOPED_TRACE(c.ToString());
          Product product(c);
          ASSERT_TRUE(test::IsOk(product.Run(exec)));
          EXPECT_TRUE(test::Near(product.Got(), product.Want(product.A()), product.Tolerance()));
          EXPECT_TRUE(product.GuardsIntact());
        }
      }
    }
  }
}

TEST(GemmQuantized, AgreesWithTheSumInDouble) { CheckAll(test::TestLibraryExec(2)); }
TEST(GemmQuantized, AgreesWithoutBfloat16Instructions) {
  CheckAll(test::TestLibraryExec(2, /*native_bf16=*/false));
}

// Exact in any accumulator of 14 bits: a scale in the wrong place shows.
TEST(GemmQuantized, SmallIntegersAreExact) {
  test::TestLibraryExec exec(2);
  for (const GemmKind kind : kKinds) {
    for (const Types& t : TypesOf(kind)) {
      for (const bool split : {true, false}) {
        if (!split && !test::kOnCuda) continue;  // the same code
        Case c = {kind, 272, 144, 256, t.a_format, t.b_format, t.a_scaling, t.b_scaling};
        c.split = split;
        c.contents = Contents::kIntegers;
        SCOPED_TRACE(c.ToString());
        Product product(c);
        ASSERT_TRUE(test::IsOk(product.Run(exec)));
        EXPECT_TRUE(test::Near(product.Got(), product.Want(product.A()), 0.0));
      }
    }
  }
}

TEST(GemmQuantized, ADisturbedOperandIsNoticed) {
  test::TestLibraryExec exec(2);
  for (const GemmKind kind : kKinds) {
    for (const Types& t : TypesOf(kind)) {
      Product product({kind, 48, 32, 64, t.a_format, t.b_format, t.a_scaling, t.b_scaling});
      ASSERT_TRUE(test::IsOk(product.Run(exec)));
      EXPECT_FALSE(test::Near(product.Got(), product.Want(test::Disturbed(product.A(), 40, 20.0)),
                              product.Tolerance()));
    }
  }
}

TEST(GemmQuantized, RepeatsBitForBit) {
  test::TestLibraryExec exec(2);
  for (const GemmKind kind : kKinds) {
    for (const Types& t : TypesOf(kind)) {
      Product product({kind, 256, 128, 192, t.a_format, t.b_format, t.a_scaling, t.b_scaling});
      ASSERT_TRUE(test::IsOk(product.Run(exec)));
      const std::vector<uint8_t> first = product.Bytes();
      ASSERT_TRUE(test::IsOk(product.Run(exec)));
      EXPECT_EQ(product.Bytes(), first);
    }
  }
}

#ifndef TE_TEST_CUDA
// Either operand or both with a factor for each of its rows: fprop's x rowwise, wgrad's columnwise.
TEST(GemmQuantized, RowsHaveTheirOwnFactors) {
  test::TestLibraryExec exec(2);
  constexpr auto kScaling = QuantScaling::kNvfp4_1x16;
  for (const GemmKind kind : {GemmKind::kFprop, GemmKind::kWgrad}) {
    for (const auto& [a, b] : {std::pair(true, false), {false, true}, {true, true}}) {
      for (const DType d : {DType::kFloat32, DType::kBFloat16}) {
        Case c = {kind, 34, 19, 50, kE2M1, kE2M1, kScaling, kScaling, d};
        c.a_row_scaled = a;
        c.b_row_scaled = b;
        c.bias = kind == GemmKind::kFprop;
        c.beta = d == DType::kFloat32 ? 1 : 0;
        SCOPED_TRACE(c.ToString());
        Product product(c);
        ASSERT_TRUE(test::IsOk(product.Run(exec)));
        EXPECT_TRUE(test::Near(product.Got(), product.Want(product.A()), product.Tolerance()));
        EXPECT_FALSE(test::Near(product.Got(), product.Want(test::Disturbed(product.A(), 40, 20.0)),
                                product.Tolerance()));
        Case plain = c;
        plain.a_row_scaled = plain.b_row_scaled = false;
        Product other(plain);
        ASSERT_TRUE(test::IsOk(other.Run(exec)));
        EXPECT_FALSE(test::Near(other.Got(), product.Got(), product.Tolerance()));
      }
    }
  }
}
#endif

TEST(GemmQuantized, BadArgumentsAreNamed) {
  test::TestLibraryExec exec;
  using S = QuantScaling;
  const Codes x(kE4M3, S::kTensor, false, 16, 32, 1), w(kE4M3, S::kTensor, false, 16, 32, 2);
  const Codes x_t(kE4M3, S::kTensor, true, 16, 32, 3), narrow(kE4M3, S::kTensor, false, 16, 16, 4);
  const Codes wide(kE5M2, S::kTensor, false, 16, 32, 5),
      square(kE4M3, S::kBlock128x128, false, 16, 32, 6);
  const Codes fp4(kE2M1, S::kNvfp4_1x16, false, 16, 32, 7), mx(kE4M3, S::kMx1x32, false, 16, 32, 8);
  HostTensor y(DType::kFloat32, {16, 16}), half(DType::kFloat16, {16, 16});
  const auto fprop = [&](const Operand& a, const Operand& b) {
    return TE_OP(Gemm)(exec, {.a = a, .b = b, .d = y});
  };
  const auto invalid = [](const Status& status, const char* part) {
    return test::FailsWith(status, StatusCode::kInvalidArgument, part);
  };
  EXPECT_TRUE(test::IsOk(fprop(x.operand(), w.operand())));
  EXPECT_TRUE(invalid(fprop(x.operand(), y.view()), "both quantized or neither"));
  EXPECT_TRUE(invalid(fprop(x_t.operand(), w.operand()), "x has no rowwise data"));
  EXPECT_TRUE(invalid(
      TE_OP(Gemm)(exec, {.kind = GemmKind::kDgrad, .a = x.operand(), .b = w.operand(), .d = y}),
      "w has no columnwise data"));
  EXPECT_TRUE(invalid(fprop(narrow.operand(), w.operand()), "must have one length"));
  EXPECT_TRUE(invalid(fprop(wide.operand(), wide.operand()), "e4m3 with e4m3 or e5m2"));
  EXPECT_TRUE(invalid(fprop(x.operand(), fp4.operand()), "e2m1 twice"));
  EXPECT_TRUE(invalid(fprop(square.operand(), square.operand()), "block_128x128"));
  EXPECT_TRUE(invalid(fprop(x.operand(), mx.operand()), "scaling mx_1x32"));
  EXPECT_TRUE(invalid(TE_OP(Gemm)(exec, {.a = x.operand(), .b = w.operand(), .d = half}), "y is"));
  Operand unscaled = x.operand();
  unscaled.quant.scale_inv = nullptr;
  EXPECT_TRUE(invalid(fprop(unscaled, w.operand()), "x has no scale_inv"));
  Operand turned = fp4.operand();
  turned.quant.columnwise_data = turned.quant.rowwise_data;
  turned.quant.columnwise_scale_inv = turned.quant.rowwise_scale_inv;
  turned.quant.rowwise_data = turned.quant.rowwise_scale_inv = TensorView();
  Operand plain = turned;
  turned.quant.random_hadamard = true;
  turned.quant.columnwise_tensor_scale_inv = turned.quant.scale_inv;
  EXPECT_TRUE(
      invalid(TE_OP(Gemm)(exec, {.kind = GemmKind::kWgrad, .a = turned, .b = plain, .d = y}),
              "random_hadamard for both or neither"));
}

#ifndef TE_TEST_CUDA
// Where both operands went through the random Hadamard transform, their columnwise copies' own
// factors count, and those of the rowwise ones do not.
TEST(GemmQuantized, TransformedCopiesHaveTheirOwnFactor) {
  test::TestLibraryExec exec(2);
  constexpr auto kScaling = QuantScaling::kNvfp4_1x16;
  const Codes dy(kE2M1, kScaling, true, 32, 48, 1), x(kE2M1, kScaling, true, 16, 48, 2);
  const test::Shared<float> dy_factor(3.0f), x_factor(0.25f);
  HostTensor plain(DType::kFloat32, {32, 16}), transformed(DType::kFloat32, {32, 16});
  GemmArgs args = {
      .kind = GemmKind::kWgrad, .a = dy.operand(), .b = x.operand(), .d = plain.view()};
  ASSERT_TRUE(test::IsOk(TE_OP(Gemm)(exec, args)));
  const double ratio =
      3.0 * 0.25 /
      (static_cast<double>(*args.a.quant.scale_inv) * static_cast<double>(*args.b.quant.scale_inv));
  args.a.quant.random_hadamard = args.b.quant.random_hadamard = true;
  args.a.quant.columnwise_tensor_scale_inv = dy_factor.get();
  args.b.quant.columnwise_tensor_scale_inv = x_factor.get();
  args.d = transformed.view();
  ASSERT_TRUE(test::IsOk(TE_OP(Gemm)(exec, args)));
  // One sum of codes, times either product of factors: a rounding of float32 each.
  Doubles want = plain.ToDoubles();
  Doubles tolerance;
  for (double& value : want) {
    value *= ratio;
    tolerance.push_back(2.01 * test::UnitRoundoff(DType::kFloat32) * std::abs(value));
  }
  EXPECT_TRUE(test::Near(transformed.ToDoubles(), want, tolerance));
  EXPECT_FALSE(test::Near(transformed.ToDoubles(), plain.ToDoubles(), tolerance));
}
#endif

#ifdef TE_TEST_CUDA
TEST(GemmQuantized, WhatCublasLtDoesNotTakeIsNamed) {
  test::TestLibraryExec exec;
  using S = QuantScaling;
  const auto run = [&](int64_t m, int64_t n, int64_t k, QuantFormat format, S scaling) {
    Product product({GemmKind::kFprop, m, n, k, format, format, scaling, scaling});
    return product.Run(exec);
  };
  const auto unsupported = [](const Status& status, const char* part) {
    return test::FailsWith(status, StatusCode::kUnsupported, part);
  };
  EXPECT_TRUE(
      unsupported(run(16, 16, 40, kE4M3, S::kTensor), "x's dimension that is summed over is 40"));
  EXPECT_TRUE(unsupported(run(16, 16, 40, kE4M3, S::kTensor), "pad it to 48"));
  EXPECT_TRUE(unsupported(run(16, 20, 32, kE4M3, S::kTensor), "y's number of columns is 20"));
  EXPECT_TRUE(unsupported(run(12, 16, 32, kE4M3, S::kBlock1x128), "y's number of rows is 12"));
  EXPECT_TRUE(unsupported(run(16, 16, 32, kE4M3, S::kMx1x32), "compute capability 10.0"));
  EXPECT_TRUE(unsupported(run(16, 16, 32, kE2M1, S::kNvfp4_1x16), "compute capability 10.0"));
}
#endif

}  // namespace
}  // namespace te
