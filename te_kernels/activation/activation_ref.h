// Activations, the obvious formulas for any scalar: double, and std::complex<double> for
// derivatives (branches look at the real part, as a derivative by complex step needs).
#pragma once

#include <cmath>
#include <complex>

#include "te_kernels/activation/activation.h"

namespace te::ref {

inline double Real(double v) { return v; }
inline double Real(const std::complex<double>& v) { return v.real(); }

template <typename S>
S SigmoidOf(const S& u) {
  using std::exp;
  return 1.0 / (1.0 + exp(-u));
}

template <typename S>
S Relu(const S& u) {
  return Real(u) > 0 ? u : S(0);
}

// The function of the plain kinds, and of a gated kind's first half. Not for clamped_swiglu.
template <typename S>
S Activate(ActivationKind kind, const S& u) {
  using std::tanh;
  switch (kind) {
    case ActivationKind::kGelu:
    case ActivationKind::kGeglu:
      return 0.5 * u * (1.0 + tanh(0.79788456 * (u + 0.044715 * u * u * u)));
    case ActivationKind::kQgelu:
    case ActivationKind::kQgeglu:
      return u * SigmoidOf(1.702 * u);
    case ActivationKind::kSilu:
    case ActivationKind::kSwiglu:
    case ActivationKind::kClampedSwiglu:
      return u * SigmoidOf(u);
    case ActivationKind::kGlu:
      return SigmoidOf(u);
    case ActivationKind::kRelu:
    case ActivationKind::kReglu:
      return Relu(u);
    case ActivationKind::kSrelu:
    case ActivationKind::kSreglu:
      return Relu(u) * Relu(u);
  }
  return u;
}

template <typename S>
S Clamp(const S& v, double low, double high) {
  return Real(v) < low ? S(low) : Real(v) > high ? S(high) : v;
}

template <typename S>
S GatedActivate(ActivationKind kind, const ActivationParams& params, const S& gate,
                const S& linear) {
  if (kind != ActivationKind::kClampedSwiglu) return Activate(kind, gate) * linear;
  const double limit = params.limit;
  const S g = Clamp(gate, -INFINITY, limit);
  const S u = Clamp(linear, -limit, limit);
  return g * SigmoidOf(static_cast<double>(params.alpha) * g) *
         (u + static_cast<double>(params.glu_linear_offset));
}

}  // namespace te::ref
