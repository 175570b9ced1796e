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

// Lanes from `count` on replaced by `other`: for the last, shorter vector of a reduction.
TE_SIMD Floats FirstLanes(Floats v, int64_t count, float other) {
  if (count == kLanes) return v;
  alignas(64) float lanes[kLanes];
  std::memcpy(lanes, &v, sizeof(v));
  for (int64_t lane = count; lane < kLanes; ++lane) lanes[lane] = other;
  std::memcpy(&v, lanes, sizeof(v));
  return v;
}

// In a fixed order: halves are added until one lane is left. Through memory: lanes of a vector that
// are read and written one by one cost ten times as much.
TE_SIMD float Sum(Floats v) {
  alignas(64) float lanes[kLanes];
  std::memcpy(lanes, &v, sizeof(v));
  for (int64_t width = kLanes / 2; width > 0; width /= 2) {
    for (int64_t i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  }
  return lanes[0];
}

// The largest lane; a NaN may be missed.
TE_SIMD float Max(Floats v) {
  alignas(64) float lanes[kLanes];
  std::memcpy(lanes, &v, sizeof(v));
  for (int64_t width = kLanes / 2; width > 0; width /= 2) {
    for (int64_t i = 0; i < width; ++i) {
      lanes[i] = lanes[i] > lanes[i + width] ? lanes[i] : lanes[i + width];
    }
  }
  return lanes[0];
}

// e^x for |x| <= 105, not above 88.37 without AVX-512. Method and coefficients of Cephes' expf
// (Moshier): e^x = 2^n e^r, |r| <= ln(2) / 2.
TE_SIMD Floats ExpBounded(Floats x) {
  constexpr float kLog2E = 1.44269504f;
  constexpr float kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;  // the sum is ln(2)
  constexpr float kRounder = 12582912.0f;  // 1.5 * 2^23: its sum's low bits are the rounded integer
  const Floats shifted = x * kLog2E + kRounder;
  const Floats n = shifted - kRounder;
  const Floats r = (x - n * kLn2High) - n * kLn2Low;
  Floats p = 1.9875691500e-4f * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  const Floats mantissa = p * (r * r) + r + 1.0f;
#if defined(__AVX512F__)
  return (Floats)_mm512_maskz_scalef_ps(0xffff, (__m512)mantissa, (__m512)n);
#else
  // Only the low bits of `shifted` survive the shift: n + 127 in the exponent's place.
  return mantissa * (Floats)(((Words)shifted + 127u) << 23);
#endif
}

// e^x within 2 units in the last place; infinity above 88.73; below -87.3, where it would be
// subnormal, zero; NaN stays.
TE_SIMD Floats Exp(Floats x) {
#if defined(__AVX512F__)
  // A subnormal result takes the processor 20 times as long, and masked attention scores are full
  // of them: 0 instead.
  const __mmask16 normal = _mm512_cmp_ps_mask((__m512)x, (__m512)Broadcast(-87.3f), _CMP_NLT_UQ);
  // Where one argument is NaN, these return the second.
  const Floats above = (Floats)_mm512_maskz_max_ps(0xffff, (__m512)Broadcast(-87.3f), (__m512)x);
  const Floats value =
      ExpBounded((Floats)_mm512_maskz_min_ps(0xffff, (__m512)Broadcast(105.0f), (__m512)above));
  return (Floats)_mm512_maskz_mov_ps(normal, (__m512)value);
#else
  constexpr float kLowest = -87.3f, kHighest = 88.37f;  // 2^n stays a normal number
  const Floats above = x < kLowest ? Broadcast(kLowest) : x;
  const Floats value = ExpBounded(above > kHighest ? Broadcast(kHighest) : above);
  const Floats low_done = x < kLowest ? Floats{} : value;
  return x > kHighest ? Broadcast(std::numeric_limits<float>::infinity()) : low_done;
#endif
}

// 1 / (1 + e^-x) within 4 units in the last place; below -88 zero; NaN stays.
TE_SIMD Floats Sigmoid(Floats x) {
#if defined(__AVX512F__)
  const Floats below = (Floats)_mm512_maskz_min_ps(0xffff, (__m512)Broadcast(105.0f), (__m512)x);
  // Below -88, where the exponential may be anything, the mask is off.
  const __mmask16 counts = _mm512_cmp_ps_mask((__m512)x, (__m512)Broadcast(-88.0f), _CMP_NLT_UQ);
  const Floats d = ExpBounded(-below) + 1.0f;
  // 14 bits of 1 / d, doubled by a step of Newton's: a division keeps the unit busy three times as
  // long.
  const Floats start = (Floats)_mm512_maskz_rcp14_ps(0xffff, (__m512)d);
  return (Floats)_mm512_maskz_mul_ps(counts, (__m512)start, (__m512)(2.0f - d * start));
#else
  return 1.0f / (1.0f + Exp(-x));
#endif
}

// Calls body(first, count) for runs of kLanes elements, and once for what is left of n. `body`
// should be an always_inline lambda: then `count` is a constant in the main loop.
template <typename Body>
TE_SIMD void ForEachVector(int64_t n, const Body& body) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) body(i, kLanes);
  if (i < n) body(i, n - i);
}

// The same with body(first, count, k), k = 0, 1, 2, 3 in turn (a constant): for four sums, which do
// not wait for each other's additions.
template <typename Body>
TE_SIMD void ForEachVectorInTurn(int64_t n, const Body& body) {
  int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    body(i, kLanes, 0);
    body(i + kLanes, kLanes, 1);
    body(i + 2 * kLanes, kLanes, 2);
    body(i + 3 * kLanes, kLanes, 3);
  }
  for (; i + kLanes <= n; i += kLanes) body(i, kLanes, 0);
  if (i < n) body(i, n - i, 1);
}

TE_SIMD float Sum(const Floats (&sums)[4]) {
  return Sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

#define TE_SIMD_LAMBDA __attribute__((always_inline))
#undef TE_SIMD

}  // namespace te::simd
