// Replacing a directory as a whole: a kill, a crash or a power failure at any moment leaves the
// complete old one or the complete new one under its name.
#pragma once

#include <chrono>
#include <functional>
#include <string>

#include "models/files/path_lock.h"
#include "te_kernels/base/status.h"

namespace te {

// The new directory is written beside the old one (".NAME.te-save-XXXXXXXX"), made durable,
// exchanged with it by renameat2(RENAME_EXCHANGE), and the old one removed. One run at a time: a
// second one waits (PathLock). What a killed run leaves behind is found by its name and removed by
// the next run; a lock of its own keeps it from taking one that another process is writing.
// Move-only; not thread-safe.
class DirectoryReplacement {
 public:
  // Fails, with nothing changed, when `target` is no directory, may not be replaced, or cannot be:
  // its parent is not writable, it is a mount point, the file system cannot exchange directories. A
  // `target` that is a symbolic link means the directory behind it. Missing parents are made.
  // `may_replace` gets the path of an existing, non-empty directory. `held`: the lock of `target`
  // (LockDirectoryForSaving) where the caller has it; null: it is taken here, until the end.
  static StatusOr<DirectoryReplacement> Begin(
      const std::string& target, const std::function<Status(const std::string& path)>& may_replace,
      const PathLock* held = nullptr);
  DirectoryReplacement(DirectoryReplacement&& other) noexcept;
  DirectoryReplacement& operator=(DirectoryReplacement&&) = delete;
  // Without Commit: removes the new directory; the old one is as it was.
  ~DirectoryReplacement();

  // The new directory: write here.
  const std::string& path() const { return temporary_; }
  // The directory being replaced, without symbolic links; it need not exist.
  const std::string& target() const { return target_; }
  bool target_exists() const { return target_exists_; }

  // Takes over whatever the old directory has that the new one lacks and `drop` does not name
  // (top-level names): files as hard links (copies where the file system has none), folders with
  // all they contain.
  Status KeepOthers(const std::function<bool(const std::string& name)>& drop);
  // The files must have been synced by who wrote them. After an error the old directory is in its
  // place, complete; except when syncing the parent failed as the last step: the message says so.
  Status Commit();

 private:
  DirectoryReplacement() = default;

  PathLock whole_;
  std::string target_;
  std::string parent_;
  std::string temporary_;  // empty: nothing to clean up
  int lock_ = -1;
  bool target_exists_ = false;
};

// The right to replace `target`, for longer than one save: a run that will save there at its end
// holds it from its beginning. Missing parents are made. kFailedPrecondition: another run has it.
StatusOr<PathLock> LockDirectoryForSaving(const std::string& target,
                                          std::chrono::milliseconds patience);

// Copies a file's bytes (following symbolic links) into a new file and syncs it.
Status CopyFile(const std::string& from, const std::string& to);

}  // namespace te
