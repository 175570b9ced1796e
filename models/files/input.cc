#include "models/files/input.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include <charconv>
#include <cstring>
#include <string_view>

namespace te {
namespace {

const char* KindOf(const struct stat& info, int descriptor) {
  if (S_ISDIR(info.st_mode)) return "a directory";
  if (S_ISFIFO(info.st_mode)) return "a pipe";
  if (S_ISSOCK(info.st_mode)) return "a socket";
  if (descriptor >= 0 && isatty(descriptor) == 1) return "a terminal";
  return "a device";
}

Status Refuse(const std::string& path, const struct stat& info, int descriptor, InputUse use) {
  const char* kind = KindOf(info, descriptor);
  if (use == InputUse::kOnceInOrder) {
    return IoError("{}: is {}; expected a regular file or a pipe", path, kind);
  }
  if (S_ISFIFO(info.st_mode) || S_ISSOCK(info.st_mode)) {
    return IoError(
        "{}: is {}, not a regular file; what is read by position needs a file: write it to one "
        "first",
        path, kind);
  }
  return IoError("{}: is {}, not a regular file", path, kind);
}

// The number of a descriptor that the path stands for; -1: for none. A socket (standard input under
// some launchers) cannot be opened by such a name, and is duplicated.
int DescriptorNamedBy(std::string_view path) {
  if (path == "/dev/stdin") return STDIN_FILENO;
  for (std::string_view prefix : {"/dev/fd/", "/proc/self/fd/"}) {
    if (!path.starts_with(prefix)) continue;
    const char* end = path.data() + path.size();
    int number = -1;
    const auto [stop, error] = std::from_chars(path.data() + prefix.size(), end, number);
    if (error == std::errc() && stop == end) return number;
  }
  return -1;
}

bool MayBeRead(const struct stat& info, InputUse use) {
  if (S_ISREG(info.st_mode)) return true;
  return use == InputUse::kOnceInOrder && (S_ISFIFO(info.st_mode) || S_ISSOCK(info.st_mode));
}

}  // namespace

FileDescriptor::~FileDescriptor() {
  if (number_ >= 0) close(number_);
}

StatusOr<OpenedInput> OpenInput(const std::string& path, InputUse use) {
  const auto failed = [&path](int error) {
    if (error == ENOENT || error == ENOTDIR) return NotFound("{}: no such file", path);
    return IoError("{}: {}", path, std::strerror(error));
  };
  // Before it is opened: opening a pipe and closing it again would end its writer.
  OpenedInput input;
  if (stat(path.c_str(), &input.info) != 0) return failed(errno);
  if (S_ISFIFO(input.info.st_mode) && !MayBeRead(input.info, use))
    return Refuse(path, input.info, -1, use);
  // Without O_NONBLOCK a pipe waits for its writer. With it nothing that has taken a file's place
  // in the meantime can hang; regular files do not care.
  const int blocking = S_ISFIFO(input.info.st_mode) ? 0 : O_NONBLOCK;
  int number;
  do {
    number = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | blocking);
  } while (number < 0 && errno == EINTR);
  int error = errno;
  if (number < 0 && use == InputUse::kOnceInOrder && DescriptorNamedBy(path) >= 0) {
    number = fcntl(DescriptorNamedBy(path), F_DUPFD_CLOEXEC, 0);
  }
  if (number < 0) {
    return S_ISSOCK(input.info.st_mode) ? Refuse(path, input.info, -1, use) : failed(error);
  }
  input.descriptor = FileDescriptor(number);
  if (fstat(number, &input.info) != 0) return failed(errno);
  if (!MayBeRead(input.info, use)) return Refuse(path, input.info, number, use);
  if (!input.is_regular_file()) {
    const int flags = fcntl(number, F_GETFL);
    if (flags >= 0 && (flags & O_NONBLOCK) != 0 &&
        fcntl(number, F_SETFL, flags & ~O_NONBLOCK) != 0) {
      return failed(errno);
    }
  }
  return input;
}

Status CheckReadByPosition(const std::string& path, const OpenedInput& input) {
  if (input.is_regular_file()) return OkStatus();
  return Refuse(path, input.info, input.descriptor.get(), InputUse::kByPosition);
}

}  // namespace te
