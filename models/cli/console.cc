#include "models/cli/console.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>

#include "fmt/format.h"
#include "models/cli/exit_code.h"

namespace te {
namespace {

// A standard stream, by its descriptor: no buffer of ours can be lost at the end, and a failure has
// its errno.
class Stream {
 public:
  explicit Stream(int descriptor) : descriptor_(descriptor) {}

  void Write(std::string_view text) {
    while (!text.empty() && !reader_left_) {
      const ssize_t count = write(descriptor_, text.data(), text.size());
      if (count >= 0) {
        text.remove_prefix(static_cast<size_t>(count));
      } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
        // Another program has made the pipe or terminal that we share one that does not block.
        pollfd wait = {.fd = descriptor_, .events = POLLOUT, .revents = 0};
        poll(&wait, 1, -1);
      } else if (errno == EPIPE) {
        reader_left_ = true;
      } else if (errno != EINTR) {
        if (error_ == 0) error_ = errno;
        return;  // later text may fit again: a full disk need not stay full
      }
    }
  }

  bool reader_left() const { return reader_left_; }
  int error() const { return error_; }  // of the first write that failed; 0: none

 private:
  int descriptor_;
  bool reader_left_ = false;
  int error_ = 0;
};

// The process has one of each, and so has this file.
Stream& StandardOutput() {
  static Stream stream(STDOUT_FILENO);
  return stream;
}
Stream& StandardError() {
  static Stream stream(STDERR_FILENO);
  return stream;
}

}  // namespace

void PrepareStandardStreams() {
  for (const int descriptor : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (fcntl(descriptor, F_GETFD) >= 0) continue;
    // Opened the wrong way round: using it fails as using a closed one does. The lowest free number
    // is this one, as those below it are open by now.
    static_cast<void>(open("/dev/null", descriptor == STDIN_FILENO ? O_WRONLY : O_RDONLY));
  }
  signal(SIGPIPE, SIG_IGN);
  signal(SIGXFSZ, SIG_IGN);
}

void PrintText(std::string_view text) { StandardOutput().Write(text); }

void PrintFormatted(fmt::string_view format, fmt::format_args args) {
  PrintText(fmt::vformat(format, args));
}

void PrintErrorText(std::string_view text) { StandardError().Write(text); }

bool OutputIsLost() { return StandardOutput().reader_left() || StandardOutput().error() != 0; }

int EndOutput(const std::string& program, int code, bool report) {
  const int out = StandardOutput().error();
  if (out != 0) {
    PrintError(program,
               fmt::format("standard output: {}: a part of it is lost", std::strerror(out)));
  }
  const int err = StandardError().error();
  if (err != 0 && report) {
    Print("{}: standard error: {}: messages are lost\n", program, std::strerror(err));
  }
  return code == kExitOk && (out != 0 || err != 0) ? kExitFailed : code;
}

}  // namespace te
