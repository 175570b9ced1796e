// How long searches may take: what all of one context take together, and how much of it the next
// one gets.
#pragma once

#include "te_kernels/device/search_progress.h"

namespace te::cuda {

class SearchBudget {
 public:
  explicit SearchBudget(double limit_seconds = SearchSettings().limit_seconds)
      : limit_seconds_(limit_seconds) {}

  void set_limit_seconds(double seconds) { limit_seconds_ = seconds; }
  double limit_seconds() const { return limit_seconds_; }

  // Milliseconds for the next search. How many will follow is not known (a step of a Llama has some
  // 16), so none takes more than a sixth of what is left: late ones are short, but not without.
  double Allowance() const;

  // Begin is given the host's clock in milliseconds, and so is End.
  void Begin(double now);
  void End(double now);
  // Whether the last search has ended so lately that the card still has the clock it ended with.
  bool IsHot(double now) const;

  const SearchTotals& totals() const { return totals_; }
  double last_seconds() const { return last_seconds_; }

 private:
  double limit_seconds_;
  double begun_ = 0;
  double ended_ = -1e9;
  double last_seconds_ = 0;
  SearchTotals totals_;
};

}  // namespace te::cuda
