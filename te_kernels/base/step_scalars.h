// The numbers of one optimizer step, in one struct of device memory: a captured graph reads them
// through a pointer and never changes.
#pragma once

#include <cmath>
#include <cstdint>

namespace te {

struct StepScalars {
  double loss_sum = 0;  // over counted tokens, micro-batches and ranks
  int64_t token_count =
      0;             // counted (label != ignore_index) tokens behind loss_sum and the gradients
  int64_t step = 0;  // AdamW's t, 1 for the first update
  uint64_t rng_offset = 0;     // advanced once a step: dropout, stochastic rounding
  double grad_square_sum = 0;  // squared 2-norm of the raw (summed) gradients
  float learning_rate = 0;
  float grad_scale = 1;  // gradients are multiplied by this: clip / (token_count * loss_scale)
  float loss_scale = 1;
  int32_t skip = 0;  // nonzero: the update leaves everything as it is
};

// 2-norm of the mean gradient before clipping, for a host copy of scalars whose grad_square_sum is
// there; 0 without tokens.
inline double GradNorm(const StepScalars& scalars) {
  const double n = static_cast<double>(scalars.token_count) * scalars.loss_scale;
  return n == 0 ? 0 : std::sqrt(scalars.grad_square_sum) / n;
}

}  // namespace te
