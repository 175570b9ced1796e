#include "te_kernels/testing/host_tensor.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>

#include "te_kernels/testing/test_memory.h"

namespace te::test {
namespace {

constexpr size_t kGuardBytes = 256;
constexpr uint8_t kGuard = 0xa5;

// Visits the element offsets of a view in row-major order.
template <typename Visit>
void ForEachOffset(const Shape& shape, const std::array<int64_t, kMaxRank>& strides,
                   const Visit& visit) {
  const int64_t count = shape.elements();
  for (int64_t i = 0; i < count; ++i) {
    int64_t rest = i;
    int64_t offset = 0;
    for (int axis = shape.rank() - 1; axis >= 0; --axis) {
      offset += rest % shape[axis] * strides[axis];
      rest /= shape[axis];
    }
    visit(offset);
  }
}

double Read(const void* data, DType dtype, int64_t i) {
  switch (dtype) {
    case DType::kFloat32:
      return static_cast<const float*>(data)[i];
    case DType::kFloat64:
      return static_cast<const double*>(data)[i];
    case DType::kBFloat16:
      return static_cast<float>(static_cast<const bfloat16*>(data)[i]);
    case DType::kFloat16:
      return static_cast<float>(static_cast<const float16*>(data)[i]);
    case DType::kInt32:
      return static_cast<const int32_t*>(data)[i];
    case DType::kInt64:
      return static_cast<double>(static_cast<const int64_t*>(data)[i]);
    case DType::kUInt8:
      return static_cast<const uint8_t*>(data)[i];
    default:
      break;
  }
  std::fprintf(stderr, "host_tensor: no conversion from %s\n", Name(dtype));
  std::abort();
}

void Write(void* data, DType dtype, int64_t i, double value) {
  switch (dtype) {
    case DType::kFloat32:
      static_cast<float*>(data)[i] = static_cast<float>(value);
      return;
    case DType::kFloat64:
      static_cast<double*>(data)[i] = value;
      return;
    case DType::kBFloat16:
      static_cast<bfloat16*>(data)[i] = bfloat16(static_cast<float>(value));
      return;
    case DType::kFloat16:
      static_cast<float16*>(data)[i] = float16(static_cast<float>(value));
      return;
    case DType::kInt32:
      static_cast<int32_t*>(data)[i] = static_cast<int32_t>(value);
      return;
    case DType::kInt64:
      static_cast<int64_t*>(data)[i] = static_cast<int64_t>(value);
      return;
    case DType::kUInt8:
      static_cast<uint8_t*>(data)[i] = static_cast<uint8_t>(value);
      return;
    default:
      break;
  }
  std::fprintf(stderr, "host_tensor: no conversion to %s\n", Name(dtype));
  std::abort();
}

}  // namespace

double UnitRoundoff(DType dtype) {
  switch (dtype) {
    case DType::kFloat64:
      return 0x1p-53;
    case DType::kFloat32:
      return 0x1p-24;
    case DType::kFloat16:
      return 0x1p-11;
    case DType::kBFloat16:
      return 0x1p-8;
    case DType::kFloat8E4M3:
      return 0x1p-4;
    case DType::kFloat8E5M2:
      return 0x1p-3;
    default:
      return 0;
  }
}

std::vector<double> ToDoubles(const ConstTensorView& view) {
  std::vector<double> out;
  out.reserve(view.elements());
  ForEachOffset(view.shape(), view.strides(),
                [&](int64_t i) { out.push_back(Read(view.data(), view.dtype(), i)); });
  return out;
}

void FromDoubles(const std::vector<double>& values, const TensorView& view) {
  if (static_cast<int64_t>(values.size()) != view.elements()) {
    std::fprintf(stderr, "host_tensor: %zu values for %s\n", values.size(),
                 view.ToString().c_str());
    std::abort();
  }
  auto value = values.begin();
  ForEachOffset(view.shape(), view.strides(),
                [&](int64_t i) { Write(view.data(), view.dtype(), i, *value++); });
}

std::vector<double> UniformDoubles(int64_t count, uint64_t seed, double low, double high) {
  std::mt19937_64 engine(seed);
  std::uniform_real_distribution<double> distribution(low, high);
  std::vector<double> out(count);
  for (double& v : out) v = distribution(engine);
  return out;
}

std::vector<double> NormalDoubles(int64_t count, uint64_t seed, double deviation) {
  std::mt19937_64 engine(seed);
  std::normal_distribution<double> distribution(0, deviation);
  std::vector<double> out(count);
  for (double& v : out) v = distribution(engine);
  return out;
}

HostTensor::HostTensor(DType dtype, const Shape& shape, int64_t pad) {
  std::array<int64_t, kMaxRank> strides{};
  int64_t extent = 1;
  for (int i = shape.rank() - 1; i >= 0; --i) {
    strides[i] = extent;
    extent = extent * shape[i] + (i > 0 ? pad : 0);
  }
  const size_t bytes = static_cast<size_t>(extent) * SizeOf(dtype);
  // Room to align the first element as an arena would.
  storage_bytes_ = bytes + 3 * kGuardBytes;
  storage_ = AllocateTestBytes(storage_bytes_);
  std::memset(storage_.get(), kGuard, storage_bytes_);
  const size_t address = reinterpret_cast<size_t>(storage_.get());
  const size_t start = kGuardBytes + (kGuardBytes - address % kGuardBytes) % kGuardBytes;
  view_ = TensorView(storage_.get() + start, dtype, shape, strides);
  ForEachOffset(shape, strides, [&](int64_t i) { Write(view_.data(), dtype, i, 0); });
}

HostTensor::HostTensor(DType dtype, const Shape& shape, const std::vector<double>& values,
                       int64_t pad)
    : HostTensor(dtype, shape, pad) {
  FromDoubles(values, view_);
}

HostTensor HostTensor::Uniform(DType dtype, const Shape& shape, uint64_t seed, double low,
                               double high, int64_t pad) {
  return HostTensor(dtype, shape, UniformDoubles(shape.elements(), seed, low, high), pad);
}

HostTensor HostTensor::Normal(DType dtype, const Shape& shape, uint64_t seed, double deviation,
                              int64_t pad) {
  return HostTensor(dtype, shape, NormalDoubles(shape.elements(), seed, deviation), pad);
}

FilledTensor::FilledTensor(DType dtype, const Shape& shape) {
  const size_t bytes = static_cast<size_t>(shape.elements()) * SizeOf(dtype);
  storage_.reset(new uint8_t[bytes + kGuardBytes]);
  const size_t address = reinterpret_cast<size_t>(storage_.get());
  view_ = TensorView(storage_.get() + (kGuardBytes - address % kGuardBytes) % kGuardBytes, dtype,
                     shape);
  for (int64_t i = 0; i < shape.elements(); ++i) {
    Write(view_.data(), dtype, i, 0.5 + static_cast<double>(i % 251) / 512);
  }
}

std::vector<uint8_t> BytesOf(const ConstTensorView& view) {
  const size_t size = SizeOf(view.dtype());
  std::vector<uint8_t> out;
  out.reserve(view.bytes());
  const auto* data = static_cast<const uint8_t*>(view.data());
  ForEachOffset(view.shape(), view.strides(), [&](int64_t i) {
    const uint8_t* element = data + i * static_cast<int64_t>(size);
    out.insert(out.end(), element, element + size);
  });
  return out;
}

std::vector<uint8_t> HostTensor::Bytes() const { return BytesOf(view_); }

bool HostTensor::GuardsIntact() const {
  std::vector<bool> used(storage_bytes_, false);
  const int64_t start = static_cast<const uint8_t*>(view_.data()) - storage_.get();
  const auto size = static_cast<int64_t>(SizeOf(view_.dtype()));
  ForEachOffset(view_.shape(), view_.strides(), [&](int64_t i) {
    for (int64_t byte = 0; byte < size; ++byte) used[start + i * size + byte] = true;
  });
  for (size_t i = 0; i < storage_bytes_; ++i) {
    if (!used[i] && storage_[static_cast<ptrdiff_t>(i)] != kGuard) return false;
  }
  return true;
}

}  // namespace te::test
