#include "te_core/saved.h"

namespace te {

StatusOr<SavedPool::Handle> SavedPool::Acquire() {
  if (free_.empty()) {
    slots_.push_back(std::make_unique<Slot>(resource_));
    return Handle(slots_.back().get(), Releaser(this));
  }
  Slot* slot = free_.back();
  // A failed merge leaves the arena empty but usable: it grows again, or says itself that memory is
  // out.
  TE_RETURN_IF_ERROR(slot->arena.Reset());
  free_.pop_back();
  return Handle(slot, Releaser(this));
}

size_t SavedPool::capacity_bytes() const {
  size_t total = 0;
  for (const auto& slot : slots_) total += slot->arena.capacity_bytes();
  return total;
}

}  // namespace te
