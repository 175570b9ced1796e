#include "models/cli/interrupt.h"

#include <unistd.h>

#include <cerrno>

namespace te {
namespace {

// The one thing that a signal handler can reach; it is the process's, as signals are.
volatile sig_atomic_t interrupt_flag = 0;

void OnInterrupt(int signal_number) {
  const int saved_errno = errno;
  interrupt_flag = 1;
  constexpr char kMessage[] = "\ninterrupted: stopping after this step (once more: at once)\n";
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, kMessage, sizeof(kMessage) - 1);
  signal(signal_number, SIG_DFL);
  errno = saved_errno;
}

}  // namespace

InterruptGuard::InterruptGuard() {
  interrupt_flag = 0;
  struct sigaction action {};
  action.sa_handler = OnInterrupt;
  action.sa_flags = SA_RESTART;
  sigaction(SIGINT, &action, &old_int_);
  sigaction(SIGTERM, &action, &old_term_);
}

InterruptGuard::~InterruptGuard() {
  sigaction(SIGINT, &old_int_, nullptr);
  sigaction(SIGTERM, &old_term_, nullptr);
}

bool InterruptGuard::interrupted() const { return interrupt_flag != 0; }

}  // namespace te
