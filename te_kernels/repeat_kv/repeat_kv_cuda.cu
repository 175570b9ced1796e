#include "te_kernels/cuda/cuda_state.h"
#include "te_kernels/cuda/cuda_status.h"
#include "te_kernels/cuda/vector.cuh"
#include "te_kernels/repeat_kv/repeat_kv.h"

namespace te {
namespace {

constexpr int kThreads = 256;

// A [B, H, S, d] view of vectors: d counts vectors of N elements, strides count elements.
struct Heads {
  int64_t heads, length, vectors;
  int64_t stride_b, stride_h, stride_s;

  __device__ int64_t Offset(int64_t b, int64_t h, int64_t s, int64_t e) const {
    return b * stride_b + h * stride_h + s * stride_s + e;
  }
};

Heads HeadsOf(const ConstTensorView& view, int n) {
  return {view.dim(1),    view.dim(2),    view.dim(3) / n,
          view.stride(0), view.stride(1), view.stride(2)};
}

// Vector i of a view: where its first element stands.
struct Place {
  int64_t b, h, s, e;
};
template <int N>
__device__ Place PlaceOf(const Heads& view, int64_t i) {
  const int64_t row = i / view.vectors;
  return {row / (view.length * view.heads), row / view.length % view.heads, row % view.length,
          i % view.vectors * N};
}

template <int N, typename T>
__global__ void __launch_bounds__(kThreads)
    ForwardKernel(const T* x, Heads from, T* y, Heads to, int64_t repeats, int64_t count) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= count) return;
  const auto [b, h, s, e] = PlaceOf<N>(to, i);
  float values[N];
  cuda::Load<N>(x + from.Offset(b, h / repeats, s, e), values);
  cuda::Store<N>(y + to.Offset(b, h, s, e), values);
}

template <int N, typename T>
__global__ void __launch_bounds__(kThreads)
    BackwardKernel(const T* dy, Heads from, T* dx, Heads to, int64_t repeats, int64_t count) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= count) return;
  const auto [b, h, s, e] = PlaceOf<N>(to, i);
  float sum[N] = {};
  for (int64_t r = 0; r < repeats; ++r) {
    float values[N];
    cuda::Load<N>(dy + from.Offset(b, h * repeats + r, s, e), values);
#pragma unroll
    for (int k = 0; k < N; ++k) sum[k] += values[k];
  }
  cuda::Store<N>(dx + to.Offset(b, h, s, e), sum);
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
  const int64_t repeats = forward ? to.dim(1) / from.dim(1) : from.dim(1) / to.dim(1);
  const auto kernel = forward ? ForwardKernel<N, T> : BackwardKernel<N, T>;
  kernel<<<Blocks(count), kThreads, 0, cuda::StreamOf(exec)>>>(
      from.as<T>(), HeadsOf(from, N), to.as<T>(), HeadsOf(to, N), repeats, count);
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
