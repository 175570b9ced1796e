// One writer at a time of what stands under a name, over all processes of the machines that share
// the file system.
#pragma once

#include <chrono>
#include <string>

#include "models/files/input.h"
#include "te_kernels/base/status.h"

namespace te {

// While it lives, no other PathLock of the same path is given out. It is a lock (flock) on a file
// beside the path, ".NAME.te-lock", which ends with the process however that ends; the file says
// who holds it, goes with the lock, and one that a killed process has left means nothing. Where a
// lock cannot be had (a file system without, a folder that cannot be written), there is none: that
// is no reason to fail. Move-only.
class PathLock {
 public:
  // `path` without symbolic links, in a folder that exists. Waits up to `patience` for another
  // holder; then kFailedPrecondition says who that is.
  static StatusOr<PathLock> Acquire(const std::string& path, std::chrono::milliseconds patience);
  PathLock() = default;
  ~PathLock() { Release(); }
  PathLock(PathLock&& other) noexcept;
  PathLock& operator=(PathLock&& other) noexcept;

  bool held() const { return descriptor_.open(); }

 private:
  void Release();

  std::string file_;
  FileDescriptor descriptor_;
};

// How long a save waits for another one before it says so.
inline constexpr std::chrono::milliseconds kSavePatience = std::chrono::minutes(1);

}  // namespace te
