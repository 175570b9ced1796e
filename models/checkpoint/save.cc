#include "models/checkpoint/save.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <map>
#include <new>

#include "models/checkpoint/directory_replacement.h"
#include "models/checkpoint/output_file.h"
#include "models/checkpoint/safetensors.h"
#include "te_kernels/cast/cast.h"

namespace te {
namespace {

namespace fs = std::filesystem;

constexpr size_t kChunkBytes = size_t{1} << 20;

// The weights of a Hugging Face directory, in any format and variant, their indexes, and what
// belongs to these weights alone.
bool IsModelWeights(const std::string& name) {
  if (name == kFp8StateFile || name == kOptimizerStateFile) return true;
  if (name == "tf_model.h5" || name == "flax_model.msgpack") return true;
  if (!name.starts_with("model") && !name.starts_with("pytorch_model")) return false;
  return name.ends_with(".safetensors") || name.ends_with(".bin") ||
         (name.ends_with(".json") && (name.find(".safetensors.index.") != std::string::npos ||
                                      name.find(".bin.index.") != std::string::npos));
}

// What a fine-tuned model shares with the one it came from.
bool IsCarriedOver(const std::string& name) {
  static constexpr std::string_view kPrefixes[] = {"tokenizer", "chat_template", "LICENSE",
                                                   "NOTICE", "USE_POLICY"};
  static constexpr std::string_view kNames[] = {"special_tokens_map.json",
                                                "generation_config.json",
                                                "added_tokens.json",
                                                "vocab.json",
                                                "vocab.txt",
                                                "merges.txt",
                                                "spiece.model",
                                                "sentencepiece.bpe.model"};
  for (std::string_view prefix : kPrefixes) {
    if (name.starts_with(prefix)) return true;
  }
  return std::find(std::begin(kNames), std::end(kNames), name) != std::end(kNames);
}

Status WriteText(const std::string& path, const std::string& text) {
  TE_ASSIGN_OR_RETURN(OutputFile file, OutputFile::Create(path));
  TE_RETURN_IF_ERROR(file.Write(text.data(), text.size()));
  return file.Finish();
}

Status WriteConfig(const std::string& to, const SaveOptions& options) {
  if (options.config.is_null()) {
    if (options.source_directory.empty())
      return InvalidArgument("neither a config nor a source directory to take config.json from");
    return CopyFile(options.source_directory + "/config.json", to);
  }
  TE_ASSIGN_OR_RETURN(const std::string text, WriteJson(options.config));
  return WriteText(to, text + "\n");
}

Status CarryOver(const std::string& from, const std::string& to) {
  std::error_code error;
  std::vector<std::string> names;
  for (const auto& item : fs::directory_iterator(from, error)) {
    std::error_code ignored;
    const std::string name = item.path().filename().string();
    if (IsCarriedOver(name) && fs::is_regular_file(fs::status(item.path(), ignored)))
      names.push_back(name);
  }
  if (error) return IoError("{}: {}", from, error.message());
  std::sort(names.begin(), names.end());
  for (const std::string& name : names)
    TE_RETURN_IF_ERROR(CopyFile(from + "/" + name, to + "/" + name));
  return OkStatus();
}

// The stored tensor from which an unchanged value is converted to another dtype; null when there is
// none.
const CheckpointReader::Tensor* SourceToConvert(const SaveTensor& tensor) {
  if (tensor.unchanged_in == nullptr) return nullptr;
  const CheckpointReader::Tensor* stored = tensor.unchanged_in->Find(tensor.name);
  if (stored == nullptr || !IsFloating(stored->entry->type) ||
      !std::ranges::equal(stored->entry->shape, tensor.value.shape().dims())) {
    return nullptr;
  }
  return stored;
}

// The floating type that a stored one is.
DType FloatingDTypeOf(StoredType type) {
  for (DType dtype : {DType::kFloat64, DType::kFloat32, DType::kFloat16, DType::kBFloat16}) {
    StoredType candidate;
    if (StoredTypeOf(dtype, &candidate) && candidate == type) return dtype;
  }
  return DType::kFloat32;
}

// From the file's dtype to the one asked for, without the run's between them: rounded once, or not
// at all.
Status ConvertStored(const SaveTensor& tensor, const CheckpointReader::Tensor& stored,
                     const SafetensorsItem::Sink& sink) {
  TE_ASSIGN_OR_RETURN(const std::unique_ptr<TensorStream> stream,
                      tensor.unchanged_in->OpenStream(stored));
  const DType from = FloatingDTypeOf(stored.entry->type);
  const DType to = FloatingDTypeOf(tensor.type);
  const int64_t chunk =
      std::min<int64_t>(stored.entry->elements,
                        static_cast<int64_t>(kChunkBytes / std::max(SizeOf(from), SizeOf(to))));
  std::vector<char> raw(static_cast<size_t>(chunk) * SizeOf(from));
  std::vector<char> converted(static_cast<size_t>(chunk) * SizeOf(to));
  for (int64_t done = 0; done < stored.entry->elements; done += chunk) {
    const int64_t count = std::min(chunk, stored.entry->elements - done);
    TE_RETURN_IF_ERROR(stream->Read(raw.data(), static_cast<size_t>(count) * SizeOf(from))
                           .WithContext(tensor.unchanged_in->PathOf(stored)));
    TE_RETURN_IF_ERROR(CastCpu(Exec{}, {ConstTensorView(raw.data(), from, {count}),
                                        TensorView(converted.data(), to, {count})}));
    TE_RETURN_IF_ERROR(sink(converted.data(), static_cast<size_t>(count) * SizeOf(to)));
  }
  return OkStatus();
}

Status CopyStored(const SaveTensor& tensor, const CheckpointReader::Tensor& stored,
                  const SafetensorsItem::Sink& sink) {
  TE_ASSIGN_OR_RETURN(const std::unique_ptr<TensorStream> stream,
                      tensor.unchanged_in->OpenStream(stored));
  std::vector<char> buffer(std::min<uint64_t>(stored.entry->bytes(), kChunkBytes));
  for (uint64_t left = stored.entry->bytes(); left > 0;) {
    const size_t count = static_cast<size_t>(std::min<uint64_t>(left, buffer.size()));
    TE_RETURN_IF_ERROR(
        stream->Read(buffer.data(), count).WithContext(tensor.unchanged_in->PathOf(stored)));
    TE_RETURN_IF_ERROR(sink(buffer.data(), count));
    left -= count;
  }
  return OkStatus();
}

Status WriteValue(const SaveTensor& tensor, DType to, const CopyToHost& copy,
                  const SafetensorsItem::Sink& sink) {
  if (const auto* stored = UnchangedSource(tensor); stored != nullptr)
    return CopyStored(tensor, *stored, sink);
  if (const auto* stored = SourceToConvert(tensor); stored != nullptr)
    return ConvertStored(tensor, *stored, sink);
  ConstTensorView value = tensor.value;
  if (value.elements() == 0) return OkStatus();
  if (tensor.make_value != nullptr) {
    TE_ASSIGN_OR_RETURN(value, tensor.make_value());
    if (value.dtype() != tensor.value.dtype() || value.shape() != tensor.value.shape() ||
        !value.defined() || !value.IsDense()) {
      return Internal("tensor {}: the value that was made is {}; expected {}", tensor.name,
                      value.ToString(), tensor.value.ToString());
    }
  }
  const bool convert = value.dtype() != to;
  if (!convert && copy == nullptr) return sink(value.data(), value.bytes());
  const size_t from_size = SizeOf(value.dtype());
  const int64_t chunk = std::min<int64_t>(
      value.elements(), static_cast<int64_t>(kChunkBytes / std::max(from_size, SizeOf(to))));
  std::vector<char> staging(copy == nullptr ? 0 : static_cast<size_t>(chunk) * from_size);
  std::vector<char> converted(convert ? static_cast<size_t>(chunk) * SizeOf(to) : 0);
  for (int64_t done = 0; done < value.elements(); done += chunk) {
    const int64_t count = std::min(chunk, value.elements() - done);
    const void* piece =
        static_cast<const char*>(value.data()) + static_cast<size_t>(done) * from_size;
    if (copy != nullptr) {
      TE_RETURN_IF_ERROR(copy(ConstTensorView(piece, value.dtype(), {count}), staging.data()));
      piece = staging.data();
    }
    if (convert) {
      TE_RETURN_IF_ERROR(CastCpu(Exec{}, {ConstTensorView(piece, value.dtype(), {count}),
                                          TensorView(converted.data(), to, {count})}));
      piece = converted.data();
    }
    TE_RETURN_IF_ERROR(sink(piece, static_cast<size_t>(count) * SizeOf(to)));
  }
  return OkStatus();
}

StatusOr<SafetensorsItem> ItemOf(const SaveTensor& tensor, const CopyToHost& copy) {
  DType to = DType::kFloat32;
  bool known = false;
  for (DType dtype : {DType::kFloat64, DType::kFloat32, DType::kFloat16, DType::kBFloat16}) {
    StoredType type;
    if (StoredTypeOf(dtype, &type) && type == tensor.type) {
      to = dtype;
      known = true;
    }
  }
  if (!known)
    return Unsupported("tensor {}: weights are saved as F64, F32, F16 or BF16, not {}", tensor.name,
                       Name(tensor.type));
  if (!tensor.value.IsDense())
    return InvalidArgument("tensor {}: {} is not dense", tensor.name, tensor.value.ToString());
  SafetensorsItem item;
  item.name = tensor.name;
  item.type = tensor.type;
  item.shape.assign(tensor.value.shape().dims().begin(), tensor.value.shape().dims().end());
  item.write = [&tensor, to, &copy](const SafetensorsItem::Sink& sink) {
    return WriteValue(tensor, to, copy, sink);
  };
  return item;
}

// huggingface_hub's split_state_dict_into_shards_factory: a tensor above the limit has a shard of
// its own, at once; the others fill shards in order.
std::vector<std::vector<SafetensorsItem>> SplitIntoShards(std::vector<SafetensorsItem> items,
                                                          uint64_t most) {
  std::vector<std::vector<SafetensorsItem>> shards;
  std::vector<SafetensorsItem> current;
  uint64_t bytes = 0;
  for (SafetensorsItem& item : items) {
    const uint64_t size = item.bytes();
    if (size > most) {
      shards.emplace_back().push_back(std::move(item));
      continue;
    }
    if (bytes + size > most) {
      shards.push_back(std::exchange(current, {}));
      bytes = 0;
    }
    bytes += size;
    current.push_back(std::move(item));
  }
  if (!current.empty() || shards.empty()) shards.push_back(std::move(current));
  return shards;
}

Status WriteWeights(const std::string& directory, std::vector<SafetensorsItem> items,
                    int64_t max_shard_bytes) {
  uint64_t total = 0;
  for (const SafetensorsItem& item : items) total += item.bytes();
  const auto shards = SplitIntoShards(std::move(items), static_cast<uint64_t>(max_shard_bytes));
  if (shards.size() > 99999)
    return InvalidArgument("max_shard_bytes is {}, which makes {} shards; at most 99999",
                           max_shard_bytes, shards.size());
  std::map<std::string, std::string> file_of;  // sorted by name, as Hugging Face writes it
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string name =
        shards.size() == 1 ? "model.safetensors"
                           : fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size());
    TE_RETURN_IF_ERROR(
        WriteSafetensors(directory + "/" + name, shards[i], {{"format", "pt"}}, false));
    for (const SafetensorsItem& item : shards[i]) file_of[item.name] = name;
  }
  if (shards.size() == 1) return OkStatus();
  JsonValue::Members map;
  for (const auto& [tensor, name] : file_of) map.push_back({tensor, JsonValue::String(name)});
  const JsonValue index = JsonValue::MakeObject(
      {{"metadata",
        JsonValue::MakeObject({{"total_size", JsonValue::Integer(static_cast<int64_t>(total))}})},
       {"weight_map", JsonValue::MakeObject(std::move(map))}});
  TE_ASSIGN_OR_RETURN(const std::string text, WriteJson(index));
  return WriteText(directory + "/model.safetensors.index.json", text + "\n");
}

// Whether the directory holds nothing but the file `log` and folders that lead to it.
bool HoldsOnly(const std::string& path, const std::string& log) {
  if (log.empty()) return false;
  std::error_code error;
  const fs::path file = fs::weakly_canonical(log, error);
  if (error) return false;
  fs::recursive_directory_iterator items(path, error);
  for (; !error && items != fs::recursive_directory_iterator(); items.increment(error)) {
    const std::string item = items->path().string();
    const bool leads_there = item == file.string() || file.string().starts_with(item + "/");
    if (!leads_there) return false;
  }
  return !error;
}

Status MayReplace(const std::string& path, const std::string& log) {
  std::error_code error;
  if (fs::exists(path + "/config.json", error) || HoldsOnly(path, log)) return OkStatus();
  return FailedPrecondition(
      "{}: a directory with files in it, but no config.json, so no checkpoint: not replaced; save "
      "elsewhere",
      path);
}

StatusOr<DirectoryReplacement> Begin(const std::string& directory, const SaveTarget& target) {
  return DirectoryReplacement::Begin(
      directory, [&target](const std::string& path) { return MayReplace(path, target.log); },
      target.lock);
}

}  // namespace

const CheckpointReader::Tensor* UnchangedSource(const SaveTensor& tensor) {
  if (tensor.unchanged_in == nullptr) return nullptr;
  const CheckpointReader::Tensor* stored = tensor.unchanged_in->Find(tensor.name);
  if (stored == nullptr || stored->entry->type != tensor.type ||
      !std::ranges::equal(stored->entry->shape, tensor.value.shape().dims())) {
    return nullptr;
  }
  return stored;
}

Status SaveCheckpoint(const std::string& directory, std::span<const SaveTensor> tensors,
                      const SaveOptions& options) {
  if (options.max_shard_bytes <= 0)
    return InvalidArgument("max_shard_bytes is {}; expected more than 0", options.max_shard_bytes);
  try {
    std::vector<SafetensorsItem> items;
    std::map<std::string_view, bool> names;
    for (const SaveTensor& tensor : tensors) {
      if (!names.try_emplace(tensor.name, true).second)
        return InvalidArgument("tensor {} is to be saved twice", tensor.name);
      TE_ASSIGN_OR_RETURN(SafetensorsItem item, ItemOf(tensor, options.copy_to_host));
      items.push_back(std::move(item));
    }
    TE_ASSIGN_OR_RETURN(DirectoryReplacement replacement, Begin(directory, options.target));
    const std::string& path = replacement.path();
    const auto write = [&]() -> Status {
      TE_RETURN_IF_ERROR(WriteConfig(path + "/config.json", options));
      if (!options.source_directory.empty())
        TE_RETURN_IF_ERROR(CarryOver(options.source_directory, path));
      for (const auto& [name, text] : options.extra_files)
        TE_RETURN_IF_ERROR(WriteText(path + "/" + name, text));
      for (const auto& [name, write_file] : options.extra_writers)
        TE_RETURN_IF_ERROR(write_file(path + "/" + name));
      TE_RETURN_IF_ERROR(WriteWeights(path, std::move(items), options.max_shard_bytes));
      TE_RETURN_IF_ERROR(replacement.KeepOthers(IsModelWeights));
      return replacement.Commit();
    };
    return write().WithContext("saving " + directory);
  } catch (const std::bad_alloc&) {
    return OutOfMemory("saving {}: no memory", directory);
  }
}

Status CheckSaveDirectory(const std::string& directory, const SaveTarget& target) {
  return Begin(directory, target).status();
}

bool IsCheckpointFile(const std::string& name) {
  return name == "config.json" || IsModelWeights(name) || IsCarriedOver(name);
}

StatusOr<JsonValue> ConfigWithDType(const JsonValue& config, StoredType type) {
  const char* name = nullptr;
  switch (type) {
    case StoredType::kF64:
      name = "float64";
      break;
    case StoredType::kF32:
      name = "float32";
      break;
    case StoredType::kF16:
      name = "float16";
      break;
    case StoredType::kBF16:
      name = "bfloat16";
      break;
    default:
      return InvalidArgument("a model of dtype {}; expected F64, F32, F16 or BF16", Name(type));
  }
  JsonValue out = config;
  bool found = false;
  for (const char* key : {"dtype", "torch_dtype"}) {
    if (config.Find(key) == nullptr) continue;
    out = out.With(key, JsonValue::String(name));
    found = true;
  }
  return found ? out : out.With("torch_dtype", JsonValue::String(name));
}

StatusOr<int64_t> ParseByteSize(std::string_view text) {
  struct Unit {
    std::string_view suffix;
    int64_t bytes;
  };
  static constexpr Unit kUnits[] = {{"GIB", int64_t{1} << 30},
                                    {"MIB", int64_t{1} << 20},
                                    {"KIB", int64_t{1} << 10},
                                    {"GB", 1'000'000'000},
                                    {"MB", 1'000'000},
                                    {"KB", 1'000},
                                    {"", 1}};
  std::string upper(text);
  for (char& c : upper) c = c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
  for (const Unit& unit : kUnits) {
    if (!upper.ends_with(unit.suffix)) continue;
    const char* end = upper.data() + upper.size() - unit.suffix.size();
    int64_t count = 0, bytes = 0;
    const auto [stop, error] = std::from_chars(upper.data(), end, count);
    if (error != std::errc() || stop != end || count <= 0 ||
        __builtin_mul_overflow(count, unit.bytes, &bytes))
      break;
    return bytes;
  }
  return InvalidArgument(
      "\"{}\" is no size; expected a number above 0 with GB, MB, KB, GiB, MiB, KiB or nothing, "
      "such as 5GB",
      text);
}

}  // namespace te
