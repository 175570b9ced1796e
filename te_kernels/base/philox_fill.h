// Philox in bulk: many counters a call, in lanes, so that the compiler vectorizes the ten rounds.
#pragma once

#include <algorithm>

#include "te_kernels/base/philox.h"

namespace te {

// out[4 i + j] = Philox::Block(state, first_block + i)[j] for i in [0, blocks). `state` is
// resolved.
inline void PhiloxFill(const RandomState& state, uint64_t first_block, int64_t blocks,
                       uint32_t* out) {
  constexpr int kLanes = 64;
  uint32_t c0[kLanes], c1[kLanes], c2[kLanes], c3[kLanes];
  for (int64_t begin = 0; begin < blocks; begin += kLanes) {
    for (int i = 0; i < kLanes; ++i) {
      const uint64_t block = first_block + static_cast<uint64_t>(begin + i);
      c0[i] = static_cast<uint32_t>(block);
      c1[i] = static_cast<uint32_t>(block >> 32);
      c2[i] = state.stream;
      c3[i] = static_cast<uint32_t>(state.offset);
    }
    uint32_t k0 = static_cast<uint32_t>(state.seed);
    uint32_t k1 =
        static_cast<uint32_t>(state.seed >> 32) ^ static_cast<uint32_t>(state.offset >> 32);
    for (int round = 0; round < 10; ++round) {
      for (int i = 0; i < kLanes; ++i) {
        const uint64_t p0 = uint64_t{0xD2511F53u} * c0[i];
        const uint64_t p1 = uint64_t{0xCD9E8D57u} * c2[i];
        const uint32_t n0 = static_cast<uint32_t>(p1 >> 32) ^ c1[i] ^ k0;
        const uint32_t n2 = static_cast<uint32_t>(p0 >> 32) ^ c3[i] ^ k1;
        c0[i] = n0;
        c1[i] = static_cast<uint32_t>(p1);
        c2[i] = n2;
        c3[i] = static_cast<uint32_t>(p0);
      }
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
    const int64_t count = std::min<int64_t>(kLanes, blocks - begin);
    uint32_t* to = out + 4 * begin;
    for (int64_t i = 0; i < count; ++i) {
      to[4 * i] = c0[i];
      to[4 * i + 1] = c1[i];
      to[4 * i + 2] = c2[i];
      to[4 * i + 3] = c3[i];
    }
  }
}

}  // namespace te
