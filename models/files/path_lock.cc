#include "models/files/path_lock.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <string_view>
#include <thread>
#include <utility>

namespace te {
namespace {

constexpr std::string_view kProcess = "process ";
constexpr std::string_view kOn = " on ";

std::string HostName() {
  char name[256] = {};
  return gethostname(name, sizeof(name) - 1) == 0 && name[0] != '\0' ? name : "an unknown host";
}

std::string LockFile(const std::string& path) {
  const std::filesystem::path whole(path);
  return (whole.parent_path() / fmt::format(".{}.te-lock", whole.filename().string())).string();
}

// A link is never followed, and another user's file need only be readable: who may write the folder
// may lock.
FileDescriptor OpenLockFile(const std::string& file) {
  constexpr int kFlags = O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
  int number = open(file.c_str(), O_RDWR | O_CREAT | kFlags, 0666);
  if (number < 0 && errno == EACCES) number = open(file.c_str(), O_RDONLY | kFlags);
  return FileDescriptor(number);
}

// Between open and flock the holder before us may have removed the file.
bool IsStillThere(const std::string& file, int descriptor) {
  struct stat by_name, by_lock;
  return lstat(file.c_str(), &by_name) == 0 && fstat(descriptor, &by_lock) == 0 &&
         by_name.st_dev == by_lock.st_dev && by_name.st_ino == by_lock.st_ino;
}

void WriteHolder(int descriptor) {
  const std::string text = fmt::format("{}{}{}{}\n", kProcess, getpid(), kOn, HostName());
  // It is for a message alone.
  [[maybe_unused]] bool written =
      ftruncate(descriptor, 0) == 0 &&
      pwrite(descriptor, text.data(), text.size(), 0) == static_cast<ssize_t>(text.size());
}

// "process 123 on gpu1", as its lock file says; "another process" when that cannot be right.
std::string ReadHolder(int descriptor) {
  const std::string unknown = "another process";
  char bytes[256];
  const ssize_t count = pread(descriptor, bytes, sizeof(bytes), 0);
  if (count <= 0) return unknown;
  std::string_view text(bytes, static_cast<size_t>(count));
  text = text.substr(0, text.find('\n'));
  const auto printable = [](char c) { return c >= 0x20 && c < 0x7f; };
  if (!text.starts_with(kProcess) || !std::all_of(text.begin(), text.end(), printable))
    return unknown;
  const std::string_view rest = text.substr(kProcess.size());
  int process = 0;
  const auto [stop, error] = std::from_chars(rest.data(), rest.data() + rest.size(), process);
  const std::string_view host = rest.substr(static_cast<size_t>(stop - rest.data()));
  if (error != std::errc() || process <= 0 || !host.starts_with(kOn)) return unknown;
  // The holder could not write into a file that another user's process has left.
  const bool here = host.substr(kOn.size()) == HostName();
  if (here && kill(process, 0) != 0 && errno == ESRCH) return unknown;
  return std::string(text);
}

}  // namespace

StatusOr<PathLock> PathLock::Acquire(const std::string& path, std::chrono::milliseconds patience) {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point end = Clock::now() + patience;
  PathLock lock;
  lock.file_ = LockFile(path);
  while (true) {
    FileDescriptor descriptor = OpenLockFile(lock.file_);
    if (!descriptor.open()) return lock;  // what comes next says why nothing can be written here
    if (flock(descriptor.get(), LOCK_EX | LOCK_NB) == 0) {
      if (!IsStillThere(lock.file_, descriptor.get())) continue;
      WriteHolder(descriptor.get());
      lock.descriptor_ = std::move(descriptor);
      return lock;
    }
    if (errno == EINTR) continue;
    if (errno != EWOULDBLOCK) {  // no locks on this file system
      unlink(lock.file_.c_str());
      return lock;
    }
    if (Clock::now() >= end) {
      return FailedPrecondition(
          "{}: another run of te writes there ({}); wait for its end, or choose another name", path,
          ReadHolder(descriptor.get()));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

PathLock::PathLock(PathLock&& other) noexcept
    : file_(std::move(other.file_)), descriptor_(std::move(other.descriptor_)) {}

PathLock& PathLock::operator=(PathLock&& other) noexcept {
  std::swap(file_, other.file_);
  std::swap(descriptor_, other.descriptor_);
  return *this;
}

void PathLock::Release() {
  if (!descriptor_.open()) return;
  // Before the lock goes: whoever takes it afterwards finds the name gone, and begins again.
  unlink(file_.c_str());
  descriptor_ = FileDescriptor();
}

}  // namespace te
