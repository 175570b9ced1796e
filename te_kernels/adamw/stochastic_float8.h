// adamw.h's stochastic cast to E4M3, the same on the CPU and on CUDA.
#pragma once

#include <bit>
#include <cstdint>

namespace te::adamw {

// random16: in [0, 2^16). The 20 bits of a float32 that E4M3 drops are the parts of a code's step.
constexpr uint8_t StochasticFloat8E4M3Bits(float y, uint32_t random16) {
  constexpr uint32_t kInfinity = 0x7f800000u, kLargest = std::bit_cast<uint32_t>(448.0f);
  constexpr uint32_t kSmallestNormal = std::bit_cast<uint32_t>(0x1p-6f);
  const uint32_t bits = std::bit_cast<uint32_t>(y);
  const uint32_t magnitude = bits & 0x7fffffffu;
  const uint32_t clipped = magnitude < kLargest ? magnitude : kLargest;
  const bool subnormal = clipped < kSmallestNormal;
  // From 2^-6 to 2^-5 a step is 2^-9, which is that of the subnormal codes.
  const uint32_t shifted = std::bit_cast<uint32_t>(std::bit_cast<float>(clipped) + 0x1p-6f);
  const uint32_t aligned = subnormal ? shifted : clipped;
  const uint32_t first = (subnormal ? kSmallestNormal : kSmallestNormal - (8u << 20)) >> 20;
  const uint32_t code = ((aligned + 16 * random16 + 8) >> 20) - first;
  return static_cast<uint8_t>(magnitude > kInfinity ? 0x7fu : code | (bits >> 24 & 0x80u));
}

}  // namespace te::adamw
