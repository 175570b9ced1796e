// Tensors in host memory for tests and benchmarks: guarded storage, random contents, conversion to
// and from double, strided views.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "te_kernels/base/view.h"

namespace te::test {

// Half the distance between 1 and the next number: the largest relative error of one rounding to
// nearest (float32 2^-24, bfloat16 2^-8, float16 2^-11, float64 2^-53).
double UnitRoundoff(DType dtype);

// Any floating or integer view (but FP8), whatever its strides, in row-major order of its shape.
std::vector<double> ToDoubles(const ConstTensorView& view);
// Each value rounded once, to nearest even, to the view's dtype.
void FromDoubles(const std::vector<double>& values, const TensorView& view);

std::vector<double> UniformDoubles(int64_t count, uint64_t seed, double low = -1, double high = 1);
std::vector<double> NormalDoubles(int64_t count, uint64_t seed, double deviation = 1);

// Owns a tensor. Each dimension but the last may be followed by `pad` unused elements, so that the
// view is strided; the bytes between and around the elements are guards that no operation may
// write.
class HostTensor {
 public:
  HostTensor(DType dtype, const Shape& shape, int64_t pad = 0);  // zeros
  HostTensor(DType dtype, const Shape& shape, const std::vector<double>& values, int64_t pad = 0);
  static HostTensor Uniform(DType dtype, const Shape& shape, uint64_t seed, double low = -1,
                            double high = 1, int64_t pad = 0);
  static HostTensor Normal(DType dtype, const Shape& shape, uint64_t seed, double deviation = 1,
                           int64_t pad = 0);

  const TensorView& view() const { return view_; }
  operator TensorView() const { return view_; }
  operator ConstTensorView() const { return view_; }
  std::vector<double> ToDoubles() const { return test::ToDoubles(view_); }
  // The elements' bytes in row-major order: for bitwise comparison.
  std::vector<uint8_t> Bytes() const;
  bool GuardsIntact() const;

 private:
  std::shared_ptr<uint8_t[]> storage_;
  size_t storage_bytes_ = 0;
  TensorView view_;

 public:
  // Moving keeps the storage's address; a copy would alias it.
  HostTensor(HostTensor&&) = default;
  HostTensor& operator=(HostTensor&&) = default;
};

// A dense tensor of values in [0.5, 1), made fast: for benchmarks.
class FilledTensor {
 public:
  FilledTensor(DType dtype, const Shape& shape);
  operator TensorView() const { return view_; }
  operator ConstTensorView() const { return view_; }

 private:
  std::unique_ptr<uint8_t[]> storage_;
  TensorView view_;
};

// The bytes of a view's elements in row-major order.
std::vector<uint8_t> BytesOf(const ConstTensorView& view);

}  // namespace te::test
