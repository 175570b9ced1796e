// What a run shows while algorithms are searched: one line that is drawn over on a terminal, a line
// every few seconds elsewhere; nothing of searches that nobody waits for.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <utility>

#include "te_core/context.h"

namespace te {

class SearchDisplay {
 public:
  // `write`, `terminal`: as ProgressDisplay.
  using Write = std::function<void(std::string_view text)>;
  SearchDisplay(Write write, bool terminal) : write_(std::move(write)), terminal_(terminal) {}

  // Watches the context's searches. The display must outlive the watching: Stop, or the context's
  // end.
  void Watch(Context* context);
  void Stop(Context* context);

  void OnSearch(const SearchProgress& progress);
  // After a step: a line that says how many algorithms were found since the last one, how long it
  // took and, unless `kept_in` is empty, where they are kept; nothing where it took no time to
  // speak of.
  void Report(const std::string& kept_in);

 private:
  Write write_;
  bool terminal_;
  bool open_ = false;
  SearchTotals reported_, totals_;
  double shown_seconds_ = 0;
};

}  // namespace te
