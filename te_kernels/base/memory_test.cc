#include "te_kernels/base/memory.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "gtest/gtest.h"

namespace te {
namespace {

// Counts, and refuses beyond a limit.
class CountingMemory : public MemoryResource {
 public:
  StatusOr<void*> Allocate(size_t bytes) override {
    if (held + bytes > limit)
      return OutOfMemory("asked for {} bytes; {} are free", bytes, limit - held);
    ++allocations;
    held += bytes;
    most = std::max(most, held);
    return std::aligned_alloc(256, bytes);
  }
  void Free(void* pointer, size_t bytes) override {
    held -= bytes;
    std::free(pointer);
  }

  size_t limit = size_t{1} << 30;
  size_t held = 0;
  size_t most = 0;
  int allocations = 0;
};

void* Take(Arena& arena, size_t bytes) {
  auto pointer = arena.Allocate(bytes);
  EXPECT_TRUE(pointer.ok());
  // Every byte is ours to write: the address sanitizer looks on.
  std::memset(*pointer, 1, bytes);
  return *pointer;
}

TEST(ArenaTest, PointersAreAlignedAndApart) {
  CountingMemory memory;
  Arena arena(&memory);
  const char* last = nullptr;
  for (const size_t bytes : {1, 256, 257, 0, 100}) {
    const char* pointer = static_cast<char*>(Take(arena, bytes));
    EXPECT_EQ(reinterpret_cast<uintptr_t>(pointer) % 256, 0u);
    if (last != nullptr) {
      EXPECT_GE(pointer - last, 256);
    }
    last = pointer;
  }
  EXPECT_EQ(memory.allocations, 1);
}

TEST(ArenaTest, RewindGivesTheSameMemoryAgainAndMarksNest) {
  CountingMemory memory;
  Arena arena(&memory);
  Take(arena, 100);
  void* outer;
  {
    const ArenaScope outer_scope(&arena);
    outer = Take(arena, 1000);
    void* inner;
    {
      const ArenaScope inner_scope(&arena);
      inner = Take(arena, 5000);
    }
    EXPECT_EQ(Take(arena, 10), inner);
  }
  EXPECT_EQ(Take(arena, 1), outer);
}

TEST(ArenaTest, RewindAcrossBlocksFindsTheOldBlock) {
  CountingMemory memory;
  Arena arena(&memory);
  Take(arena, 100);
  const Arena::Mark mark = arena.Here();
  void* first = Take(arena, 1000);
  Take(arena, size_t{3} << 20);  // more than the first block
  EXPECT_EQ(memory.allocations, 2);
  arena.Rewind(mark);
  EXPECT_EQ(Take(arena, 1000), first);
  Take(arena, size_t{3} << 20);
  EXPECT_EQ(memory.allocations, 2);
}

TEST(ArenaTest, ResetMergesSoThatARepeatAllocatesNothing) {
  CountingMemory memory;
  Arena arena(&memory);
  const auto work = [&] {
    for (int i = 0; i < 20; ++i) Take(arena, 400'000);
  };
  work();
  const size_t capacity = arena.capacity_bytes();
  EXPECT_GT(memory.allocations, 1);
  ASSERT_TRUE(arena.Reset().ok());
  // One block of what was needed, each piece rounded up to 256.
  EXPECT_EQ(arena.capacity_bytes(), 20u * 400'128u);
  EXPECT_LT(arena.capacity_bytes(), capacity);
  const int before = memory.allocations;
  std::vector<void*> addresses;
  for (int round = 0; round < 3; ++round) {
    void* first = Take(arena, 1);
    addresses.push_back(first);
    ASSERT_TRUE(arena.Reset().ok());
    work();
    ASSERT_TRUE(arena.Reset().ok());
  }
  EXPECT_EQ(memory.allocations, before);
  EXPECT_EQ(addresses[1], addresses[0]);
  EXPECT_EQ(addresses[2], addresses[0]);
}

TEST(ArenaTest, TensorsAreDenseAndAnEmptyOneHasAnAddress) {
  CountingMemory memory;
  Arena arena(&memory);
  auto tensor = arena.Allocate(DType::kBFloat16, {3, 5});
  ASSERT_TRUE(tensor.ok());
  EXPECT_TRUE(tensor->IsDense());
  EXPECT_EQ(tensor->bytes(), 30u);
  auto empty = arena.Allocate(DType::kFloat32, {0, 5});
  ASSERT_TRUE(empty.ok());
  EXPECT_TRUE(empty->defined());
}

TEST(ArenaTest, PeakCountsWhatWasLiveAtOnce) {
  CountingMemory memory;
  Arena arena(&memory);
  {
    const ArenaScope scope(&arena);
    Take(arena, 1024);
  }
  Take(arena, 256);
  EXPECT_EQ(arena.peak_bytes(), 1024u);
}

TEST(ArenaTest, FailureNamesTheBytesAndLeavesTheArenaUsable) {
  CountingMemory memory;
  memory.limit = size_t{2} << 20;
  Arena arena(&memory);
  Take(arena, 100);
  const auto refused = arena.Allocate(size_t{8} << 20);
  EXPECT_EQ(refused.status().code(), StatusCode::kOutOfMemory);
  EXPECT_NE(refused.status().message().find("8388608"), std::string::npos);
  Take(arena, 100);
  EXPECT_EQ(arena.Allocate(SIZE_MAX - 10).status().code(), StatusCode::kOutOfMemory);
}

TEST(ArenaTest, ReleaseAndDestructionGiveEverythingBack) {
  CountingMemory memory;
  {
    Arena arena(&memory);
    Take(arena, size_t{3} << 20);
    arena.Release();
    EXPECT_EQ(memory.held, 0u);
    Take(arena, 100);
    EXPECT_GT(memory.held, 0u);
  }
  EXPECT_EQ(memory.held, 0u);
}

// What a Rewind gave back is what the other end takes: the sum of both at a time is what is needed.
TEST(ArenaTest, TheEndTakesWhatRewindGaveBack) {
  CountingMemory memory;
  Arena arena(&memory);
  constexpr int64_t kMiB = 1 << 20;
  std::vector<char*> ends;
  const auto pass = [&] {
    ends.clear();
    std::vector<Arena::Mark> marks;
    for (int i = 0; i < 8; ++i) {
      marks.push_back(arena.Here());
      Take(arena, 3 * kMiB);
    }
    for (int i = 7; i >= 0; --i) {
      auto tensor = arena.AllocateAtEnd(DType::kUInt8, {2 * kMiB + i});
      ASSERT_TRUE(tensor.ok());
      ends.push_back(static_cast<char*>(tensor->data()));
      std::memset(ends.back(), 100 + i, tensor->bytes());
      arena.Rewind(marks[static_cast<size_t>(i)]);
      std::memset(Take(arena, kMiB), 1, kMiB);  // a temporary where the activation was
      arena.Rewind(marks[static_cast<size_t>(i)]);
    }
    for (int i = 7; i >= 0; --i) {
      EXPECT_EQ(ends[static_cast<size_t>(7 - i)][0], 100 + i);
      EXPECT_EQ(ends[static_cast<size_t>(7 - i)][2 * kMiB + i - 1], 100 + i);
    }
  };
  pass();
  // While it grows, too: what was given back has been freed.
  EXPECT_LE(memory.most, static_cast<size_t>(36 * kMiB));
  ASSERT_TRUE(arena.Reset().ok());
  // 24 MiB of activations and the first 2 of the end; not 24 + 16.
  EXPECT_LE(memory.held, static_cast<size_t>(27 * kMiB));
  const int allocations = memory.allocations;
  pass();
  const std::vector<char*> second = ends;
  ASSERT_TRUE(arena.Reset().ok());
  pass();
  EXPECT_EQ(memory.allocations, allocations);
  EXPECT_EQ(ends, second);
}

}  // namespace
}  // namespace te
