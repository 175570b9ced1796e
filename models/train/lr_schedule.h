// Learning-rate schedules with warm-up: transformers' get_linear_, get_cosine_ and
// get_constant_schedule_with_warmup.
#pragma once

#include <cstdint>
#include <string_view>

#include "te_kernels/base/status.h"

namespace te {

enum class LrScheduleKind { kLinear, kCosine, kConstant };
const char* Name(LrScheduleKind kind);
StatusOr<LrScheduleKind> ParseLrScheduleKind(std::string_view name);  // kInvalidArgument lists them

struct LrSchedule {
  LrScheduleKind kind = LrScheduleKind::kLinear;
  double learning_rate = 1.41e-5;  // reached at the end of the warm-up
  int64_t warmup_steps = 100;
  int64_t steps = 15;  // updates in all

  // Of update k, counted from 0. While k < warmup_steps: learning_rate * k / warmup_steps. Then,
  // with p = (k - warmup_steps) / (steps - warmup_steps): linear learning_rate * (1 - p), cosine
  // learning_rate * (1 + cos(pi p)) / 2, constant learning_rate.
  double At(int64_t k) const;
  // The largest rate that updates 0 .. steps - 1 run at; 0 without steps.
  double Peak() const;
};

}  // namespace te
