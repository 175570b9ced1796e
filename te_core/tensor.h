// A dense tensor that owns (or borrows) its memory.
#pragma once

#include <memory>

#include "te_kernels/base/memory.h"
#include "te_kernels/base/view.h"

namespace te {

// Move-only. Freed where it came from; a borrowed one frees nothing, and its memory must outlive
// it.
class Tensor {
 public:
  Tensor() = default;
  static StatusOr<Tensor> Allocate(MemoryResource* resource, DType dtype, const Shape& shape);
  static Tensor Borrow(TensorView view);
  ~Tensor();
  Tensor(Tensor&& other) noexcept;
  Tensor& operator=(Tensor&& other) noexcept;
  Tensor(const Tensor&) = delete;
  Tensor& operator=(const Tensor&) = delete;

  bool defined() const { return view_.defined(); }
  bool owned() const { return resource_ != nullptr; }
  const TensorView& view() const { return view_; }
  operator ConstTensorView() const { return view_; }
  DType dtype() const { return view_.dtype(); }
  const Shape& shape() const { return view_.shape(); }

 private:
  TensorView view_;
  MemoryResource* resource_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace te
