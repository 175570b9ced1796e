// Reading a checkpoint into a model.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "models/checkpoint/load.h"
#include "models/json/json.h"
#include "models/llama/llama_model.h"

namespace te {

// config.json's key for the name of the weights' file or index.
inline constexpr char kWeightsFileKey[] = "transformers_weights";

struct LlamaLoadOptions {
  // What no shard has is initialized as LlamaModel::Initialize does, and listed, instead of being
  // an error.
  bool allow_missing = false;
  std::function<void(uint64_t done, uint64_t total)> progress;  // bytes; may be null
};

// Opens the weights of a directory whose config.json is `json`: the file that it names
// (transformers_weights), if it names one. The tensors go by the model's names, whatever Hugging
// Face's rules allow them to be called on disk (LlamaStoredNames); with tied embeddings a head that
// stands alone is the embedding.
StatusOr<std::unique_ptr<CheckpointReader>> OpenLlamaWeights(const std::string& directory,
                                                             const JsonValue& json,
                                                             const LlamaConfig& config,
                                                             CheckpointOptions options);

// What the model needs from a checkpoint, without places: for checks of names, shapes and dtypes.
std::vector<WantedTensor> WantedLlamaTensors(const LlamaModel& model);
// LoadOptions without places: ties, what surplus tensors are, why one may be absent.
LoadOptions LlamaCheckOptions(const LlamaConfig& config, const CheckpointReader& reader);

// Fills every parameter, converting to the model's dtype. Of the tensors that the model does not
// need: layers beyond the config are skipped and listed, *.rotary_emb.inv_freq is ignored, others
// are listed as unexpected; with tied embeddings an lm_head.weight that differs from the embedding
// is an error. Weights in FP8 alone are read in the model's dtype and cast one by one: each is
// dense from the first of its tensors to the last (of Hugging Face's files, one layer's), never the
// model. After a failure the parameters' contents are undefined.
StatusOr<LoadReport> LoadLlamaWeights(LlamaModel* model, const CheckpointReader& reader,
                                      const LlamaLoadOptions& options = {});

}  // namespace te
