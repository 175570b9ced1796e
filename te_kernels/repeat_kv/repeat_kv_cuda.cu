#include "te_kernels/cuda/cuda_state.h"
#include "te_kernels/cuda/cuda_status.h"
#include "te_kernels/cuda/launch.cuh"
#include "te_kernels/cuda/vector.cuh"
#include "te_kernels/repeat_kv/repeat_kv.h"

namespace te {
namespace {

constexpr int kThreads = 256;

// A [B, H, S, d] view of vectors: d counts vectors of N elements, strides count elements. Fewer
// than 2^32 vectors: divisions of 64 bits take longer than what they find is read.
struct Heads {
  unsigned int heads, length, vectors;
  int64_t stride_b, stride_h, stride_s;

  __device__ int64_t Offset(int64_t b, int64_t h, int64_t s, int64_t e) const {
    return b * stride_b + h * stride_h + s * stride_s + e;
  }
};

Heads HeadsOf(const ConstTensorView& view, int n) {
  return {static_cast<unsigned int>(view.dim(1)),
          static_cast<unsigned int>(view.dim(2)),
          static_cast<unsigned int>(view.dim(3) / n),
          view.stride(0),
          view.stride(1),
          view.stride(2)};
}

// Vector i of a view: where its first element stands.
struct Place {
  unsigned int b, h, s, e;
};
template <int N>
__device__ Place PlaceOf(const Heads& view, unsigned int i) {
  const unsigned int row = i / view.vectors, head = row / view.length;
  return {head / view.heads, head % view.heads, row % view.length, i % view.vectors * N};
}

template <int N, typename T>
__global__ void __launch_bounds__(kThreads)
    ForwardKernel(const T* x, Heads from, T* y, Heads to, unsigned int repeats,
                  unsigned int count) {
  cuda::StartAfterEarlierKernels();
  using Vector = typename cuda::Raw<N* static_cast<int>(sizeof(T))>::type;
  const unsigned int i = blockIdx.x * kThreads + threadIdx.x;
  if (i >= count) return;
  const auto [b, h, s, e] = PlaceOf<N>(to, i);
  __stwb(reinterpret_cast<Vector*>(y + to.Offset(b, h, s, e)),
         *reinterpret_cast<const Vector*>(x + from.Offset(b, h / repeats, s, e)));
}

template <int N, typename T>
__global__ void __launch_bounds__(kThreads)
    BackwardKernel(const T* dy, Heads from, T* dx, Heads to, unsigned int repeats,
                   unsigned int count) {
  cuda::StartAfterEarlierKernels();
  const unsigned int i = blockIdx.x * kThreads + threadIdx.x;
  if (i >= count) return;
  const auto [b, h, s, e] = PlaceOf<N>(to, i);
  float sum[N] = {};
#pragma unroll 4
  for (unsigned int r = 0; r < repeats; ++r) {
    float values[N];
    cuda::Load<N>(dy + from.Offset(b, h * repeats + r, s, e), values);
#pragma unroll
    for (int k = 0; k < N; ++k) sum[k] += values[k];
  }
  cuda::StoreGlobal<N>(dx + to.Offset(b, h, s, e), sum);
}

// Whether rows of `view` are whole vectors of N elements.
template <int N, typename T>
bool Fits(const ConstTensorView& view) {
  return view.dim(3) % N == 0 && view.stride(0) % N == 0 && view.stride(1) % N == 0 &&
         cuda::Aligned<N>(view.as<T>(), view.stride(2));
}

unsigned int Blocks(int64_t count) {
  return static_cast<unsigned int>((count + kThreads - 1) / kThreads);
}

template <int N, typename T>
Status Launch(const Exec& exec, const ConstTensorView& from, const TensorView& to, bool forward) {
  const int64_t count = to.elements() / N;
  // Threads beyond the last block's vectors have numbers, too.
  if (count > (int64_t{1} << 32) - kThreads)
    return Unsupported("repeat_kv: y is {}; expected fewer than 2^32 vectors", to.ToString());
  const int64_t repeats = forward ? to.dim(1) / from.dim(1) : from.dim(1) / to.dim(1);
  cuda::LaunchOverlapping(exec, forward ? ForwardKernel<N, T> : BackwardKernel<N, T>,
                          dim3(Blocks(count)), dim3(kThreads), {}, from.as<T>(), HeadsOf(from, N),
                          to.as<T>(), HeadsOf(to, N), static_cast<unsigned int>(repeats),
                          static_cast<unsigned int>(count));
  return cuda::LaunchStatus(forward ? "repeat_kv_forward" : "repeat_kv_backward");
}

template <typename T>
Status Run(const Exec& exec, const ConstTensorView& from, const TensorView& to, bool forward) {
  if (to.elements() == 0) return OkStatus();
  constexpr int kN = cuda::kLanes<T>;
  if (Fits<kN, T>(from) && Fits<kN, T>(to)) return Launch<kN, T>(exec, from, to, forward);
  return Launch<1, T>(exec, from, to, forward);
}

Status Run(const Exec& exec, const ConstTensorView& from, const TensorView& to, bool forward) {
  Record(exec, forward ? "repeat_kv_forward" : "repeat_kv_backward",
         forward ? "repeat_kv_forward_cuda" : "repeat_kv_backward_cuda", to.dtype(),
         static_cast<int64_t>(from.bytes() + to.bytes()));
  return to.dtype() == DType::kFloat32 ? Run<float>(exec, from, to, forward)
                                       : Run<bfloat16>(exec, from, to, forward);
}

}  // namespace

Status RepeatKvForwardCuda(const Exec& exec, const RepeatKvForwardArgs& args) {
  TE_RETURN_IF_ERROR(ValidateRepeatKvForward(args));
  return Run(exec, args.x, args.y, /*forward=*/true);
}

Status RepeatKvBackwardCuda(const Exec& exec, const RepeatKvBackwardArgs& args) {
  TE_RETURN_IF_ERROR(ValidateRepeatKvBackward(args));
  return Run(exec, args.dy, args.dx, /*forward=*/false);
}

}  // namespace te
