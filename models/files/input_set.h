// What a command reads, to be compared with what it is about to write.
#pragma once

#include <sys/types.h>

#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "te_kernels/base/status.h"

namespace te {

// Files are the same when the file system says so (device and inode): whatever links, hard or
// symbolic, and spellings lead to them. What is not there yet is no input.
class InputSet {
 public:
  // `what` stands in messages: "--data".
  void AddFile(const std::string& what, const std::string& path);
  // A folder and all the files in it and below, those that its links lead to included.
  void AddFolder(const std::string& what, const std::string& path);

  // kInvalidArgument, "OUTPUT: PATH is the file of --data": the file that writing `path` would
  // change is one that is read.
  Status CheckFile(const std::string& output, const std::string& path) const;
  // Also when `path` would be a file in one of the folders.
  Status CheckOutside(const std::string& output, const std::string& path) const;
  // Replacing the directory `folder` as a whole removes its files of the names that go. Whether one
  // of them is a file that is read, by its own name or through a link; those that a folder of
  // AddFolder has under a name in `folder` are no matter: a model may be replaced by what it
  // became.
  Status CheckReplacement(const std::string& output, const std::string& folder,
                          const std::function<bool(const std::string& name)>& goes) const;
  // The same as CheckFile for a descriptor that is open already (standard output).
  Status CheckDescriptor(const std::string& output, int descriptor) const;

 private:
  using Identity = std::pair<dev_t, ino_t>;
  struct Origin {
    std::string what;
    std::string path;
    bool in_folder = false;
  };
  Status Refuse(const std::string& output, const std::string& path, const Identity& file) const;

  std::map<Identity, Origin> files_;
  std::map<Identity, Origin> folders_;
};

}  // namespace te
