#include "te_kernels/cuda/search_budget.h"

#include <algorithm>

namespace te::cuda {
namespace {

constexpr double kMostOfOneMs = 750;
constexpr double kMostOfTheRest = 1.0 / 6;
// The clock settles within 60 to 90 ms, in either direction (bench/notes.md, section 9).
constexpr double kHotMs = 60;

}  // namespace

double SearchBudget::Allowance() const {
  const double left = std::max(0.0, limit_seconds_ - totals_.seconds) * 1e3;
  return std::min(kMostOfOneMs, left * kMostOfTheRest);
}

void SearchBudget::Begin(double now) { begun_ = now; }

void SearchBudget::End(double now) {
  ended_ = now;
  last_seconds_ = (now - begun_) / 1e3;
  totals_.seconds += last_seconds_;
  ++totals_.searches;
}

bool SearchBudget::IsHot(double now) const { return now - ended_ < kHotMs; }

}  // namespace te::cuda
