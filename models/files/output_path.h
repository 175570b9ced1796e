// Where an output will land.
#pragma once

#include <string>

#include "te_kernels/base/status.h"

namespace te {

// The absolute path of what writing `path` would create or change: links are followed, those that
// lead nowhere yet, too. kIoError: a link that leads to itself, a folder that cannot be read.
StatusOr<std::string> ResolveOutput(const std::string& path);

// Whether `path` is `folder` or inside it; both resolved.
bool IsInside(const std::string& path, const std::string& folder);

}  // namespace te
