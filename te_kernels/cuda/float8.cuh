// FP8 codes on the device: float32 to E4M3 / E5M2 and back, with the same bits as
// te_kernels/base/float8.h.
#pragma once

#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "te_kernels/base/float8.h"
#include "te_kernels/base/quant_spec.h"

namespace te::cuda {

inline constexpr QuantFormat kE4M3 = QuantFormat::kFloat8E4M3;
inline constexpr QuantFormat kE5M2 = QuantFormat::kFloat8E5M2;

// The codes of two floats, `low` in the low byte.
template <QuantFormat kFormat>
__device__ inline uint32_t CastPair(float low, float high) {
  static_assert(kFormat == kE4M3 || kFormat == kE5M2);
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
  uint16_t codes;
  if constexpr (kFormat == kE4M3) {
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(codes) : "f"(high), "f"(low));
  } else {
    asm("cvt.rn.satfinite.e5m2x2.f32 %0, %1, %2;" : "=h"(codes) : "f"(high), "f"(low));
  }
  return codes;
#else  // no such instruction
  if constexpr (kFormat == kE4M3) {
    return FloatToFloat8E4M3Bits(low) | uint32_t{FloatToFloat8E4M3Bits(high)} << 8;
  } else {
    return FloatToFloat8E5M2Bits(low) | uint32_t{FloatToFloat8E5M2Bits(high)} << 8;
  }
#endif
}

// The codes of four floats, the first in the lowest byte.
template <QuantFormat kFormat>
__device__ inline uint32_t CastFour(float a, float b, float c, float d) {
  return __byte_perm(CastPair<kFormat>(a, b), CastPair<kFormat>(c, d), 0x5410);
}

// A code's exponent and mantissa at a float's places are its value times a power of two, subnormal
// codes included: one exact multiplication. NaN keeps its sign.
template <QuantFormat kFormat>
__device__ inline float Float8ToFloat(uint32_t code) {
  static_assert(kFormat == kE4M3 || kFormat == kE5M2);
  const uint32_t sign = (code & 0x80u) << 24;
  const uint32_t magnitude = code & 0x7fu;
  uint32_t bits;
  if constexpr (kFormat == kE4M3) {
    bits = __float_as_uint(__uint_as_float(magnitude << 20) * 0x1p120f);
    if (magnitude == 0x7fu) bits = 0x7fc00000u;
  } else {
    bits = __float_as_uint(__uint_as_float(magnitude << 21) * 0x1p112f);
    if (magnitude >= 0x7cu) bits = magnitude == 0x7cu ? 0x7f800000u : 0x7fc00000u;
  }
  return __uint_as_float(bits | sign);
}

// The values of 8 codes, in one instruction for two where there is one. A NaN's sign is lost.
template <QuantFormat kFormat>
__device__ inline void Float8sToFloats(const uint2& codes, float (&values)[8]) {
  static_assert(kFormat == kE4M3 || kFormat == kE5M2);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const uint32_t word = i < 2 ? codes.x : codes.y;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
    uint32_t halves;
    if constexpr (kFormat == kE4M3) {
      const auto pair = static_cast<uint16_t>(word >> i % 2 * 16);
      asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(halves) : "h"(pair));
    } else {  // half a float16, the upper one
      halves = __byte_perm(word, 0, i % 2 == 0 ? 0x1404 : 0x3424);
    }
    values[2 * i] = __half2float(__half_raw{static_cast<uint16_t>(halves)});
    values[2 * i + 1] = __half2float(__half_raw{static_cast<uint16_t>(halves >> 16)});
#else
    values[2 * i] = Float8ToFloat<kFormat>(word >> i % 2 * 16 & 0xffu);
    values[2 * i + 1] = Float8ToFloat<kFormat>(word >> (i % 2 * 16 + 8) & 0xffu);
#endif
  }
}

// The largest numbers of tensors' dtypes.
template <typename T>
inline constexpr float kLargest = 0x1.fffffep127f;
template <>
inline constexpr float kLargest<bfloat16> = 0x1.fep127f;

// quantize.h's scale of a tensor or block with this amax. `if_infinite`: the scale where the
// quotient is beyond float32.
template <QuantFormat kFormat>
__device__ inline float ScaleFromAmax(float amax, bool power_of_2, float epsilon,
                                      float if_infinite = kLargest<float>) {
  if (amax < epsilon) amax = epsilon;
  if (!(amax > 0) || amax > kLargest<float>) return 1;
  float scale = __fdiv_rn(QuantMax(kFormat), amax);
  if (scale > kLargest<float>) scale = if_infinite;
  if (power_of_2) scale = __uint_as_float(__float_as_uint(scale) & 0xff800000u);
  return scale;
}

}  // namespace te::cuda
