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

// a b + c, rounded once where the machine can: the same in every function that it is inlined into,
// while of a b + c d the compiler fuses one product or the other.
TE_SIMD Floats MultiplyAdd(Floats a, Floats b, Floats c) {
#if defined(__AVX512F__)
  return reinterpret_cast<Floats>(_mm512_fmadd_ps(
      reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b), reinterpret_cast<__m512>(c)));
#elif defined(__AVX__) && defined(__FMA__)
  // In halves: lane by lane the compiler makes sixteen scalar instructions of it, which run longer
  // and were most of the time that it took to compile the norms. (The builtin itself, because
  // immintrin.h costs every file that includes this one half a second.)
  using Half = float __attribute__((vector_size(32)));
  Half x[2], y[2], z[2];
  std::memcpy(x, &a, sizeof(x));
  std::memcpy(y, &b, sizeof(y));
  std::memcpy(z, &c, sizeof(z));
  z[0] = __builtin_ia32_vfmaddps256(x[0], y[0], z[0]);
  z[1] = __builtin_ia32_vfmaddps256(x[1], y[1], z[1]);
  Floats out;
  std::memcpy(&out, z, sizeof(out));
  return out;
#elif defined(__FMA__) || defined(__ARM_FEATURE_FMA)
  Floats out;
  for (int64_t i = 0; i < kLanes; ++i) out[i] = __builtin_fmaf(a[i], b[i], c[i]);
  return out;
#else
  return a * b + c;
#endif
}
TE_SIMD Floats MultiplyAdd(Floats a, float b, Floats c) { return MultiplyAdd(a, Floats{} + b, c); }

TE_SIMD void Store(Floats value, float* to, int64_t count = kLanes) {
  if (count == kLanes) {
    std::memcpy(to, &value, sizeof(value));
  } else {
    std::memcpy(to, &value, static_cast<size_t>(count) * sizeof(float));
  }
}

// Rounds to nearest even; NaN stays. Subnormals (below 1.2e-38) may become zero: the processor's
// own conversion to bfloat16, eight instructions in one, knows no others.
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

// In a fixed order: halves are added until one lane is left. Portably through memory: lanes of a
// vector that are read and written one by one cost ten times as much.
TE_SIMD float Sum(Floats v) {
#if defined(__AVX512F__)
  v += (Floats)_mm512_maskz_shuffle_f32x4(0xffff, (__m512)v, (__m512)v, 0x4e);
  v += (Floats)_mm512_maskz_shuffle_f32x4(0xffff, (__m512)v, (__m512)v, 0xb1);
  v += (Floats)_mm512_maskz_permute_ps(0xffff, (__m512)v, 0x4e);
  v += (Floats)_mm512_maskz_permute_ps(0xffff, (__m512)v, 0xb1);
  return v[0];
#else
  alignas(64) float lanes[kLanes];
  std::memcpy(lanes, &v, sizeof(v));
  for (int64_t width = kLanes / 2; width > 0; width /= 2) {
    for (int64_t i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  }
  return lanes[0];
#endif
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

// The larger, and the smaller; where x is NaN, NaN.
TE_SIMD Floats AtLeast(Floats x, float low) {
#if defined(__AVX512F__)
  // Where one argument is NaN, these return the second.
  return (Floats)_mm512_maskz_max_ps(0xffff, (__m512)Broadcast(low), (__m512)x);
#else
  return x < low ? Broadcast(low) : x;
#endif
}

TE_SIMD Floats AtMost(Floats x, float high) {
#if defined(__AVX512F__)
  return (Floats)_mm512_maskz_min_ps(0xffff, (__m512)Broadcast(high), (__m512)x);
#else
  return x > high ? Broadcast(high) : x;
#endif
}

// 1 / (1 + e^-x) for x >= kSigmoidLowest, where it is 1.6e-38, within 4 units in the last place for
// |x| < 20 and 6 beyond; NaN stays.
inline constexpr float kSigmoidLowest = -87.0f;
TE_SIMD Floats SigmoidOfBounded(Floats x) {
#if defined(__AVX512F__)
  // -x = k ln(2) / 32 + r, e^-x = 2^(k >> 5) 2^((k & 31) / 32) e^r: the second factor comes from a
  // table that fits two registers, so that a parabola is enough for the third: for |r| <= ln(2) /
  // 64 it is within 5.4e-8 (1 + r + r^2 / 2 with r^3 / 6 shared out, as Chebyshev does).
  constexpr float kLog2E = 1.44269504f, kLn2 = 0.693147182f;
  constexpr float kRounder = 393216.0f;  // 1.5 * 2^18: a sum's low bits are k
  constexpr float kSlope = 1.00001466f, kSquare = 0.5f;
  // Bits of 2^(i / 32), less i << 18: adding k << 18 makes them those of 2^(k / 32).
  alignas(64) static constexpr uint32_t kPowers[32] = {
      0x3f800000, 0x3f7ecd87, 0x3f7daac3, 0x3f7c980f, 0x3f7b95c2, 0x3f7aa43a, 0x3f79c3d3,
      0x3f78f4f0, 0x3f7837f0, 0x3f778d3a, 0x3f76f532, 0x3f767043, 0x3f75fed7, 0x3f75a15b,
      0x3f75583f, 0x3f7523f6, 0x3f7504f3, 0x3f74fbaf, 0x3f7508a4, 0x3f752c4d, 0x3f75672a,
      0x3f75b9be, 0x3f76248c, 0x3f76a81e, 0x3f7744fd, 0x3f77fbb8, 0x3f78ccdf, 0x3f79b907,
      0x3f7ac0c7, 0x3f7be4ba, 0x3f7d257d, 0x3f7e83b3};
  const Floats below = AtMost(x, 87.0f);
  const Floats shifted = kRounder - below * kLog2E;
  const Floats r = -below - (shifted - kRounder) * kLn2;
  const Words power = (Words)_mm512_permutex2var_epi32(_mm512_load_si512(kPowers), (__m512i)shifted,
                                                       _mm512_load_si512(kPowers + 16));
  const Floats scale = (Floats)(power + ((Words)shifted << 18));
  const Floats d = ((r * kSquare + kSlope) * r + 1.0f) * scale + 1.0f;
  // 14 bits of 1 / d, doubled by a step of Newton's: a division keeps the unit busy three times as
  // long.
  const Floats start = (Floats)_mm512_maskz_rcp14_ps(0xffff, (__m512)d);
  return start * (2.0f - d * start);
#else
  return 1.0f / (1.0f + Exp(-x));
#endif
}

// For any x; below kSigmoidLowest its value there.
TE_SIMD Floats Sigmoid(Floats x) { return SigmoidOfBounded(AtLeast(x, kSigmoidLowest)); }

// Two vectors' worth of elements, the unit of loops that stream through memory: of bfloat16 one
// cache line. `even` and `odd` hold bfloat16 elements of even and odd index, which takes half the
// instructions that consecutive ones take; of float32, the first and the second half. Element-wise
// arithmetic does not mind; a pair of one type does not line up with a pair of the other.
inline constexpr int64_t kPairLanes = 2 * kLanes;
struct Pair {
  Floats even, odd;
};

TE_SIMD Pair LoadPair(const float* from, int64_t count = kPairLanes) {
  if (count <= kLanes) return {Load(from, count), Floats{}};
  return {Load(from), Load(from + kLanes, count - kLanes)};
}

TE_SIMD Pair LoadPair(const bfloat16* from, int64_t count = kPairLanes) {
  Words bits = {};
  if (count == kPairLanes) {
    std::memcpy(&bits, from, sizeof(bits));
  } else {
    std::memcpy(&bits, from, static_cast<size_t>(count) * sizeof(bfloat16));
  }
  return {(Floats)(bits << 16), (Floats)(bits & 0xffff0000u)};
}

TE_SIMD void StorePair(const Pair& value, float* to, int64_t count = kPairLanes) {
  if (count <= kLanes) {
    Store(value.even, to, count);
    return;
  }
  Store(value.even, to);
  Store(value.odd, to + kLanes, count - kLanes);
}

TE_SIMD void StorePair(const Pair& value, bfloat16* to, int64_t count = kPairLanes) {
#if defined(__AVX512BF16__)
  using Lanes = int16_t __attribute__((vector_size(64)));
  constexpr Lanes kInterleaved = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                  8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  const Lanes halves = (Lanes)_mm512_cvtne2ps_pbh((__m512)value.odd, (__m512)value.even);
  const auto out = __builtin_shuffle(halves, kInterleaved);
#else
  const auto rounded = [](Floats v) __attribute__((always_inline)) {  // in the upper halves
    const Words bits = (Words)v;
    const Words up = bits + 0x7fffu + ((bits >> 16) & 1u);
    return v != v ? bits | 0x400000u : up;
  };
  const Words out = (rounded(value.even) >> 16) | (rounded(value.odd) & 0xffff0000u);
#endif
  if (count == kPairLanes) {
    std::memcpy(static_cast<void*>(to), &out, sizeof(out));
  } else {
    std::memcpy(static_cast<void*>(to), &out, static_cast<size_t>(count) * sizeof(bfloat16));
  }
}

// A pair of consecutive floats in the order of a pair of T's, and back.
template <typename T>
TE_SIMD Pair ToOrderOf(const Pair& pair) {
  if constexpr (sizeof(T) == 4) return pair;
  return {__builtin_shufflevector(pair.even, pair.odd, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22,
                                  24, 26, 28, 30),
          __builtin_shufflevector(pair.even, pair.odd, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23,
                                  25, 27, 29, 31)};
}
template <typename T>
TE_SIMD Pair FromOrderOf(const Pair& pair) {
  if constexpr (sizeof(T) == 4) return pair;
  return {__builtin_shufflevector(pair.even, pair.odd, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6,
                                  22, 7, 23),
          __builtin_shufflevector(pair.even, pair.odd, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29,
                                  14, 30, 15, 31)};
}

// The elements of a pair of T's from `count` on replaced by zero: for the last, shorter pair of a
// sum.
template <typename T>
TE_SIMD Pair FirstOfPair(const Pair& pair, int64_t count) {
  if (count == kPairLanes) return pair;
  alignas(64) float lanes[kPairLanes];
  StorePair(FromOrderOf<T>(pair), lanes);
  for (int64_t i = count; i < kPairLanes; ++i) lanes[i] = 0;
  return ToOrderOf<T>(LoadPair(lanes));
}

// LoadPair of what lies in memory: also asks for the line `ahead` bytes on. The processor's own
// prefetching stops at pages' ends and starts late in short rows: from memory this is a fifth. Into
// the second cache: rows of 4096 elements fall on the same few sets of the first, where a line that
// comes early is evicted before its use (half the speed).
template <typename T>
TE_SIMD Pair StreamPair(const T* from, int64_t count = kPairLanes, int64_t ahead = 1024) {
  constexpr int64_t kLine = 64;
  const auto* line = reinterpret_cast<const char*>(from) + ahead;
  __builtin_prefetch(line, 0, 2);
  if constexpr (sizeof(T) == 4) __builtin_prefetch(line + kLine, 0, 2);
  return LoadPair(from, count);
}

// StorePair that also asks for a line that is written soon: for loops with so many stores that the
// ones that wait for memory fill the store buffer.
template <typename T>
TE_SIMD void StreamPairTo(const Pair& value, T* to, int64_t count = kPairLanes) {
  constexpr int64_t kAhead = 256, kLine = 64;
  auto* line = reinterpret_cast<char*>(to) + kAhead;
  __builtin_prefetch(line, 1, 2);
  if constexpr (sizeof(T) == 4) __builtin_prefetch(line + kLine, 1, 2);
  StorePair(value, to, count);
}

// Calls body(first, count) for runs of kLanes elements, and once for what is left of n. `body`
// should be an always_inline lambda: then `count` is a constant in the main loop.
template <typename Body>
TE_SIMD void ForEachVector(int64_t n, const Body& body) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) body(i, kLanes);
  if (i < n) body(i, n - i);
}

// The same with pairs.
template <typename Body>
TE_SIMD void ForEachPair(int64_t n, const Body& body) {
  int64_t i = 0;
  for (; i + kPairLanes <= n; i += kPairLanes) body(i, kPairLanes);
  if (i < n) body(i, n - i);
}

// ForEachVector with body(first, count, k), k = 0, 1, 2, 3 in turn (a constant): for four sums,
// which do not wait for each other's additions.
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
