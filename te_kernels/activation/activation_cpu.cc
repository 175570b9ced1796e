#include <algorithm>

#include "te_kernels/activation/activation.h"
#include "te_kernels/base/parallel.h"
#include "te_kernels/base/simd.h"
#include "te_kernels/base/sink.h"
#include "te_kernels/quantize/quantize.h"

namespace te {
namespace {

// Elements of a row that are one unit of work: an element's thread never depends on the others'
// number.
constexpr int64_t kBlock = 2048;
constexpr int64_t kBlocksPerThread = 4;

using simd::Floats;
using simd::Pair;
using simd::StorePair;
using simd::StreamPair;

// The function of the first half: value f and derivative d at u, both always: what is not used
// costs nothing once inlined. Comparisons are written so that a NaN stays one.
struct Glu {
  static void Apply(Floats u, Floats* f, Floats* d) {
    *f = simd::Sigmoid(u);
    *d = *f * (1.0f - *f);
  }
};

// u sigmoid(a u). Below the sigmoid's lowest argument the product is -1.4e-36 and less, and shall
// not grow with u again: the factor u is bounded, too.
inline void ScaledSilu(float a, Floats u, Floats* f, Floats* d) {
  const Floats bounded = simd::AtLeast(u, simd::kSigmoidLowest / a);
  const Floats s = simd::SigmoidOfBounded(a * bounded);
  *f = bounded * s;
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
    // Beyond, the sigmoid's argument is -86.9 or 86.9.
    const Floats above = simd::AtLeast(u, -9.98f);
    const Floats bounded = simd::AtMost(above, 9.98f);
    const Floats square = bounded * bounded;
    const Floats s = simd::SigmoidOfBounded(k * bounded * (1.0f + cubic * square));
    *f = above * s;
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
    const float limit = params.limit;
    const Floats g = simd::AtMost(gate, limit);
    const Floats u = simd::AtLeast(simd::AtMost(linear, limit), -limit) + params.glu_linear_offset;
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
    simd::ForEachPair(n, [&](int64_t i, int64_t count) TE_SIMD_LAMBDA {
      const Pair u = StreamPair(x + i, count);
      Pair f, d;
      F::Apply(u.even, &f.even, &d.even);
      F::Apply(u.odd, &f.odd, &d.odd);
      StorePair(f, y + i, count);
    });
  });
}

template <typename T, typename F>
void PlainBackward(const Exec& exec, const ActivationBackwardArgs& args) {
  ForEachBlock(exec, args.x.shape(), [&](int64_t t, int64_t first, int64_t n) {
    const T* x = Row<T>(args.x, t) + first;
    const T* dy = Row<T>(args.dy, t) + first;
    T* dx = Row<T>(args.dx.dense, t) + first;
    simd::ForEachPair(n, [&](int64_t i, int64_t count) TE_SIMD_LAMBDA {
      const Pair u = StreamPair(x + i, count), gradient = StreamPair(dy + i, count);
      Pair f, d;
      F::Apply(u.even, &f.even, &d.even);
      F::Apply(u.odd, &f.odd, &d.odd);
      StorePair({d.even * gradient.even, d.odd * gradient.odd}, dx + i, count);
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
    const F local = function;  // its members stay in registers: stores cannot change them
    simd::ForEachPair(n, [&](int64_t i, int64_t count) TE_SIMD_LAMBDA {
      const Pair g = StreamPair(gate + i, count), u = StreamPair(linear + i, count);
      Pair value, d_gate, d_linear;
      local.Apply(g.even, u.even, &value.even, &d_gate.even, &d_linear.even);
      local.Apply(g.odd, u.odd, &value.odd, &d_gate.odd, &d_linear.odd);
      StorePair(value, y + i, count);
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
    const F local = function;  // its members stay in registers: stores cannot change them
    simd::ForEachPair(n, [&](int64_t i, int64_t count) TE_SIMD_LAMBDA {
      const Pair gradient = StreamPair(dy + i, count);
      const Pair g = StreamPair(gate + i, count), u = StreamPair(linear + i, count);
      Pair value, d_gate, d_linear;
      local.Apply(g.even, u.even, &value.even, &d_gate.even, &d_linear.even);
      local.Apply(g.odd, u.odd, &value.odd, &d_gate.odd, &d_linear.odd);
      StorePair({gradient.even * d_gate.even, gradient.odd * d_gate.odd}, gate_gradient + i, count);
      StorePair({gradient.even * d_linear.even, gradient.odd * d_linear.odd}, linear_gradient + i,
                count);
      if constexpr (kOutput) StorePair(value, y + i, count);
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
  const ArenaScope scope(exec.scratch);
  ActivationForwardArgs dense = args;
  TE_ASSIGN_OR_RETURN(dense.y.dense,
                      DenseResult(exec, args.y, args.x.dtype(),
                                  {args.x.dim(0), args.x.dim(1) / (IsGated(args.kind) ? 2 : 1)}));
  args.x.dtype() == DType::kFloat32 ? Forward<float>(exec, dense) : Forward<bfloat16>(exec, dense);
  if (!args.y.quantized()) return OkStatus();
  return QuantizeCpu(exec, {.x = dense.y.dense, .out = args.y.quant});
}

Status ActivationBackwardCpu(const Exec& exec, const ActivationBackwardArgs& args) {
  TE_RETURN_IF_ERROR(ValidateActivationBackward(args));
  const ArenaScope scope(exec.scratch);
  ActivationBackwardArgs dense = args;
  TE_ASSIGN_OR_RETURN(dense.dx.dense, DenseResult(exec, args.dx, args.x.dtype(), args.x.shape()));
  args.x.dtype() == DType::kFloat32 ? Backward<float>(exec, dense)
                                    : Backward<bfloat16>(exec, dense);
  if (!args.dx.quantized()) return OkStatus();
  return QuantizeCpu(exec, {.x = dense.dx.dense, .out = args.dx.quant});
}

}  // namespace te
