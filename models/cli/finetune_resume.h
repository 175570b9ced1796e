// te finetune --save-optimizer-state and --resume: what a run writes down about itself, and how a
// later one takes it up.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "models/cli/finetune.h"
#include "models/cli/finetune_data.h"
#include "models/cli/finetune_setup.h"
#include "models/cli/low_precision.h"
#include "models/train/optimizer_state_file.h"

namespace te {

// The optimizer state beside the weights of --model, its header read. kInvalidArgument: no steps
// are left of --steps, another --seed; kNotFound: there is none.
StatusOr<std::unique_ptr<OptimizerStateFile>> OpenResumedState(const FinetuneFlags& flags);

// What decides the steps that are left, as OptimizerStateInfo::run: by flag, its value as text.
std::map<std::string, std::string> DescribeRun(const FinetuneFlags& flags,
                                               const FinetuneSetup& setup,
                                               const TrainingData& data);

// Compares the state's description of its run with this one's. Flags that decide which data come
// next and what the optimizer keeps must be the same: kInvalidArgument names the first one that is
// not. Of others that differ a warning says that the run goes on with the new value.
Status CheckResumedRun(const OptimizerStateFile& state,
                       const std::map<std::string, std::string>& run);

// The FP8 state of a run that goes on: it must be the one that the optimizer state was written
// with; sets the calibration steps that are left.
Status CheckResumedFp8(const OptimizerStateFile& state, LowPrecision* fp8);

}  // namespace te
