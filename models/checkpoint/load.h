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
  std::string shape_means = "";  // "vocab_size, hidden_size": the config's keys, for messages
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
  // What the caller knows about an absent tensor, for the error: "it is tied when ...". May be
  // null.
  std::function<std::string(const std::string& name)> why_missing;
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
  std::vector<std::string> notes;  // further lines for the user
  // One line each, for the user: what is missing and was initialized, skipped layers, unexpected
  // tensors.
  std::vector<std::string> Warnings() const;
};

// The error for tensors that are in none of the files. `absent` are among `wanted`, all the
// model's.
Status MissingTensors(const CheckpointReader& reader, std::span<const WantedTensor> wanted,
                      std::span<const WantedTensor* const> absent, const LoadOptions& options);
// Why a stored tensor cannot be a wanted one: its shape, its dtype, another value elsewhere.
Status CheckStored(const CheckpointReader& reader, const CheckpointReader::Tensor& stored,
                   const WantedTensor& wanted);

// With tied embeddings both names are one parameter: a file in which they differ holds another
// model. Reads both, where both are there.
Status CheckTied(const CheckpointReader& reader, const TiedTensor& tied);
// The report on tensors that are not wanted.
LoadReport SurplusTensors(const CheckpointReader& reader, std::span<const WantedTensor> wanted,
                          const LoadOptions& options);

// Reads every wanted tensor, shard by shard and in the order of the file's bytes, straight into its
// place: beyond the model, peak memory is one tensor's scratch at most (a .bin tensor whose
// elements are not in order), 2 MiB otherwise. All names and shapes are checked before the first
// byte is read. Errors name the tensor, the shapes and the file, and say what the files have in its
// place (missing_tensor.h). Not one tensor of the model is an error with allow_missing, too. A tied
// tensor that is absent under `name` but there as `alias` is read from there.
StatusOr<LoadReport> LoadParameters(const CheckpointReader& reader,
                                    std::span<const WantedTensor> wanted,
                                    const LoadOptions& options);

}  // namespace te
