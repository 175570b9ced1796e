// AdamW's update with stochastic rounding on the CPU (adamw.h), 32 elements at a time.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "te_kernels/base/simd.h"

namespace te::adamw {

struct Constants {
  float grad_scale;
  float decay;  // 1 - lr * weight_decay
  float beta1, one_minus_beta1;
  float beta2, one_minus_beta2;
  float step_size;        // lr / (1 - beta1^t)
  float root_correction;  // 1 / sqrt(1 - beta2^t)
  float epsilon;
};

using simd::Floats;
using simd::Pair;
using simd::Words;

// Whatever the dtypes, registers hold even and odd elements (simd.h).
template <typename T>
inline __attribute__((always_inline)) Pair LoadEvenOdd(const T* from, int64_t count) {
  const Pair value = simd::StreamPair(from, count);
  if constexpr (sizeof(T) == 4) return simd::ToOrderOf<bfloat16>(value);
  return value;
}

// Adds 16 random bits below the last kept one and truncates: rounds away from zero with the
// probability of the dropped fraction. The result is the upper half; the lower is not cleared.
inline __attribute__((always_inline)) Words AddBelow(Floats value, Words random) {
  const Words bits = (Words)value;
  return value != value ? bits | 0x400000u : bits + random;
}

inline __attribute__((always_inline)) void StoreStochastic(const Pair& value, Words, Words,
                                                           float* to, int64_t count) {
  simd::StorePair(simd::FromOrderOf<bfloat16>(value), to, count);
}
inline __attribute__((always_inline)) void StoreStochastic(const Pair& value, Words random_even,
                                                           Words random_odd, bfloat16* to,
                                                           int64_t count) {
  const Words out =
      (AddBelow(value.even, random_even) >> 16) | (AddBelow(value.odd, random_odd) & 0xffff0000u);
  std::memcpy(static_cast<void*>(to), &out, static_cast<size_t>(count) * sizeof(bfloat16));
}

inline __attribute__((always_inline)) Floats Root(Floats v) {
#if defined(__AVX512F__)
  return (Floats)_mm512_maskz_sqrt_ps(0xffff, (__m512)v);
#else
  for (int64_t i = 0; i < simd::kLanes; ++i) v[i] = std::sqrt(v[i]);
  return v;
#endif
}

// `random`: a number an element, in whole pairs.
template <bool kMaster, typename Param, typename Grad, typename Moment>
void UpdateStochastic(const Constants& constants, int64_t n, const Grad* grad, Param* param,
                      Moment* m, Moment* v, float* master, const uint32_t* random) {
  const Constants c = constants;  // in registers: stores cannot change it
  simd::ForEachPair(n, [&](int64_t i, int64_t count) TE_SIMD_LAMBDA {
    const Pair gradient = LoadEvenOdd(grad + i, count), m_old = LoadEvenOdd(m + i, count),
               v_old = LoadEvenOdd(v + i, count);
    const Pair w_old = kMaster ? LoadEvenOdd(master + i, count) : LoadEvenOdd(param + i, count);
    Pair m_new, v_new, w;
    const auto update = [&](Floats raw, Floats m_before, Floats v_before, Floats w_before,
                            Floats* m_after, Floats* v_after, Floats* w_after) TE_SIMD_LAMBDA {
      const Floats g = c.grad_scale * raw;
      *m_after = c.beta1 * m_before + c.one_minus_beta1 * g;
      *v_after = c.beta2 * v_before + c.one_minus_beta2 * g * g;
      const Floats denominator = Root(*v_after) * c.root_correction + c.epsilon;
      *w_after = w_before * c.decay - c.step_size * (*m_after / denominator);
    };
    update(gradient.even, m_old.even, v_old.even, w_old.even, &m_new.even, &v_new.even, &w.even);
    update(gradient.odd, m_old.odd, v_old.odd, w_old.odd, &m_new.odd, &v_new.odd, &w.odd);
    if constexpr (kMaster) simd::StorePair(simd::FromOrderOf<bfloat16>(w), master + i, count);
    const auto* numbers = reinterpret_cast<const float*>(random + i);
    const Pair drawn = simd::ToOrderOf<bfloat16>(simd::LoadPair(numbers));
    const Words even = (Words)drawn.even, odd = (Words)drawn.odd;
    const Words even_high = even >> 16, odd_high = odd >> 16;
    StoreStochastic(w, even & 0xffffu, odd & 0xffffu, param + i, count);
    StoreStochastic(m_new, even_high, odd_high, m + i, count);
    StoreStochastic(v_new, (even ^ even_high) & 0xffffu, (odd ^ odd_high) & 0xffffu, v + i, count);
  });
}

}  // namespace te::adamw
