#include "te_kernels/base/philox.h"

#include <set>
#include <vector>

#include "gtest/gtest.h"
#include "te_kernels/base/philox_fill.h"

namespace te {
namespace {

using Block = std::array<uint32_t, 4>;

// Random123 (Salmon et al.), tests/kat_vectors, "philox4x32 10": counter, key, result.
TEST(PhiloxTest, EqualsThePublishedKnownAnswers) {
  const RandomState zeros;
  EXPECT_EQ(Philox::Block(zeros, 0), (Block{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  const RandomState ones = {.seed = ~uint64_t{0}, .stream = 0xffffffff, .offset = 0xffffffff};
  EXPECT_EQ(Philox::Block(ones, ~uint64_t{0}),
            (Block{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  const RandomState pi = {.seed = 0x299f31d0a4093822, .stream = 0x13198a2e, .offset = 0x03707344};
  EXPECT_EQ(Philox::Block(pi, 0x85a308d3243f6a88),
            (Block{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(PhiloxTest, EveryPartOfTheNameChangesTheNumbers) {
  const RandomState base = {.seed = 1, .stream = 2, .offset = 3};
  std::vector<RandomState> states(5, base);
  states[1].seed = 2;
  states[2].stream = 3;
  states[3].offset = 4;
  states[4].offset += uint64_t{1} << 32;
  std::set<Block> blocks;
  for (const RandomState& state : states) {
    blocks.insert(Philox::Block(state, 0));
    blocks.insert(Philox::Block(state, uint64_t{1} << 32));
  }
  EXPECT_EQ(blocks.size(), 10u);
  RandomState other_seed = base;
  other_seed.seed += uint64_t{1} << 32;
  EXPECT_NE(Philox::Block(other_seed, 0), Philox::Block(base, 0));
}

TEST(PhiloxTest, NumberIndexIsWithinItsBlock) {
  const RandomState state = {.seed = 5, .stream = 6, .offset = 7};
  for (uint64_t i = 0; i < 9; ++i) {
    EXPECT_EQ(Philox::At(state, i), Philox::Block(state, i / 4)[i % 4]);
  }
}

TEST(PhiloxTest, ResolvedAddsTheStepOffset) {
  const uint64_t step_offset = 65536;
  const RandomState state = {.seed = 5, .stream = 6, .offset = 7, .step_offset = &step_offset};
  const RandomState resolved = state.Resolved();
  EXPECT_EQ(resolved.offset, 65543u);
  EXPECT_EQ(resolved.step_offset, nullptr);
  EXPECT_EQ(resolved.seed, 5u);
  EXPECT_EQ(resolved.stream, 6u);
}

TEST(PhiloxTest, UniformIsInTheHalfOpenUnitInterval) {
  EXPECT_EQ(Philox::ToUniform(0), 0.0f);
  EXPECT_EQ(Philox::ToUniform(0x80000000u), 0.5f);
  EXPECT_LT(Philox::ToUniform(0xffffffffu), 1.0f);
}

// Counts around the register width, and a range in which the counter's high word changes.
TEST(PhiloxFillTest, EqualsBlockByBlock) {
  const RandomState state = {
      .seed = 0x0123456789abcdef, .stream = 0x80000001, .offset = 0x500000003};
  for (const int64_t blocks : {0, 1, 3, 7, 8, 9, 31, 64, 67, 257}) {
    for (const uint64_t first : {uint64_t{0}, uint64_t{1234567}, (uint64_t{1} << 32) - 5}) {
      std::vector<uint32_t> out(4 * blocks + 4, 0xdeadbeef);
      PhiloxFill(state, first, blocks, out.data());
      for (int64_t i = 0; i < blocks; ++i) {
        const Block want = Philox::Block(state, first + static_cast<uint64_t>(i));
        for (int j = 0; j < 4; ++j) ASSERT_EQ(out[4 * i + j], want[j]) << first << " " << i;
      }
      for (int j = 0; j < 4; ++j) EXPECT_EQ(out[4 * blocks + j], 0xdeadbeef) << "past the end";
    }
  }
}

}  // namespace
}  // namespace te
