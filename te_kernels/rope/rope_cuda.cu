#include <algorithm>

#include "te_kernels/cuda/cuda_state.h"
#include "te_kernels/cuda/cuda_status.h"
#include "te_kernels/cuda/launch.cuh"
#include "te_kernels/cuda/vector.cuh"
#include "te_kernels/rope/rope.cuh"
#include "te_kernels/rope/rope.h"
#include "te_kernels/rope/rope_float8.h"
#include "te_kernels/rope/rope_sink.h"

namespace te {
namespace {

constexpr int kThreads = 256;

struct Layout {
  unsigned int length, heads, vectors;  // vectors of N pairs in a head
  unsigned int rotated;                 // heads from here on are copied
  int pairs, head_dim;
  int64_t x_stride[3], y_stride[3];  // of b, s and head
  int64_t cos_stride, sin_stride;
  int64_t position_stride[2];  // PositionStrides
  int64_t start_position, rows;
  bool table_vectors;  // each thread's part of the tables is whole vectors of 16 bytes
};

struct Place {
  int64_t b, s, n;
  int first;  // pair
};

template <int N>
__device__ Place PlaceOf(const Layout& layout, unsigned int i) {
  const unsigned int head = i / layout.vectors, token = head / layout.heads;
  return {token / layout.length, token % layout.length, head % layout.heads,
          static_cast<int>(i % layout.vectors) * N};
}

constexpr int kTableLanes = cuda::kLanes<float>;

template <int N>
__device__ void LoadTable(const float* from, float (&out)[N]) {
#pragma unroll
  for (int begin = 0; begin + kTableLanes <= N; begin += kTableLanes) {
    float part[kTableLanes];
    cuda::Load<kTableLanes>(from + begin, part);
#pragma unroll
    for (int e = 0; e < kTableLanes; ++e) out[begin + e] = part[e];
  }
}

// A thread rotates N pairs of one head: each tensor's bytes are read and written once, the tables
// come from the caches (a row serves every head of its token). y may be x: both elements of a pair
// are read before either is written, and pairs do not overlap.
template <int N, bool kInterleaved, typename T>
__global__ void __launch_bounds__(kThreads)
    RopeKernel(const T* x, const float* cos, const float* sin, const int32_t* positions, float sign,
               Layout layout, unsigned int count, T* y) {
  cuda::StartAfterEarlierKernels();
  const unsigned int i = blockIdx.x * kThreads + threadIdx.x;
  if (i >= count) return;
  const Place at = PlaceOf<N>(layout, i);
  const int64_t position = at.b * layout.position_stride[0] + at.s * layout.position_stride[1];
  const int64_t p = positions == nullptr ? layout.start_position + position : positions[position];
  const T* from =
      x + at.b * layout.x_stride[0] + at.s * layout.x_stride[1] + at.n * layout.x_stride[2];
  T* to = y + at.b * layout.y_stride[0] + at.s * layout.y_stride[1] + at.n * layout.y_stride[2];
  // A copied head's elements go through float, which changes no number.
  const bool rotates = at.n < layout.rotated;
  float c[N], s[N];
  const bool inside = p >= 0 && p < layout.rows;
  const float* cos_row = cos + p * layout.cos_stride + at.first;
  const float* sin_row = sin + p * layout.sin_stride + at.first;
  if (N % kTableLanes == 0 && layout.table_vectors && inside) {
    LoadTable<N>(cos_row, c);
    LoadTable<N>(sin_row, s);
#pragma unroll
    for (int e = 0; e < N; ++e) s[e] *= sign;
  } else {
#pragma unroll
    for (int e = 0; e < N; ++e) {
      c[e] = inside ? cos_row[e] : __int_as_float(0x7fc00000);
      s[e] = inside ? sin_row[e] * sign : c[e];
    }
  }
  if constexpr (kInterleaved) {
    float pair[2 * N], out[2 * N];
    if constexpr (N == 1) {  // at any address
      pair[0] = cuda::ToFloat(from[2 * at.first]);
      pair[1] = cuda::ToFloat(from[2 * at.first + 1]);
    } else {
      cuda::Load<2 * N>(from + 2 * at.first, pair);
    }
#pragma unroll
    for (int e = 0; e < N; ++e) {
      const float u = pair[2 * e], v = pair[2 * e + 1];
      out[2 * e] = rotates ? rope::RotatedFirst(u, v, c[e], s[e]) : u;
      out[2 * e + 1] = rotates ? rope::RotatedSecond(u, v, c[e], s[e]) : v;
    }
    if constexpr (N == 1) {
      to[2 * at.first] = cuda::FromFloat<T>(out[0]);
      to[2 * at.first + 1] = cuda::FromFloat<T>(out[1]);
    } else {
      cuda::Store<2 * N>(to + 2 * at.first, out);
    }
  } else {
    float u[N], v[N], first[N], second[N];
    cuda::Load<N>(from + at.first, u);
    cuda::Load<N>(from + layout.pairs + at.first, v);
#pragma unroll
    for (int e = 0; e < N; ++e) {
      first[e] = rotates ? rope::RotatedFirst(u[e], v[e], c[e], s[e]) : u[e];
      second[e] = rotates ? rope::RotatedSecond(u[e], v[e], c[e], s[e]) : v[e];
    }
    cuda::Store<N>(to + at.first, first);
    cuda::Store<N>(to + layout.pairs + at.first, second);
  }
}

// What stands behind the rotated pairs of each head, when y is not x. Rare: one thread an element.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    CopyRestKernel(const T* x, Layout layout, unsigned int count, T* y) {
  const unsigned int i = blockIdx.x * kThreads + threadIdx.x;
  if (i >= count) return;
  const unsigned int rest = static_cast<unsigned int>(layout.head_dim - 2 * layout.pairs);
  const unsigned int head = i / rest, token = head / layout.heads;
  const int64_t b = token / layout.length, s = token % layout.length, n = head % layout.heads;
  const int64_t e = 2 * layout.pairs + i % rest;
  y[b * layout.y_stride[0] + s * layout.y_stride[1] + n * layout.y_stride[2] + e] =
      x[b * layout.x_stride[0] + s * layout.x_stride[1] + n * layout.x_stride[2] + e];
}

// Whether every head begins at, and consists of, whole vectors of `elements`.
template <typename T>
bool Fits(int elements, const ConstTensorView& t) {
  bool fits = reinterpret_cast<uintptr_t>(t.data()) % (elements * sizeof(T)) == 0;
  for (int axis = 0; axis < 3; ++axis) fits = fits && t.stride(axis) % elements == 0;
  return fits;
}

template <int N, bool kInterleaved, typename T>
Status Launch(const Exec& exec, const RopeArgs& args) {
  const ConstTensorView& x = args.x;
  const TensorView& y = args.y.dense;
  const int pairs = static_cast<int>(args.cos.dim(1));
  const int64_t rotated = rope::RotatedHeads(args);
  Layout layout = {
      .length = static_cast<unsigned int>(x.dim(1)),
      .heads = static_cast<unsigned int>(x.dim(2)),
      .vectors = static_cast<unsigned int>(pairs / N),
      .rotated = static_cast<unsigned int>(rotated),
      .pairs = pairs,
      .head_dim = static_cast<int>(x.dim(3)),
      .cos_stride = args.cos.stride(0),
      .sin_stride = args.sin.stride(0),
      .start_position = args.start_position,
      .rows = args.cos.dim(0),
      .table_vectors = cuda::Aligned<kTableLanes>(args.cos.as<float>(), args.cos.stride(0)) &&
                       cuda::Aligned<kTableLanes>(args.sin.as<float>(), args.sin.stride(0))};
  for (int axis = 0; axis < 3; ++axis) {
    layout.x_stride[axis] = x.stride(axis);
    layout.y_stride[axis] = y.stride(axis);
  }
  for (int axis = 0; axis < 2; ++axis)
    layout.position_stride[axis] = rope::PositionStrides(args)[static_cast<size_t>(axis)];
  const int64_t heads = x.dim(0) * x.dim(1) * x.dim(2);
  if (heads * x.dim(3) >= int64_t{1} << 32)
    return Unsupported("rope: x is {}; expected fewer than 2^32 elements", x.ToString());
  const auto blocks = [](unsigned int n) { return (n + kThreads - 1) / kThreads; };
  if (pairs > 0) {
    const auto count = static_cast<unsigned int>(heads * layout.vectors);
    cuda::LaunchOverlapping(exec, RopeKernel<N, kInterleaved, T>, dim3(blocks(count)),
                            dim3(kThreads), {}, x.as<T>(), args.cos.as<float>(),
                            args.sin.as<float>(), args.positions.as<int32_t>(),
                            args.inverse ? -1.0f : 1.0f, layout, count, y.as<T>());
  }
  if (y.data() != x.data() && layout.head_dim > 2 * pairs) {
    const auto count = static_cast<unsigned int>(heads * (layout.head_dim - 2 * pairs));
    CopyRestKernel<<<blocks(count), kThreads, 0, cuda::StreamOf(exec)>>>(x.as<T>(), layout, count,
                                                                         y.as<T>());
  }
  return cuda::LaunchStatus("rope");
}

template <bool kInterleaved, typename T>
Status Run(const Exec& exec, const RopeArgs& args) {
  // Halves: two vectors of kN elements a thread; interleaved: one of as many bytes holds kN / 2
  // pairs.
  constexpr int kElements = cuda::kLanes<T>;
  constexpr int kN = kInterleaved ? kElements / 2 : kElements;
  if (args.cos.dim(1) % kN == 0 && Fits<T>(kElements, args.x) && Fits<T>(kElements, args.y.dense))
    return Launch<kN, kInterleaved, T>(exec, args);
  return Launch<1, kInterleaved, T>(exec, args);
}

template <typename T>
Status Run(const Exec& exec, const RopeArgs& args) {
  return args.interleaved ? Run<true, T>(exec, args) : Run<false, T>(exec, args);
}

}  // namespace

Status RopeCuda(const Exec& exec, const RopeArgs& args) {
  TE_RETURN_IF_ERROR(ValidateRope(args));
  if (args.y.quantized() && rope::FusesFloat8(args)) return rope::RopeFloat8Cuda(exec, args);
  const ArenaScope scope(exec.scratch);
  TE_ASSIGN_OR_RETURN(const RopeArgs values,
                      rope::OfValues(exec, args, [&exec](const DequantizeArgs& dequantize) {
                        return DequantizeCuda(exec, dequantize);
                      }));
  const auto run = [&exec](const RopeArgs& dense) {
    if (dense.x.elements() == 0) return OkStatus();
    Record(exec, "rope", "rope_cuda", dense.x.dtype(), static_cast<int64_t>(2 * dense.x.bytes()));
    return dense.x.dtype() == DType::kFloat32 ? Run<float>(exec, dense)
                                              : Run<bfloat16>(exec, dense);
  };
  return rope::RunThenQuantize(exec, values, run, [&exec](const QuantizeArgs& quantize) {
    return QuantizeCuda(exec, quantize);
  });
}

}  // namespace te
