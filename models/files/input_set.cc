#include "models/files/input_set.h"

#include <sys/stat.h>

#include <filesystem>
#include <system_error>

#include "fmt/format.h"
#include "models/files/output_path.h"

namespace te {
namespace {

namespace fs = std::filesystem;

// More would be no checkpoint's folder, but somebody's home.
constexpr int kMostEntries = 10'000;

bool Stat(const std::string& path, struct stat* info) { return stat(path.c_str(), info) == 0; }

}  // namespace

void InputSet::AddFile(const std::string& what, const std::string& path) {
  struct stat info;
  // Of a device or a terminal there is one, for reading and writing at once.
  if (!Stat(path, &info) || !(S_ISREG(info.st_mode) || S_ISFIFO(info.st_mode))) return;
  files_.try_emplace({info.st_dev, info.st_ino}, Origin{what, path, false});
}

void InputSet::AddFolder(const std::string& what, const std::string& path) {
  struct stat info;
  if (!Stat(path, &info)) return;
  folders_.try_emplace({info.st_dev, info.st_ino}, Origin{what, path, true});
  const auto add = [&](const fs::path& file) {
    if (Stat(file.string(), &info) && S_ISREG(info.st_mode))
      files_.try_emplace({info.st_dev, info.st_ino}, Origin{what, file.string(), true});
  };
  std::error_code error;
  // The folder itself to its last file, however much lies below.
  for (fs::directory_iterator item(path, error); !error && item != fs::directory_iterator();
       item.increment(error)) {
    add(item->path());
  }
  fs::recursive_directory_iterator items(path, fs::directory_options::skip_permission_denied,
                                         error);
  int entries = 0;
  for (; !error && items != fs::recursive_directory_iterator() && entries < kMostEntries;
       items.increment(error), ++entries) {
    add(items->path());
  }
}

Status InputSet::Refuse(const std::string& output, const std::string& path,
                        const Identity& file) const {
  const auto found = files_.find(file);
  if (found == files_.end()) return OkStatus();
  const Origin& origin = found->second;
  const std::string same = origin.path == path ? "" : fmt::format(" ({})", origin.path);
  return InvalidArgument("{}: {} is {} of {}{}; choose another name", output, path,
                         origin.in_folder ? "a file" : "the file", origin.what, same);
}

Status InputSet::CheckFile(const std::string& output, const std::string& path) const {
  struct stat info;
  if (!Stat(path, &info)) return OkStatus();
  return Refuse(output, path, {info.st_dev, info.st_ino});
}

Status InputSet::CheckDescriptor(const std::string& output, int descriptor) const {
  struct stat info;
  if (fstat(descriptor, &info) != 0 || !S_ISREG(info.st_mode)) return OkStatus();
  return Refuse(output, "what it is redirected to", {info.st_dev, info.st_ino});
}

Status InputSet::CheckOutside(const std::string& output, const std::string& path) const {
  TE_RETURN_IF_ERROR(CheckFile(output, path));
  TE_ASSIGN_OR_RETURN(const std::string target, ResolveOutput(path));
  for (fs::path at = fs::path(target).parent_path();; at = at.parent_path()) {
    struct stat info;
    if (Stat(at.string(), &info)) {
      const auto found = folders_.find({info.st_dev, info.st_ino});
      if (found != folders_.end()) {
        return InvalidArgument("{}: {} is in the folder of {} ({}); choose a place outside", output,
                               path, found->second.what, found->second.path);
      }
    }
    if (at == at.root_path() || at.empty()) return OkStatus();
  }
}

Status InputSet::CheckReplacement(const std::string& output, const std::string& folder,
                                  const std::function<bool(const std::string&)>& goes) const {
  std::error_code error;
  const fs::path target = fs::canonical(folder, error);
  if (error) return OkStatus();  // nothing there yet
  for (const auto& [identity, origin] : files_) {
    const fs::path file = fs::canonical(origin.path, error);
    if (error || file.parent_path() != target || !goes(file.filename().string())) continue;
    const bool named_there = fs::canonical(fs::path(origin.path).parent_path(), error) == target;
    if (origin.in_folder && named_there) continue;
    return InvalidArgument("{}: replacing {} would remove {}, which {} reads; choose another name",
                           output, folder, file.string(), origin.what);
  }
  return OkStatus();
}

}  // namespace te
