#include "models/checkpoint/output_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <utility>

#include "models/files/output_path.h"
#include "models/files/path_lock.h"

namespace te {

StatusOr<OutputFile> OutputFile::Create(const std::string& path, bool replace) {
  OutputFile file;
  file.path_ = path;
  file.fd_ =
      open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | (replace ? O_TRUNC : O_EXCL), 0666);
  if (file.fd_ < 0) return IoError("{}: cannot create the file: {}", path, std::strerror(errno));
  return file;
}

OutputFile::~OutputFile() {
  if (fd_ >= 0) close(fd_);
}

OutputFile::OutputFile(OutputFile&& other) noexcept
    : path_(std::move(other.path_)), fd_(std::exchange(other.fd_, -1)) {}

OutputFile& OutputFile::operator=(OutputFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(fd_, other.fd_);
  return *this;
}

Status OutputFile::Write(const void* bytes, size_t count) {
  constexpr size_t kMost = size_t{1} << 30;
  size_t done = 0;
  while (done < count) {
    const ssize_t n =
        write(fd_, static_cast<const char*>(bytes) + done, std::min(count - done, kMost));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return IoError("{}: writing: {}", path_, std::strerror(errno));
    done += static_cast<size_t>(n);
  }
  return OkStatus();
}

Status OutputFile::Finish() {
  if (fsync(fd_) != 0) return IoError("{}: fsync: {}", path_, std::strerror(errno));
  // Not retried on EINTR: on Linux the descriptor is gone in any case.
  if (close(std::exchange(fd_, -1)) != 0 && errno != EINTR) {
    return IoError("{}: close: {}", path_, std::strerror(errno));
  }
  return OkStatus();
}

Status SyncDirectory(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return IoError("{}: {}", path, std::strerror(errno));
  const int result = fsync(fd);
  const int error = errno;
  close(fd);
  // Some file systems cannot sync a directory and say EINVAL: nothing more can be done there.
  if (result != 0 && error != EINVAL) return IoError("{}: fsync: {}", path, std::strerror(error));
  return OkStatus();
}

Status ReplaceFile(const std::string& path,
                   const std::function<Status(const std::string& path)>& write) {
  TE_ASSIGN_OR_RETURN(const std::string target, ResolveOutput(path));
  TE_ASSIGN_OR_RETURN(const PathLock lock, PathLock::Acquire(target, kSavePatience));
  struct stat old;
  const bool replaces = lstat(target.c_str(), &old) == 0;
  if (replaces && !S_ISREG(old.st_mode)) {
    return IoError("{}: not a regular file: it cannot be replaced by one", path);
  }
  const std::string fresh = target + kFreshSuffix;
  unlink(fresh.c_str());  // of a run that was killed
  Status status = write(fresh);
  if (status.ok() && replaces && chmod(fresh.c_str(), old.st_mode & 07777) != 0)
    status = IoError("{}: {}", fresh, std::strerror(errno));
  if (status.ok() && rename(fresh.c_str(), target.c_str()) != 0)
    status = IoError("{}: cannot be replaced: {}", path, std::strerror(errno));
  if (!status.ok()) {
    unlink(fresh.c_str());
    return status;
  }
  return SyncDirectory(std::filesystem::path(target).parent_path().string());
}

Status CheckReplaceable(const std::string& path) {
  TE_ASSIGN_OR_RETURN(const std::string target, ResolveOutput(path));
  struct stat old;
  if (lstat(target.c_str(), &old) == 0 && !S_ISREG(old.st_mode)) {
    return IoError("{}: {}", path,
                   S_ISDIR(old.st_mode) ? "is a directory; expected the name of a file"
                                        : "not a regular file: it cannot be replaced by one");
  }
  const std::string folder = std::filesystem::path(target).parent_path().string();
  if (access(folder.c_str(), W_OK | X_OK) != 0)
    return IoError("{}: cannot make a file in {}: {}", path, folder, std::strerror(errno));
  return OkStatus();
}

}  // namespace te
