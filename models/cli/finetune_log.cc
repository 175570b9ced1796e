#include "models/cli/finetune_log.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <system_error>

#include "models/files/output_path.h"

namespace te {

namespace fs = std::filesystem;

NewFolders::~NewFolders() {
  // One that holds something by now is wanted, and rmdir leaves it.
  for (auto path = made_.rbegin(); path != made_.rend(); ++path) rmdir(path->c_str());
}

Status NewFolders::Make(const std::string& path) {
  std::error_code error;
  if (fs::is_directory(path, error)) return OkStatus();
  if (const fs::path above = fs::path(path).parent_path(); above != path)
    TE_RETURN_IF_ERROR(Make(above.string()));
  if (mkdir(path.c_str(), 0777) != 0)
    return IoError("{}: {}", path, std::generic_category().message(errno));
  made_.push_back(path);
  return OkStatus();
}

Status MakeLogFolder(const FinetuneFlags& flags, NewFolders* folders, std::string* inside) {
  inside->clear();
  if (flags.log.empty()) return OkStatus();
  TE_ASSIGN_OR_RETURN(const std::string log, ResolveOutput(flags.log));
  TE_ASSIGN_OR_RETURN(const std::string output, ResolveOutput(flags.output));
  if (!IsInside(log, output)) return OkStatus();
  *inside = log;
  return folders->Make(fs::path(log).parent_path().string());
}

}  // namespace te
