#include <algorithm>

#include "te_kernels/activation/activation.h"
#include "te_kernels/activation/activation_float8.h"
#include "te_kernels/activation/activation_functions.cuh"
#include "te_kernels/base/sink.h"
#include "te_kernels/cuda/cuda_state.h"
#include "te_kernels/cuda/cuda_status.h"
#include "te_kernels/cuda/launch.cuh"
#include "te_kernels/cuda/vector.cuh"
#include "te_kernels/quantize/quantize.h"

namespace te {
namespace {

using activation::ForKind;

constexpr int kThreads = 256;

// Row-major tensors of `width` elements a row (x and dx of gated kinds: twice that) at row strides.
struct Layout {
  unsigned int vectors;  // of N elements in a row of y
  int64_t width;
  int64_t x_stride, y_stride, dy_stride, dx_stride;
};

// A thread takes one vector of N elements. Bytes an element of y: 2 or 3 elements moved forward (x,
// y), up to 6 backward (x, dy, dx, y).
template <int N, typename T, typename F>
__global__ void __launch_bounds__(kThreads)
    ForwardKernel(F f, const T* x, T* y, Layout layout, unsigned int count) {
  cuda::StartAfterEarlierKernels();
  const unsigned int i = blockIdx.x * kThreads + threadIdx.x;
  if (i >= count) return;
  const int64_t row = i / layout.vectors, column = i % layout.vectors * N;
  const T* x_row = x + row * layout.x_stride + column;
  float gate[N], linear[N] = {}, out[N];
  cuda::Load<N>(x_row, gate);
  if constexpr (F::kGated) cuda::Load<N>(x_row + layout.width, linear);
#pragma unroll
  for (int e = 0; e < N; ++e) {
    float d_gate, d_linear;
    f.Apply(gate[e], linear[e], &out[e], &d_gate, &d_linear);
  }
  cuda::Store<N>(y + row * layout.y_stride + column, out);
}

// `y` null: not wanted. Plain kinds: dx may be dy.
template <int N, typename T, typename F>
__global__ void __launch_bounds__(kThreads)
    BackwardKernel(F f, const T* x, const T* dy, T* dx, T* y, Layout layout, unsigned int count) {
  cuda::StartAfterEarlierKernels();
  const unsigned int i = blockIdx.x * kThreads + threadIdx.x;
  if (i >= count) return;
  const int64_t row = i / layout.vectors, column = i % layout.vectors * N;
  const T* x_row = x + row * layout.x_stride + column;
  float gate[N], linear[N] = {}, gradient[N], out[N], d_gate[N], d_linear[N];
  cuda::Load<N>(x_row, gate);
  if constexpr (F::kGated) cuda::Load<N>(x_row + layout.width, linear);
  cuda::Load<N>(dy + row * layout.dy_stride + column, gradient);
#pragma unroll
  for (int e = 0; e < N; ++e) {
    f.Apply(gate[e], linear[e], &out[e], &d_gate[e], &d_linear[e]);
    d_gate[e] *= gradient[e];
    if constexpr (F::kGated) d_linear[e] *= gradient[e];
  }
  T* dx_row = dx + row * layout.dx_stride + column;
  cuda::Store<N>(dx_row, d_gate);
  if constexpr (F::kGated) {
    cuda::Store<N>(dx_row + layout.width, d_linear);
    if (y != nullptr) cuda::Store<N>(y + row * layout.y_stride + column, out);
  }
}

// Rows of one launch: indices stay below 2^31.
int64_t RowsOfOneLaunch(int64_t rows, int64_t vectors) {
  return std::min(rows, std::max<int64_t>(1, (int64_t{1} << 31) / vectors - 1));
}

template <int N, typename T, typename F>
Status Forward(const Exec& exec, const ActivationForwardArgs& args, F f) {
  const TensorView& y = args.y.dense;
  const int64_t width = y.dim(1), vectors = width / N;
  const Layout layout = {.vectors = static_cast<unsigned int>(vectors),
                         .width = width,
                         .x_stride = args.x.stride(0),
                         .y_stride = y.stride(0)};
  const int64_t step = RowsOfOneLaunch(y.dim(0), vectors);
  for (int64_t row = 0; row < y.dim(0); row += step) {
    const auto count = static_cast<unsigned int>(std::min(step, y.dim(0) - row) * vectors);
    cuda::LaunchOverlapping(exec, ForwardKernel<N, T, F>, dim3((count + kThreads - 1) / kThreads),
                            dim3(kThreads), {}, f, args.x.as<T>() + row * layout.x_stride,
                            y.as<T>() + row * layout.y_stride, layout, count);
  }
  return cuda::LaunchStatus("activation_forward");
}

template <int N, typename T, typename F>
Status Backward(const Exec& exec, const ActivationBackwardArgs& args, F f) {
  const TensorView& dx = args.dx.dense;
  const int64_t rows = args.dy.dim(0), width = args.dy.dim(1), vectors = width / N;
  const Layout layout = {.vectors = static_cast<unsigned int>(vectors),
                         .width = width,
                         .x_stride = args.x.stride(0),
                         .y_stride = args.y.stride(0),
                         .dy_stride = args.dy.stride(0),
                         .dx_stride = dx.stride(0)};
  const int64_t step = RowsOfOneLaunch(rows, vectors);
  for (int64_t row = 0; row < rows; row += step) {
    const auto count = static_cast<unsigned int>(std::min(step, rows - row) * vectors);
    T* y = args.y.defined() ? args.y.as<T>() + row * layout.y_stride : nullptr;
    cuda::LaunchOverlapping(exec, BackwardKernel<N, T, F>, dim3((count + kThreads - 1) / kThreads),
                            dim3(kThreads), {}, f, args.x.as<T>() + row * layout.x_stride,
                            args.dy.as<T>() + row * layout.dy_stride,
                            dx.as<T>() + row * layout.dx_stride, y, layout, count);
  }
  return cuda::LaunchStatus("activation_backward");
}

// Whether rows of `width` elements are whole vectors at every one of these addresses. A gated row's
// second half begins at `width`.
template <int N, typename T>
bool Fits(int64_t width, std::initializer_list<ConstTensorView> tensors) {
  bool fits = width % N == 0;
  for (const ConstTensorView& t : tensors)
    fits = fits && (!t.defined() || cuda::Aligned<N>(t.as<T>(), t.stride(0)));
  return fits;
}

template <typename T>
Status ForwardOf(const Exec& exec, const ActivationForwardArgs& args) {
  constexpr int kN = cuda::kLanes<T>;
  const bool vectors = Fits<kN, T>(args.y.dense.dim(1), {args.x, args.y.dense});
  return ForKind(args.kind, args.params, [&](auto f) {
    return vectors ? Forward<kN, T>(exec, args, f) : Forward<1, T>(exec, args, f);
  });
}

template <typename T>
Status BackwardOf(const Exec& exec, const ActivationBackwardArgs& args) {
  constexpr int kN = cuda::kLanes<T>;
  const bool vectors =
      Fits<kN, T>(args.dy.dim(1), {args.x, args.dy, args.dx.dense, ConstTensorView(args.y)});
  return ForKind(args.kind, args.params, [&](auto f) {
    return vectors ? Backward<kN, T>(exec, args, f) : Backward<1, T>(exec, args, f);
  });
}

}  // namespace

Status ActivationForwardCuda(const Exec& exec, const ActivationForwardArgs& args) {
  TE_RETURN_IF_ERROR(ValidateActivationForward(args));
  if (activation::FusesForward(args)) return activation::ForwardFloat8Cuda(exec, args);
  ArenaScope scope(exec.scratch);
  ActivationForwardArgs dense = args;
  const Shape shape = {args.x.dim(0), args.x.dim(1) / (IsGated(args.kind) ? 2 : 1)};
  TE_ASSIGN_OR_RETURN(dense.y.dense, DenseResult(exec, args.y, args.x.dtype(), shape));
  if (args.x.elements() != 0) {
    Record(exec, "activation_forward", "activation_forward_cuda", args.x.dtype(),
           static_cast<int64_t>(args.x.bytes() + dense.y.dense.bytes()));
    TE_RETURN_IF_ERROR(args.x.dtype() == DType::kFloat32 ? ForwardOf<float>(exec, dense)
                                                         : ForwardOf<bfloat16>(exec, dense));
  }
  if (!args.y.quantized()) return OkStatus();
  return QuantizeCuda(exec, {.x = dense.y.dense, .out = args.y.quant});
}

Status ActivationBackwardCuda(const Exec& exec, const ActivationBackwardArgs& args) {
  TE_RETURN_IF_ERROR(ValidateActivationBackward(args));
  if (activation::FusesBackward(args)) return activation::BackwardFloat8Cuda(exec, args);
  ArenaScope scope(exec.scratch);
  ActivationBackwardArgs dense = args;
  TE_ASSIGN_OR_RETURN(dense.dx.dense, DenseResult(exec, args.dx, args.x.dtype(), args.x.shape()));
  if (args.x.elements() != 0) {
    Record(exec, "activation_backward", "activation_backward_cuda", args.x.dtype(),
           static_cast<int64_t>(2 * args.x.bytes() + args.dy.bytes() +
                                (args.y.defined() ? args.y.bytes() : 0)));
    TE_RETURN_IF_ERROR(args.x.dtype() == DType::kFloat32 ? BackwardOf<float>(exec, dense)
                                                         : BackwardOf<bfloat16>(exec, dense));
  }
  if (!args.dx.quantized()) return OkStatus();
  return QuantizeCuda(exec, {.x = dense.dx.dense, .out = args.dx.quant});
}

}  // namespace te
