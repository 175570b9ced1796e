#include <algorithm>

#include "te_kernels/base/parallel.h"
#include "te_kernels/base/simd.h"
#include "te_kernels/rope/rope.h"

namespace te {
namespace {

constexpr int64_t kElementsPerThread = 1 << 14;

using simd::Floats;
using simd::Load;
using simd::Store;

// The heads below rotate `pairs` pairs. x and y may be one buffer: both elements of a pair are read
// before either is written, and pairs do not overlap.

template <typename T>
void RotateHalves(const T* x, const float* cos, const float* sin, float sign, int64_t pairs, T* y) {
  simd::ForEachVector(pairs, [&](int64_t r, int64_t n) TE_SIMD_LAMBDA {
    const Floats u = Load(x + r, n), v = Load(x + pairs + r, n);
    const Floats c = Load(cos + r, n), s = Load(sin + r, n) * sign;
    Store(u * c - v * s, y + r, n);
    Store(u * s + v * c, y + pairs + r, n);
  });
}

template <typename T>
void RotateInterleaved(const T* x, const float* cos, const float* sin, float sign, int64_t pairs,
                       T* y) {
  using Lanes = int32_t __attribute__((vector_size(4 * simd::kLanes)));
  constexpr Lanes kFirst = {0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30};
  constexpr Lanes kSecond = {1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31};
  constexpr Lanes kLow = {0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23};
  constexpr Lanes kHigh = {8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  simd::ForEachVector(pairs, [&](int64_t r, int64_t n) TE_SIMD_LAMBDA {
    const int64_t low = std::min(2 * n, simd::kLanes), high = 2 * n - low;
    const Floats a = Load(x + 2 * r, low), b = Load(x + 2 * r + low, high);
    const Floats u = __builtin_shuffle(a, b, kFirst), v = __builtin_shuffle(a, b, kSecond);
    const Floats c = Load(cos + r, n), s = Load(sin + r, n) * sign;
    const Floats first = u * c - v * s, second = u * s + v * c;
    Store(__builtin_shuffle(first, second, kLow), y + 2 * r, low);
    Store(__builtin_shuffle(first, second, kHigh), y + 2 * r + low, high);
  });
}

template <typename T, bool kInterleaved>
void RotateHead(const T* x, const float* cos, const float* sin, float sign, int64_t pairs,
                int64_t head_dim, T* y) {
  kInterleaved ? RotateInterleaved(x, cos, sin, sign, pairs, y)
               : RotateHalves(x, cos, sin, sign, pairs, y);
  if (y != x) std::copy(x + 2 * pairs, x + head_dim, y + 2 * pairs);
}

Status CheckPositions(const RopeArgs& args) {
  if (!args.positions.defined()) return OkStatus();
  const ConstTensorView& positions = args.positions;
  for (int64_t b = 0; b < positions.dim(0); ++b) {
    for (int64_t s = 0; s < positions.dim(1); ++s) {
      const int32_t p = positions.as<int32_t>()[b * positions.stride(0) + s * positions.stride(1)];
      if (p < 0 || p >= args.cos.dim(0)) {
        return InvalidArgument("rope: positions[{}, {}] is {}; expected 0 to {}, the table's rows",
                               b, s, p, args.cos.dim(0) - 1);
      }
    }
  }
  return OkStatus();
}

template <typename T, bool kInterleaved>
void Rotate(const Exec& exec, const RopeArgs& args) {
  const ConstTensorView& x = args.x;
  const TensorView& y = args.y.dense;
  const int64_t length = x.dim(1), heads = x.dim(2), head_dim = x.dim(3), pairs = args.cos.dim(1);
  const float sign = args.inverse ? -1.0f : 1.0f;
  const int64_t grain =
      std::max<int64_t>(1, kElementsPerThread / std::max<int64_t>(1, heads * head_dim));
  ParallelFor(exec, x.dim(0) * length, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t b = i / length, s = i % length;
      int64_t p = args.start_position + s;
      if (args.positions.defined()) {
        p = args.positions
                .as<int32_t>()[b * args.positions.stride(0) + s * args.positions.stride(1)];
      }
      const float* cos = args.cos.as<float>() + p * args.cos.stride(0);
      const float* sin = args.sin.as<float>() + p * args.sin.stride(0);
      const T* x_heads = x.as<T>() + b * x.stride(0) + s * x.stride(1);
      T* y_heads = y.as<T>() + b * y.stride(0) + s * y.stride(1);
      for (int64_t n = 0; n < heads; ++n) {
        RotateHead<T, kInterleaved>(x_heads + n * x.stride(2), cos, sin, sign, pairs, head_dim,
                                    y_heads + n * y.stride(2));
      }
    }
  });
}

}  // namespace

Status RopeCpu(const Exec& exec, const RopeArgs& args) {
  TE_RETURN_IF_ERROR(ValidateRope(args));
  TE_RETURN_IF_ERROR(CheckPositions(args));
  if (args.x.dtype() == DType::kFloat32) {
    args.interleaved ? Rotate<float, true>(exec, args) : Rotate<float, false>(exec, args);
  } else {
    args.interleaved ? Rotate<bfloat16, true>(exec, args) : Rotate<bfloat16, false>(exec, args);
  }
  return OkStatus();
}

}  // namespace te
