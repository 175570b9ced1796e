#include "models/llama/load_weights.h"

#include <utility>
#include <vector>

#include "fmt/format.h"
#include "models/llama/tensor_writes.h"

namespace te {

namespace {

// What the config or the files tell of a tensor that is in none of them.
std::string WhyAbsent(const LlamaConfig& config, const CheckpointReader& reader,
                      const std::string& name) {
  if (name == kLlamaHeadName) {
    std::string out =
        "; tie_word_embeddings is false in config.json: set it to true if the head is the "
        "embedding";
    for (const char* other : {"score.weight", "classifier.weight", "qa_outputs.weight"}) {
      if (reader.Find(other) == nullptr) continue;
      out +=
          fmt::format(" (the files have {}: a classifier's head, which generates no text)", other);
    }
    return out;
  }
  if (name == kLlamaEmbeddingName && !config.tie_word_embeddings &&
      reader.Find(kLlamaHeadName) != nullptr) {
    return "; tie_word_embeddings is false in config.json: set it to true if lm_head.weight is the "
           "embedding, too";
  }
  if (name.ends_with(".bias")) {
    return fmt::format("; config.json says {}", name.find(".mlp.") != std::string::npos
                                                    ? "mlp_bias: true"
                                                    : "attention_bias: true");
  }
  return "";
}

}  // namespace

StatusOr<std::unique_ptr<CheckpointReader>> OpenLlamaWeights(const std::string& directory,
                                                             const JsonValue& json,
                                                             const LlamaConfig& config,
                                                             CheckpointOptions options) {
  const JsonValue* file = json.Find(kWeightsFileKey);
  if (file != nullptr && !file->is_null()) {
    if (!file->is_string()) {
      return InvalidArgument("config.json: transformers_weights is {}; expected a file's name",
                             file->ToString());
    }
    options.weights_file = file->string();
  }
  TE_ASSIGN_OR_RETURN(std::unique_ptr<CheckpointReader> reader,
                      CheckpointReader::Open(directory, options));
  const LlamaStoredNames names(config);
  reader->Rename([&names](const std::string& stored) { return names.NameOf(stored); });
  if (config.tie_word_embeddings) reader->FindAlso(kLlamaEmbeddingName, kLlamaHeadName);
  return reader;
}

std::vector<WantedTensor> WantedLlamaTensors(const LlamaModel& model) {
  std::vector<WantedTensor> wanted;
  for (const LlamaTensor& tensor : model.tensors()) {
    wanted.push_back({.name = tensor.name.hf_name,
                      .to = TensorView(nullptr, tensor.parameter->dtype(), tensor.name.shape),
                      .shape_means = LlamaShapeMeaning(tensor.name.hf_name)});
  }
  return wanted;
}

LoadOptions LlamaCheckOptions(const LlamaConfig& config, const CheckpointReader& reader) {
  LoadOptions load;
  if (config.tie_word_embeddings) load.tied.push_back({kLlamaHeadName, kLlamaEmbeddingName});
  load.why_missing = [&config, &reader](const std::string& name) {
    return WhyAbsent(config, reader, name);
  };
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
  return load;
}

StatusOr<LoadReport> LoadLlamaWeights(LlamaModel* model, const CheckpointReader& reader,
                                      const LlamaLoadOptions& options) {
  const LlamaConfig& config = model->config();
  LoadOptions load = LlamaCheckOptions(config, reader);
  load.allow_missing = options.allow_missing;
  load.progress = options.progress;
  Context* context = model->context();
  if (!context->device().host_accessible()) {
    load.copy_from_host = [context](const void* from, TensorView to) {
      return context->CopyFromHost(from, to);
    };
  }
  LlamaTensorWrites writes(model);
  std::vector<WantedTensor> wanted = WantedLlamaTensors(*model);
  for (size_t i = 0; i < wanted.size(); ++i) {
    const LlamaTensor& tensor = model->tensors()[i];
    const std::string& name = tensor.name.hf_name;
    const bool elsewhere = config.tie_word_embeddings && name == kLlamaEmbeddingName;
    if (options.allow_missing && reader.Find(name) == nullptr &&
        !(elsewhere && reader.Find(kLlamaHeadName) != nullptr)) {
      TE_RETURN_IF_ERROR(writes.Begin(tensor));
      TE_RETURN_IF_ERROR(model->Initialize(tensor));
      TE_RETURN_IF_ERROR(writes.End(tensor));
    }
    wanted[i].place = [&writes, &tensor]() -> StatusOr<TensorView> {
      TE_RETURN_IF_ERROR(writes.Begin(tensor));
      return tensor.value();
    };
    wanted[i].done = [&writes, &tensor] { return writes.End(tensor); };
  }
  return LoadParameters(reader, wanted, load);
}

}  // namespace te
