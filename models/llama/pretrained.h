// A Llama and the Hugging Face directory that it came from: loaded together, written back together.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "models/checkpoint/save.h"
#include "models/json/json.h"
#include "models/llama/known_choices.h"
#include "models/llama/load_weights.h"
#include "models/llama/saved_values.h"
#include "models/llama/tuned_choices.h"

namespace te {

struct PretrainedOptions {
  CheckpointOptions checkpoint;  // variant, subfolder
  LlamaModelOptions model;
  LlamaLoadOptions load;
  bool random_init =
      false;  // from config.json alone: the directory's weights, if any, are not read
  // Where choices of algorithms of all runs are kept; empty: nowhere. Absent: ChoicesCacheFolder().
  std::optional<std::string> choices_cache;
  // Called before the model is made, with the folder of config.json: returns the recipe by which
  // its weights exist in FP8 alone (QuantizedInit; null: whatever the context says). May be null.
  std::function<StatusOr<const Recipe*>(const std::string& directory, const LlamaConfig& config)>
      before_model;
};

// Thread-compatible. The context must outlive it.
struct PretrainedLlama {
  std::string directory;  // with the subfolder: config.json and the tokenizer stand here
  JsonValue config_json;  // as it was read: keys that te does not know go back unchanged
  ChoicesFile choices = ChoicesFile::kAbsent;  // of the run that wrote the directory
  KnownChoices known_choices;                  // of other runs, and those that ship
  std::unique_ptr<CheckpointReader> reader;    // null after random_init
  std::unique_ptr<LlamaModel> model;
  LoadReport report;
  std::vector<uint64_t>
      loaded_versions;  // Parameter::version after loading, one a tensor of the model
};

// Reads config.json and the weights of `directory`. kNotFound says what is missing where. On a
// device that chooses algorithms by timing, those that are known are pinned: of
// te_tuned_choices.txt there, else of the cache, else those that ship.
StatusOr<PretrainedLlama> LoadPretrainedLlama(Context* context, const std::string& directory,
                                              const PretrainedOptions& options);

struct SavePretrainedOptions {
  int64_t max_shard_bytes = SaveOptions().max_shard_bytes;
  // Absent: each tensor's type in the checkpoint that was loaded; one that is new there is stored
  // as config.json's dtype says.
  std::optional<StoredType> type;
  // SaveOptions::extra_writers.
  std::vector<std::pair<std::string, std::function<Status(const std::string& path)>>> extra_writers;
  // What the extra writers will read on the device and save as it is: checked with the weights.
  std::vector<NamedValue> extra_values;
  // Values that are NaN or infinite as they would be saved: true: are saved; false: are an error
  // before anything is written (saved_values.h).
  bool allow_nonfinite = false;
  SaveTarget target;
};

// The parameters of which the weight files will not hold every bit: those that are stored in
// another dtype, which rounds them.
StatusOr<std::set<const Parameter*>> ParametersRoundedBySaving(
    const PretrainedLlama& llama, const SavePretrainedOptions& options);

// Writes a Hugging Face directory (SaveCheckpoint's promises). Tensors whose parameter has not been
// written since the load are taken over byte for byte.
Status SavePretrainedLlama(const PretrainedLlama& llama, const std::string& directory,
                           const SavePretrainedOptions& options);

}  // namespace te
