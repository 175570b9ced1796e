// What te prints: the one place that writes to standard output and standard error.
#pragma once

#include <string>
#include <string_view>

#include "fmt/core.h"

namespace te {

// For the beginning of main. A standard descriptor that is closed is taken, so that no file of ours
// gets its number and finds our messages in it; and SIGPIPE and SIGXFSZ are ignored: what cannot be
// written is an error of that write, not the end of the run.
void PrepareStandardStreams();

// Writes to standard output, at once. Never fails: what could not be written is remembered.
void PrintText(std::string_view text);
void PrintFormatted(fmt::string_view format, fmt::format_args args);
template <typename... Args>
void Print(fmt::format_string<Args...> format, Args&&... args) {
  PrintFormatted(format, fmt::make_format_args(args...));
}
// The same to standard error.
void PrintErrorText(std::string_view text);

// Whether nothing that is printed arrives any more: its reader has left, or it could not be
// written.
bool OutputIsLost();

// The exit code of a command that ends with `code`: where output was lost, that is said if it can
// be, and a success becomes a failure. A pipe whose reader has left (`te inspect | head`) is no
// loss: nobody is there who could miss it. `report`: standard output is for people, so that it may
// say what happened to standard error.
int EndOutput(const std::string& program, int code, bool report);

}  // namespace te
