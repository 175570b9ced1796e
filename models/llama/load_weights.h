// Reading a checkpoint into a model.
#pragma once

#include <functional>

#include "models/checkpoint/load.h"
#include "models/llama/llama_model.h"

namespace te {

struct LlamaLoadOptions {
  // What no shard has is initialized as LlamaModel::Initialize does, and listed, instead of being
  // an error.
  bool allow_missing = false;
  std::function<void(uint64_t done, uint64_t total)> progress;  // bytes; may be null
};

// Fills every parameter, converting to the model's dtype. Of the tensors that the model does not
// need: layers beyond the config are skipped and listed, *.rotary_emb.inv_freq is ignored, others
// are listed as unexpected; with tied embeddings an lm_head.weight that differs from the embedding
// is an error. Weights in FP8 alone are read in the model's dtype and cast one by one: each is
// dense from the first of its tensors to the last (of Hugging Face's files, one layer's), never the
// model. After a failure the parameters' contents are undefined.
StatusOr<LoadReport> LoadLlamaWeights(LlamaModel* model, const CheckpointReader& reader,
                                      const LlamaLoadOptions& options = {});

}  // namespace te
