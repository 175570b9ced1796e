// The functions of activation.h on CUDA, element by element: what its kernels share.
#pragma once

#include "te_kernels/activation/activation.h"

namespace te::activation {

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

}  // namespace te::activation
