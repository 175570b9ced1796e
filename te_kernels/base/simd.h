// Sixteen floats at a time, in GCC's and Clang's portable vector types: one AVX-512 register, two
// of AVX2, four of NEON. Loops written with them do not depend on what the auto-vectorizer
// recognizes.
#pragma once

#include <cstdint>
#include <cstring>
#include <limits>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#include "te_kernels/base/dtype.h"

namespace te {

// For loops that the compiler vectorizes: *to = value rounded to T. Assigning the struct instead
// keeps GCC 12 from it.
inline void StoreRounded(float value, float* to) { *to = value; }
inline void StoreRounded(float value, bfloat16* to) { to->bits = FloatToBFloat16Bits(value); }
inline float LoadFloat(const float* from) { return *from; }
inline float LoadFloat(const bfloat16* from) { return BFloat16BitsToFloat(from->bits); }

}  // namespace te

namespace te::simd {

inline constexpr int64_t kLanes = 16;
using Floats = float __attribute__((vector_size(4 * kLanes)));
using Words = uint32_t __attribute__((vector_size(4 * kLanes)));
using HalfWords = uint16_t __attribute__((vector_size(2 * kLanes)));

#define TE_SIMD inline __attribute__((always_inline))

TE_SIMD Floats Broadcast(float value) { return value - Floats{}; }

// The first `count` (<= 16) elements, in float32; the other lanes are 0.
TE_SIMD Floats Load(const float* from, int64_t count = kLanes) {
  Floats out = {};
  if (count == kLanes) {
    std::memcpy(&out, from, sizeof(out));
  } else {
    std::memcpy(&out, from, static_cast<size_t>(count) * sizeof(float));
  }
  return out;
}

TE_SIMD Floats Load(const bfloat16* from, int64_t count = kLanes) {
  HalfWords bits = {};
  if (count == kLanes) {
    std::memcpy(&bits, from, sizeof(bits));
  } else {
    std::memcpy(&bits, from, static_cast<size_t>(count) * sizeof(bfloat16));
  }
#if defined(__AVX512F__)
  // One instruction where GCC 12 makes four of the portable form.
  const Words wide = (Words)_mm512_maskz_cvtepu16_epi32(0xffff, (__m256i)bits);
#else
  const Words wide = __builtin_convertvector(bits, Words);
#endif
  return (Floats)(wide << 16);
}

// Rounds to nearest even; NaN stays. Subnormals (below 1.2e-38) may become zero: the processor's
// own conversion to bfloat16, eight instructions in one, knows no others.
TE_SIMD void Store(Floats value, float* to, int64_t count = kLanes) {
  if (count == kLanes) {
    std::memcpy(to, &value, sizeof(value));
  } else {
    std::memcpy(to, &value, static_cast<size_t>(count) * sizeof(float));
  }
}

TE_SIMD void Store(Floats value, bfloat16* to, int64_t count = kLanes) {
#if defined(__AVX512BF16__)
  const HalfWords out = (HalfWords)_mm512_maskz_cvtneps_pbh(0xffff, (__m512)value);
#else
  const Words bits = (Words)value;
  const Words high = bits >> 16;
  const Words rounded = (bits + 0x7fffu + (high & 1u)) >> 16;
  const HalfWords out = __builtin_convertvector(value != value ? high | 0x40u : rounded, HalfWords);
#endif
  if (count == kLanes) {
    std::memcpy(static_cast<void*>(to), &out, sizeof(out));
  } else {
    std::memcpy(static_cast<void*>(to), &out, static_cast<size_t>(count) * sizeof(bfloat16));
  }
}

// In a fixed order.
TE_SIMD float Sum(Floats v) {
  float out = 0;
  for (int64_t width = kLanes / 2; width > 0; width /= 2) {
    for (int64_t i = 0; i < width; ++i) v[i] += v[i + width];
  }
  out = v[0];
  return out;
}

// e^x within 2 units in the last place; 0 below -87.33 (no subnormal results), infinity
// above 88.37; NaN stays. Method and coefficients of Cephes' expf (Moshier): e^x = 2^n e^r, |r| <=
// ln(2) / 2.
TE_SIMD Floats Exp(Floats x) {
  constexpr float kLowest = -87.33f, kHighest = 88.37f;
  constexpr float kLog2E = 1.44269504f;
  constexpr float kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;  // the sum is ln(2)
  constexpr float kRounder = 12582912.0f;  // 1.5 * 2^23: its sum's low bits are the rounded integer
  const Floats above_lowest = x < kLowest ? Broadcast(kLowest) : x;
  const Floats bounded = above_lowest > kHighest ? Broadcast(kHighest) : above_lowest;
  const Floats shifted = bounded * kLog2E + kRounder;
  const Floats n = shifted - kRounder;
  const Floats r = (bounded - n * kLn2High) - n * kLn2Low;
  Floats p = 1.9875691500e-4f * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  const Floats mantissa = p * (r * r) + r + 1.0f;
  // Only the low bits of `shifted` survive the shift: n + 127 in the exponent's place.
  const Words power = ((Words)shifted + 127u) << 23;
  Floats out = mantissa * (Floats)power;
  out = x < kLowest ? Floats{} : out;
  return x > kHighest ? Broadcast(std::numeric_limits<float>::infinity()) : out;
}

// Calls body(first, count) for runs of kLanes elements, and once for what is left of n. `body`
// should be an always_inline lambda: then `count` is a constant in the main loop.
template <typename Body>
TE_SIMD void ForEachVector(int64_t n, const Body& body) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) body(i, kLanes);
  if (i < n) body(i, n - i);
}

#define TE_SIMD_LAMBDA __attribute__((always_inline))
#undef TE_SIMD

}  // namespace te::simd
