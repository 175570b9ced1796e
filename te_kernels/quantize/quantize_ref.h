// Obvious loops after quantize.h: a code is found by searching the values of all codes, a power of
// two by counting.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "te_kernels/base/float8.h"
#include "te_kernels/base/philox.h"
#include "te_kernels/base/quant_spec.h"

namespace te {

// Values of the codes without sign, up to the largest finite one.
inline std::vector<double> MagnitudesRef(QuantFormat format) {
  std::vector<double> out;
  const int codes = format == QuantFormat::kFloat4E2M1 ? 8 : 128;
  for (int i = 0; i < codes; ++i) {
    const auto code = static_cast<uint8_t>(i);
    const double value = format == QuantFormat::kFloat8E4M3   ? Float8E4M3BitsToFloat(code)
                         : format == QuantFormat::kFloat8E5M2 ? Float8E5M2BitsToFloat(code)
                                                              : Float4E2M1BitsToFloat(code);
    if (std::isfinite(value)) out.push_back(value);
  }
  return out;
}

// uniform < 0: to nearest even.
inline uint8_t CastRef(QuantFormat format, float value, float uniform = -1) {
  if (std::isnan(value)) return format == QuantFormat::kFloat4E2M1 ? 0x7 : 0x7f;
  static const std::vector<double> kValues[4] = {{},
                                                 MagnitudesRef(QuantFormat::kFloat8E4M3),
                                                 MagnitudesRef(QuantFormat::kFloat8E5M2),
                                                 MagnitudesRef(QuantFormat::kFloat4E2M1)};
  const std::vector<double>& values = kValues[static_cast<int>(format)];
  const double x = std::fabs(static_cast<double>(value));
  size_t code =
      static_cast<size_t>(std::upper_bound(values.begin(), values.end(), x) - values.begin()) - 1;
  if (code + 1 < values.size()) {
    const double fraction = (x - values[code]) / (values[code + 1] - values[code]);
    const bool nearest = fraction > 0.5 || (fraction == 0.5 && code % 2 != 0);
    if (uniform < 0 ? nearest : uniform < fraction) ++code;
  }
  const int sign = format == QuantFormat::kFloat4E2M1 ? 0x8 : 0x80;
  return static_cast<uint8_t>(code | (std::signbit(value) ? sign : 0));
}

inline float AmaxRef(const std::vector<float>& values) {
  float amax = 0;
  for (float x : values) {
    if (std::fabs(x) > amax) amax = std::fabs(x);
  }
  return amax;
}

inline float LargestRef(DType dtype) {
  // 2^128 less one step of the significand.
  return dtype == DType::kBFloat16 ? 0x1.fep127f : 0x1.fffffep127f;
}

inline float ScaleRef(float amax, const QuantSpec& spec, DType if_infinite = DType::kFloat32) {
  const float a = std::fmax(amax, spec.amax_epsilon);
  if (a == 0 || std::isinf(a)) return 1;
  float scale = QuantMax(spec.format) / a;
  if (std::isinf(scale)) scale = LargestRef(if_infinite);
  if (spec.power_of_2_scales) scale = std::ldexp(1.0f, std::ilogb(scale));
  return scale;
}

// What the blocks of a tensor, or of one row of it, share.
struct TensorScaleRef {
  float scale = 1;
  float amax = 0;
};

inline TensorScaleRef Nvfp4ScaleRef(float amax, const QuantSpec& spec) {
  if (amax == 0 || std::isinf(amax)) return {1, amax};
  const float most = spec.e4m3_use_256 ? 1536.0f : 2688.0f;
  return {std::fmin(most / amax, std::numeric_limits<float>::max()), amax};
}

struct Nvfp4BlockRef {
  uint8_t code = 0;
  float multiplier = 1;
};

inline Nvfp4BlockRef Nvfp4BlockOf(float wanted, float tensor_scale) {
  const uint8_t code = CastRef(QuantFormat::kFloat8E4M3, wanted);
  const float inverse = 1.0f / tensor_scale;
  const float decoding = Float8E4M3BitsToFloat(code) * inverse;
  return {code, std::fmin(1.0f / decoding, std::numeric_limits<float>::max())};
}

// Sums of two halves, element by element, until one is left.
inline float FoldedSumRef(std::vector<float> terms) {
  terms.resize(16, 0.0f);
  while (terms.size() > 1) {
    const size_t half = terms.size() / 2;
    for (size_t i = 0; i < half; ++i)
      terms[i] = static_cast<float>(static_cast<double>(terms[i]) + terms[i + half]);
    terms.resize(half);
  }
  return terms[0];
}

// four_over_six of a block [rows][columns]. Each operation in double and rounded to float32, which
// for sums, products and quotients of two float32 is the float32 operation (a double has more than
// twice the bits).
inline Nvfp4BlockRef FourOverSixRef(const std::vector<std::vector<float>>& block,
                                    const QuantSpec& spec, TensorScaleRef tensor) {
  std::vector<float> all;
  for (const auto& row : block) all.insert(all.end(), row.begin(), row.end());
  const auto rounded = [](double value) { return static_cast<float>(value); };
  const double largest = spec.e4m3_use_256 ? 256 : 448;
  const float six_wanted = rounded(static_cast<double>(rounded(AmaxRef(all) / 6.0)) * tensor.scale);
  Nvfp4BlockRef best;
  float least = 0;
  for (const double factor : {1.0, 1.5}) {
    const float wanted = rounded(six_wanted * factor);
    const Nvfp4BlockRef candidate = Nvfp4BlockOf(wanted, tensor.scale);
    std::vector<float> errors;
    for (const auto& row : block) {
      float error = 0;
      for (const float x : row) {
        const float code = Float4E2M1BitsToFloat(
            CastRef(spec.format, rounded(static_cast<double>(x) * candidate.multiplier)));
        const double value =
            rounded(static_cast<double>(rounded(static_cast<double>(code) *
                                                Float8E4M3BitsToFloat(candidate.code))) *
                    tensor.amax);
        const double off = rounded(static_cast<double>(rounded(value / (6 * largest))) - x);
        const double term =
            spec.four_over_six == FourOverSix::kMSE ? rounded(off * off) : std::fabs(off);
        error = rounded(error + term);
      }
      errors.push_back(error);
    }
    const float error = FoldedSumRef(errors);
    if (factor == 1.0 || error < least) {
      best = candidate;
      least = error;
    }
  }
  return best;
}

// 2^exponent is the smallest power of two that is not below the number.
inline int MxExponentRef(float amax, QuantFormat format) {
  const float reciprocal = 1.0f / QuantMax(format);
  const double wanted = amax * reciprocal;
  int exponent = -127;
  while (exponent < 127 && std::ldexp(1.0, exponent) < wanted) ++exponent;
  return exponent;
}

struct OrientationRef {
  std::vector<uint8_t> codes;
  std::vector<float> float_scales;
  std::vector<uint8_t> byte_scales;
};

// One orientation from what it is made of, x [rows, columns]; tensor_scales: of kTensor,
// kTensorCurrent and NVFP4, one or one a row.
inline OrientationRef QuantizeOrientationRef(const std::vector<float>& x, int64_t rows,
                                             int64_t columns, DType dtype, const QuantSpec& spec,
                                             const std::vector<TensorScaleRef>& tensor_scales) {
  const bool e2m1 = spec.format == QuantFormat::kFloat4E2M1;
  QuantBlock block = BlockOf(spec.scaling);
  const bool whole = block.rows == 0;
  if (whole) block = {rows, columns};
  OrientationRef out;
  const Shape codes = QuantDataShape(spec.format, rows, columns);
  out.codes.assign(codes.elements(), 0);
  const Shape scales = BlockScaleShape(spec.scaling, rows, columns);
  const bool floats = BlockScaleDType(spec.scaling) == DType::kFloat32;
  if (scales.rank() != 0 && floats) out.float_scales.assign(scales.elements(), 0);
  if (scales.rank() != 0 && !floats) out.byte_scales.assign(scales.elements(), 0);
  if (rows == 0 || columns == 0) return out;
  for (int64_t r0 = 0; r0 < rows; r0 += block.rows) {
    for (int64_t c0 = 0; c0 < columns; c0 += block.columns) {
      const int64_t r1 = std::min(rows, r0 + block.rows),
                    c1 = std::min(columns, c0 + block.columns);
      const int64_t i = r0 / block.rows, j = c0 / block.columns;
      std::vector<float> members;
      for (int64_t r = r0; r < r1; ++r) {
        for (int64_t c = c0; c < c1; ++c) members.push_back(x[r * columns + c]);
      }
      const float amax = AmaxRef(members);
      const TensorScaleRef tensor = tensor_scales[tensor_scales.size() == 1 ? 0 : r0];
      float scale = tensor.scale;
      switch (spec.scaling) {
        case QuantScaling::kTensor:
        case QuantScaling::kTensorCurrent:
          break;
        case QuantScaling::kBlock1x128:
          scale = ScaleRef(amax, spec, dtype);
          out.float_scales[j * scales[1] + i] = 1.0f / scale;
          break;
        case QuantScaling::kBlock128x128:
          scale = ScaleRef(amax, spec, dtype);
          out.float_scales[i * scales[1] + j] = 1.0f / scale;
          break;
        case QuantScaling::kMx1x32:
        case QuantScaling::kMx32x32: {
          const int exponent = MxExponentRef(amax, spec.format);
          scale = std::ldexp(1.0f, -exponent);
          for (int64_t r = r0; r < r1; ++r) {
            out.byte_scales[r * scales[1] + j] = static_cast<uint8_t>(exponent + 127);
          }
          break;
        }
        case QuantScaling::kNvfp4_1x16:
        case QuantScaling::kNvfp4_16x16: {
          const float sixth = 1.0f / 6.0f;
          const float multiplier = tensor.scale * sixth;
          Nvfp4BlockRef chosen = Nvfp4BlockOf(amax * multiplier, tensor.scale);
          if (spec.four_over_six != FourOverSix::kOff) {
            std::vector<std::vector<float>> in_rows;
            for (int64_t r = r0; r < r1; ++r) {
              const auto first = x.begin() + r * columns;
              in_rows.emplace_back(first + c0, first + c1);
            }
            chosen = FourOverSixRef(in_rows, spec, tensor);
          }
          scale = chosen.multiplier;
          for (int64_t r = r0; r < r1; ++r) out.byte_scales[r * scales[1] + j] = chosen.code;
          break;
        }
      }
      for (int64_t r = r0; r < r1; ++r) {
        for (int64_t c = c0; c < c1; ++c) {
          float uniform = -1;
          if (spec.stochastic_rounding) {
            uniform = Philox::ToUniform(
                Philox::At(spec.random.Resolved(), static_cast<uint64_t>(r * columns + c)));
          }
          const float scaled = x[r * columns + c] * scale;
          const int code = CastRef(spec.format, scaled, uniform);
          if (e2m1) {
            out.codes[r * codes[1] + c / 2] |= static_cast<uint8_t>(code << (c % 2 * 4));
          } else {
            out.codes[r * codes[1] + c] = static_cast<uint8_t>(code);
          }
        }
      }
    }
  }
  return out;
}

inline std::vector<float> TransposedRef(const std::vector<float>& x, int64_t rows,
                                        int64_t columns) {
  std::vector<float> out(x.size());
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c) out[c * rows + r] = x[r * columns + c];
  }
  return out;
}

// The random Hadamard transform of each row of x, times `by`, rounded to `dtype`. The order of the
// sums is part of the contract: H (2n) of [a, b] is [H a + H b, H a - H b] with H (n) of both
// halves first.
inline std::vector<float> HadamardRef(const std::vector<float>& x, int64_t rows, int64_t columns,
                                      DType dtype, float by = 1) {
  constexpr int kSigns[16] = {1, 1, 1, -1, 1, -1, -1, -1, -1, -1, -1, 1, -1, 1, -1, -1};
  struct Hadamard {
    static std::vector<float> Of(const std::vector<float>& v) {
      if (v.size() == 1) return v;
      const auto middle = v.begin() + static_cast<std::ptrdiff_t>(v.size() / 2);
      const std::vector<float> a = Of({v.begin(), middle}), b = Of({middle, v.end()});
      std::vector<float> out;
      for (size_t i = 0; i < a.size(); ++i) out.push_back(a[i] + b[i]);
      for (size_t i = 0; i < a.size(); ++i) out.push_back(a[i] - b[i]);
      return out;
    }
  };
  std::vector<float> out = x;
  for (float& value : out) value *= by;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c0 = 0; c0 + 16 <= columns; c0 += 16) {
      std::vector<float> v;
      for (int64_t c = 0; c < 16; ++c) {
        v.push_back(static_cast<float>(kSigns[c]) * 0.25f * by * x[r * columns + c0 + c]);
      }
      const std::vector<float> transformed = Hadamard::Of(v);
      for (int64_t c = 0; c < 16; ++c) {
        const float value = transformed[c];
        out[r * columns + c0 + c] =
            dtype == DType::kBFloat16 ? static_cast<float>(bfloat16(value)) : value;
      }
    }
  }
  return out;
}

struct QuantizedRef {
  OrientationRef rowwise;
  OrientationRef columnwise;
  std::vector<float> scale_inv;                    // one; row_scaled: of each row
  std::vector<float> columnwise_tensor_scale_inv;  // one; row_scaled: of each column
  float amax = 0;                                  // of this x, also in kTensor
  float columnwise_amax = 0;
};

// Both orientations of x [rows, columns], whose values are those of `dtype`; scale: of kTensor.
inline QuantizedRef QuantizeRef(const std::vector<float>& x, int64_t rows, int64_t columns,
                                DType dtype, const QuantSpec& spec, float scale) {
  QuantizedRef out;
  std::vector<float> transposed = TransposedRef(x, rows, columns);
  out.amax = AmaxRef(x);
  const bool quartered =
      spec.random_hadamard && std::isfinite(out.amax) && out.amax > LargestRef(dtype) / 4;
  if (spec.random_hadamard)
    transposed = HadamardRef(transposed, columns, rows, dtype, quartered ? 0.25f : 1.0f);
  out.columnwise_amax = AmaxRef(transposed);
  std::vector<TensorScaleRef> rowwise = {{scale, 0}}, columnwise = rowwise;
  if (spec.scaling == QuantScaling::kTensorCurrent) {
    rowwise = columnwise = {{ScaleRef(out.amax, spec), 0}};
  } else if (spec.row_scaled) {
    const auto of_rows = [&spec](const std::vector<float>& from, int64_t n, int64_t length) {
      std::vector<TensorScaleRef> scales;
      for (int64_t i = 0; i < n; ++i) {
        const auto first = from.begin() + i * length;
        scales.push_back(Nvfp4ScaleRef(AmaxRef({first, first + length}), spec));
      }
      return scales;
    };
    rowwise = of_rows(x, rows, columns);
    columnwise = of_rows(transposed, columns, rows);
  } else if (spec.format == QuantFormat::kFloat4E2M1) {
    rowwise = {Nvfp4ScaleRef(out.amax, spec)};
    columnwise = {Nvfp4ScaleRef(out.columnwise_amax, spec)};
  }
  for (const TensorScaleRef& s : rowwise) out.scale_inv.push_back(1.0f / s.scale);
  for (const TensorScaleRef& s : columnwise)
    out.columnwise_tensor_scale_inv.push_back(1.0f / s.scale * (quartered ? 4.0f : 1.0f));
  out.rowwise = QuantizeOrientationRef(x, rows, columns, dtype, spec, rowwise);
  out.columnwise = QuantizeOrientationRef(transposed, columns, rows, dtype, spec, columnwise);
  if (quartered) out.columnwise_amax *= 4;
  return out;
}

}  // namespace te
