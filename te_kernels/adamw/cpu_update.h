// AdamW on the CPU (adamw.h): the step's constants and the update of one block, by rounding.
#pragma once

#include <cmath>
#include <cstdint>

#include "te_kernels/adamw/adamw.h"
#include "te_kernels/adamw/stochastic_update.h"
#include "te_kernels/base/simd.h"

namespace te::adamw {

// Elements at a time: whole Philox blocks, their numbers stay in L1.
inline constexpr int64_t kBlock = 1024;

inline Constants MakeConstants(const AdamWArgs& args) {
  const double lr = args.scalars->learning_rate;
  const auto t = static_cast<double>(args.scalars->step);
  Constants c;
  c.grad_scale = args.scalars->grad_scale;
  c.decay = static_cast<float>(1 - lr * args.weight_decay);
  c.beta1 = static_cast<float>(args.beta1);
  c.one_minus_beta1 = static_cast<float>(1 - args.beta1);
  c.beta2 = static_cast<float>(args.beta2);
  c.one_minus_beta2 = static_cast<float>(1 - args.beta2);
  c.step_size = static_cast<float>(lr / (1 - std::pow(args.beta1, t)));
  c.root_correction = static_cast<float>(1 / std::sqrt(1 - std::pow(args.beta2, t)));
  c.epsilon = static_cast<float>(args.epsilon);
  return c;
}

template <bool kMaster, typename Param, typename Grad, typename Moment>
void UpdateNearest(const Constants& c, int64_t n, const Grad* __restrict grad,
                   Param* __restrict param, Moment* __restrict m, Moment* __restrict v,
                   float* __restrict master) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const float g = c.grad_scale * LoadFloat(grad + i);
    const float m_new = c.beta1 * LoadFloat(m + i) + c.one_minus_beta1 * g;
    const float v_new = c.beta2 * LoadFloat(v + i) + c.one_minus_beta2 * g * g;
    const float denominator = std::sqrt(v_new) * c.root_correction + c.epsilon;
    const float w_old = kMaster ? master[i] : LoadFloat(param + i);
    const float w = w_old * c.decay - c.step_size * (m_new / denominator);
    if constexpr (kMaster) master[i] = w;
    StoreRounded(w, param + i);
    StoreRounded(m_new, m + i);
    StoreRounded(v_new, v + i);
  }
}

// FP8-only weights, of valid arguments.
Status UpdateFloat8(const Exec& exec, const AdamWArgs& args);

}  // namespace te::adamw
