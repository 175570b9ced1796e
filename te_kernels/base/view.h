// A view: pointer, element type, shape and strides (in elements). Owns nothing. What every kernel
// takes: TensorView to write, ConstTensorView to read (a TensorView converts to it).
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <type_traits>

#include "te_kernels/base/dtype.h"

namespace te {

inline constexpr int kMaxRank = 5;

// Up to kMaxRank dimensions, each >= 0, outermost first.
class Shape {
 public:
  constexpr Shape() = default;
  constexpr Shape(std::initializer_list<int64_t> dims) {
    for (int64_t d : dims) dims_[rank_++] = d;
  }
  explicit Shape(std::span<const int64_t> dims) {
    for (int64_t d : dims) dims_[rank_++] = d;
  }

  constexpr int rank() const { return rank_; }
  constexpr int64_t operator[](int i) const { return dims_[i]; }
  constexpr int64_t& operator[](int i) { return dims_[i]; }
  constexpr int64_t elements() const {
    int64_t n = 1;
    for (int i = 0; i < rank_; ++i) n *= dims_[i];
    return n;
  }
  std::span<const int64_t> dims() const { return {dims_.data(), static_cast<size_t>(rank_)}; }
  friend constexpr bool operator==(const Shape& a, const Shape& b) {
    if (a.rank_ != b.rank_) return false;
    for (int i = 0; i < a.rank_; ++i)
      if (a.dims_[i] != b.dims_[i]) return false;
    return true;
  }
  std::string ToString() const;  // "[2, 3]"

 private:
  int rank_ = 0;
  std::array<int64_t, kMaxRank> dims_{};
};

template <typename Void>
class BasicView {
 public:
  BasicView() = default;
  // Dense, row-major.
  BasicView(Void* data, DType dtype, const Shape& shape)
      : data_(data), dtype_(dtype), shape_(shape) {
    int64_t stride = 1;
    for (int i = shape.rank() - 1; i >= 0; --i) {
      strides_[i] = stride;
      stride *= shape[i];
    }
  }
  BasicView(Void* data, DType dtype, const Shape& shape,
            const std::array<int64_t, kMaxRank>& strides)
      : data_(data), dtype_(dtype), shape_(shape), strides_(strides) {}
  // A writable view reads as well.
  template <typename Other>
  requires(std::is_const_v<Void>&& std::is_same_v<Other, void>)
      BasicView(const BasicView<Other>& other)
      : BasicView(other.data(), other.dtype(), other.shape(), other.strides()) {}

  bool defined() const { return data_ != nullptr; }
  Void* data() const { return data_; }
  DType dtype() const { return dtype_; }
  const Shape& shape() const { return shape_; }
  int rank() const { return shape_.rank(); }
  int64_t dim(int i) const { return shape_[i]; }
  int64_t stride(int i) const { return strides_[i]; }
  const std::array<int64_t, kMaxRank>& strides() const { return strides_; }
  int64_t elements() const { return shape_.elements(); }
  size_t bytes() const { return static_cast<size_t>(elements()) * SizeOf(dtype_); }

  template <typename T>
  auto* as() const {
    using Pointer = std::conditional_t<std::is_const_v<Void>, const T*, T*>;
    return static_cast<Pointer>(data_);
  }

  bool IsDense() const {
    int64_t expected = 1;
    for (int i = rank() - 1; i >= 0; --i) {
      if (dim(i) != 1 && strides_[i] != expected) return false;
      expected *= dim(i);
    }
    return true;
  }
  // The half-open range [begin, end) of dimension `axis`, as a view of the same memory.
  BasicView Slice(int axis, int64_t begin, int64_t end) const {
    BasicView out = *this;
    out.shape_[axis] = end - begin;
    out.data_ = Offset(begin * strides_[axis]);
    return out;
  }
  // Dimension `axis` fixed at `index` and dropped.
  BasicView Select(int axis, int64_t index) const {
    BasicView out;
    out.dtype_ = dtype_;
    out.data_ = Offset(index * strides_[axis]);
    Shape shape;
    std::array<int64_t, kMaxRank> strides{};
    int64_t dims[kMaxRank];
    int n = 0;
    for (int i = 0; i < rank(); ++i) {
      if (i == axis) continue;
      dims[n] = dim(i);
      strides[n++] = strides_[i];
    }
    out.shape_ = Shape(std::span<const int64_t>(dims, n));
    out.strides_ = strides;
    return out;
  }
  // Swaps two dimensions.
  BasicView Transpose(int a, int b) const {
    BasicView out = *this;
    std::swap(out.shape_[a], out.shape_[b]);
    std::swap(out.strides_[a], out.strides_[b]);
    return out;
  }
  // The same dense memory under another shape of as many elements.
  BasicView Reshape(const Shape& shape) const { return BasicView(data_, dtype_, shape); }
  // Dimension `axis` split into (outer, inner): shape grows by one dimension. Works on strided
  // views.
  BasicView Split(int axis, int64_t outer, int64_t inner) const {
    int64_t dims[kMaxRank];
    std::array<int64_t, kMaxRank> strides{};
    int n = 0;
    for (int i = 0; i < rank(); ++i) {
      if (i == axis) {
        dims[n] = outer;
        strides[n++] = strides_[i] * inner;
        dims[n] = inner;
        strides[n++] = strides_[i];
      } else {
        dims[n] = dim(i);
        strides[n++] = strides_[i];
      }
    }
    return BasicView(data_, dtype_, Shape(std::span<const int64_t>(dims, n)), strides);
  }
  // "float32 [2, 3]", with strides when not dense.
  std::string ToString() const;

 private:
  Void* Offset(int64_t elements) const {
    using Byte = std::conditional_t<std::is_const_v<Void>, const char, char>;
    if (data_ == nullptr) return nullptr;
    return static_cast<Byte*>(data_) + elements * static_cast<int64_t>(SizeOf(dtype_));
  }

  Void* data_ = nullptr;
  DType dtype_ = DType::kFloat32;
  Shape shape_;
  std::array<int64_t, kMaxRank> strides_{};
};

using TensorView = BasicView<void>;
using ConstTensorView = BasicView<const void>;
extern template class BasicView<void>;
extern template class BasicView<const void>;

}  // namespace te
