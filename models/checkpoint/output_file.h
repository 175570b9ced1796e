// A new file, written front to back and made durable.
#pragma once

#include <cstddef>
#include <functional>
#include <string>

#include "te_kernels/base/status.h"

namespace te {

// Move-only; closes at the end (without a check: call Finish).
class OutputFile {
 public:
  OutputFile() = default;
  // Creates the file; one that exists is an error (a symbolic link is never followed), or truncated
  // with `replace`.
  static StatusOr<OutputFile> Create(const std::string& path, bool replace = false);
  ~OutputFile();
  OutputFile(OutputFile&& other) noexcept;
  OutputFile& operator=(OutputFile&& other) noexcept;
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  Status Write(const void* bytes, size_t count);
  // fsync and close: from here on the bytes survive a power failure (the name does after
  // SyncDirectory of its folder).
  Status Finish();

 private:
  std::string path_;
  int fd_ = -1;
};

Status SyncDirectory(const std::string& path);

inline constexpr char kFreshSuffix[] = ".te-new";

// `path` replaced as a whole by what `write` creates and syncs under another name beside it
// (kFreshSuffix appended): the old file or the new one is there at any moment. On failure the old
// one is as it was. A symbolic link stays, and what it leads to is replaced; the old file's mode
// stays, too. One writer at a time (PathLock). kIoError: `path` is no regular file.
Status ReplaceFile(const std::string& path,
                   const std::function<Status(const std::string& path)>& write);

// What can be known of ReplaceFile before a long computation: the folder is there and can be
// written, and nothing but a regular file has the name. Changes nothing.
Status CheckReplaceable(const std::string& path);

}  // namespace te
