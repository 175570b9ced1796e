// Philox in bulk: several counters in one vector register.
#pragma once

#include <cstring>

#include "te_kernels/base/philox.h"

#if defined(__AVX2__) || defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace te {
namespace philox_internal {

// One 32-bit word of several counters, each in the low half of a 64-bit lane; the high halves are
// whatever the last multiplication left there.
#if defined(__AVX512F__)
using Words = uint64_t __attribute__((vector_size(64)));
inline Words Multiply(Words a, uint32_t b) {
  // The masked form: GCC 12 warns of its own undefined operand in the plain one.
  const auto product =
      _mm512_maskz_mul_epu32(0xff, reinterpret_cast<__m512i>(a), _mm512_set1_epi64(b));
  return reinterpret_cast<Words>(product);
}
#elif defined(__AVX2__)
using Words = uint64_t __attribute__((vector_size(32)));
inline Words Multiply(Words a, uint32_t b) {
  const auto product = _mm256_mul_epu32(reinterpret_cast<__m256i>(a), _mm256_set1_epi64x(b));
  return reinterpret_cast<Words>(product);
}
#else
using Words = uint64_t __attribute__((vector_size(16)));
inline Words Multiply(Words a, uint32_t b) { return (a & 0xffffffffu) * b; }
#endif
inline constexpr int kLanes = sizeof(Words) / sizeof(uint64_t);

// Lanes of two vectors in turn, from lane `first` on: {low[first], high[first], low[first + 1],
// ...}.
inline Words Interleave(Words low, Words high, uint64_t first) {
  Words lanes = {};
  for (int l = 0; l < kLanes; ++l) lanes[l] = first + l / 2 + (l % 2 != 0 ? kLanes : 0);
  return __builtin_shuffle(low, high, lanes);
}

}  // namespace philox_internal

// out[4 i + j] = Philox::Block(state, first_block + i)[j] for i in [0, blocks). `state` is
// resolved.
inline void PhiloxFill(const RandomState& state, uint64_t first_block, int64_t blocks,
                       uint32_t* out) {
  using philox_internal::kLanes;
  using philox_internal::Words;
  Words lane = {};
  for (int l = 0; l < kLanes; ++l) lane[l] = static_cast<uint64_t>(l);
  int64_t i = 0;
  for (; i + kLanes <= blocks; i += kLanes) {
    Words c0 = lane + (first_block + static_cast<uint64_t>(i));
    Words c1 = c0 >> 32;
    Words c2 = Words{} + state.stream;
    Words c3 = Words{} + state.offset;
    uint32_t k0 = static_cast<uint32_t>(state.seed);
    uint32_t k1 =
        static_cast<uint32_t>(state.seed >> 32) ^ static_cast<uint32_t>(state.offset >> 32);
#pragma GCC unroll 10
    for (int round = 0; round < 10; ++round) {
      const Words p0 = philox_internal::Multiply(c0, 0xD2511F53u);
      const Words p1 = philox_internal::Multiply(c2, 0xCD9E8D57u);
      c0 = (p1 >> 32) ^ c1 ^ k0;
      c1 = p1;
      c2 = (p0 >> 32) ^ c3 ^ k1;
      c3 = p0;
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
    const Words low = (c0 & 0xffffffffu) | c1 << 32;
    const Words high = (c2 & 0xffffffffu) | c3 << 32;
    const Words first = philox_internal::Interleave(low, high, 0);
    const Words second = philox_internal::Interleave(low, high, kLanes / 2);
    std::memcpy(out + 4 * i, &first, sizeof(first));
    std::memcpy(out + 4 * i + 2 * kLanes, &second, sizeof(second));
  }
  // Not out + 4 i: GCC 12, which takes i for as large as can be, warns of the product's overflow.
  for (uint32_t* to = out + 4 * i; i < blocks; ++i, to += 4) {
    const auto block = Philox::Block(state, first_block + static_cast<uint64_t>(i));
    std::memcpy(to, block.data(), sizeof(block));
  }
}

}  // namespace te
