#include <algorithm>

#include "te_kernels/base/parallel.h"
#include "te_kernels/base/simd.h"
#include "te_kernels/rope/rope.h"
#include "te_kernels/rope/rope_sink.h"

namespace te {
namespace {

constexpr int64_t kElementsPerThread = 1 << 14;

// Pairs at a time: their cosines and sines stay in L1 for all heads of a position.
constexpr int64_t kBlock = 256;

using simd::Floats;
using simd::Load;
using simd::Pair;
using simd::StorePair;
using simd::StreamPair;

// `n` pairs' cosines and sines, the sines times `sign`; in the order of a pair of T's for halves.
struct Angles {
  alignas(64) float cos[kBlock] = {};
  alignas(64) float sin[kBlock] = {};

  template <typename T, bool kInterleaved>
  void Set(const float* from_cos, const float* from_sin, float sign, int64_t n) {
    simd::ForEachPair(n, [&](int64_t r, int64_t count) TE_SIMD_LAMBDA {
      Pair c = simd::LoadPair(from_cos + r, count), s = simd::LoadPair(from_sin + r, count);
      if constexpr (!kInterleaved) {
        c = simd::ToOrderOf<T>(c);
        s = simd::ToOrderOf<T>(s);
      }
      StorePair(c, cos + r);
      StorePair({s.even * sign, s.odd * sign}, sin + r);
    });
  }
};

// The functions below rotate n <= kBlock pairs of one head. x and y may be one buffer: both
// elements of a pair are read before either is written, and pairs do not overlap.

template <typename T>
void RotateHalves(const T* x, const Angles& angles, int64_t n, int64_t half, T* y) {
  simd::ForEachPair(n, [&](int64_t r, int64_t count) TE_SIMD_LAMBDA {
    const Pair u = StreamPair(x + r, count), v = StreamPair(x + half + r, count);
    const Pair c = simd::LoadPair(angles.cos + r), s = simd::LoadPair(angles.sin + r);
    StorePair({u.even * c.even - v.even * s.even, u.odd * c.odd - v.odd * s.odd}, y + r, count);
    StorePair({u.even * s.even + v.even * c.even, u.odd * s.odd + v.odd * c.odd}, y + half + r,
              count);
  });
}

// The pairs of bfloat16 elements that are loaded as such are those that turn together.
template <typename T>
void RotateInterleaved(const T* x, const Angles& angles, int64_t n, T* y) {
  constexpr bool kWide = sizeof(T) == 4;
  simd::ForEachPair(2 * n, [&](int64_t i, int64_t count) TE_SIMD_LAMBDA {
    Pair value = StreamPair(x + i, count);
    if constexpr (kWide) value = simd::ToOrderOf<bfloat16>(value);
    const Floats u = value.even, v = value.odd;
    const Floats c = Load(angles.cos + i / 2), s = Load(angles.sin + i / 2);
    Pair out = {u * c - v * s, u * s + v * c};
    if constexpr (kWide) out = simd::FromOrderOf<bfloat16>(out);
    StorePair(out, y + i, count);
  });
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
  const std::array<int64_t, 2> position = rope::PositionStrides(args);
  const int64_t inner = x.dim(1), heads = x.dim(2), head_dim = x.dim(3), pairs = args.cos.dim(1);
  const int64_t rotated = rope::RotatedHeads(args);
  const float sign = args.inverse ? -1.0f : 1.0f;
  const int64_t grain =
      std::max<int64_t>(1, kElementsPerThread / std::max<int64_t>(1, heads * head_dim));
  ParallelFor(exec, x.dim(0) * inner, grain, [&](int64_t begin, int64_t end) {
    Angles angles;
    for (int64_t i = begin; i < end; ++i) {
      const int64_t b = i / inner, s = i % inner;  // with sequence_first the other way about
      const int64_t at = b * position[0] + s * position[1];
      const int64_t p =
          args.positions.defined() ? args.positions.as<int32_t>()[at] : args.start_position + at;
      const float* cos = args.cos.as<float>() + p * args.cos.stride(0);
      const float* sin = args.sin.as<float>() + p * args.sin.stride(0);
      const T* x_heads = x.as<T>() + b * x.stride(0) + s * x.stride(1);
      T* y_heads = y.as<T>() + b * y.stride(0) + s * y.stride(1);
      for (int64_t first = 0; first < pairs; first += kBlock) {
        const int64_t count = std::min(kBlock, pairs - first);
        angles.Set<T, kInterleaved>(cos + first, sin + first, sign, count);
        for (int64_t n = 0; n < rotated; ++n) {
          const T* from = x_heads + n * x.stride(2);
          T* to = y_heads + n * y.stride(2);
          kInterleaved ? RotateInterleaved(from + 2 * first, angles, count, to + 2 * first)
                       : RotateHalves(from + first, angles, count, pairs, to + first);
        }
      }
      if (y_heads == x_heads) continue;
      for (int64_t n = head_dim == 2 * pairs ? rotated : 0; n < heads; ++n) {
        const int64_t copied = n < rotated ? 2 * pairs : 0;  // from here on
        const T* from = x_heads + n * x.stride(2);
        std::copy(from + copied, from + head_dim, y_heads + n * y.stride(2) + copied);
      }
    }
  });
}

}  // namespace

Status RopeCpu(const Exec& exec, const RopeArgs& args) {
  TE_RETURN_IF_ERROR(ValidateRope(args));
  TE_RETURN_IF_ERROR(CheckPositions(args));
  const auto run = [&exec](const RopeArgs& dense) {
    if (dense.x.dtype() == DType::kFloat32) {
      dense.interleaved ? Rotate<float, true>(exec, dense) : Rotate<float, false>(exec, dense);
    } else {
      dense.interleaved ? Rotate<bfloat16, true>(exec, dense)
                        : Rotate<bfloat16, false>(exec, dense);
    }
    return OkStatus();
  };
  const ArenaScope scope(exec.scratch);
  TE_ASSIGN_OR_RETURN(const RopeArgs values,
                      rope::OfValues(exec, args, [&exec](const DequantizeArgs& dequantize) {
                        return DequantizeCpu(exec, dequantize);
                      }));
  return rope::RunThenQuantize(exec, values, run, [&exec](const QuantizeArgs& quantize) {
    return QuantizeCpu(exec, quantize);
  });
}

}  // namespace te
