// One kernel for dense and strided tensors: the dimensions are sorted and collapsed to as few as
// the strides allow (one, when both tensors are dense), and each thread moves vectors along the
// innermost. Neighbouring threads write neighbouring elements.
#include <cuda_fp16.h>

#include <algorithm>
#include <array>
#include <limits>
#include <type_traits>

#include "te_kernels/cast/cast.h"
#include "te_kernels/cuda/cuda_state.h"
#include "te_kernels/cuda/cuda_status.h"
#include "te_kernels/cuda/vector.cuh"

namespace te {
namespace {

constexpr int kThreads = 256;
constexpr int kUnroll = 4;  // vectors that a thread has in flight

// ---- Conversions ----

__device__ float Widen(float x) { return x; }
__device__ float Widen(bfloat16 x) { return cuda::ToFloat(x); }
__device__ float Widen(float16 x) { return __half2float(__ushort_as_half(x.bits)); }

template <typename To>
__device__ To Narrow(float x) {
  if constexpr (std::is_same_v<To, float16>) {
    float16 out;
    out.bits = __half_as_ushort(__float2half_rn(x));
    return out;
  } else {
    return cuda::FromFloat<To>(x);
  }
}

// To float by rounding to odd: a second rounding, to bfloat16 or float16, then gives what one
// rounding gives (Boldo and Melquiond 2008, "Emulation of FMA and correctly rounded sums").
__device__ float RoundToOdd(double value) {
  const float truncated = __double2float_rz(value);
  const unsigned int inexact = static_cast<double>(truncated) != value ? 1u : 0u;
  return __uint_as_float(__float_as_uint(truncated) | inexact);
}

template <typename From, typename To>
__device__ To Convert(From value, float scale) {
  if constexpr (std::is_unsigned_v<From>) {
    return value;  // bits of any type
  } else if constexpr (std::is_integral_v<From>) {
    constexpr int64_t kMin = std::numeric_limits<To>::min(), kMax = std::numeric_limits<To>::max();
    return static_cast<To>(min(max(static_cast<int64_t>(value), kMin), kMax));
  } else if constexpr (std::is_same_v<From, double> || std::is_same_v<To, double>) {
    double wide;
    if constexpr (std::is_same_v<From, double>) {
      wide = value;
    } else {
      wide = Widen(value);
    }
    wide *= scale;
    if constexpr (std::is_same_v<To, double>) {
      return wide;
    } else if constexpr (std::is_same_v<To, float>) {
      return static_cast<float>(wide);
    } else {
      return Narrow<To>(RoundToOdd(wide));
    }
  } else {
    return Narrow<To>(Widen(value) * scale);
  }
}

// ---- Kernel ----

// Nested loops over steps of both tensors, outermost first.
struct Loops {
  int rank = 0;
  std::array<int64_t, kMaxRank> dims{};
  std::array<int64_t, kMaxRank> from{};
  std::array<int64_t, kMaxRank> to{};
};

struct Offsets {
  int64_t from = 0;
  int64_t to = 0;
};

template <typename Index>
__device__ Offsets OffsetsOf(const Loops& loops, Index i) {
  Offsets out;
#pragma unroll
  for (int d = kMaxRank - 1; d > 0; --d) {
    if (d >= loops.rank) continue;
    const Index dim = static_cast<Index>(loops.dims[d]);
    const Index index = i % dim;
    i /= dim;
    out.from += index * loops.from[d];
    out.to += index * loops.to[d];
  }
  out.from += i * loops.from[0];
  out.to += i * loops.to[0];
  return out;
}

// A step is N elements; kDense: the one loop has steps of N elements in both tensors.
template <bool kDense, int N, typename From, typename To>
__global__ void __launch_bounds__(kThreads)
    CastKernel(const __grid_constant__ Loops loops, int64_t steps, const From* x, To* y,
               float scale) {
  using Read = typename cuda::Raw<N* static_cast<int>(sizeof(From))>::type;
  using Written = typename cuda::Raw<N* static_cast<int>(sizeof(To))>::type;
  const int64_t first = int64_t{blockIdx.x} * kThreads * kUnroll + threadIdx.x;
  const bool small = steps <= std::numeric_limits<int32_t>::max();
  Read read[kUnroll];
  int64_t to[kUnroll];
#pragma unroll
  for (int u = 0; u < kUnroll; ++u) {
    // Threads beyond the end repeat the last step's reading.
    const int64_t i = min(first + u * kThreads, steps - 1);
    Offsets offsets;
    if constexpr (kDense) {
      offsets.from = offsets.to = i * N;
    } else {
      offsets = small ? OffsetsOf<uint32_t>(loops, static_cast<uint32_t>(i))
                      : OffsetsOf<uint64_t>(loops, static_cast<uint64_t>(i));
    }
    read[u] = __ldcs(reinterpret_cast<const Read*>(x + offsets.from));
    to[u] = offsets.to;
  }
#pragma unroll
  for (int u = 0; u < kUnroll; ++u) {
    const auto in = cuda::Elements<From, N>::Of(read[u]);
    cuda::Elements<To, N> out;
#pragma unroll
    for (int e = 0; e < N; ++e) out.at[e] = Convert<From, To>(in.at[e], scale);
    if (first + u * kThreads < steps)
      *reinterpret_cast<Written*>(y + to[u]) = std::bit_cast<Written>(out);
  }
}

// ---- Launcher ----

// The order of loops is free: y's largest stride outermost. Neighbouring loops that both tensors
// walk with one stride become one.
Loops Collapse(const CastArgs& args) {
  std::array<int, kMaxRank> axes{};
  int count = 0;
  for (int i = 0; i < args.x.rank(); ++i) {
    if (args.x.dim(i) != 1) axes[count++] = i;
  }
  std::stable_sort(axes.begin(), axes.begin() + count,
                   [&](int a, int b) { return args.y.stride(a) > args.y.stride(b); });
  Loops loops;
  for (int k = 0; k < count; ++k) {
    const int64_t dim = args.x.dim(axes[k]);
    const int64_t from = args.x.stride(axes[k]), to = args.y.stride(axes[k]);
    const int last = loops.rank - 1;
    if (last >= 0 && loops.from[last] == from * dim && loops.to[last] == to * dim) {
      loops.dims[last] *= dim;
      loops.from[last] = from;
      loops.to[last] = to;
    } else {
      loops.dims[loops.rank] = dim;
      loops.from[loops.rank] = from;
      loops.to[loops.rank] = to;
      ++loops.rank;
    }
  }
  if (loops.rank == 0) {
    loops.rank = 1;
    loops.dims[0] = loops.from[0] = loops.to[0] = 1;
  }
  return loops;
}

template <bool kDense, int N, typename From, typename To>
Status LaunchSteps(const Exec& exec, Loops loops, const From* x, To* y, float scale) {
  const int inner = loops.rank - 1;
  loops.dims[inner] /= N;
  loops.from[inner] *= N;
  loops.to[inner] *= N;
  int64_t steps = 1;
  for (int d = 0; d < loops.rank; ++d) steps *= loops.dims[d];
  if (steps == 0) return OkStatus();
  constexpr int64_t kPerBlock = int64_t{kThreads} * kUnroll;
  const auto blocks = static_cast<unsigned int>((steps + kPerBlock - 1) / kPerBlock);
  CastKernel<kDense, N><<<blocks, kThreads, 0, cuda::StreamOf(exec)>>>(loops, steps, x, y, scale);
  return cuda::LaunchStatus("cast");
}

template <typename From, typename To>
Status Run(const Exec& exec, const CastArgs& args) {
  // The wider type fills its 16 bytes.
  constexpr int kN = std::min(cuda::kLanes<From>, cuda::kLanes<To>);
  const From* x = args.x.as<From>();
  To* y = args.y.as<To>();
  Loops loops = Collapse(args);
  const int inner = loops.rank - 1;
  bool vectors = loops.from[inner] == 1 && loops.to[inner] == 1 && cuda::Aligned<kN>(x, 0) &&
                 cuda::Aligned<kN>(y, 0) && (loops.rank == 1 || loops.dims[inner] % kN == 0);
  for (int d = 0; d < inner; ++d) vectors &= loops.from[d] % kN == 0 && loops.to[d] % kN == 0;
  if (!vectors) return LaunchSteps<false, 1>(exec, loops, x, y, args.scale);
  if (loops.rank > 1) return LaunchSteps<false, kN>(exec, loops, x, y, args.scale);
  const int64_t tail = loops.dims[inner] % kN;
  TE_RETURN_IF_ERROR((LaunchSteps<true, kN>(exec, loops, x, y, args.scale)));
  if (tail == 0) return OkStatus();
  const int64_t begin = loops.dims[inner] - tail;
  loops.dims[inner] = tail;
  return LaunchSteps<false, 1>(exec, loops, x + begin, y + begin, args.scale);
}

template <typename From>
Status RunFloating(const Exec& exec, const CastArgs& args) {
  switch (args.y.dtype()) {
    case DType::kFloat32:
      return Run<From, float>(exec, args);
    case DType::kBFloat16:
      return Run<From, bfloat16>(exec, args);
    case DType::kFloat16:
      return Run<From, float16>(exec, args);
    default:
      return Run<From, double>(exec, args);
  }
}

// Not through float: signalling NaN keep their bits.
Status RunCopy(const Exec& exec, const CastArgs& args) {
  switch (SizeOf(args.x.dtype())) {
    case 1:
      return Run<uint8_t, uint8_t>(exec, args);
    case 2:
      return Run<uint16_t, uint16_t>(exec, args);
    case 4:
      return Run<uint32_t, uint32_t>(exec, args);
    default:
      return Run<uint64_t, uint64_t>(exec, args);
  }
}

}  // namespace

Status CastCuda(const Exec& exec, const CastArgs& args) {
  TE_RETURN_IF_ERROR(ValidateCast(args));
  if (args.x.elements() == 0) return OkStatus();
  Record(exec, "cast", "cast_cuda", args.y.dtype(),
         static_cast<int64_t>(args.x.bytes() + args.y.bytes()));
  if (args.x.dtype() == args.y.dtype() && args.scale == 1) return RunCopy(exec, args);
  switch (args.x.dtype()) {
    case DType::kFloat32:
      return RunFloating<float>(exec, args);
    case DType::kBFloat16:
      return RunFloating<bfloat16>(exec, args);
    case DType::kFloat16:
      return RunFloating<float16>(exec, args);
    case DType::kFloat64:
      return RunFloating<double>(exec, args);
    case DType::kInt32:
      return Run<int32_t, int64_t>(exec, args);
    default:
      return Run<int64_t, int32_t>(exec, args);
  }
}

}  // namespace te
