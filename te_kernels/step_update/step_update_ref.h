// Reference of step_update.h: its equations.
#pragma once

#include <algorithm>
#include <cmath>

#include "te_kernels/base/step_scalars.h"

namespace te {

inline StepScalars StepUpdateRef(StepScalars s, double max_grad_norm, uint64_t rng_advance) {
  s.skip = s.token_count == 0;
  if (s.skip) return s;
  const double n = static_cast<double>(s.token_count) * s.loss_scale;
  const double norm = std::sqrt(s.grad_square_sum) / n;
  const double clip = max_grad_norm == 0 ? 1 : std::min(1.0, max_grad_norm / (norm + 1e-6));
  s.grad_scale = static_cast<float>(clip / n);
  s.step += 1;
  s.rng_offset += rng_advance;
  return s;
}

}  // namespace te
