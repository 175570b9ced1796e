// Ctrl-C that lets the work at hand end.
#pragma once

#include <signal.h>

namespace te {

// While it lives, the first SIGINT or SIGTERM only sets a flag and says so on stderr; the second
// ends the process at once. One at a time in a process; for the main thread.
class InterruptGuard {
 public:
  InterruptGuard();
  ~InterruptGuard();
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;

  bool interrupted() const;

 private:
  struct sigaction old_int_ {};
  struct sigaction old_term_ {};
};

}  // namespace te
