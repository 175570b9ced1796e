#include "models/train/lr_schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace te {

const char* Name(LrScheduleKind kind) {
  switch (kind) {
    case LrScheduleKind::kLinear:
      return "linear";
    case LrScheduleKind::kCosine:
      return "cosine";
    case LrScheduleKind::kConstant:
      return "constant";
  }
  return "unknown";
}

StatusOr<LrScheduleKind> ParseLrScheduleKind(std::string_view name) {
  for (LrScheduleKind kind :
       {LrScheduleKind::kLinear, LrScheduleKind::kCosine, LrScheduleKind::kConstant}) {
    if (name == Name(kind)) return kind;
  }
  return InvalidArgument("learning-rate schedule is \"{}\"; expected linear, cosine or constant",
                         name);
}

double LrSchedule::At(int64_t k) const {
  if (k < warmup_steps) {
    return learning_rate * (static_cast<double>(k) / static_cast<double>(warmup_steps));
  }
  // The reference divides by max(1, ...), too: a run that ends with its warm-up has nothing to
  // decay over.
  const double span = static_cast<double>(std::max<int64_t>(1, steps - warmup_steps));
  switch (kind) {
    case LrScheduleKind::kLinear:
      return learning_rate * std::max(0.0, static_cast<double>(steps - k) / span);
    case LrScheduleKind::kCosine: {
      const double progress = static_cast<double>(k - warmup_steps) / span;
      return learning_rate * std::max(0.0, 0.5 * (1.0 + std::cos(std::numbers::pi * progress)));
    }
    case LrScheduleKind::kConstant:
      break;
  }
  return learning_rate;
}

double LrSchedule::Peak() const {
  // Every kind rises until the warm-up ends and does not rise again within the run.
  return steps < 1 ? 0.0 : At(std::min(warmup_steps, steps - 1));
}

}  // namespace te
