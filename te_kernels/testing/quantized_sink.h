// For tests of operations that write to a Sink: what they write quantized must be the quantization
// of what they write densely, bit for bit, fused or not. The test needs //te_kernels/quantize (and
// quantize_cuda).
#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "te_kernels/quantize/quantize.h"
#include "te_kernels/testing/host_tensor.h"
#include "te_kernels/testing/near.h"
#include "te_kernels/testing/test_device.h"

namespace te::test {

struct SinkCase {
  QuantFormat format = QuantFormat::kFloat8E4M3;
  QuantScaling scaling = QuantScaling::kTensor;
  bool rowwise = true;
  bool columnwise = true;
  bool dense = false;        // wanted besides
  double amax_before = 0.5;  // kTensor accumulates; negative: no amax asked for

  std::string ToString() const {
    return std::string(Name(format)) + " " + Name(scaling) + (rowwise ? " rowwise" : "") +
           (columnwise ? " columnwise" : "") + (dense ? " dense" : "") + " amax " +
           std::to_string(amax_before);
  }
  // A fused kernel's: with a scale known beforehand and codes to write.
  bool CanFuse() const { return scaling == QuantScaling::kTensor && (rowwise || columnwise); }
};

// Each combination of copies, and each scaling that the backend has.
inline std::vector<SinkCase> SinkCases() {
  constexpr QuantFormat kE5M2 = QuantFormat::kFloat8E5M2;
  std::vector<SinkCase> out = {
      {},
      {.dense = true},
      {.format = kE5M2},
      {.format = kE5M2, .dense = true},
      {.columnwise = false},
      {.rowwise = false},
      {.format = kE5M2, .rowwise = false, .dense = true},
      {.amax_before = 1e6},
      {.amax_before = -1},
      {.rowwise = false, .columnwise = false},
      {.scaling = QuantScaling::kTensorCurrent},
      {.format = kE5M2, .scaling = QuantScaling::kTensorCurrent, .dense = true},
      {.scaling = QuantScaling::kBlock1x128},
      {.scaling = QuantScaling::kBlock128x128, .dense = true},
  };
  if (kOnCuda) return out;  // the others need a later compute capability
  out.push_back({.scaling = QuantScaling::kMx1x32});
  out.push_back({.format = QuantFormat::kFloat4E2M1, .scaling = QuantScaling::kNvfp4_1x16});
  return out;
}

// The quantized copies of a matrix [rows, columns] as a case wants them, and all that is read.
class QuantizedTensor {
 public:
  // kTensor's scale is a number of many bits that clips the largest of values around 1.
  QuantizedTensor(const SinkCase& c, int64_t rows, int64_t columns)
      : scale_(DType::kFloat32, {1},
               std::vector<double>{c.format == QuantFormat::kFloat8E4M3 ? 97.3 : 12345.6}),
        scale_inv_(DType::kFloat32, {1}),
        amax_(DType::kFloat32, {2}, std::vector<double>{std::max(c.amax_before, 0.0), 0}),
        codes_{HostTensor(DType::kUInt8, QuantDataShape(c.format, rows, columns)),
               HostTensor(DType::kUInt8, QuantDataShape(c.format, columns, rows))},
        block_scales_{Blocks(c.scaling, rows, columns), Blocks(c.scaling, columns, rows)} {
    spec_.format = c.format;
    spec_.scaling = c.scaling;
    if (c.scaling == QuantScaling::kTensor) spec_.scale = scale_.view().as<float>();
    spec_.scale_inv = scale_inv_.view().as<float>();
    if (c.amax_before >= 0 || c.scaling != QuantScaling::kTensor)
      spec_.amax = amax_.view().as<float>();
    if (c.rowwise) {
      spec_.rowwise_data = codes_[0];
      spec_.rowwise_scale_inv = block_scales_[0];
    }
    if (c.columnwise) {
      spec_.columnwise_data = codes_[1];
      spec_.columnwise_scale_inv = block_scales_[1];
    }
  }

  const QuantSpec& spec() const { return spec_; }
  // Everything that is written.
  std::vector<uint8_t> Bytes() const {
    std::vector<uint8_t> out;
    for (const HostTensor* t :
         {&scale_inv_, &amax_, &codes_[0], &codes_[1], &block_scales_[0], &block_scales_[1]}) {
      const std::vector<uint8_t> bytes = t->Bytes();
      out.insert(out.end(), bytes.begin(), bytes.end());
    }
    return out;
  }
  bool GuardsIntact() const {
    return scale_.GuardsIntact() && scale_inv_.GuardsIntact() && amax_.GuardsIntact() &&
           codes_[0].GuardsIntact() && codes_[1].GuardsIntact() &&
           block_scales_[0].GuardsIntact() && block_scales_[1].GuardsIntact();
  }

 private:
  static HostTensor Blocks(QuantScaling scaling, int64_t rows, int64_t columns) {
    const Shape shape = BlockScaleShape(scaling, rows, columns);
    return HostTensor(BlockScaleDType(scaling), shape.rank() == 0 ? Shape{0} : shape);
  }

  HostTensor scale_, scale_inv_, amax_, codes_[2], block_scales_[2];
  QuantSpec spec_;
};

// Runs `run(exec, sink)` -> Status, which makes a tensor of `shape` (as a matrix: [rows, columns])
// from the same inputs each time, once densely and once for each of `cases`. `fused`: the kernel
// that must have run alone on CUDA for cases that can fuse; null: none must.
template <typename Run>
void ExpectSinksQuantizeTheDenseResult(const Exec& plain_exec, DType dtype, const Shape& shape,
                                       int64_t rows, int64_t columns, const char* fused,
                                       const Run& run,
                                       const std::vector<SinkCase>& cases = SinkCases()) {
  KernelLog log;
  Exec exec = plain_exec;
  exec.log = &log;
  const HostTensor dense(dtype, shape);
  ASSERT_TRUE(IsOk(run(exec, Sink(dense))));
  const TensorView matrix = dense.view().Reshape({rows, columns});
  // The twin: one element of the other sign.
  const HostTensor disturbed(dtype, {rows, columns});
  std::vector<double> values = dense.ToDoubles();
  const auto largest = std::max_element(
      values.begin(), values.end(), [](double a, double b) { return std::abs(a) < std::abs(b); });
  if (largest != values.end()) *largest = -*largest;
  FromDoubles(values, disturbed);

  for (const SinkCase& c : cases) {
    SCOPED_TRACE(c.ToString() + ", " + std::string(Name(dtype)) + " " + shape.ToString());
    const QuantizedTensor want(c, rows, columns), twin(c, rows, columns), got(c, rows, columns);
    ASSERT_TRUE(IsOk(TE_OP(Quantize)(plain_exec, {.x = matrix, .out = want.spec()})));
    ASSERT_TRUE(IsOk(TE_OP(Quantize)(plain_exec, {.x = disturbed, .out = twin.spec()})));
    // Rows of a matrix may be strided.
    const HostTensor again(dtype, shape, shape.rank() == 2 ? 8 : 0);
    Sink sink;
    sink.quant = got.spec();
    if (c.dense) sink.dense = again;
    log.Clear();
    ASSERT_TRUE(IsOk(run(exec, sink)));
    EXPECT_TRUE(got.Bytes() == want.Bytes());
    EXPECT_TRUE(got.GuardsIntact());
    if (c.dense) {
      EXPECT_TRUE(again.Bytes() == dense.Bytes());
      EXPECT_TRUE(again.GuardsIntact());
    }
    if (!values.empty() && (c.rowwise || c.columnwise)) {
      EXPECT_FALSE(got.Bytes() == twin.Bytes());
    }
    if (!kOnCuda) continue;
    if (fused != nullptr && c.CanFuse()) {
      ASSERT_EQ(log.records().size(), 1u);
      EXPECT_EQ(log.records()[0].kernel, fused);
    } else if (!values.empty()) {
      ASSERT_FALSE(log.records().empty());
      EXPECT_EQ(log.records().back().operation, "quantize");
    }
  }
}

}  // namespace te::test
