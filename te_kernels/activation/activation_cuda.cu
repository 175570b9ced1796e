#include <algorithm>
#include <cmath>

#include "te_kernels/activation/activation.h"
#include "te_kernels/cuda/cuda_state.h"
#include "te_kernels/cuda/cuda_status.h"
#include "te_kernels/cuda/launch.cuh"
#include "te_kernels/cuda/vector.cuh"

namespace te {
namespace {

constexpr int kThreads = 256;

// __expf errs by 2 + 1.17 |u| units of float32, the fast division by 2: within the argument's own
// error.
__device__ inline float Sigmoid(float u) { return __fdividef(1.0f, 1.0f + __expf(-u)); }

// The function of the first half: value f and derivative d at u, both always: what is not used
// costs nothing once inlined. Comparisons are written so that a NaN stays one.
struct Glu {
  __device__ static void Apply(float u, float* f, float* d) {
    *f = Sigmoid(u);
    *d = *f * (1.0f - *f);
  }
};

__device__ inline void ScaledSilu(float a, float u, float* f, float* d) {  // u sigmoid(a u)
  const float s = Sigmoid(a * u);
  *f = u * s;
  *d = s + a * *f * (1.0f - s);
}
struct Silu {
  __device__ static void Apply(float u, float* f, float* d) { ScaledSilu(1.0f, u, f, d); }
};
struct Qgelu {
  __device__ static void Apply(float u, float* f, float* d) { ScaledSilu(1.702f, u, f, d); }
};

// 0.5 (1 + tanh(z)) = sigmoid(2 z), which does not cancel for negative z.
struct Gelu {
  __device__ static void Apply(float u, float* f, float* d) {
    constexpr float k = 2 * 0.79788456f;
    constexpr float cubic = 0.044715f;
    // Beyond, sigmoid is 0 or 1 in float32, and the powers of u would overflow.
    const float below = u > 100.0f ? 100.0f : u;
    const float bounded = below < -100.0f ? -100.0f : below;
    const float square = bounded * bounded;
    const float s = Sigmoid(k * bounded * (1.0f + cubic * square));
    *f = u * s;
    *d = s + bounded * s * (1.0f - s) * (k * (1.0f + 3 * cubic * square));
  }
};

struct Relu {
  __device__ static void Apply(float u, float* f, float* d) {
    *f = u < 0.0f ? 0.0f : u;
    *d = u > 0.0f ? 1.0f : 0.0f;
  }
};

struct Srelu {
  __device__ static void Apply(float u, float* f, float* d) {
    const float positive = u < 0.0f ? 0.0f : u;
    *f = positive * positive;
    *d = 2.0f * positive;
  }
};

template <typename F>
struct Plain {
  static constexpr bool kGated = false;
  __device__ void Apply(float u, float, float* y, float* d, float*) const { F::Apply(u, y, d); }
};

// A gated function: y(gate, linear) and its two derivatives.
template <typename F>
struct GatedBy {
  static constexpr bool kGated = true;
  __device__ void Apply(float gate, float linear, float* y, float* d_gate, float* d_linear) const {
    float d;
    F::Apply(gate, d_linear, &d);
    *y = *d_linear * linear;
    *d_gate = d * linear;
  }
};

struct ClampedSwiglu {
  static constexpr bool kGated = true;
  ActivationParams params;

  __device__ void Apply(float gate, float linear, float* y, float* d_gate, float* d_linear) const {
    const float limit = params.limit;
    const float g = gate > limit ? limit : gate;
    const float below = linear > limit ? limit : linear;
    const float u = (below < -limit ? -limit : below) + params.glu_linear_offset;
    float value, derivative;
    ScaledSilu(params.alpha, g, &value, &derivative);
    *y = value * u;
    *d_gate = gate > limit ? 0.0f : derivative * u;
    *d_linear = linear > limit || linear < -limit ? 0.0f : value;
  }
};

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

// Calls run(function object) for `kind`.
template <typename Run>
Status ForKind(ActivationKind kind, const ActivationParams& params, const Run& run) {
  switch (kind) {
    case ActivationKind::kGelu:
      return run(Plain<Gelu>());
    case ActivationKind::kGeglu:
      return run(GatedBy<Gelu>());
    case ActivationKind::kGlu:
      return run(GatedBy<Glu>());
    case ActivationKind::kQgelu:
      return run(Plain<Qgelu>());
    case ActivationKind::kQgeglu:
      return run(GatedBy<Qgelu>());
    case ActivationKind::kRelu:
      return run(Plain<Relu>());
    case ActivationKind::kReglu:
      return run(GatedBy<Relu>());
    case ActivationKind::kSrelu:
      return run(Plain<Srelu>());
    case ActivationKind::kSreglu:
      return run(GatedBy<Srelu>());
    case ActivationKind::kSilu:
      return run(Plain<Silu>());
    case ActivationKind::kSwiglu:
      return run(GatedBy<Silu>());
    case ActivationKind::kClampedSwiglu:
      return run(ClampedSwiglu{params});
  }
  return Internal("activation: no kernel for kind {}", static_cast<int>(kind));
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
  if (args.x.elements() == 0) return OkStatus();
  Record(exec, "activation_forward", "activation_forward_cuda", args.x.dtype(),
         static_cast<int64_t>(args.x.bytes() + args.y.dense.bytes()));
  return args.x.dtype() == DType::kFloat32 ? ForwardOf<float>(exec, args)
                                           : ForwardOf<bfloat16>(exec, args);
}

Status ActivationBackwardCuda(const Exec& exec, const ActivationBackwardArgs& args) {
  TE_RETURN_IF_ERROR(ValidateActivationBackward(args));
  if (args.x.elements() == 0) return OkStatus();
  Record(exec, "activation_backward", "activation_backward_cuda", args.x.dtype(),
         static_cast<int64_t>(2 * args.x.bytes() + args.dy.bytes() +
                              (args.y.defined() ? args.y.bytes() : 0)));
  return args.x.dtype() == DType::kFloat32 ? BackwardOf<float>(exec, args)
                                           : BackwardOf<bfloat16>(exec, args);
}

}  // namespace te
