// What a command writes against what it reads: checked before anything is opened for writing.
#pragma once

#include "models/cli/finetune.h"
#include "models/cli/trace.h"

namespace te {

// kInvalidArgument names the flag, the file, and the flag that reads it: --output would change a
// file of the model, the input, the rules, or stand in the model's folder; standard output or
// standard error is such a file or --output itself. Also when --output cannot be written.
Status CheckTraceOutput(const TraceFlags& flags);

// The same of --log and of the files that replacing --output removes. --output may be --model.
Status CheckFinetuneOutputs(const FinetuneFlags& flags);

}  // namespace te
