// Filling a model's parameters from a checkpoint, and saying what did not fit.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "models/checkpoint/checkpoint_reader.h"

namespace te {

// One tensor that the model needs, under its name in the checkpoint.
struct WantedTensor {
  std::string name;
  TensorView to;  // dense; its shape is the one expected in the checkpoint
  // For one whose `to` has no memory yet: called when the tensor's turn comes, for the place
  // itself.
  std::function<StatusOr<TensorView>()> place = nullptr;
  std::function<Status()> done = nullptr;  // called when the tensor is there; may be null
};

// What a tensor of the file is that the model did not ask for.
enum class ExtraTensor {
  kUnexpected,  // listed in a warning
  kIgnored,     // known and harmless (*.rotary_emb.inv_freq of old hub files)
  kExtraLayer,  // of a layer beyond the config's: loading into fewer layers
};

// Two names of one parameter: `alias` may stand in the file, but only with the values of `name`.
struct TiedTensor {
  std::string alias;  // "lm_head.weight"
  std::string name;   // "model.embed_tokens.weight"
};

struct LoadOptions {
  // Absent tensors are left as they are (the caller initializes them first) and listed, instead of
  // being an error.
  bool allow_missing = false;
  std::vector<TiedTensor> tied;
  // Null: everything is kUnexpected.
  std::function<ExtraTensor(const std::string& name)> classify;
  // Null: destinations are host memory.
  CopyFromHost copy_from_host;
  // Called after each tensor with bytes read and bytes in all; may be null.
  std::function<void(uint64_t done, uint64_t total)> progress;
};

struct LoadReport {
  std::vector<std::string> missing;  // with allow_missing
  std::vector<std::string> unexpected;
  std::vector<std::string> extra_layers;
  std::vector<std::string> ignored;
  // One line each, for the user: what is missing and was initialized, skipped layers, unexpected
  // tensors.
  std::vector<std::string> Warnings() const;
};

// Reads every wanted tensor, shard by shard and in the order of the file's bytes, straight into its
// place: beyond the model, peak memory is one tensor's scratch at most (a .bin tensor whose
// elements are not in order), 2 MiB otherwise. All names and shapes are checked before the first
// byte is read. Errors name the tensor, the shapes and the file. A tied tensor that is absent under
// `name` but there as `alias` is read from there.
StatusOr<LoadReport> LoadParameters(const CheckpointReader& reader,
                                    std::span<const WantedTensor> wanted,
                                    const LoadOptions& options);

}  // namespace te
