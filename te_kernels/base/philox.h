// Philox4x32-10, the counter-based generator of Salmon et al., "Parallel random numbers: as easy as
// 1, 2, 3" (SC'11). The same (seed, stream, offset, index) gives the same number on every device,
// whatever the number of threads.
#pragma once

#include <array>
#include <cstdint>

namespace te {

// Names one sequence of random numbers: `seed` of the run, `stream` of the consumer (a layer's
// dropout, a tensor's rounding), `offset` of the micro-batch plus, when given, *step_offset: device
// memory (StepScalars::rng_offset), so that a captured graph draws new numbers every step.
struct RandomState {
  uint64_t seed = 0;
  uint32_t stream = 0;
  uint64_t offset = 0;
  const uint64_t* step_offset = nullptr;

  // The same sequence with step_offset read and added: call it where step_offset can be read.
  constexpr RandomState Resolved() const {
    RandomState out = *this;
    if (step_offset != nullptr) out.offset += *step_offset;
    out.step_offset = nullptr;
    return out;
  }
};

class Philox {
 public:
  // Four 32-bit numbers of block `block` of a resolved state. The counter is {block (64 bits),
  // stream, low offset bits} and the offset's high bits enter the key, so that no two names of one
  // seed share a counter and key.
  static constexpr std::array<uint32_t, 4> Block(const RandomState& state, uint64_t block) {
    std::array<uint32_t, 4> c = {static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32),
                                 state.stream, static_cast<uint32_t>(state.offset)};
    uint32_t k0 = static_cast<uint32_t>(state.seed);
    uint32_t k1 =
        static_cast<uint32_t>(state.seed >> 32) ^ static_cast<uint32_t>(state.offset >> 32);
    for (int round = 0; round < 10; ++round) {
      const uint64_t p0 = uint64_t{0xD2511F53u} * c[0];
      const uint64_t p1 = uint64_t{0xCD9E8D57u} * c[2];
      c = {static_cast<uint32_t>(p1 >> 32) ^ c[1] ^ k0, static_cast<uint32_t>(p1),
           static_cast<uint32_t>(p0 >> 32) ^ c[3] ^ k1, static_cast<uint32_t>(p0)};
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
    return c;
  }
  // Number `index` of the sequence.
  static constexpr uint32_t At(const RandomState& state, uint64_t index) {
    return Block(state, index / 4)[index % 4];
  }
  // In [0, 1), with 24 bits.
  static constexpr float ToUniform(uint32_t bits) {
    return static_cast<float>(bits >> 8) * 0x1p-24f;
  }
};

}  // namespace te
