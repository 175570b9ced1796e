// --log of te finetune, also where it stands in a directory that is still to be made.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "models/cli/finetune.h"
#include "models/train/json_lines_log.h"

namespace te {

// Makes folders, and removes those of them that are empty at the end.
class NewFolders {
 public:
  NewFolders() = default;
  ~NewFolders();
  NewFolders(const NewFolders&) = delete;
  NewFolders& operator=(const NewFolders&) = delete;

  Status Make(const std::string& path);

 private:
  std::vector<std::string> made_;  // from the outermost on
};

// Where --log stands inside --output: its folder is made now, as the output will be made around it.
// Sets `inside` to the log's path then; empty: it is elsewhere, or there is none.
Status MakeLogFolder(const FinetuneFlags& flags, NewFolders* folders, std::string* inside);

}  // namespace te
