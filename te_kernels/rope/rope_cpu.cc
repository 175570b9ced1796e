#include <algorithm>

#include "te_kernels/base/parallel.h"
#include "te_kernels/rope/rope.h"

namespace te {
namespace {

constexpr int64_t kElementsPerThread = 1 << 14;

// One head. x and y may be one buffer: both elements of a pair are read before either is written,
// and pairs do not overlap.
template <typename T, bool kInterleaved>
void RotateHead(const T* x, const float* cos, const float* sin, float sign, int64_t pairs,
                int64_t head_dim, T* y) {
  constexpr int64_t step = kInterleaved ? 2 : 1;
  const int64_t second = kInterleaved ? 1 : pairs;
#pragma omp simd
  for (int64_t r = 0; r < pairs; ++r) {
    const float u = static_cast<float>(x[r * step]);
    const float v = static_cast<float>(x[r * step + second]);
    const float c = cos[r];
    const float s = sign * sin[r];
    y[r * step] = T(u * c - v * s);
    y[r * step + second] = T(u * s + v * c);
  }
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
