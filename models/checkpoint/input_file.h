// A regular file opened for reading by position.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "models/files/input.h"
#include "te_kernels/base/status.h"

namespace te {

// Move-only; closes at the end. Reads from several threads may run at once. pread and not mmap: a
// file that shrinks while it is mapped would be a SIGBUS, here it is an error.
class InputFile {
 public:
  InputFile() = default;
  // Follows symbolic links (a hub snapshot is made of them). kNotFound, kIoError; the message names
  // the path.
  static StatusOr<InputFile> Open(const std::string& path);
  // Of an input that has been opened already. kIoError when it is no regular file.
  static StatusOr<InputFile> FromOpened(const std::string& path, OpenedInput input);

  const std::string& path() const { return path_; }
  uint64_t size() const { return size_; }  // when it was opened
  int descriptor() const { return descriptor_.get(); }

  // Exactly `bytes` bytes from `offset` on.
  Status ReadAt(uint64_t offset, void* to, size_t bytes) const;

 private:
  std::string path_;
  FileDescriptor descriptor_;
  uint64_t size_ = 0;
};

}  // namespace te
