// What `te` returns to the shell, and how it says what went wrong.
#pragma once

#include <string>

#include "te_kernels/base/status.h"

namespace te {

inline constexpr char kTeVersion[] = "0.1.0";

enum ExitCode : int {
  kExitOk = 0,
  kExitFailed = 1,         // the machine's or our own fault: no memory, training diverged, a bug
  kExitUsage = 2,          // the caller can set it right: flags, files, checkpoints
  kExitInterrupted = 130,  // as shells report SIGINT
};

ExitCode ExitCodeOf(const Status& status);
// "te finetune: error: MESSAGE" on stderr, on one line.
void PrintError(const std::string& program, const std::string& message);
// "warning: MESSAGE" on stderr, on one line.
void PrintWarning(const std::string& message);

}  // namespace te
