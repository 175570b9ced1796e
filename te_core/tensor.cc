#include "te_core/tensor.h"

#include <algorithm>
#include <utility>

namespace te {

StatusOr<Tensor> Tensor::Allocate(MemoryResource* resource, DType dtype, const Shape& shape) {
  size_t bytes = SizeOf(dtype);
  for (int64_t d : shape.dims()) {
    if (d < 0)
      return InvalidArgument("tensor shape {}: dimensions must not be negative", shape.ToString());
    if (__builtin_mul_overflow(bytes, static_cast<size_t>(d), &bytes)) {
      return InvalidArgument("tensor shape {}: its size in bytes overflows", shape.ToString());
    }
  }
  bytes = std::max<size_t>(bytes, 1);  // an empty tensor still has an address
  TE_ASSIGN_OR_RETURN(void* data, resource->Allocate(bytes));
  Tensor tensor;
  tensor.view_ = TensorView(data, dtype, shape);
  tensor.resource_ = resource;
  tensor.bytes_ = bytes;
  return tensor;
}

Tensor Tensor::Borrow(TensorView view) {
  Tensor tensor;
  tensor.view_ = view;
  return tensor;
}

Tensor::~Tensor() {
  if (resource_ != nullptr) resource_->Free(view_.data(), bytes_);
}

Tensor::Tensor(Tensor&& other) noexcept
    : view_(std::exchange(other.view_, {})),
      resource_(std::exchange(other.resource_, nullptr)),
      bytes_(std::exchange(other.bytes_, 0)) {}

Tensor& Tensor::operator=(Tensor&& other) noexcept {
  std::swap(view_, other.view_);
  std::swap(resource_, other.resource_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

}  // namespace te
