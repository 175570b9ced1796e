#include "models/checkpoint/model_directory.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <set>
#include <string_view>
#include <vector>

#include "fmt/ranges.h"
#include "models/file_kind/file_kind.h"
#include "models/json/json.h"

namespace te {
namespace {

namespace fs = std::filesystem;

constexpr char kExpected[] =
    "expected a checkpoint directory in Hugging Face's layout (config.json, model.safetensors, "
    "...)";
// Somebody's home directory is not searched to its end.
constexpr size_t kMostEntries = 4096;
constexpr int kMostLevels = 4;  // HF_HOME/hub/models--a--b/snapshots/0123
constexpr size_t kMaxSmallJson = size_t{1} << 20;

bool Exists(const fs::path& path) {
  std::error_code error;
  return fs::exists(path, error);
}

bool NameExists(const fs::path& path) {
  std::error_code error;
  return fs::exists(fs::symlink_status(path, error));
}

bool IsDirectory(const fs::path& path) {
  std::error_code error;
  return fs::is_directory(path, error);
}

// The names in a directory, sorted; the first kMostEntries of them.
std::vector<std::string> NamesIn(const fs::path& directory) {
  std::vector<std::string> names;
  std::error_code error;
  fs::directory_iterator it(directory, error);
  for (; !error && it != fs::directory_iterator() && names.size() < kMostEntries;
       it.increment(error)) {
    names.push_back(it->path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

// "checkpoint-500" -> 500; -1 for what does not end in a dash (or "step", "iter_") and a number.
int64_t TrailingNumber(const std::string& name) {
  const size_t last = name.find_last_not_of("0123456789");
  const size_t at = last == std::string::npos ? 0 : last + 1;
  int64_t number = -1;
  const auto [end, error] = std::from_chars(name.data() + at, name.data() + name.size(), number);
  return error == std::errc() && at < name.size() ? number : -1;
}

// Folders with a config.json, relative to `root`; folders below such a one are not looked at.
void FindConfigs(const fs::path& root, const fs::path& relative, int levels, size_t* entries,
                 std::vector<std::string>* found) {
  for (const std::string& name : NamesIn(root / relative)) {
    if (++*entries > kMostEntries || found->size() >= 64) return;
    const fs::path path = relative / name;
    std::error_code error;
    // Links to directories may go around in circles.
    if (fs::is_symlink(root / path, error) || !IsDirectory(root / path)) continue;
    if (Exists(root / path / "config.json")) {
      found->push_back(path.string());
    } else if (levels > 1 && !name.starts_with(".")) {
      FindConfigs(root, path, levels - 1, entries, found);
    }
  }
}

// A small file's first line.
std::string FirstLine(const fs::path& path) {
  const StatusOr<std::string> text = ReadTextFile(path.string(), 4096);
  return text.ok() ? text->substr(0, text->find_first_of("\r\n")) : std::string();
}

// Of folders with a config.json, the one that is meant most likely goes first: of a hub cache the
// snapshot that refs/main names, of a run the checkpoint of the highest step.
void OrderByLikelihood(const fs::path& root, std::vector<std::string>* found) {
  const auto rank = [&](const std::string& name) {
    const fs::path path(name);
    if (path.parent_path().filename() == "snapshots" || root.filename() == "snapshots") {
      const fs::path cache = (root / path).parent_path().parent_path();
      return FirstLine(cache / "refs" / "main") == path.filename() ? INT64_MAX : int64_t{0};
    }
    return TrailingNumber(name);
  };
  std::stable_sort(found->begin(), found->end(),
                   [&](const std::string& a, const std::string& b) { return rank(a) > rank(b); });
}

// "DIR/a, DIR/b and 3 more".
std::string Shown(const fs::path& root, const std::vector<std::string>& found) {
  constexpr size_t kShown = 3;
  std::vector<std::string> paths;
  for (const std::string& name : found) {
    if (paths.size() < kShown) paths.push_back((root / name).string());
  }
  std::string out = fmt::format("{}", fmt::join(paths, ", "));
  if (found.size() > kShown) out += fmt::format(" and {} more", found.size() - kShown);
  return out;
}

bool IsPartOfDownload(std::string_view name) {
  for (std::string_view suffix :
       {".incomplete", ".aria2", ".part", ".crdownload", ".partial", ".download", ".!qb", ".tmp"}) {
    if (name.ends_with(suffix)) return true;
  }
  return false;
}

// The string under `key` of a small JSON file; empty when there is none.
std::string StringIn(const fs::path& path, const char* key) {
  const StatusOr<JsonValue> root = ReadJsonFile(path.string(), kMaxSmallJson);
  const JsonValue* value = root.ok() ? root->Find(key) : nullptr;
  return value != nullptr && value->is_string() ? value->string() : "";
}

std::string DescribeAdapter(const fs::path& directory) {
  const std::string base = StringIn(directory / "adapter_config.json", "base_model_name_or_path");
  return fmt::format(
      "a PEFT adapter (adapter_config.json), changes to a model and no model{}; merge it into that "
      "model first (PEFT: merge_and_unload, then save_pretrained) and give the result",
      base.empty() ? "" : ": its base is " + base);
}

// What a folder without config.json is by the names in it; empty when they say nothing.
std::string KindOfFolder(const fs::path& directory, const std::vector<std::string>& names) {
  const auto has = [&](std::string_view name) {
    return std::binary_search(names.begin(), names.end(), name);
  };
  const auto ending = [&](std::string_view suffix) -> const std::string* {
    for (const std::string& name : names) {
      if (name.ends_with(suffix)) return &name;
    }
    return nullptr;
  };
  const auto starting = [&](std::string_view prefix) -> const std::string* {
    for (const std::string& name : names) {
      if (name.starts_with(prefix)) return &name;
    }
    return nullptr;
  };
  if (names.empty()) return "an empty folder";
  if (has("adapter_config.json")) return DescribeAdapter(directory);
  if (has("params.json") || starting("consolidated.") != nullptr) {
    return "a checkpoint in Meta's own format (params.json, consolidated.*.pth); convert it with "
           "transformers' convert_llama_weights_to_hf.py, or download the model's Hugging Face "
           "version (of a hub snapshot: the folder above \"original\")";
  }
  if (has("model_index.json")) {
    return "a diffusers pipeline (model_index.json): a model for images, no Llama";
  }
  if (has("modules.json") || has("config_sentence_transformers.json")) {
    return "a sentence-transformers model (modules.json): it computes embeddings of sentences and "
           "has no head to generate text";
  }
  if (const std::string* name = ending(".gguf"); name != nullptr) {
    return fmt::format(
        "a folder of GGUF files ({}, llama.cpp's format), which is not read; use the directory in "
        "Hugging Face's format that it was made from",
        *name);
  }
  if (has("latest_checkpointed_iteration.txt") || starting("iter_") != nullptr) {
    return "a Megatron checkpoint; convert it to Hugging Face's format (Megatron Bridge, or "
           "Megatron-LM's tools/checkpoint/convert.py)";
  }
  if (has("zero_to_fp32.py") || starting("global_step") != nullptr ||
      ending("_model_states.pt") != nullptr) {
    return "a DeepSpeed checkpoint in pieces; join it with the zero_to_fp32.py that stands in it";
  }
  if (ending(".distcp") != nullptr || has(".metadata")) {
    return "a distributed checkpoint of PyTorch (.distcp): convert it (python3 -m "
           "torch.distributed.checkpoint.format_utils dcp_to_torch) and save it with "
           "save_pretrained";
  }
  if (ending(".nemo") != nullptr) return "a NeMo checkpoint; export it to Hugging Face's format";
  if (ending(".onnx") != nullptr) return "an ONNX model, which is not read";
  if (has("openvino_model.xml")) return "an OpenVINO model, which is not read";
  if (has("mlc-chat-config.json")) return "an MLC model, which is not read";
  if (has("saved_model.pb")) return "a TensorFlow SavedModel, which is not read";
  if (ending(".engine") != nullptr) return "a TensorRT engine, which is not read";
  if (has("dataset_info.json") || has("dataset_dict.json") || ending(".parquet") != nullptr ||
      ending(".arrow") != nullptr) {
    return "a data set, no model (training data goes to --data)";
  }
  const bool weights =
      std::ranges::any_of(kWeightFiles, [&](const char* name) { return has(name); }) ||
      ending(".safetensors") != nullptr;
  const bool tokenizer = has("tokenizer.json") || has("tokenizer.model") ||
                         has("tokenizer_config.json") || has("vocab.json");
  if (weights) {
    return "weights without the config.json that says what they are; put that of the model beside "
           "them";
  }
  if (has("optimizer.pt") || has("trainer_state.json")) {
    return "a Trainer's state without the model (trainer_state.json, optimizer.pt)";
  }
  if (ending(".bin") != nullptr || ending(".pth") != nullptr || ending(".pt") != nullptr) {
    return "files of torch.save without a config.json; save the model with save_pretrained";
  }
  if (tokenizer) return "a tokenizer alone, without a model";
  return "";
}

// A file whose name is nearly config.json: downloaded twice, saved as text, from another system.
std::string NearlyConfig(const std::vector<std::string>& names) {
  for (const std::string& name : names) {
    std::string lower = name;
    for (char& c : lower) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    if (lower == "config.json" || lower.starts_with("config.json.") || lower == "config" ||
        lower == "config (1).json" || lower == "config.txt" || lower == "config.yaml" ||
        lower.ends_with("-config.json") || lower == "config_1.json") {
      return fmt::format(" (there is {}; is that the one?)", name);
    }
  }
  return "";
}

Status NoConfig(const fs::path& directory, bool subfolder_was_given) {
  const std::string text = directory.string();
  const fs::path config = directory / "config.json";
  if (NameExists(config)) {
    return NotFound(
        "{}: a symbolic link that leads nowhere (a hub snapshot copied without its blobs, or an "
        "interrupted download); download the model again",
        config.string());
  }
  const std::vector<std::string> names = NamesIn(directory);
  std::vector<std::string> found;
  size_t entries = 0;
  FindConfigs(directory, "", kMostLevels, &entries, &found);
  OrderByLikelihood(directory, &found);
  const std::string interrupted = DescribeInterruptedDownload(directory.string());
  const auto has = [&](const char* name) {
    return std::binary_search(names.begin(), names.end(), std::string(name));
  };
  const bool cache = has("snapshots") && has("blobs");
  if (cache && found.empty()) {
    return NotFound(
        "{}: the Hugging Face hub's cache of a model of which nothing usable is there: no folder "
        "below snapshots/ has a config.json{}; download the model again",
        text, interrupted);
  }
  const std::string kind = KindOfFolder(directory, names);
  if (!found.empty()) {
    const char* what = ", but below it there is";
    if (cache) {
      what = ": the Hugging Face hub's cache of a model; its snapshot is";
    } else if (has("hub") || std::ranges::any_of(names, [](const std::string& name) {
                 return name.starts_with("models--");
               })) {
      what = ": the Hugging Face hub's cache; a model is one of its snapshots:";
    } else if (std::ranges::any_of(found, [](const std::string& name) {
                 return fs::path(name).filename().string().starts_with("checkpoint-");
               })) {
      what = ": the folder of a training run; its latest checkpoint is";
    }
    std::string out =
        fmt::format("{}: no config.json there{} {}", text, what, Shown(directory, found));
    if (!kind.empty() && !cache && !has("modules.json") && has("adapter_config.json")) {
      out += "; the folder itself is " + kind;
    }
    if (has("model_index.json") || has("modules.json")) out += "; the folder itself is " + kind;
    return NotFound("{}", out);
  }
  // One folder too deep: beside the tokenizer, in blobs/, in original/.
  const fs::path parent = fs::absolute(directory).lexically_normal();
  const fs::path above = (parent.has_filename() ? parent : parent.parent_path()).parent_path();
  std::string up;
  if (!above.empty() && above != above.root_path() && Exists(above / "config.json")) {
    up = fmt::format("; the folder above has one: {}", above.string());
  }
  if (!kind.empty()) {
    return NotFound("{}: no config.json there: it is {}{}{}; {}", text, kind, up, interrupted,
                    kExpected);
  }
  return NotFound("{}: no config.json there{}{}{}; {}{}", text, NearlyConfig(names), up,
                  interrupted, kExpected, subfolder_was_given ? "" : " (is it in a subfolder?)");
}

// What stands in the place of a directory.
Status NotADirectory(const fs::path& path) {
  const StatusOr<FileContent> content = DescribeFile(path.string());
  const std::string name = path.filename().string();
  const fs::path parent = path.has_parent_path() ? path.parent_path() : fs::path(".");
  std::string text = fmt::format("{}: a file", path.string());
  if (content.ok()) text += fmt::format(" ({})", content->ToString());
  if (content.ok() && content->kind == FileKind::kGguf) return InvalidArgument("{}", text);
  if (Exists(parent / "config.json")) {
    return InvalidArgument("{}; give the directory that holds it: {}", text, parent.string());
  }
  return InvalidArgument("{}, not a directory; {}", text, kExpected);
}

// Whether a name that is no directory reads like one of the hub: "meta-llama/Llama-3.2-1B".
bool IsHubName(const std::string& name) {
  const size_t slash = name.find('/');
  if (slash == 0 || slash == std::string::npos || slash + 1 == name.size()) return false;
  if (name.find('/', slash + 1) != std::string::npos || name.front() == '.') return false;
  return std::ranges::all_of(name, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.' || c == '/';
  });
}

}  // namespace

std::string WithVariant(const std::string& name, const std::string& variant) {
  if (variant.empty()) return name;
  const size_t dot = name.rfind('.');
  return name.substr(0, dot) + "." + variant + name.substr(dot);
}

std::string DescribeInterruptedDownload(const std::string& directory) {
  const fs::path root(directory);
  // Where the hub's clients, browsers and download managers leave what is not finished.
  for (const fs::path& folder : {root, root / "blobs", root / ".cache" / "huggingface" / "download",
                                 root / ".." / ".." / "blobs"}) {
    // A snapshot's blobs only: of another folder the neighbours tell nothing.
    if (folder == root / ".." / ".." / "blobs" &&
        fs::absolute(root).lexically_normal().parent_path().filename() != "snapshots") {
      continue;
    }
    for (const std::string& name : NamesIn(folder)) {
      if (!IsPartOfDownload(name)) continue;
      return fmt::format(
          "; a download was interrupted ({}): start it again",
          (folder == root ? fs::path(name) : folder.lexically_relative(root) / name).string());
    }
  }
  return "";
}

StatusOr<std::string> FindModelDirectory(const std::string& directory,
                                         const std::string& subfolder) {
  const fs::path root(directory);
  std::error_code error;
  if (!Exists(root)) {
    if (NameExists(root))
      return NotFound("{}: a symbolic link that leads nowhere; {}", directory, kExpected);
    return NotFound(
        "{}: no such directory; {}{}", directory, kExpected,
        IsHubName(directory)
            ? fmt::format("; if that is a model's name on the Hugging Face hub, download it: "
                          "hf download {} --local-dir DIRECTORY",
                          directory)
            : "");
  }
  if (!IsDirectory(root)) return NotADirectory(root);
  const fs::path found = subfolder.empty() ? root : root / subfolder;
  if (!IsDirectory(found)) {
    return NotFound("{}: no such directory (subfolder {})", found.string(), subfolder);
  }
  const std::string config = (found / "config.json").string();
  if (!Exists(config)) return NoConfig(found, !subfolder.empty());
  TE_ASSIGN_OR_RETURN(const FileContent content, DescribeFile(config));
  if (content.foreign() || content.kind == FileKind::kServerError) {
    return CorruptData("{}: {}; expected the model's configuration as JSON", config,
                       content.ToString());
  }
  return found.string();
}

std::vector<std::string> WeightLikeFiles(const std::string& directory) {
  std::vector<std::string> out;
  for (const std::string& name : NamesIn(directory)) {
    // State of te's own, which belongs to weights that are elsewhere or gone.
    if (name.starts_with("te_") || out.size() >= 8) continue;
    for (const char* part : {".safetensors", ".bin", ".pth", ".pt", ".gguf", ".msgpack", ".h5"}) {
      if (name.find(part) == std::string::npos) continue;
      out.push_back(name);
      break;
    }
  }
  return out;
}

Status DescribeMissingWeights(const std::string& directory, const std::string& variant) {
  const fs::path root(directory);
  const std::vector<std::string> names = NamesIn(root);
  const auto exists = [&](const std::string& name) {
    return std::binary_search(names.begin(), names.end(), name);
  };
  const std::string interrupted = DescribeInterruptedDownload(directory);
  const std::vector<std::string> there = WeightLikeFiles(directory);
  std::vector<std::string> searched;
  std::string variants, shards;
  for (const char* name : kWeightFiles) searched.push_back(WithVariant(name, variant));
  for (const std::string& name : names) {
    if (name.find("-of-0") != std::string::npos && shards.empty() &&
        (name.ends_with(".safetensors") || name.ends_with(".bin"))) {
      shards = name;
    }
    // model.fp16.safetensors, model.safetensors.index.fp16.json
    for (const char* file : kWeightFiles) {
      const std::string whole(file);
      const size_t dot = whole.rfind('.');
      if (!variants.empty() || name.size() <= whole.size() + 1 ||
          !name.starts_with(whole.substr(0, dot + 1)) || !name.ends_with(whole.substr(dot))) {
        continue;
      }
      const std::string word = name.substr(dot + 1, name.size() - whole.size() - 1);
      if (word.find_first_of("./") == std::string::npos && WithVariant(whole, word) == name)
        variants = word;
    }
  }
  std::string hint;
  if (!variant.empty()) {
    const bool plain = std::ranges::any_of(kWeightFiles, exists);
    return NotFound("{}: no weights of variant {}: looked for {}{}{}{}", directory, variant,
                    fmt::join(searched, ", "),
                    there.empty() ? "" : fmt::format("; it has {}", fmt::join(there, ", ")),
                    plain ? "; those without a variant load without --variant" : "", interrupted);
  }
  if (!variants.empty()) {
    hint = fmt::format("; load the variant with --variant {}", variants);
  } else if (!shards.empty()) {
    hint = fmt::format(
        "; {} is a shard, and the index that says what belongs to the model ({}) is missing: "
        "download it, too",
        shards, shards.ends_with(".bin") ? kWeightFiles[3] : kWeightFiles[1]);
  } else if (exists("adapter_config.json")) {
    hint = "; it is " + DescribeAdapter(root);
  } else if (exists("tf_model.h5") || exists("flax_model.msgpack")) {
    hint =
        "; weights of TensorFlow and Flax are not read: save the model with save_pretrained "
        "from PyTorch";
  } else if (std::ranges::any_of(names,
                                 [](const std::string& name) { return name.ends_with(".gguf"); })) {
    hint =
        "; GGUF (llama.cpp's format) is not read: use the directory in Hugging Face's format "
        "that it was made from";
  } else if (std::ranges::any_of(names, [](const std::string& name) {
               return name.starts_with("consolidated.");
             })) {
    hint =
        "; consolidated.*.pth is Meta's own format: convert it with transformers' "
        "convert_llama_weights_to_hf.py";
  } else if (there.size() == 1 && there[0].ends_with(".safetensors")) {
    hint = "; if that is the model, name it model.safetensors";
  }
  return NotFound("{}: no weights found: looked for {}{}{}{}", directory, fmt::join(searched, ", "),
                  there.empty() ? "" : fmt::format("; it has {}", fmt::join(there, ", ")), hint,
                  interrupted);
}

}  // namespace te
