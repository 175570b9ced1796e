#include <algorithm>

#include "Eigen/Core"
#include "te_kernels/activation/activation.h"
#include "te_kernels/base/parallel.h"

namespace te {
namespace {

// Rows are worked through in blocks of one size, the last one padded: Eigen computes elements
// outside of a whole packet by other means, and an element's bits may not depend on where it
// stands.
constexpr int64_t kBlock = 256;
constexpr int64_t kBlocksPerThread = 32;
using Block = Eigen::Array<float, kBlock, 1>;

// The functions of one half: value f and derivative d at u. d is not computed where it is null.

void Sigmoid(const Block& u, Block* s) { *s = 1.0f / (1.0f + (-u).exp()); }

struct Glu {
  static void Apply(const Block& u, Block* f, Block* d) {
    Sigmoid(u, f);
    if (d != nullptr) *d = *f * (1.0f - *f);
  }
};

// u sigmoid(a u)
template <int kThousandths>
struct ScaledSilu {
  static void Apply(const Block& u, Block* f, Block* d) {
    constexpr float a = static_cast<float>(kThousandths / 1000.0);
    Block s;
    Sigmoid(a * u, &s);
    *f = u * s;
    if (d != nullptr) *d = s + a * *f * (1.0f - s);
  }
};
using Silu = ScaledSilu<1000>;
using Qgelu = ScaledSilu<1702>;

// 0.5 (1 + tanh(z)) = sigmoid(2 z): no cancellation for negative u.
struct Gelu {
  static void Apply(const Block& u, Block* f, Block* d) {
    constexpr float k = 2 * 0.79788456f;
    Block s;
    Sigmoid(k * u * (1.0f + 0.044715f * u * u), &s);
    *f = u * s;
    if (d != nullptr) *d = s + *f * (1.0f - s) * (k * (1.0f + 3 * 0.044715f * u * u));
  }
};

// Comparisons are written so that a NaN stays one.
struct Relu {
  static void Apply(const Block& u, Block* f, Block* d) {
    *f = (u < 0.0f).select(0.0f, u);
    if (d != nullptr) *d = (u > 0.0f).select(Block::Ones(), Block::Zero());
  }
};

struct Srelu {
  static void Apply(const Block& u, Block* f, Block* d) {
    Block positive;
    Relu::Apply(u, &positive, nullptr);
    *f = positive * positive;
    if (d != nullptr) *d = 2.0f * positive;
  }
};

template <typename T>
void Load(const T* from, int64_t n, Block* to) {
  float* out = to->data();
  if (n == kBlock) {
    for (int64_t i = 0; i < kBlock; ++i) out[i] = static_cast<float>(from[i]);
    return;
  }
  to->setZero();
  for (int64_t i = 0; i < n; ++i) out[i] = static_cast<float>(from[i]);
}

template <typename T>
void Store(const Block& from, int64_t n, T* to) {
  const float* in = from.data();
  if (n == kBlock) {
    for (int64_t i = 0; i < kBlock; ++i) to[i] = T(in[i]);
    return;
  }
  for (int64_t i = 0; i < n; ++i) to[i] = T(in[i]);
}

// Calls body(row, first element, count) for the blocks of a [T, F] tensor.
template <typename Body>
void ForEachBlock(const Exec& exec, const Shape& shape, const Body& body) {
  const int64_t width = shape[1];
  const int64_t blocks = (width + kBlock - 1) / kBlock;
  ParallelFor(exec, shape[0] * blocks, kBlocksPerThread, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = i % blocks * kBlock;
      body(i / blocks, first, std::min(kBlock, width - first));
    }
  });
}

template <typename T, typename View>
auto* Row(const View& view, int64_t row) {
  return view.template as<T>() + row * view.stride(0);
}

struct Plain {
  template <typename F, typename T>
  static void Forward(const Exec& exec, const ActivationForwardArgs& args) {
    ForEachBlock(exec, args.x.shape(), [&](int64_t t, int64_t first, int64_t n) {
      Block u, f;
      Load(Row<T>(args.x, t) + first, n, &u);
      F::Apply(u, &f, nullptr);
      Store(f, n, Row<T>(args.y.dense, t) + first);
    });
  }
  template <typename F, typename T>
  static void Backward(const Exec& exec, const ActivationBackwardArgs& args) {
    ForEachBlock(exec, args.x.shape(), [&](int64_t t, int64_t first, int64_t n) {
      Block u, dy, f, d;
      Load(Row<T>(args.x, t) + first, n, &u);
      Load(Row<T>(args.dy, t) + first, n, &dy);
      F::Apply(u, &f, &d);
      d *= dy;
      Store(d, n, Row<T>(args.dx.dense, t) + first);
    });
  }
};

struct Gated {
  template <typename F, typename T>
  static void Forward(const Exec& exec, const ActivationForwardArgs& args) {
    const TensorView& y = args.y.dense;
    ForEachBlock(exec, y.shape(), [&](int64_t t, int64_t first, int64_t n) {
      const T* x = Row<T>(args.x, t) + first;
      Block gate, linear, f;
      Load(x, n, &gate);
      Load(x + y.dim(1), n, &linear);
      F::Apply(gate, &f, nullptr);
      f *= linear;
      Store(f, n, Row<T>(y, t) + first);
    });
  }
  template <typename F, typename T>
  static void Backward(const Exec& exec, const ActivationBackwardArgs& args) {
    const int64_t width = args.dy.dim(1);
    ForEachBlock(exec, args.dy.shape(), [&](int64_t t, int64_t first, int64_t n) {
      const T* x = Row<T>(args.x, t) + first;
      T* dx = Row<T>(args.dx.dense, t) + first;
      Block gate, linear, dy, f, d;
      Load(x, n, &gate);
      Load(x + width, n, &linear);
      Load(Row<T>(args.dy, t) + first, n, &dy);
      F::Apply(gate, &f, &d);
      d *= dy * linear;
      Store(d, n, dx);
      d = dy * f;
      Store(d, n, dx + width);
      if (args.y.defined()) {
        f *= linear;
        Store(f, n, Row<T>(args.y, t) + first);
      }
    });
  }
};

// Both halves clamped: the gate from above, the linear half on both sides.
struct Clamped {
  Block gate, linear, sigmoid;

  template <typename T>
  void Compute(const T* x, int64_t width, int64_t n, const ActivationParams& params,
               Block* raw_gate, Block* raw_linear) {
    Load(x, n, raw_gate);
    Load(x + width, n, raw_linear);
    const float limit = params.limit;
    gate = (*raw_gate > limit).select(limit, *raw_gate);
    linear = (*raw_linear > limit).select(limit, *raw_linear);
    linear = (linear < -limit).select(-limit, linear) + params.glu_linear_offset;
    Sigmoid(params.alpha * gate, &sigmoid);
  }
};

template <typename T>
void ClampedForward(const Exec& exec, const ActivationForwardArgs& args) {
  const TensorView& y = args.y.dense;
  ForEachBlock(exec, y.shape(), [&](int64_t t, int64_t first, int64_t n) {
    Clamped c;
    Block raw_gate, raw_linear;
    c.Compute(Row<T>(args.x, t) + first, y.dim(1), n, args.params, &raw_gate, &raw_linear);
    const Block out = c.gate * c.sigmoid * c.linear;
    Store(out, n, Row<T>(y, t) + first);
  });
}

template <typename T>
void ClampedBackward(const Exec& exec, const ActivationBackwardArgs& args) {
  const int64_t width = args.dy.dim(1);
  const float limit = args.params.limit;
  ForEachBlock(exec, args.dy.shape(), [&](int64_t t, int64_t first, int64_t n) {
    Clamped c;
    Block raw_gate, raw_linear, dy, out;
    c.Compute(Row<T>(args.x, t) + first, width, n, args.params, &raw_gate, &raw_linear);
    Load(Row<T>(args.dy, t) + first, n, &dy);
    T* dx = Row<T>(args.dx.dense, t) + first;
    const Block value = c.gate * c.sigmoid;
    out = dy * c.linear * (c.sigmoid + args.params.alpha * value * (1.0f - c.sigmoid));
    out = (raw_gate > limit).select(0.0f, out);
    Store(out, n, dx);
    out = dy * value;
    out = (raw_linear.abs() > limit).select(0.0f, out);
    Store(out, n, dx + width);
    if (args.y.defined()) {
      out = value * c.linear;
      Store(out, n, Row<T>(args.y, t) + first);
    }
  });
}

template <typename T>
void Forward(const Exec& exec, const ActivationForwardArgs& args) {
  switch (args.kind) {
    case ActivationKind::kGelu:
      return Plain::Forward<Gelu, T>(exec, args);
    case ActivationKind::kGeglu:
      return Gated::Forward<Gelu, T>(exec, args);
    case ActivationKind::kGlu:
      return Gated::Forward<Glu, T>(exec, args);
    case ActivationKind::kQgelu:
      return Plain::Forward<Qgelu, T>(exec, args);
    case ActivationKind::kQgeglu:
      return Gated::Forward<Qgelu, T>(exec, args);
    case ActivationKind::kRelu:
      return Plain::Forward<Relu, T>(exec, args);
    case ActivationKind::kReglu:
      return Gated::Forward<Relu, T>(exec, args);
    case ActivationKind::kSrelu:
      return Plain::Forward<Srelu, T>(exec, args);
    case ActivationKind::kSreglu:
      return Gated::Forward<Srelu, T>(exec, args);
    case ActivationKind::kSilu:
      return Plain::Forward<Silu, T>(exec, args);
    case ActivationKind::kSwiglu:
      return Gated::Forward<Silu, T>(exec, args);
    case ActivationKind::kClampedSwiglu:
      return ClampedForward<T>(exec, args);
  }
}

template <typename T>
void Backward(const Exec& exec, const ActivationBackwardArgs& args) {
  switch (args.kind) {
    case ActivationKind::kGelu:
      return Plain::Backward<Gelu, T>(exec, args);
    case ActivationKind::kGeglu:
      return Gated::Backward<Gelu, T>(exec, args);
    case ActivationKind::kGlu:
      return Gated::Backward<Glu, T>(exec, args);
    case ActivationKind::kQgelu:
      return Plain::Backward<Qgelu, T>(exec, args);
    case ActivationKind::kQgeglu:
      return Gated::Backward<Qgelu, T>(exec, args);
    case ActivationKind::kRelu:
      return Plain::Backward<Relu, T>(exec, args);
    case ActivationKind::kReglu:
      return Gated::Backward<Relu, T>(exec, args);
    case ActivationKind::kSrelu:
      return Plain::Backward<Srelu, T>(exec, args);
    case ActivationKind::kSreglu:
      return Gated::Backward<Srelu, T>(exec, args);
    case ActivationKind::kSilu:
      return Plain::Backward<Silu, T>(exec, args);
    case ActivationKind::kSwiglu:
      return Gated::Backward<Silu, T>(exec, args);
    case ActivationKind::kClampedSwiglu:
      return ClampedBackward<T>(exec, args);
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
