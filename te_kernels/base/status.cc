#include "te_kernels/base/status.h"

namespace te {

Status MakeStatus(StatusCode code, fmt::string_view format, fmt::format_args args) {
  return Status(code, fmt::vformat(format, args));
}

}  // namespace te
