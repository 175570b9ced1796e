#include <algorithm>
#include <cstring>

#include "te_kernels/base/parallel.h"
#include "te_kernels/base/simd.h"
#include "te_kernels/repeat_kv/repeat_kv.h"

namespace te {
namespace {

constexpr int64_t kElementsPerThread = 1 << 14;

// Calls body(b, h, s) for every row of a [B, H, S, d] view.
template <typename Body>
void ForEachRow(const Exec& exec, const ConstTensorView& view, const Body& body) {
  const int64_t heads = view.dim(1), length = view.dim(2);
  const int64_t grain =
      std::max<int64_t>(1, kElementsPerThread / std::max<int64_t>(1, view.dim(3)));
  ParallelFor(exec, view.dim(0) * heads * length, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) body(i / length / heads, i / length % heads, i % length);
  });
}

template <typename View>
auto* Row(const View& view, size_t size, int64_t b, int64_t h, int64_t s) {
  const int64_t offset = b * view.stride(0) + h * view.stride(1) + s * view.stride(2);
  return view.template as<char>() + offset * static_cast<int64_t>(size);
}

template <typename T>
void Backward(const Exec& exec, const RepeatKvBackwardArgs& args, int64_t repeats) {
  const int64_t head_dim = args.dx.dim(3);
  ForEachRow(exec, args.dx, [&](int64_t b, int64_t g, int64_t s) {
    T* dx = reinterpret_cast<T*>(Row(args.dx, sizeof(T), b, g, s));
    simd::ForEachVector(head_dim, [&](int64_t i, int64_t n) TE_SIMD_LAMBDA {
      simd::Floats sum = {};
      for (int64_t r = 0; r < repeats; ++r) {
        const char* dy = Row(args.dy, sizeof(T), b, g * repeats + r, s);
        sum += simd::Load(reinterpret_cast<const T*>(dy) + i, n);
      }
      simd::Store(sum, dx + i, n);
    });
  });
}

}  // namespace

Status RepeatKvForwardCpu(const Exec& exec, const RepeatKvForwardArgs& args) {
  TE_RETURN_IF_ERROR(ValidateRepeatKvForward(args));
  if (args.y.elements() == 0) return OkStatus();
  const int64_t repeats = args.y.dim(1) / args.x.dim(1);
  const size_t size = SizeOf(args.x.dtype());
  const size_t bytes = size * static_cast<size_t>(args.x.dim(3));
  ForEachRow(exec, args.y, [&](int64_t b, int64_t h, int64_t s) {
    std::memcpy(Row(args.y, size, b, h, s), Row(args.x, size, b, h / repeats, s), bytes);
  });
  return OkStatus();
}

Status RepeatKvBackwardCpu(const Exec& exec, const RepeatKvBackwardArgs& args) {
  TE_RETURN_IF_ERROR(ValidateRepeatKvBackward(args));
  if (args.dx.elements() == 0) return OkStatus();
  const int64_t repeats = args.dy.dim(1) / args.dx.dim(1);
  args.dx.dtype() == DType::kFloat32 ? Backward<float>(exec, args, repeats)
                                     : Backward<bfloat16>(exec, args, repeats);
  return OkStatus();
}

}  // namespace te
