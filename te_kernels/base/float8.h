// The codes of quantized tensors: E4M3 (finite, "fn": largest 448, NaN 0x7f and 0xff), E5M2
// (largest finite 57344, with infinities), E2M1 (largest 6, neither infinity nor NaN), and E8M0,
// the scale of MXFP8. Formats: "FP8 formats for deep learning" (Micikevicius et al. 2022) and the
// OCP Microscaling specification 1.0.
//
// To codes as PTX's cvt.rn.satfinite: to nearest even; beyond the largest finite value, infinities
// included, that value; NaN becomes 0x7f (E2M1: the largest value), whatever its sign. Selects, not
// branches: loops over these vectorize.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <limits>

namespace te {
namespace float8_internal {

inline constexpr uint32_t kInfinity = 0x7f800000u;

// A small floating format with `kMantissaBits` bits of mantissa, without its sign.
template <int kMantissaBits, int kBias, uint32_t kLargestCode>
struct Minifloat {
  static constexpr int kDropped = 23 - kMantissaBits;
  static constexpr uint32_t kSmallestNormal = static_cast<uint32_t>(128 - kBias) << 23;
  // Of the magnitude bits of a float that is not NaN. A float32 whose last bit is worth one
  // subnormal step rounds there by addition.
  static constexpr uint32_t CodeOf(uint32_t magnitude) {
    constexpr float kRounder =
        std::bit_cast<float>(static_cast<uint32_t>(127 + 24 - kBias - kMantissaBits) << 23);
    const uint32_t subnormal = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + kRounder) -
                               std::bit_cast<uint32_t>(kRounder);
    constexpr uint32_t kHalf = (1u << (kDropped - 1)) - 1;
    constexpr uint32_t kRebias = static_cast<uint32_t>(127 - kBias) << kMantissaBits;
    const uint32_t normal =
        ((magnitude + kHalf + ((magnitude >> kDropped) & 1u)) >> kDropped) - kRebias;
    const uint32_t clipped = normal < kLargestCode ? normal : kLargestCode;
    return magnitude < kSmallestNormal ? subnormal : clipped;
  }
  // Of a code's exponent and mantissa bits, as if the format had neither infinity nor NaN.
  static constexpr float ValueOf(uint32_t code) {
    const uint32_t exponent = code >> kMantissaBits;
    const uint32_t mantissa = code & ((1u << kMantissaBits) - 1);
    constexpr float kStep =
        std::bit_cast<float>(static_cast<uint32_t>(128 - kBias - kMantissaBits) << 23);
    if (exponent == 0) return static_cast<float>(mantissa) * kStep;
    return std::bit_cast<float>((exponent + 127 - kBias) << 23 | mantissa << kDropped);
  }
};

using E4M3 = Minifloat<3, 7, 0x7e>;
using E5M2 = Minifloat<2, 15, 0x7b>;
using E2M1 = Minifloat<1, 1, 0x7>;

}  // namespace float8_internal

constexpr uint8_t FloatToFloat8E4M3Bits(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t magnitude = bits & 0x7fffffffu;
  const uint32_t code = float8_internal::E4M3::CodeOf(magnitude) | (bits >> 24 & 0x80u);
  return static_cast<uint8_t>(magnitude > float8_internal::kInfinity ? 0x7fu : code);
}

constexpr uint8_t FloatToFloat8E5M2Bits(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t magnitude = bits & 0x7fffffffu;
  const uint32_t code = float8_internal::E5M2::CodeOf(magnitude) | (bits >> 24 & 0x80u);
  return static_cast<uint8_t>(magnitude > float8_internal::kInfinity ? 0x7fu : code);
}

// In the low four bits.
constexpr uint8_t FloatToFloat4E2M1Bits(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t magnitude = bits & 0x7fffffffu;
  const uint32_t code = float8_internal::E2M1::CodeOf(magnitude) | (bits >> 28 & 0x8u);
  return static_cast<uint8_t>(magnitude > float8_internal::kInfinity ? 0x7u : code);
}

// Stochastic rounding: up from the nearest smaller magnitude with the probability of the distance
// to it, for `uniform` in [0, 1). The rest as FloatToFloat4E2M1Bits.
constexpr uint8_t FloatToFloat4E2M1Bits(float value, float uniform) {
  using float8_internal::E2M1;
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t magnitude = bits & 0x7fffffffu;
  const float x = std::bit_cast<float>(magnitude);
  const float half_steps = x < 1.0f ? x + x : 0.0f;  // in [0, 2)
  const uint32_t subnormal = half_steps >= 1.0f ? 1u : 0u;
  const uint32_t normal = (magnitude >> 22) - (126u << 1);
  const uint32_t below = x < 1.0f ? subnormal : normal;
  // What stands after the kept bit, as a number in [0, 1): exact.
  const float fraction = x < 1.0f ? half_steps - static_cast<float>(subnormal)
                                  : static_cast<float>(magnitude & 0x3fffffu) * 0x1p-22f;
  const uint32_t up = uniform < fraction ? below + 1 : below;
  const uint32_t code = (x < 6.0f ? up : 7u) | (bits >> 28 & 0x8u);
  return static_cast<uint8_t>(magnitude > float8_internal::kInfinity ? 0x7u : code);
}

// The smallest power of two that is not below `value` (not negative), from 2^-127 to 2^127, as its
// exponent plus 127; NaN: 0xff (PTX cvt.rp.satfinite.ue8m0x2).
constexpr uint8_t FloatToE8M0Bits(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value) & 0x7fffffffu;
  // 2^-127 has exponent field 0 and the mantissa's first bit.
  const uint32_t up = bits <= 0x400000u ? 0u : (bits + 0x7fffffu) >> 23;
  return static_cast<uint8_t>(bits > float8_internal::kInfinity ? 0xffu : up < 254u ? up : 254u);
}

constexpr float E8M0BitsToFloat(uint8_t bits) {
  if (bits == 0xff) return std::numeric_limits<float>::quiet_NaN();
  return std::bit_cast<float>(bits == 0 ? 0x400000u : static_cast<uint32_t>(bits) << 23);
}

constexpr float Float8E4M3BitsToFloat(uint8_t bits) {
  const uint32_t code = bits & 0x7fu;
  const float value =
      code == 0x7f ? std::numeric_limits<float>::quiet_NaN() : float8_internal::E4M3::ValueOf(code);
  return bits >= 0x80 ? -value : value;
}

constexpr float Float8E5M2BitsToFloat(uint8_t bits) {
  const uint32_t code = bits & 0x7fu;
  const float value = code > 0x7c    ? std::numeric_limits<float>::quiet_NaN()
                      : code == 0x7c ? std::numeric_limits<float>::infinity()
                                     : float8_internal::E5M2::ValueOf(code);
  return bits >= 0x80 ? -value : value;
}

// Of the low four bits.
constexpr float Float4E2M1BitsToFloat(uint8_t bits) {
  const float value = float8_internal::E2M1::ValueOf(bits & 0x7u);
  return (bits & 0x8) != 0 ? -value : value;
}

// The values of all codes, for decoding by look-up.
inline constexpr std::array<float, 256> kFloat8E4M3Values = [] {
  std::array<float, 256> out{};
  for (uint32_t i = 0; i < 256; ++i) out[i] = Float8E4M3BitsToFloat(static_cast<uint8_t>(i));
  return out;
}();
inline constexpr std::array<float, 256> kFloat8E5M2Values = [] {
  std::array<float, 256> out{};
  for (uint32_t i = 0; i < 256; ++i) out[i] = Float8E5M2BitsToFloat(static_cast<uint8_t>(i));
  return out;
}();
inline constexpr std::array<float, 16> kFloat4E2M1Values = [] {
  std::array<float, 16> out{};
  for (uint32_t i = 0; i < 16; ++i) out[i] = Float4E2M1BitsToFloat(static_cast<uint8_t>(i));
  return out;
}();

}  // namespace te
