#include "models/llama/pretrained.h"

#include <filesystem>
#include <utility>

#include "models/checkpoint/model_directory.h"
#include "models/llama/shipped_choices/shipped_choices.h"
#include "te_core/quantization/fp8_only_weight.h"

namespace te {
namespace {

// config.json of a hub checkpoint has a few kilobytes.
constexpr int64_t kMaxConfigBytes = int64_t{16} << 20;

// What new tensors are stored as: config.json's dtype, else the model's own.
StatusOr<StoredType> DefaultType(const PretrainedLlama& llama) {
  const DType dtype = llama.model->config().dtype.value_or(llama.model->options().params_dtype);
  StoredType type;
  if (!StoredTypeOf(dtype, &type)) return Internal("no stored type for {}", Name(dtype));
  return type;
}

// As what tensor `i` of the model is saved.
StoredType SavedType(const PretrainedLlama& llama, size_t i, const SavePretrainedOptions& options,
                     StoredType default_type) {
  const CheckpointReader::Tensor* stored =
      llama.reader == nullptr ? nullptr
                              : llama.reader->Find(llama.model->tensors()[i].name.hf_name);
  return options.type.value_or(stored == nullptr ? default_type : stored->entry->type);
}

// Whether every value of `from` is one of `to`.
bool Keeps(StoredType to, DType from) {
  StoredType same;
  if (StoredTypeOf(from, &same) && same == to) return true;
  if (to == StoredType::kF64) return true;
  return to == StoredType::kF32 && from == DType::kBFloat16;
}

}  // namespace

StatusOr<PretrainedLlama> LoadPretrainedLlama(Context* context, const std::string& directory,
                                              const PretrainedOptions& options) {
  PretrainedLlama llama;
  TE_ASSIGN_OR_RETURN(llama.directory, FindModelDirectory(directory, options.checkpoint.subfolder));
  TE_ASSIGN_OR_RETURN(llama.config_json,
                      ReadJsonFile(llama.directory + "/config.json", kMaxConfigBytes));
  auto config = LlamaConfig::FromJson(llama.config_json);
  if (!config.ok()) return config.status().WithContext(llama.directory + "/config.json");
  TE_ASSIGN_OR_RETURN(llama.choices,
                      PinChoicesOf(llama.directory + "/" + kTunedChoicesFile, context));
  llama.known_choices =
      KnownChoices(options.choices_cache.value_or(ChoicesCacheFolder()), ShippedChoices());
  TE_RETURN_IF_ERROR(llama.known_choices.Pin(context));
  if (!options.random_init) {
    TE_ASSIGN_OR_RETURN(
        llama.reader, OpenLlamaWeights(directory, llama.config_json, *config, options.checkpoint));
  }
  const Recipe* fp8_only = nullptr;
  if (options.before_model != nullptr) {
    TE_ASSIGN_OR_RETURN(fp8_only, options.before_model(llama.directory, *config));
  }
  {
    const QuantizedInit init(context, fp8_only != nullptr ? fp8_only : context->quantized_init());
    TE_ASSIGN_OR_RETURN(llama.model, LlamaModel::Create(context, *config, options.model));
  }
  if (options.random_init) {
    TE_RETURN_IF_ERROR(llama.model->InitializeAll());
  } else {
    TE_ASSIGN_OR_RETURN(llama.report,
                        LoadLlamaWeights(llama.model.get(), *llama.reader, options.load));
    std::error_code error;
    if (std::filesystem::exists(llama.directory + "/adapter_config.json", error)) {
      llama.report.notes.push_back(fmt::format(
          "{}/adapter_config.json: a PEFT adapter stands beside the weights; it is not applied",
          llama.directory));
    }
  }
  for (const LlamaTensor& tensor : llama.model->tensors())
    llama.loaded_versions.push_back(tensor.parameter->version);
  return llama;
}

StatusOr<std::set<const Parameter*>> ParametersRoundedBySaving(
    const PretrainedLlama& llama, const SavePretrainedOptions& options) {
  TE_ASSIGN_OR_RETURN(const StoredType default_type, DefaultType(llama));
  std::set<const Parameter*> out;
  for (size_t i = 0; i < llama.model->tensors().size(); ++i) {
    const Parameter* parameter = llama.model->tensors()[i].parameter;
    if (!Keeps(SavedType(llama, i, options, default_type), parameter->dtype()))
      out.insert(parameter);
  }
  return out;
}

Status SavePretrainedLlama(const PretrainedLlama& llama, const std::string& directory,
                           const SavePretrainedOptions& options) {
  TE_ASSIGN_OR_RETURN(const StoredType default_type, DefaultType(llama));
  Context* context = llama.model->context();
  Tensor dequantized;  // one at a time
  std::vector<SaveTensor> tensors;
  for (size_t i = 0; i < llama.model->tensors().size(); ++i) {
    const LlamaTensor& tensor = llama.model->tensors()[i];
    SaveTensor save;
    save.name = tensor.name.hf_name;
    save.value = tensor.value();
    const CheckpointReader::Tensor* stored =
        llama.reader == nullptr ? nullptr : llama.reader->Find(save.name);
    save.type = SavedType(llama, i, options, default_type);
    if (stored != nullptr && tensor.parameter->version == llama.loaded_versions[i])
      save.unchanged_in = llama.reader.get();
    if (tensor.parameter->fp8_only()) {
      // As close to the codes as the file can hold.
      const DType dtype = save.type == StoredType::kBF16 ? DType::kBFloat16 : DType::kFloat32;
      save.value = ConstTensorView(nullptr, dtype, tensor.name.shape);
      save.make_value = [context, &tensor, &dequantized, dtype]() -> StatusOr<ConstTensorView> {
        dequantized = Tensor();  // before there is another
        TE_ASSIGN_OR_RETURN(dequantized,
                            DequantizedRows(context, *tensor.parameter, tensor.row_begin,
                                            tensor.name.shape[0], dtype));
        return ConstTensorView(dequantized);
      };
    }
    tensors.push_back(std::move(save));
  }
  if (!options.allow_nonfinite) {
    TE_RETURN_IF_ERROR(
        CheckSavedValues(context, tensors, options.extra_values, llama.reader.get()));
  }
  SaveOptions save;
  save.max_shard_bytes = options.max_shard_bytes;
  save.source_directory = llama.directory;
  save.extra_writers = options.extra_writers;
  // The file that it names is not the one that is written.
  const bool names_file = llama.config_json.Find(kWeightsFileKey) != nullptr;
  const JsonValue config =
      names_file ? llama.config_json.Without(kWeightsFileKey) : llama.config_json;
  save.target = options.target;
  if (options.type.has_value()) {
    TE_ASSIGN_OR_RETURN(save.config, ConfigWithDType(config, *options.type));
  } else if (names_file) {
    save.config = config;
  }
  if (!context->device().host_accessible()) {
    save.copy_to_host = [context](ConstTensorView from, void* to) {
      return context->CopyToHost(from, to);
    };
  }
  TE_ASSIGN_OR_RETURN(std::string choices,
                      context->device().TunedChoices(context->exec(), WhichChoices::kOfRun));
  if (!choices.empty()) save.extra_files.emplace_back(kTunedChoicesFile, std::move(choices));
  return SaveCheckpoint(directory, tensors, save);
}

}  // namespace te
