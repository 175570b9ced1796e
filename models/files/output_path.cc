#include "models/files/output_path.h"

#include <filesystem>
#include <system_error>

namespace te {

namespace fs = std::filesystem;

constexpr int kMostLinks = 40;  // as the kernel's own limit

StatusOr<std::string> ResolveOutput(const std::string& path) {
  std::error_code error;
  fs::path at = fs::absolute(path, error);
  if (error) return IoError("{}: {}", path, error.message());
  for (int links = 0; fs::is_symlink(fs::symlink_status(at, error)); ++links) {
    const fs::path next = fs::read_symlink(at, error);
    if (error) return IoError("{}: {}", path, error.message());
    if (links == kMostLinks) return IoError("{}: too many symbolic links", path);
    at = at.parent_path() / next;  // an absolute one replaces the whole
  }
  at = fs::weakly_canonical(at, error);
  if (error) return IoError("{}: {}", path, error.message());
  if (!at.has_filename()) at = at.parent_path();  // a slash at the end
  return at.string();
}

bool IsInside(const std::string& path, const std::string& folder) {
  return path == folder || path.starts_with(folder.ends_with('/') ? folder : folder + "/");
}

}  // namespace te
