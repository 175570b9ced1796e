#include "models/checkpoint/directory_replacement.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <random>
#include <utility>
#include <vector>

#include "models/checkpoint/input_file.h"
#include "models/checkpoint/output_file.h"

namespace te {
namespace {

namespace fs = std::filesystem;

constexpr char kMark[] = ".te-save-";
constexpr size_t kRandomLetters = 8;

std::string Prefix(const std::string& target) {
  return fmt::format(".{}{}", fs::path(target).filename().string(), kMark);
}

bool IsLeftover(const std::string& name, const std::string& prefix) {
  return name.size() == prefix.size() + kRandomLetters && name.starts_with(prefix) &&
         name.find_first_not_of("abcdefghijklmnopqrstuvwxyz", prefix.size()) == std::string::npos;
}

// A new directory with the umask's mode (mkdtemp's is 0700).
Status MakeTemporary(const std::string& parent, const std::string& prefix, std::string* path) {
  std::random_device random;
  for (int attempt = 0; attempt < 100; ++attempt) {
    std::string name = prefix;
    for (size_t i = 0; i < kRandomLetters; ++i) name += static_cast<char>('a' + random() % 26);
    *path = parent + "/" + name;
    if (mkdir(path->c_str(), 0777) == 0) return OkStatus();
    if (errno != EEXIST) break;
  }
  const int error = errno;
  path->clear();
  return IoError("{}: cannot make a directory in it: {}", parent, std::strerror(error));
}

// Held by the descriptor until the process ends, however it ends.
int LockDirectory(const std::string& path, bool* busy) {
  *busy = false;
  const int fd = open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) return -1;
  if (flock(fd, LOCK_EX | LOCK_NB) == 0) return fd;
  *busy = errno == EWOULDBLOCK;
  close(fd);
  return -1;
}

void RemoveTree(const std::string& path) {
  std::error_code ignored;  // what stays behind is removed by the next run
  fs::remove_all(path, ignored);
}

void RemoveLeftovers(const std::string& parent, const std::string& prefix) {
  std::error_code error;
  std::vector<std::string> found;
  for (const auto& item : fs::directory_iterator(parent, error)) {
    if (IsLeftover(item.path().filename().string(), prefix)) found.push_back(item.path().string());
  }
  for (const std::string& path : found) {
    bool busy;
    const int lock = LockDirectory(path, &busy);
    if (lock < 0) continue;  // being written, or no lock to be had: not ours to judge
    RemoveTree(path);
    close(lock);
  }
}

int Exchange(const std::string& a, const std::string& b) {
  return renameat2(AT_FDCWD, a.c_str(), AT_FDCWD, b.c_str(), RENAME_EXCHANGE);
}

Status CheckExchange(const std::string& parent, const std::string& prefix) {
  int error = ENOENT;
  // Where the file system has no locks, another run may take a probe for a leftover, and remove it.
  for (int attempt = 0; attempt < 10 && error == ENOENT; ++attempt) {
    std::string a, b;
    TE_RETURN_IF_ERROR(MakeTemporary(parent, prefix, &a));
    const Status made = MakeTemporary(parent, prefix, &b);
    error = made.ok() && Exchange(a, b) != 0 ? errno : 0;
    rmdir(a.c_str());
    if (!b.empty()) rmdir(b.c_str());
    TE_RETURN_IF_ERROR(made);
  }
  if (error == 0) return OkStatus();
  return Unsupported(
      "{}: the file system cannot exchange two directories at once ({}); save into a directory "
      "that does not exist yet",
      parent, std::strerror(error));
}

Status Resolve(const std::string& given, std::string* target, std::string* parent, bool* exists) {
  if (given.empty()) return InvalidArgument("the output directory is \"\"; expected a path");
  struct stat info;
  *exists = stat(given.c_str(), &info) == 0;
  if (!*exists && errno != ENOENT) return IoError("{}: {}", given, std::strerror(errno));
  std::error_code error;
  if (*exists) {
    if (!S_ISDIR(info.st_mode)) return InvalidArgument("{}: not a directory", given);
    *target = fs::canonical(given, error).string();
    if (error) return IoError("{}: {}", given, error.message());
    *parent = fs::path(*target).parent_path().string();
  } else {
    fs::path path = fs::absolute(given, error).lexically_normal();
    if (!path.has_filename()) path = path.parent_path();  // a slash at the end
    if (fs::is_symlink(fs::symlink_status(path, error))) {
      return InvalidArgument("{}: a symbolic link that leads nowhere", given);
    }
    fs::create_directories(path.parent_path(), error);
    if (error) return IoError("{}: {}", path.parent_path().string(), error.message());
    *parent = fs::canonical(path.parent_path(), error).string();
    if (error) return IoError("{}: {}", path.parent_path().string(), error.message());
    *target = *parent + "/" + path.filename().string();
  }
  if (fs::path(*target).filename().empty()) return InvalidArgument("{}: cannot be replaced", given);
  if (!*exists) return OkStatus();
  struct stat above;
  if (stat(parent->c_str(), &above) == 0 && above.st_dev != info.st_dev) {
    return InvalidArgument(
        "{}: a mount point, which cannot be replaced as a whole; save into a directory inside it",
        given);
  }
  return OkStatus();
}

Status LinkOrCopy(const fs::path& from, const fs::path& to);

Status KeepTree(const fs::path& from, const fs::path& to) {
  std::error_code error;
  for (const auto& item : fs::directory_iterator(from, error)) {
    TE_RETURN_IF_ERROR(LinkOrCopy(item.path(), to / item.path().filename()));
  }
  return error ? IoError("{}: {}", from.string(), error.message()) : OkStatus();
}

Status LinkOrCopy(const fs::path& from, const fs::path& to) {
  std::error_code error;
  const fs::file_status status = fs::symlink_status(from, error);
  if (fs::is_symlink(status)) {
    fs::copy_symlink(from, to, error);
  } else if (fs::is_directory(status)) {
    fs::create_directory(to, from, error);  // with its mode
    if (!error) {
      TE_RETURN_IF_ERROR(KeepTree(from, to));
      return SyncDirectory(to.string());
    }
  } else if (fs::is_regular_file(status)) {
    if (link(from.c_str(), to.c_str()) == 0) return OkStatus();
    return CopyFile(from.string(), to.string());
  } else if (!error) {
    return InvalidArgument("{}: neither file, link nor directory: it would be lost; move it away",
                           from.string());
  }
  return error ? IoError("{}: {}", from.string(), error.message()) : OkStatus();
}

}  // namespace

Status CopyFile(const std::string& from, const std::string& to) {
  TE_ASSIGN_OR_RETURN(const InputFile input, InputFile::Open(from));
  TE_ASSIGN_OR_RETURN(OutputFile output, OutputFile::Create(to));
  std::vector<char> buffer(
      static_cast<size_t>(std::min<uint64_t>(input.size(), uint64_t{1} << 20)));
  for (uint64_t at = 0; at < input.size(); at += buffer.size()) {
    const size_t count = static_cast<size_t>(std::min<uint64_t>(buffer.size(), input.size() - at));
    TE_RETURN_IF_ERROR(input.ReadAt(at, buffer.data(), count));
    TE_RETURN_IF_ERROR(output.Write(buffer.data(), count));
  }
  return output.Finish();
}

StatusOr<PathLock> LockDirectoryForSaving(const std::string& target,
                                          std::chrono::milliseconds patience) {
  std::string resolved, parent;
  bool exists = false;
  TE_RETURN_IF_ERROR(Resolve(target, &resolved, &parent, &exists));
  return PathLock::Acquire(resolved, patience);
}

StatusOr<DirectoryReplacement> DirectoryReplacement::Begin(
    const std::string& target, const std::function<Status(const std::string&)>& may_replace,
    const PathLock* held) {
  DirectoryReplacement out;
  if (held == nullptr) {
    TE_ASSIGN_OR_RETURN(out.whole_, LockDirectoryForSaving(target, kSavePatience));
  }
  // Under the lock: the run that had it may have made the directory meanwhile.
  TE_RETURN_IF_ERROR(Resolve(target, &out.target_, &out.parent_, &out.target_exists_));
  if (out.target_exists_) {
    std::error_code error;
    const bool empty = fs::is_empty(out.target_, error);
    if (error) return IoError("{}: {}", target, error.message());
    if (!empty) TE_RETURN_IF_ERROR(may_replace(out.target_));
  }
  const std::string prefix = Prefix(out.target_);
  RemoveLeftovers(out.parent_, prefix);
  if (out.target_exists_) TE_RETURN_IF_ERROR(CheckExchange(out.parent_, prefix));
  // Between mkdir and the lock another run may take the new directory for a leftover: then there is
  // no directory to lock.
  for (int attempt = 0; attempt < 10; ++attempt) {
    TE_RETURN_IF_ERROR(MakeTemporary(out.parent_, prefix, &out.temporary_));
    bool busy;
    out.lock_ = LockDirectory(out.temporary_, &busy);
    struct stat by_name, by_lock;
    const bool there = stat(out.temporary_.c_str(), &by_name) == 0;
    if (there && out.lock_ < 0 && !busy) break;  // a file system without locks
    if (there && out.lock_ >= 0 && fstat(out.lock_, &by_lock) == 0 &&
        by_lock.st_ino == by_name.st_ino)
      break;
    if (out.lock_ >= 0) close(std::exchange(out.lock_, -1));
    out.temporary_.clear();
  }
  if (out.temporary_.empty())
    return IoError("{}: another process keeps removing our new directory", out.parent_);
  struct stat info;
  if (out.target_exists_ && stat(out.target_.c_str(), &info) == 0 &&
      chmod(out.temporary_.c_str(), info.st_mode & 07777) != 0) {
    return IoError("{}: {}", out.temporary_, std::strerror(errno));
  }
  return out;
}

DirectoryReplacement::DirectoryReplacement(DirectoryReplacement&& other) noexcept
    : whole_(std::move(other.whole_)),
      target_(std::move(other.target_)),
      parent_(std::move(other.parent_)),
      temporary_(std::exchange(other.temporary_, {})),
      lock_(std::exchange(other.lock_, -1)),
      target_exists_(other.target_exists_) {}

DirectoryReplacement::~DirectoryReplacement() {
  if (!temporary_.empty()) RemoveTree(temporary_);
  if (lock_ >= 0) close(lock_);
}

Status DirectoryReplacement::KeepOthers(const std::function<bool(const std::string&)>& drop) {
  if (!target_exists_) return OkStatus();
  std::error_code error;
  for (const auto& item : fs::directory_iterator(target_, error)) {
    const fs::path name = item.path().filename();
    const fs::path to = fs::path(temporary_) / name;
    std::error_code ignored;
    if (drop(name.string()) || fs::exists(fs::symlink_status(to, ignored))) continue;
    TE_RETURN_IF_ERROR(LinkOrCopy(item.path(), to));
  }
  return error ? IoError("{}: {}", target_, error.message()) : OkStatus();
}

Status DirectoryReplacement::Commit() {
  TE_RETURN_IF_ERROR(SyncDirectory(temporary_));
  int result;
  if (target_exists_) {
    result = Exchange(temporary_, target_);
  } else {
    result = renameat2(AT_FDCWD, temporary_.c_str(), AT_FDCWD, target_.c_str(), RENAME_NOREPLACE);
    // Not every file system knows the flag; rename replaces an empty directory at most.
    if (result != 0 && errno == EINVAL) result = rename(temporary_.c_str(), target_.c_str());
  }
  if (result != 0)
    return IoError("{}: putting the new directory in place: {}", target_, std::strerror(errno));
  const std::string old = std::exchange(temporary_, {});
  const Status synced = SyncDirectory(parent_);
  if (target_exists_) RemoveTree(old);
  return synced.WithContext("the new directory is in place, but a power failure could undo it");
}

}  // namespace te
