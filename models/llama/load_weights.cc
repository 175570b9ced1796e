#include "models/llama/load_weights.h"

#include <vector>

#include "models/llama/tensor_writes.h"

namespace te {

StatusOr<LoadReport> LoadLlamaWeights(LlamaModel* model, const CheckpointReader& reader,
                                      const LlamaLoadOptions& options) {
  const LlamaConfig& config = model->config();
  LoadOptions load;
  load.allow_missing = options.allow_missing;
  load.progress = options.progress;
  if (config.tie_word_embeddings) load.tied.push_back({kLlamaHeadName, kLlamaEmbeddingName});
  load.classify = [&config](const std::string& name) {
    switch (ClassifyLlamaName(config, name)) {
      case LlamaNameKind::kIgnored:
        return ExtraTensor::kIgnored;
      case LlamaNameKind::kExtraLayer:
        return ExtraTensor::kExtraLayer;
      default:
        return ExtraTensor::kUnexpected;
    }
  };
  Context* context = model->context();
  if (!context->device().host_accessible()) {
    load.copy_from_host = [context](const void* from, TensorView to) {
      return context->CopyFromHost(from, to);
    };
  }
  LlamaTensorWrites writes(model);
  std::vector<WantedTensor> wanted;
  for (const LlamaTensor& tensor : model->tensors()) {
    const std::string& name = tensor.name.hf_name;
    const bool elsewhere = config.tie_word_embeddings && name == kLlamaEmbeddingName;
    if (options.allow_missing && reader.Find(name) == nullptr &&
        !(elsewhere && reader.Find(kLlamaHeadName) != nullptr)) {
      TE_RETURN_IF_ERROR(writes.Begin(tensor));
      TE_RETURN_IF_ERROR(model->Initialize(tensor));
      TE_RETURN_IF_ERROR(writes.End(tensor));
    }
    wanted.push_back({.name = name,
                      .to = TensorView(nullptr, tensor.parameter->dtype(), tensor.name.shape),
                      .place = [&writes, &tensor]() -> StatusOr<TensorView> {
                        TE_RETURN_IF_ERROR(writes.Begin(tensor));
                        return tensor.value();
                      },
                      .done = [&writes, &tensor] { return writes.End(tensor); }});
  }
  return LoadParameters(reader, wanted, load);
}

}  // namespace te
