// Activations of a feed-forward layer, plain and gated, as Transformer Engine names them.
//
//   plain:  y[t, f] = act(x[t, f]),               x [T, F], y [T, F]
//   gated:  y[t, f] = act(x[t, f]) * x[t, F + f],  x [T, 2F], y [T, F]: the gate first, then the
//   linear half
//
//   gelu   0.5 u (1 + tanh(0.79788456 (u + 0.044715 u^3)))   (the tanh form)
//   qgelu  u sigmoid(1.702 u)      silu   u sigmoid(u)       sigmoid 1 / (1 + exp(-u))
//   relu   max(u, 0)               srelu  max(u, 0)^2
//   geglu, qgeglu, swiglu, reglu, sreglu: gated by gelu, qgelu, silu, relu, srelu; glu: gated by
//   sigmoid clamped_swiglu: with g = min(x[t, f], limit) and u = clamp(x[t, F + f], -limit, limit):
//                   y = g sigmoid(alpha g) (u + glu_linear_offset)   (gpt-oss; gradients are zero
//                   where clamped)
//
// backward: dx = dL/dx from dy, of x's shape. One dtype of {float32, bfloat16}; inner stride 1;
// arithmetic in float32, one rounding. Plain: dx may be dy. Gated backward can also write y again
// (recomputation of the second GEMM's input: `y`, optional).
#pragma once

#include <string_view>

#include "te_kernels/base/exec.h"
#include "te_kernels/base/quant_spec.h"

namespace te {

enum class ActivationKind : int32_t {
  kGelu = 0,
  kGeglu = 1,
  kGlu = 2,
  kQgelu = 3,
  kQgeglu = 4,
  kRelu = 5,
  kReglu = 6,
  kSrelu = 7,
  kSreglu = 8,
  kSilu = 9,
  kSwiglu = 10,
  kClampedSwiglu = 11,
};

bool IsGated(ActivationKind kind);
const char* Name(ActivationKind kind);
// "swiglu" and so on; kInvalidArgument lists the names.
StatusOr<ActivationKind> ParseActivation(std::string_view name);

struct ActivationParams {  // of clamped_swiglu alone
  float limit = 7.0f;
  float alpha = 1.702f;
  float glu_linear_offset = 1.0f;
};

struct ActivationForwardArgs {
  ActivationKind kind = ActivationKind::kSwiglu;
  ActivationParams params;
  ConstTensorView x;
  Sink y;
};

struct ActivationBackwardArgs {
  ActivationKind kind = ActivationKind::kSwiglu;
  ActivationParams params;
  ConstTensorView x;
  ConstTensorView dy;
  Sink dx;
  TensorView y;  // optional, gated only
};

Status ValidateActivationForward(const ActivationForwardArgs& args);
Status ValidateActivationBackward(const ActivationBackwardArgs& args);
Status ActivationForwardCpu(const Exec& exec, const ActivationForwardArgs& args);
Status ActivationForwardCuda(const Exec& exec, const ActivationForwardArgs& args);
Status ActivationBackwardCpu(const Exec& exec, const ActivationBackwardArgs& args);
Status ActivationBackwardCuda(const Exec& exec, const ActivationBackwardArgs& args);

}  // namespace te
