// What is wrong with a checkpoint: every fault, not the first alone. `te inspect` shows them.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "models/json/json.h"
#include "models/llama/load_weights.h"

namespace te {

struct CheckpointFaults {
  std::unique_ptr<CheckpointReader> reader;  // null: no weights could be opened
  bool none = false;                         // there is no file of weights at all
  std::vector<Status> faults;
  std::vector<std::string> warnings;  // what loading would warn of: surplus tensors, layers
};

// Opens the weights of the directory `json` is the config.json of, as far as they can be, and
// compares names, shapes and dtypes with the model's. Reads values only where two tensors must be
// equal. `directory` is the one that holds the subfolder of `options`.
CheckpointFaults FindCheckpointFaults(const std::string& directory, const JsonValue& json,
                                      const LlamaModel& model, const CheckpointOptions& options);

}  // namespace te
