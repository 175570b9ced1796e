#include "te_kernels/base/memory.h"

#include <algorithm>

namespace te {
namespace {

constexpr size_t kAlignment = 256;
constexpr size_t kSmallestBlock = size_t{1} << 20;
// Growth is geometric up to here; beyond, what is not needed would weigh more than a few more
// blocks.
constexpr size_t kLargestGrowth = size_t{64} << 20;

size_t RoundUp(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

}  // namespace

StatusOr<void*> Arena::Allocate(size_t bytes) {
  if (bytes > SIZE_MAX - kAlignment) {
    return OutOfMemory("asked for {} bytes, more than an address space holds", bytes);
  }
  const size_t size = std::max(RoundUp(bytes), kAlignment);
  // The end of the first block may be taken.
  const auto room = [this] { return blocks_[block_].size - offset_ - (block_ == 0 ? end_ : 0); };
  while (block_ < blocks_.size() && room() < size) {
    ++block_;
    offset_ = 0;
  }
  if (block_ == blocks_.size()) {
    const size_t block_size =
        std::max({size, kSmallestBlock,
                  std::min(capacity_bytes() / 2 / kAlignment * kAlignment, kLargestGrowth)});
    TE_ASSIGN_OR_RETURN(void* data, resource_->Allocate(block_size));
    blocks_.push_back({static_cast<char*>(data), block_size});
    offset_ = 0;
  }
  void* pointer = blocks_[block_].data + offset_;
  offset_ += size;
  used_ += size;
  peak_ = std::max(peak_, used_ + end_used_);
  return pointer;
}

StatusOr<void*> Arena::AddressAtEnd(size_t size) {
  // Room in the first block, if what is in use now ends there.
  if (!blocks_.empty() && block_ == 0 && blocks_[0].size - end_ - offset_ >= size) {
    end_ += size;
    return blocks_[0].data + (blocks_[0].size - end_);
  }
  // What the front gave back makes room: an arena that still grows must not hold both.
  while (blocks_.size() > block_ + 1) {
    resource_->Free(blocks_.back().data, blocks_.back().size);
    blocks_.pop_back();
  }
  TE_ASSIGN_OR_RETURN(void* data, resource_->Allocate(size));
  end_blocks_.push_back({static_cast<char*>(data), size});
  return data;
}

StatusOr<TensorView> Arena::AllocateAtEnd(DType dtype, const Shape& shape) {
  const size_t size =
      std::max(RoundUp(static_cast<size_t>(shape.elements()) * SizeOf(dtype)), kAlignment);
  TE_ASSIGN_OR_RETURN(void* data, AddressAtEnd(size));
  end_used_ += size;
  peak_ = std::max(peak_, used_ + end_used_);
  return TensorView(data, dtype, shape);
}

StatusOr<TensorView> Arena::Allocate(DType dtype, const Shape& shape) {
  TE_ASSIGN_OR_RETURN(void* data, Allocate(static_cast<size_t>(shape.elements()) * SizeOf(dtype)));
  return TensorView(data, dtype, shape);
}

void Arena::Rewind(const Mark& mark) {
  block_ = mark.block;
  offset_ = mark.offset;
  used_ = mark.used;
}

Status Arena::Reset() {
  Rewind({});
  end_ = 0;
  end_used_ = 0;
  if (blocks_.size() <= 1 && end_blocks_.empty()) return OkStatus();
  const size_t total = std::max(peak_, kSmallestBlock);
  Release();
  TE_ASSIGN_OR_RETURN(void* data, resource_->Allocate(total));
  blocks_.push_back({static_cast<char*>(data), total});
  return OkStatus();
}

void Arena::Release() {
  for (const Block& block : blocks_) resource_->Free(block.data, block.size);
  for (const Block& block : end_blocks_) resource_->Free(block.data, block.size);
  blocks_.clear();
  end_blocks_.clear();
  end_ = 0;
  end_used_ = 0;
  block_ = 0;
  offset_ = 0;
  used_ = 0;
}

size_t Arena::capacity_bytes() const {
  size_t total = 0;
  for (const Block& block : blocks_) total += block.size;
  for (const Block& block : end_blocks_) total += block.size;
  return total;
}

}  // namespace te
