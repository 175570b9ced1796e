// Opening what is read: every input passes here, so that what cannot be read as it will be is
// refused by its kind, and nothing hangs, or comes back cut, because a pipe stands in a file's
// place.
#pragma once

#include <sys/stat.h>

#include <string>
#include <utility>

#include "te_kernels/base/status.h"

namespace te {

// Move-only; closes at the end.
class FileDescriptor {
 public:
  FileDescriptor() = default;
  explicit FileDescriptor(int number) : number_(number) {}
  ~FileDescriptor();
  FileDescriptor(FileDescriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept {
    std::swap(number_, other.number_);
    return *this;
  }
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;

  int get() const { return number_; }
  bool open() const { return number_ >= 0; }

 private:
  int number_ = -1;
};

enum class InputUse {
  kByPosition,   // any byte at any time, perhaps twice: a regular file alone
  kOnceInOrder,  // from the first byte to the last: a pipe or a socket, too
};

struct OpenedInput {
  FileDescriptor descriptor;
  struct stat info {};  // when it was opened

  bool is_regular_file() const { return S_ISREG(info.st_mode); }
};

// Follows symbolic links (a hub snapshot is made of them). A named pipe that is read in order waits
// for its writer. kNotFound, kIoError; the message names the path and, where that is refused, what
// stands there: a pipe, a directory, a terminal, a device.
StatusOr<OpenedInput> OpenInput(const std::string& path, InputUse use);

// Whether an input that was opened to be read in order can be read by position, too: kIoError, with
// the path and its kind, when it is no regular file.
Status CheckReadByPosition(const std::string& path, const OpenedInput& input);

}  // namespace te
