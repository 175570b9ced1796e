// For quantize's tests: a tensor with everything that its quantization writes, against the
// reference; and every combination of options.
#pragma once

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "te_kernels/quantize/quantize.h"
#include "te_kernels/quantize/quantize_ref.h"
#include "te_kernels/testing/host_tensor.h"
#include "te_kernels/testing/near.h"
#include "te_kernels/testing/test_device.h"
#include "te_kernels/testing/test_memory.h"

namespace te::test {

inline constexpr float kInf = std::numeric_limits<float>::infinity();
inline constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

inline bool IsMx(QuantScaling s) {
  return s == QuantScaling::kMx1x32 || s == QuantScaling::kMx32x32;
}
inline bool IsNvfp4(QuantScaling s) {
  return s == QuantScaling::kNvfp4_1x16 || s == QuantScaling::kNvfp4_16x16;
}
inline bool UnsupportedHere(QuantScaling s) { return test::kOnCuda && (IsMx(s) || IsNvfp4(s)); }

inline std::vector<float> Floats(const HostTensor& tensor) {
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
        columnwise_scales(BlockScaleDType(spec.scaling), ScaleShape(columns, rows)),
        scale_inv(DType::kFloat32, {spec.row_scaled ? rows : 1}),
        columnwise_tensor_scale_inv(DType::kFloat32, {spec.row_scaled ? columns : 1}) {
    spec.rowwise_data = rowwise;
    spec.columnwise_data = columnwise;
    if (BlockScaleShape(spec.scaling, 1, 1).rank() != 0) {
      spec.rowwise_scale_inv = rowwise_scales;
      spec.columnwise_scale_inv = columnwise_scales;
    } else {
      spec.scale = scale.get();
    }
    spec.scale_inv = scale_inv.view().as<float>();
    spec.columnwise_tensor_scale_inv = columnwise_tensor_scale_inv.view().as<float>();
    spec.amax = amax.get();
    // What nobody writes must show.
    for (const HostTensor* t : {&rowwise, &columnwise, &rowwise_scales, &columnwise_scales,
                                &scale_inv, &columnwise_tensor_scale_inv}) {
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
      if (spec.rowwise_data.rank() != 0 || !spec.row_scaled)
        check(Same("scale_inv", Floats(scale_inv), want.scale_inv));
      check(Same<float>("amax", {amax->of_x}, {want.amax}));
    }
    if (IsNvfp4(spec.scaling) && spec.columnwise_data.rank() != 0) {
      check(Same<float>("columnwise amax", {amax->of_columnwise}, {want.columnwise_amax}));
      if (spec.random_hadamard || spec.row_scaled) {
        check(Same("columnwise_tensor_scale_inv", Floats(columnwise_tensor_scale_inv),
                   want.columnwise_tensor_scale_inv));
      }
    }
    for (const HostTensor* t : {&rowwise, &columnwise, &rowwise_scales, &columnwise_scales,
                                &scale_inv, &columnwise_tensor_scale_inv}) {
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
  HostTensor scale_inv, columnwise_tensor_scale_inv;
  Shared<float> scale{0.75f};
  Shared<Amax> amax_values;
  struct AmaxPointer {
    Shared<Amax>& values;
    float* get() const { return &values->of_x; }
    Amax* operator->() const { return values.get(); }
  } amax{amax_values};
};

// Numbers of many magnitudes: neighbouring blocks differ in theirs.
inline HostTensor Input(DType dtype, int64_t rows, int64_t columns, uint64_t seed,
                        int64_t pad = 0) {
  std::vector<double> values = test::NormalDoubles(rows * columns, seed);
  for (int64_t i = 0; i < rows * columns; ++i) {
    const int64_t r = i / columns, c = i % columns;
    values[i] = std::ldexp(values[i], static_cast<int>((r / 9 * 7 + c / 11 * 5) % 40) - 20);
  }
  return HostTensor(dtype, {rows, columns}, values, pad);
}

struct QuantizeOptions {
  const char* name;
  QuantFormat format;
  QuantScaling scaling;
  bool power_of_2_scales = false;
  float amax_epsilon = 0;
  bool stochastic_rounding = false;
  bool random_hadamard = false;
  bool row_scaled = false;
  FourOverSix four_over_six = FourOverSix::kOff;
  bool e4m3_use_256 = false;
};

inline constexpr QuantFormat kE4M3 = QuantFormat::kFloat8E4M3, kE5M2 = QuantFormat::kFloat8E5M2,
                             kE2M1 = QuantFormat::kFloat4E2M1;

inline const QuantizeOptions kOptions[] = {
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
    {.name = "nvfp4_1x16_rows",
     .format = kE2M1,
     .scaling = QuantScaling::kNvfp4_1x16,
     .row_scaled = true},
    {.name = "nvfp4_1x16_mae",
     .format = kE2M1,
     .scaling = QuantScaling::kNvfp4_1x16,
     .four_over_six = FourOverSix::kMAE},
    {.name = "nvfp4_1x16_mse_256",
     .format = kE2M1,
     .scaling = QuantScaling::kNvfp4_1x16,
     .four_over_six = FourOverSix::kMSE,
     .e4m3_use_256 = true},
    {.name = "nvfp4_1x16_rows_mae_256",
     .format = kE2M1,
     .scaling = QuantScaling::kNvfp4_1x16,
     .row_scaled = true,
     .four_over_six = FourOverSix::kMAE,
     .e4m3_use_256 = true},
    {.name = "nvfp4_16x16_mae_256",
     .format = kE2M1,
     .scaling = QuantScaling::kNvfp4_16x16,
     .four_over_six = FourOverSix::kMAE,
     .e4m3_use_256 = true},
    {.name = "nvfp4_16x16_mse",
     .format = kE2M1,
     .scaling = QuantScaling::kNvfp4_16x16,
     .four_over_six = FourOverSix::kMSE},
};

inline QuantSpec SpecOf(const QuantizeOptions& options) {
  QuantSpec spec;
  spec.format = options.format;
  spec.scaling = options.scaling;
  spec.power_of_2_scales = options.power_of_2_scales;
  spec.amax_epsilon = options.amax_epsilon;
  spec.stochastic_rounding = options.stochastic_rounding;
  spec.random_hadamard = options.random_hadamard;
  spec.row_scaled = options.row_scaled;
  spec.four_over_six = options.four_over_six;
  spec.e4m3_use_256 = options.e4m3_use_256;
  if (options.stochastic_rounding) spec.random = {.seed = 7, .stream = 3, .offset = 11};
  return spec;
}

}  // namespace te::test
