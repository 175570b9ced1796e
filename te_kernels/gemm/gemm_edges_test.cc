// Products of block-scaled operands at the edges of float32 and bfloat16, against float64.
#ifndef TE_TEST_CUDA
#include <cmath>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "te_kernels/base/float8.h"
#include "te_kernels/gemm/gemm.h"
#include "te_kernels/gemm/gemm_ref.h"
#include "te_kernels/gemm/onednn_exec.h"
#include "te_kernels/quantize/quantize.h"
#include "te_kernels/testing/host_tensor.h"
#include "te_kernels/testing/near.h"

namespace te {
namespace {

using test::HostTensor;
using test::IsOk;
using Doubles = std::vector<double>;
using S = QuantScaling;

struct Kind {
  const char* name;
  S scaling;
  bool power_of_2;
  QuantFormat format = QuantFormat::kFloat8E4M3;
};
constexpr Kind kKinds[] = {{"block", S::kBlock1x128, true},
                           {"block with float32 scales", S::kBlock1x128, false},
                           {"mxfp8", S::kMx1x32, false},
                           {"mxfp8 e5m2", S::kMx1x32, false, QuantFormat::kFloat8E5M2}};

// x [rows, columns], quantized rowwise, and the numbers that its codes and scales stand for.
class Quantized {
 public:
  Quantized(const Kind& kind, int64_t rows, int64_t columns, const Doubles& x)
      : data_(DType::kUInt8, {rows, columns}),
        scales_(BlockScaleDType(kind.scaling), BlockScaleShape(kind.scaling, rows, columns)) {
    spec_.format = kind.format;
    spec_.scaling = kind.scaling;
    spec_.power_of_2_scales = kind.power_of_2;
    spec_.rowwise_data = data_;
    spec_.rowwise_scale_inv = scales_;
    const HostTensor values(DType::kFloat32, {rows, columns}, x);
    test::TestLibraryExec exec(1);
    EXPECT_TRUE(IsOk(QuantizeCpu(exec, {.x = values, .out = spec_})));
    const auto& table =
        kind.format == QuantFormat::kFloat8E4M3 ? kFloat8E4M3Values : kFloat8E5M2Values;
    for (int64_t i = 0; i < rows * columns; ++i) {
      const int64_t r = i / columns, c = i % columns;
      const double scale =
          kind.scaling == S::kMx1x32
              ? E8M0BitsToFloat(scales_.view().as<uint8_t>()[r * scales_.view().dim(1) + c / 32])
              : scales_.view().as<float>()[c / 128 * scales_.view().dim(1) + r];
      values_.push_back(static_cast<double>(table[data_.view().as<uint8_t>()[i]]) * scale);
    }
  }
  Operand operand() const {
    Operand out;
    out.quant = spec_;
    return out;
  }
  const Doubles& values() const { return values_; }

 private:
  HostTensor data_, scales_;
  QuantSpec spec_;
  Doubles values_;
};

constexpr int64_t kRows = 5, kColumns = 7, kTerms = 300;

// Both operands of normal numbers times what `scale` says of (row, term).
using ScaleOf = std::function<double(int64_t row, int64_t term)>;
Doubles Numbers(int64_t rows, uint64_t seed, const ScaleOf& scale) {
  Doubles x = test::NormalDoubles(rows * kTerms, seed);
  for (int64_t i = 0; i < rows * kTerms; ++i) {
    x[i] = std::clamp(x[i] * scale(i / kTerms, i % kTerms),
                      -static_cast<double>(std::numeric_limits<float>::max()),
                      static_cast<double>(std::numeric_limits<float>::max()));
  }
  return x;
}

void Check(const Kind& kind, const std::string& what, const ScaleOf& of_a, const ScaleOf& of_b,
           bool native_bf16, int* twins) {
  SCOPED_TRACE(std::string(kind.name) + ": " + what);
  const Quantized a(kind, kRows, kTerms, Numbers(kRows, 1, of_a)),
      // Two operands of E5M2 do not multiply.
      b({"b", kind.scaling, kind.power_of_2}, kColumns, kTerms, Numbers(kColumns, 2, of_b));
  const HostTensor d(DType::kFloat32, {kRows, kColumns});
  test::TestLibraryExec exec(2, native_bf16);
  ASSERT_TRUE(IsOk(GemmCpu(exec, {.a = a.operand(), .b = b.operand(), .d = d})));
  const auto product = [](const Doubles& x, const Doubles& y) {
    return ref::MatMul(x, false, y, true, kRows, kColumns, kTerms);
  };
  const auto magnitudes = [](Doubles x) {
    for (double& v : x) v = std::abs(v);
    return x;
  };
  Doubles want = product(a.values(), b.values());
  const Doubles sums = product(magnitudes(a.values()), magnitudes(b.values()));
  Doubles tolerance;
  for (size_t i = 0; i < want.size(); ++i) {
    // Float32 sums err by K u of the magnitudes, and a term or sum below its normal numbers by half
    // of the least one.
    tolerance.push_back((kTerms + 6) * 0x1p-24 * sums[i] + kTerms * 0x1p-149);
    want[i] = static_cast<float>(want[i]);  // beyond float32: infinite, as d
    if (std::isinf(want[i])) tolerance[i] = 0;
  }
  EXPECT_TRUE(test::Near(d.ToDoubles(), want, tolerance));
  // The twin: one value of a is half as large again. (Where it stands beside much larger ones, or
  // the sum is infinite, it does not show.)
  Doubles other = a.values();
  other[2 * kTerms + 40] *= 1.5;
  Doubles disturbed = product(other, b.values());
  for (double& v : disturbed) v = static_cast<float>(v);
  const size_t at = 2 * kColumns;
  if (!(std::abs(disturbed[at] - want[at]) > 4 * tolerance[at]) || std::isinf(want[at])) return;
  ++*twins;
  EXPECT_FALSE(test::Near(d.ToDoubles(), disturbed, tolerance));
}

TEST(GemmEdges, BlocksOfTinyAndHugeNumbersAreRight) {
  const auto one = [](int64_t, int64_t) { return 1.0; };
  const auto all = [](double s) { return [s](int64_t, int64_t) { return s; }; };
  // Blocks of 32 (and so of 128) alternate between two magnitudes.
  const auto mixed = [](double s, double t) {
    return [s, t](int64_t, int64_t term) { return term / 128 % 2 == 0 ? s : t; };
  };
  const auto row = [](int64_t which, double s) {
    return [which, s](int64_t r, int64_t) { return r == which ? s : 1.0; };
  };
  int twins = 0;
  for (const Kind& kind : kKinds) {
    for (const bool native : {true, false}) {
      Check(kind, "ordinary", one, one, native, &twins);
      // Below bfloat16's normal numbers, times what makes the product an ordinary one.
      for (const double tiny : {0x1p-118, 0x1p-126, 0x1p-130, 0x1p-136}) {
        Check(kind, "tiny", all(tiny), all(0x1p100), native, &twins);
        Check(kind, "tiny blocks", mixed(tiny, 0), mixed(0x1p110, 1), native, &twins);
        Check(kind, "a tiny row", row(2, tiny), all(0x1p60), native, &twins);
      }
      // Up to float32's largest number, which rounds up to 2^128.
      for (const double huge : {0x1p120, 0x1p126, 0x1p140}) {
        Check(kind, "huge", all(huge), all(0x1p-100), native, &twins);
        Check(kind, "a huge row", row(3, huge), all(0x1p-20), native, &twins);
        Check(kind, "a huge column", all(0x1p-20), row(3, huge), native, &twins);
        Check(kind, "huge and tiny blocks", mixed(huge, 0x1p-126), mixed(0x1p-126, 0x1p120), native,
              &twins);
        Check(kind, "a huge row times zero", row(1, huge), mixed(0, 1), native, &twins);
        // Terms beyond float32 whose sum is not always so.
        Check(kind, "beyond", all(huge), all(0x1p4), native, &twins);
      }
    }
  }
  EXPECT_GT(twins, 100);
}

}  // namespace
}  // namespace te
#endif
