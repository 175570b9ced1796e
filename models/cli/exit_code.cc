#include "models/cli/exit_code.h"

#include "models/cli/console.h"

namespace te {
namespace {

// A file name or a message of a library may hold control characters: they must not reach the
// terminal.
std::string OnOneLine(std::string text) {
  while (!text.empty() && text.back() == '\n') text.pop_back();
  std::string line;
  for (char c : text) {
    if (c == '\n') {
      line += "; ";
    } else {
      line += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c;
    }
  }
  return line;
}

}  // namespace

ExitCode ExitCodeOf(const Status& status) {
  switch (status.code()) {
    case StatusCode::kOk:
      return kExitOk;
    case StatusCode::kInvalidArgument:
    case StatusCode::kUnsupported:
    case StatusCode::kNotFound:
    case StatusCode::kIoError:
    case StatusCode::kCorruptData:
      return kExitUsage;
    case StatusCode::kOutOfMemory:
    case StatusCode::kFailedPrecondition:
    case StatusCode::kInternal:
      break;
  }
  return kExitFailed;
}

void PrintError(const std::string& program, const std::string& message) {
  PrintErrorText(program + ": error: " + OnOneLine(message) + "\n");
}

void PrintWarning(const std::string& message) {
  PrintErrorText("warning: " + OnOneLine(message) + "\n");
}

}  // namespace te
