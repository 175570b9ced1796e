// What a search for the fastest of several ways to compute one thing tells whoever waits for it.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace te {

// Of all searches of one context.
struct SearchTotals {
  int64_t searches = 0;  // that have ended
  double seconds = 0;    // in them
};

struct SearchProgress {
  std::string problem;       // "matmul TN 4096x2048x4096 ...", "attention forward ..."
  bool ended = false;        // false: it begins
  double seconds = 0;        // of this search, at its end
  double build_seconds = 0;  // of those, making what was timed
  int candidates = 0;        // at its end: how many were looked at
  SearchTotals totals;       // this one included once it has ended
  double limit_seconds = 0;  // that all searches together may take
};

// Called between two pieces of a search, on the thread that runs the operation; must not call the
// device.
using SearchObserver = std::function<void(const SearchProgress&)>;

struct SearchSettings {
  // What searches of one context take together, about: when it is used up, what is new is chosen
  // by a look of some milliseconds.
  double limit_seconds = 12;
  // Each problem is searched by itself. Otherwise a product that differs from one that has a choice
  // in its tokens alone, by a factor of two at most, takes that choice after a look of some
  // milliseconds.
  bool thorough = false;
  SearchObserver observer = nullptr;  // null: nobody waits
};

}  // namespace te
