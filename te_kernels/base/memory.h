// Where device memory comes from, and the bump arena that layers and operations carve theirs from.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "te_kernels/base/status.h"
#include "te_kernels/base/view.h"

namespace te {

// Memory of one device. Thread-safe.
class MemoryResource {
 public:
  virtual ~MemoryResource() = default;
  // At least `bytes` (> 0), aligned to 256. kOutOfMemory says what was asked and what was free.
  virtual StatusOr<void*> Allocate(size_t bytes) = 0;
  virtual void Free(void* pointer, size_t bytes) = 0;
};

// Bump allocation with marks. Grows by whole blocks; Reset() merges them into one of the size that
// was needed, so that work of a size seen before allocates nothing. Every pointer is aligned to 256
// bytes. Thread-compatible.
class Arena {
 public:
  struct Mark {
    size_t block = 0;
    size_t offset = 0;
    size_t used = 0;
  };

  explicit Arena(MemoryResource* resource) : resource_(resource) {}
  ~Arena() { Release(); }
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  StatusOr<void*> Allocate(size_t bytes);
  // A dense tensor, contents undefined. An empty one still has an address.
  StatusOr<TensorView> Allocate(DType dtype, const Shape& shape);

  // From the other end: what is to outlive a Rewind, and to take the place of what the Rewind gave
  // back. Stays until Reset or Release.
  StatusOr<TensorView> AllocateAtEnd(DType dtype, const Shape& shape);

  Mark Here() const { return {block_, offset_, used_}; }
  // Frees all that came after the mark; marks nest.
  void Rewind(const Mark& mark);
  // Frees everything and, after growth, makes one block of the whole.
  Status Reset();
  // Gives all memory back to the resource.
  void Release();

  size_t capacity_bytes() const;
  size_t peak_bytes() const { return peak_; }  // the most that was in use at a time

 private:
  struct Block {
    char* data;
    size_t size;
  };

  MemoryResource* resource_;
  StatusOr<void*> AddressAtEnd(size_t size);

  std::vector<Block> blocks_;
  std::vector<Block> end_blocks_;  // what found no room at the end of the last block
  size_t block_ = 0;
  size_t offset_ = 0;
  size_t end_ = 0;       // of the first block: bytes that AllocateAtEnd has taken
  size_t used_ = 0;      // without what is lost at the ends of blocks
  size_t end_used_ = 0;  // by AllocateAtEnd, end_blocks_ included
  size_t peak_ = 0;
};

// Rewinds an arena at the end of a scope: temporaries of one operation.
class ArenaScope {
 public:
  explicit ArenaScope(Arena* arena) : arena_(arena), mark_(arena->Here()) {}
  ~ArenaScope() { arena_->Rewind(mark_); }
  ArenaScope(const ArenaScope&) = delete;
  ArenaScope& operator=(const ArenaScope&) = delete;

 private:
  Arena* arena_;
  Arena::Mark mark_;
};

}  // namespace te
