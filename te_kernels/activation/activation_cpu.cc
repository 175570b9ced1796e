#include <algorithm>

#include "te_kernels/activation/activation.h"
#include "te_kernels/base/parallel.h"
#include "te_kernels/base/simd.h"

namespace te {
namespace {

// Elements of a row that are one unit of work: an element's thread never depends on the others'
// number.
constexpr int64_t kBlock = 2048;
constexpr int64_t kBlocksPerThread = 4;

using simd::Floats;
using simd::Load;
using simd::Store;

using simd::Sigmoid;

// The function of the first half: value f and derivative d at u, both always: what is not used
// costs nothing once inlined. Comparisons are written so that a NaN stays one.
struct Glu {
  static void Apply(Floats u, Floats* f, Floats* d) {
    *f = Sigmoid(u);
    *d = *f * (1.0f - *f);
  }
};

inline void ScaledSilu(float a, Floats u, Floats* f, Floats* d) {  // u sigmoid(a u)
  const Floats s = Sigmoid(a * u);
  *f = u * s;
  *d = s + a * *f * (1.0f - s);
}
struct Silu {
  static void Apply(Floats u, Floats* f, Floats* d) { ScaledSilu(1.0f, u, f, d); }
};
struct Qgelu {
  static void Apply(Floats u, Floats* f, Floats* d) { ScaledSilu(1.702f, u, f, d); }
};

// 0.5 (1 + tanh(z)) = sigmoid(2 z), which does not cancel for negative z.
struct Gelu {
  static void Apply(Floats u, Floats* f, Floats* d) {
    constexpr float k = 2 * 0.79788456f;
    constexpr float cubic = 0.044715f;
    // Beyond, sigmoid is 0 or 1 in float32, and the powers of u would overflow.
    const Floats below = u > 100.0f ? simd::Broadcast(100.0f) : u;
    const Floats bounded = below < -100.0f ? simd::Broadcast(-100.0f) : below;
    const Floats square = bounded * bounded;
    const Floats s = Sigmoid(k * bounded * (1.0f + cubic * square));
    *f = u * s;
    *d = s + bounded * s * (1.0f - s) * (k * (1.0f + 3 * cubic * square));
  }
};

struct Relu {
  static void Apply(Floats u, Floats* f, Floats* d) {
    *f = u < 0.0f ? Floats{} : u;
    *d = u > 0.0f ? simd::Broadcast(1.0f) : Floats{};
  }
};

struct Srelu {
  static void Apply(Floats u, Floats* f, Floats* d) {
    const Floats positive = u < 0.0f ? Floats{} : u;
    *f = positive * positive;
    *d = 2.0f * positive;
  }
};

// A gated function: y(gate, linear) and its two derivatives.
template <typename F>
struct GatedBy {
  void Apply(Floats gate, Floats linear, Floats* y, Floats* d_gate, Floats* d_linear) const {
    Floats d;
    F::Apply(gate, d_linear, &d);
    *y = *d_linear * linear;
    *d_gate = d * linear;
  }
};

struct ClampedSwiglu {
  ActivationParams params;

  void Apply(Floats gate, Floats linear, Floats* y, Floats* d_gate, Floats* d_linear) const {
    const Floats limit = simd::Broadcast(params.limit);
    const Floats g = gate > limit ? limit : gate;
    const Floats below = linear > limit ? limit : linear;
    const Floats u = (below < -limit ? -limit : below) + params.glu_linear_offset;
    Floats value, derivative;
    ScaledSilu(params.alpha, g, &value, &derivative);
    *y = value * u;
    *d_gate = gate > limit ? Floats{} : derivative * u;
    *d_linear = linear > limit ? Floats{} : value;
    *d_linear = linear < -limit ? Floats{} : *d_linear;
  }
};

// Calls body(row, first element, count) for the blocks of a [T, F] tensor.
template <typename Body>
void ForEachBlock(const Exec& exec, const Shape& shape, const Body& body) {
  const int64_t width = shape[1];
  const int64_t blocks = (width + kBlock - 1) / kBlock;
  const int64_t block = blocks == 0 ? 0 : (width + blocks - 1) / blocks;
  const int64_t grain = block == 0 ? 1 : std::max<int64_t>(1, kBlocksPerThread * kBlock / block);
  ParallelFor(exec, shape[0] * blocks, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = i % blocks * block;
      body(i / blocks, first, std::min(block, width - first));
    }
  });
}

template <typename T, typename View>
auto* Row(const View& view, int64_t row) {
  return view.template as<T>() + row * view.stride(0);
}

// No pointer is restrict: dx may be dy. `omp simd` states that elements of different index do not
// overlap.

template <typename T, typename F>
void PlainForward(const Exec& exec, const ActivationForwardArgs& args) {
  ForEachBlock(exec, args.x.shape(), [&](int64_t t, int64_t first, int64_t n) {
    const T* x = Row<T>(args.x, t) + first;
    T* y = Row<T>(args.y.dense, t) + first;
    simd::ForEachVector(n, [&](int64_t i, int64_t count) TE_SIMD_LAMBDA {
      Floats f, d;
      F::Apply(Load(x + i, count), &f, &d);
      Store(f, y + i, count);
    });
  });
}

template <typename T, typename F>
void PlainBackward(const Exec& exec, const ActivationBackwardArgs& args) {
  ForEachBlock(exec, args.x.shape(), [&](int64_t t, int64_t first, int64_t n) {
    const T* x = Row<T>(args.x, t) + first;
    const T* dy = Row<T>(args.dy, t) + first;
    T* dx = Row<T>(args.dx.dense, t) + first;
    simd::ForEachVector(n, [&](int64_t i, int64_t count) TE_SIMD_LAMBDA {
      Floats f, d;
      F::Apply(Load(x + i, count), &f, &d);
      Store(d * Load(dy + i, count), dx + i, count);
    });
  });
}

template <typename T, typename F>
void GatedForward(const Exec& exec, const ActivationForwardArgs& args, const F& function) {
  const int64_t width = args.y.dense.dim(1);
  ForEachBlock(exec, args.y.dense.shape(), [&](int64_t t, int64_t first, int64_t n) {
    const T* gate = Row<T>(args.x, t) + first;
    const T* linear = gate + width;
    T* y = Row<T>(args.y.dense, t) + first;
    simd::ForEachVector(n, [&](int64_t i, int64_t count) TE_SIMD_LAMBDA {
      Floats value, d_gate, d_linear;
      function.Apply(Load(gate + i, count), Load(linear + i, count), &value, &d_gate, &d_linear);
      Store(value, y + i, count);
    });
  });
}

template <typename T, typename F, bool kOutput>
void GatedBackwardBlocks(const Exec& exec, const ActivationBackwardArgs& args, const F& function) {
  const int64_t width = args.dy.dim(1);
  ForEachBlock(exec, args.dy.shape(), [&](int64_t t, int64_t first, int64_t n) {
    const T* gate = Row<T>(args.x, t) + first;
    const T* linear = gate + width;
    const T* dy = Row<T>(args.dy, t) + first;
    T* gate_gradient = Row<T>(args.dx.dense, t) + first;
    T* linear_gradient = gate_gradient + width;
    T* y = kOutput ? Row<T>(args.y, t) + first : nullptr;
    simd::ForEachVector(n, [&](int64_t i, int64_t count) TE_SIMD_LAMBDA {
      const Floats gradient = Load(dy + i, count);
      Floats value, d_gate, d_linear;
      function.Apply(Load(gate + i, count), Load(linear + i, count), &value, &d_gate, &d_linear);
      Store(gradient * d_gate, gate_gradient + i, count);
      Store(gradient * d_linear, linear_gradient + i, count);
      if constexpr (kOutput) Store(value, y + i, count);
    });
  });
}

template <typename T, typename F>
void GatedBackward(const Exec& exec, const ActivationBackwardArgs& args, const F& function) {
  args.y.defined() ? GatedBackwardBlocks<T, F, true>(exec, args, function)
                   : GatedBackwardBlocks<T, F, false>(exec, args, function);
}

template <typename T>
void Forward(const Exec& exec, const ActivationForwardArgs& args) {
  switch (args.kind) {
    case ActivationKind::kGelu:
      return PlainForward<T, Gelu>(exec, args);
    case ActivationKind::kGeglu:
      return GatedForward<T>(exec, args, GatedBy<Gelu>());
    case ActivationKind::kGlu:
      return GatedForward<T>(exec, args, GatedBy<Glu>());
    case ActivationKind::kQgelu:
      return PlainForward<T, Qgelu>(exec, args);
    case ActivationKind::kQgeglu:
      return GatedForward<T>(exec, args, GatedBy<Qgelu>());
    case ActivationKind::kRelu:
      return PlainForward<T, Relu>(exec, args);
    case ActivationKind::kReglu:
      return GatedForward<T>(exec, args, GatedBy<Relu>());
    case ActivationKind::kSrelu:
      return PlainForward<T, Srelu>(exec, args);
    case ActivationKind::kSreglu:
      return GatedForward<T>(exec, args, GatedBy<Srelu>());
    case ActivationKind::kSilu:
      return PlainForward<T, Silu>(exec, args);
    case ActivationKind::kSwiglu:
      return GatedForward<T>(exec, args, GatedBy<Silu>());
    case ActivationKind::kClampedSwiglu:
      return GatedForward<T>(exec, args, ClampedSwiglu{args.params});
  }
}

template <typename T>
void Backward(const Exec& exec, const ActivationBackwardArgs& args) {
  switch (args.kind) {
    case ActivationKind::kGelu:
      return PlainBackward<T, Gelu>(exec, args);
    case ActivationKind::kGeglu:
      return GatedBackward<T>(exec, args, GatedBy<Gelu>());
    case ActivationKind::kGlu:
      return GatedBackward<T>(exec, args, GatedBy<Glu>());
    case ActivationKind::kQgelu:
      return PlainBackward<T, Qgelu>(exec, args);
    case ActivationKind::kQgeglu:
      return GatedBackward<T>(exec, args, GatedBy<Qgelu>());
    case ActivationKind::kRelu:
      return PlainBackward<T, Relu>(exec, args);
    case ActivationKind::kReglu:
      return GatedBackward<T>(exec, args, GatedBy<Relu>());
    case ActivationKind::kSrelu:
      return PlainBackward<T, Srelu>(exec, args);
    case ActivationKind::kSreglu:
      return GatedBackward<T>(exec, args, GatedBy<Srelu>());
    case ActivationKind::kSilu:
      return PlainBackward<T, Silu>(exec, args);
    case ActivationKind::kSwiglu:
      return GatedBackward<T>(exec, args, GatedBy<Silu>());
    case ActivationKind::kClampedSwiglu:
      return GatedBackward<T>(exec, args, ClampedSwiglu{args.params});
  }
}

}  // namespace

Status ActivationForwardCpu(const Exec& exec, const ActivationForwardArgs& args) {
  TE_RETURN_IF_ERROR(ValidateActivationForward(args));
  args.x.dtype() == DType::kFloat32 ? Forward<float>(exec, args) : Forward<bfloat16>(exec, args);
  return OkStatus();
}

Status ActivationBackwardCpu(const Exec& exec, const ActivationBackwardArgs& args) {
  TE_RETURN_IF_ERROR(ValidateActivationBackward(args));
  args.x.dtype() == DType::kFloat32 ? Backward<float>(exec, args) : Backward<bfloat16>(exec, args);
  return OkStatus();
}

}  // namespace te
