#include <algorithm>

#include "te_kernels/base/parallel.h"
#include "te_kernels/base/philox_fill.h"
#include "te_kernels/base/simd.h"
#include "te_kernels/dropout/dropout.h"

namespace te {
namespace {

using simd::Floats;
using simd::Load;
using simd::Store;

constexpr int64_t kBlock = 256;  // elements: 64 Philox blocks
constexpr int64_t kBlocksPerThread = 16;

// scale[i] = 1 / (1 - p) where element first + i is kept, 0 where it is dropped. `first` is a
// multiple of four; `random` is resolved.
void KeepScales(const RandomState& random, int64_t first, float p, float* scale) {
  if (p == 0) {
    std::fill(scale, scale + kBlock, 1.0f);
    return;
  }
  const float kept = 1.0f / (1.0f - p);
  alignas(64) uint32_t numbers[kBlock];
  PhiloxFill(random, static_cast<uint64_t>(first / 4), kBlock / 4, numbers);
  for (int64_t i = 0; i < kBlock; ++i) {
    scale[i] = Philox::ToUniform(numbers[i]) >= p ? kept : 0.0f;
  }
}

// A dropped element is a plain zero even where x is infinite or NaN.
inline Floats Scaled(Floats value, Floats scale) {
  return scale == 0.0f ? Floats{} : value * scale;
}

// Calls body(first, count, scales) for blocks of consecutive elements.
template <typename Body>
void ForEachBlock(const Exec& exec, int64_t elements, float p, const RandomState& random,
                  const Body& body) {
  const RandomState resolved = random.Resolved();
  const int64_t blocks = (elements + kBlock - 1) / kBlock;
  ParallelFor(exec, blocks, kBlocksPerThread, [&](int64_t begin, int64_t end) {
    alignas(64) float scale[kBlock];
    for (int64_t block = begin; block < end; ++block) {
      const int64_t first = block * kBlock;
      KeepScales(resolved, first, p, scale);
      body(first, std::min(kBlock, elements - first), scale);
    }
  });
}

template <typename T>
void Forward(const Exec& exec, const DropoutForwardArgs& args) {
  const int64_t hidden = args.x.dim(1);
  const T* bias = args.bias.defined() ? args.bias.as<T>() : nullptr;
  const T* residual = args.residual.defined() ? args.residual.as<T>() : nullptr;
  ForEachBlock(exec, args.x.elements(), args.p, args.random,
               [&](int64_t first, int64_t n, const float* scale) {
                 const T* x = args.x.as<T>() + first;
                 T* out = args.out.as<T>() + first;
                 float bias_of[kBlock] = {};
                 if (bias != nullptr) {
                   for (int64_t i = 0, h = first % hidden; i < n; ++i) {
                     bias_of[i] = static_cast<float>(bias[h]);
                     if (++h == hidden) h = 0;
                   }
                 }
                 simd::ForEachVector(n, [&](int64_t i, int64_t count) TE_SIMD_LAMBDA {
                   Floats value = Scaled(Load(x + i, count) + Load(bias_of + i), Load(scale + i));
                   if (residual != nullptr) value += Load(residual + first + i, count);
                   Store(value, out + i, count);
                 });
               });
}

template <typename T>
void Backward(const Exec& exec, const DropoutBackwardArgs& args) {
  ForEachBlock(exec, args.dout.elements(), args.p, args.random,
               [&](int64_t first, int64_t n, const float* scale) {
                 const T* dout = args.dout.as<T>() + first;
                 T* dx = args.dx.as<T>() + first;
                 simd::ForEachVector(n, [&](int64_t i, int64_t count) TE_SIMD_LAMBDA {
                   Store(Scaled(Load(dout + i, count), Load(scale + i)), dx + i, count);
                 });
               });
}

}  // namespace

Status DropoutForwardCpu(const Exec& exec, const DropoutForwardArgs& args) {
  TE_RETURN_IF_ERROR(ValidateDropoutForward(args));
  args.x.dtype() == DType::kFloat32 ? Forward<float>(exec, args) : Forward<bfloat16>(exec, args);
  return OkStatus();
}

Status DropoutBackwardCpu(const Exec& exec, const DropoutBackwardArgs& args) {
  TE_RETURN_IF_ERROR(ValidateDropoutBackward(args));
  args.dout.dtype() == DType::kFloat32 ? Backward<float>(exec, args)
                                       : Backward<bfloat16>(exec, args);
  return OkStatus();
}

}  // namespace te
