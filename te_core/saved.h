// What a forward pass leaves for its backward pass: a tree of states (one node a layer) over one
// arena. Several can be alive at once: one a micro-batch in flight. A slot's memory and nodes are
// used again, so that a repeated shape allocates nothing.
#pragma once

#include <memory>
#include <vector>

#include "te_kernels/base/memory.h"

namespace te {

// Base of a layer's saved state (views into the arena, small values). Overwritten by the next
// forward pass in the slot.
struct SavedState {
  virtual ~SavedState() = default;
};

// Node of the tree. Not thread-safe: one pass at a time works on one slot.
class Saved {
 public:
  explicit Saved(Arena* arena) : arena_(arena) {}

  // This layer's state: made at the first use, the same object afterwards. A node belongs to one
  // layer for good.
  template <typename State>
  State& state() {
    if (state_ == nullptr) state_ = std::make_unique<State>();
    return static_cast<State&>(*state_);
  }
  // Node of sub-layer `index`.
  Saved* child(size_t index) {
    while (children_.size() <= index) children_.push_back(std::make_unique<Saved>(arena_));
    return children_[index].get();
  }
  // A tensor that lives until the slot is released (or its arena rewound).
  StatusOr<TensorView> Allocate(DType dtype, const Shape& shape) {
    return arena_->Allocate(dtype, shape);
  }
  Arena* arena() { return arena_; }

 private:
  Arena* arena_;
  std::unique_ptr<SavedState> state_;
  std::vector<std::unique_ptr<Saved>> children_;
};

// The slots of one root layer. Thread-compatible. Must outlive what it hands out.
class SavedPool {
 public:
  explicit SavedPool(MemoryResource* resource) : resource_(resource) {}

  struct Slot {
    explicit Slot(MemoryResource* resource) : arena(resource), root(&arena) {}
    Arena arena;
    Saved root;
  };
  class Releaser {
   public:
    explicit Releaser(SavedPool* pool = nullptr) : pool_(pool) {}
    void operator()(Slot* slot) const { pool_->Release(slot); }

   private:
    SavedPool* pool_;
  };
  using Handle = std::unique_ptr<Slot, Releaser>;

  // A free slot (an empty arena), or a new one.
  StatusOr<Handle> Acquire();
  size_t in_flight() const { return slots_.size() - free_.size(); }
  size_t capacity_bytes() const;

 private:
  void Release(Slot* slot) { free_.push_back(slot); }

  MemoryResource* resource_;
  std::vector<std::unique_ptr<Slot>> slots_;
  std::vector<Slot*> free_;
};

}  // namespace te
