// te inspect: a checkpoint's module tree and names, and the training state beside its weights.
#pragma once

#include "models/cli/open_model.h"

namespace te {

Status Inspect(const ModelFlags& flags);

}  // namespace te
