#include "models/checkpoint/input_file.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>

namespace te {

StatusOr<InputFile> InputFile::Open(const std::string& path) {
  InputFile file;
  file.path_ = path;
  // O_NONBLOCK: a FIFO in a file's place must not hang the open; regular files do not care.
  file.fd_ = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file.fd_ < 0) {
    if (errno == ENOENT || errno == ENOTDIR) return NotFound("{}: no such file", path);
    return IoError("{}: {}", path, std::strerror(errno));
  }
  struct stat info;
  if (fstat(file.fd_, &info) != 0) return IoError("{}: {}", path, std::strerror(errno));
  if (!S_ISREG(info.st_mode)) return IoError("{}: not a regular file", path);
  file.size_ = static_cast<uint64_t>(info.st_size);
  return file;
}

InputFile::~InputFile() {
  if (fd_ >= 0) close(fd_);
}

InputFile::InputFile(InputFile&& other) noexcept
    : path_(std::move(other.path_)), fd_(std::exchange(other.fd_, -1)), size_(other.size_) {}

InputFile& InputFile::operator=(InputFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(fd_, other.fd_);
  std::swap(size_, other.size_);
  return *this;
}

Status InputFile::ReadAt(uint64_t offset, void* to, size_t bytes) const {
  // Linux moves at most 0x7ffff000 bytes a call anyway.
  constexpr size_t kMost = size_t{1} << 30;
  size_t done = 0;
  while (done < bytes) {
    const ssize_t n = pread(fd_, static_cast<char*>(to) + done, std::min(bytes - done, kMost),
                            static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0)
      return IoError("{}: reading byte {}: {}", path_, offset + done, std::strerror(errno));
    if (n == 0) {
      return IoError(
          "{}: ends at byte {} while byte {} is wanted; it had {} bytes when it was opened", path_,
          offset + done, offset + bytes, size_);
    }
    done += static_cast<size_t>(n);
  }
  return OkStatus();
}

}  // namespace te
