#include "models/checkpoint/input_file.h"

#include <errno.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>

namespace te {

StatusOr<InputFile> InputFile::Open(const std::string& path) {
  TE_ASSIGN_OR_RETURN(OpenedInput input, OpenInput(path, InputUse::kByPosition));
  return FromOpened(path, std::move(input));
}

StatusOr<InputFile> InputFile::FromOpened(const std::string& path, OpenedInput input) {
  TE_RETURN_IF_ERROR(CheckReadByPosition(path, input));
  InputFile file;
  file.path_ = path;
  file.descriptor_ = std::move(input.descriptor);
  file.size_ = static_cast<uint64_t>(input.info.st_size);
  return file;
}

Status InputFile::ReadAt(uint64_t offset, void* to, size_t bytes) const {
  // Linux moves at most 0x7ffff000 bytes a call anyway.
  constexpr size_t kMost = size_t{1} << 30;
  size_t done = 0;
  while (done < bytes) {
    const ssize_t n = pread(descriptor_.get(), static_cast<char*>(to) + done,
                            std::min(bytes - done, kMost), static_cast<off_t>(offset + done));
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
