#include "models/checkpoint/checkpoint_reader.h"

#include <errno.h>
#include <sys/stat.h>

#include <cstring>
#include <filesystem>
#include <set>

#include "fmt/ranges.h"
#include "models/json/json.h"

namespace te {
namespace {

// Hugging Face's _add_variant: the variant goes before the last suffix.
std::string WithVariant(const std::string& name, const std::string& variant) {
  if (variant.empty()) return name;
  const size_t dot = name.rfind('.');
  return name.substr(0, dot) + "." + variant + name.substr(dot);
}

bool Exists(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0;
}

// A dangling link (an interrupted hub download) counts as there: opening it then names it.
bool NameExists(const std::string& path) {
  struct stat info;
  return lstat(path.c_str(), &info) == 0;
}

Status CheckDirectory(const std::string& path) {
  struct stat info;
  if (stat(path.c_str(), &info) != 0) {
    if (errno == ENOENT || errno == ENOTDIR) return NotFound("{}: no such directory", path);
    return IoError("{}: {}", path, std::strerror(errno));
  }
  if (!S_ISDIR(info.st_mode))
    return InvalidArgument("{}: not a directory; expected one with config.json and weights", path);
  return OkStatus();
}

// Whether joining `name` to a directory stays inside it, judged by the name alone.
bool StaysInside(const std::string& name) {
  if (name.empty() || name.front() == '/' || name.find('\0') != std::string::npos) return false;
  int parts = 0;
  for (const auto& part : std::filesystem::path(name)) {
    if (part == "..") return false;
    if (part != "." && !part.empty()) ++parts;
  }
  return parts > 0;
}

Status CheckName(const char* what, const std::string& name) {
  if (StaysInside(name)) return OkStatus();
  return InvalidArgument("{} \"{}\"; expected a relative path without \"..\"", what, name);
}

// Weight files of other kinds that lie there, to explain why none was found.
std::string WeightFilesIn(const std::string& directory) {
  std::set<std::string> names;
  std::error_code error;
  for (const auto& item : std::filesystem::directory_iterator(directory, error)) {
    const std::string name = item.path().filename().string();
    for (const char* part : {".safetensors", ".bin", ".pth", ".pt", ".gguf", ".msgpack", ".h5"}) {
      if (name.find(part) != std::string::npos) names.insert(name);
    }
    if (names.size() >= 8) break;
  }
  return names.empty() ? "" : fmt::format("; it has {}", fmt::join(names, ", "));
}

}  // namespace

StatusOr<std::unique_ptr<CheckpointReader>> CheckpointReader::Open(
    const std::string& directory, const CheckpointOptions& options) {
  auto reader = std::make_unique<CheckpointReader>();
  reader->directory_ = directory;
  TE_RETURN_IF_ERROR(CheckDirectory(directory));
  if (!options.subfolder.empty()) {
    TE_RETURN_IF_ERROR(CheckName("subfolder is", options.subfolder));
    reader->directory_ = (std::filesystem::path(directory) / options.subfolder).string();
    TE_RETURN_IF_ERROR(CheckDirectory(reader->directory_));
  }
  if (!options.variant.empty() && options.variant.find('/') != std::string::npos) {
    return InvalidArgument("variant is \"{}\"; expected a word such as fp16", options.variant);
  }
  std::vector<std::string> searched;
  for (const char* name : {"model.safetensors", "model.safetensors.index.json", "pytorch_model.bin",
                           "pytorch_model.bin.index.json"}) {
    const std::string file = WithVariant(name, options.variant);
    searched.push_back(file);
    const std::string path = reader->directory_ + "/" + file;
    if (!NameExists(path)) continue;
    if (file.ends_with(".json")) {
      TE_RETURN_IF_ERROR(reader->OpenIndex(path));
    } else {
      TE_RETURN_IF_ERROR(reader->AddFile(path));
    }
    return reader;
  }
  return NotFound("{}: no weights found: looked for {}{}", reader->directory_,
                  fmt::join(searched, ", "), WeightFilesIn(reader->directory_));
}

StatusOr<std::unique_ptr<CheckpointReader>> CheckpointReader::OpenFiles(
    const std::string& directory, const std::vector<std::string>& paths) {
  auto reader = std::make_unique<CheckpointReader>();
  reader->directory_ = directory;
  for (const std::string& path : paths) TE_RETURN_IF_ERROR(reader->AddFile(path));
  return reader;
}

Status CheckpointReader::AddFile(const std::string& path) {
  TE_ASSIGN_OR_RETURN(std::unique_ptr<TensorFile> file, OpenTensorFile(path));
  const size_t number = files_.size();
  files_.push_back(std::move(file));
  const std::vector<TensorEntry>& entries = files_.back()->entries();
  for (size_t i = 0; i < entries.size(); ++i) {
    const auto [it, inserted] =
        tensors_.try_emplace(entries[i].name, Tensor{&entries[i], number, i});
    if (!inserted) {
      return CorruptData("tensor {} is in two files: {} and {}", entries[i].name,
                         PathOf(it->second), path);
    }
  }
  return OkStatus();
}

Status CheckpointReader::OpenIndex(const std::string& path) {
  TE_ASSIGN_OR_RETURN(const JsonValue root, ReadJsonFile(path));
  const JsonValue* map = root.Find("weight_map");
  if (map == nullptr || !map->is_object()) {
    return CorruptData("{}: no \"weight_map\" object; expected tensor names and their files", path);
  }
  // Shards in the order of their names: that of the layers.
  std::map<std::string, std::string> shards;  // and one tensor of each, for messages
  for (const JsonMember& member : map->members()) {
    if (!member.value.is_string()) {
      return CorruptData("{}: the file of tensor {} is {}; expected a string", path, member.key,
                         member.value.ToString());
    }
    const std::string& name = member.value.string();
    if (!StaysInside(name)) {
      return CorruptData("{}: tensor {} is said to be in \"{}\", which leads out of the directory",
                         path, member.key, name);
    }
    shards.try_emplace(name, member.key);
  }
  if (shards.empty()) return CorruptData("{}: \"weight_map\" names no tensor", path);
  std::map<std::string, size_t> number_of;
  for (const auto& [name, tensor] : shards) {
    const std::string shard = directory_ + "/" + name;
    if (!Exists(shard)) {
      return NotFound("{}: no such file; {} says that it holds tensor {}{}", shard, path, tensor,
                      NameExists(shard)
                          ? " (a symbolic link that leads nowhere: an interrupted download?)"
                          : "");
    }
    number_of[name] = files_.size();
    TE_RETURN_IF_ERROR(AddFile(shard));
  }
  for (const JsonMember& member : map->members()) {
    const Tensor* tensor = Find(member.key);
    if (tensor != nullptr && tensor->file == number_of[member.value.string()]) continue;
    return CorruptData(
        "{}: tensor {} is said to be in {}, which {}", path, member.key, member.value.string(),
        tensor == nullptr ? "does not hold it" : "does not; " + PathOf(*tensor) + " does");
  }
  return OkStatus();
}

const CheckpointReader::Tensor* CheckpointReader::Find(std::string_view name) const {
  const auto it = tensors_.find(name);
  return it == tensors_.end() ? nullptr : &it->second;
}

std::string CheckpointReader::FileNames() const {
  std::vector<std::string> names;
  for (const auto& file : files_)
    names.push_back(std::filesystem::path(file->path()).filename().string());
  if (names.size() > 4) {
    return fmt::format("{}, {}, ... {} ({} files)", names[0], names[1], names.back(), names.size());
  }
  return fmt::format("{}", fmt::join(names, ", "));
}

Status CheckpointReader::Read(std::string_view name, TensorView to,
                              const CopyFromHost& copy) const {
  const Tensor* tensor = Find(name);
  if (tensor == nullptr)
    return NotFound("tensor {} is in none of {} ({})", name, FileNames(), directory_);
  return files_[tensor->file]->ReadTensor(tensor->index, to, copy);
}

StatusOr<std::unique_ptr<TensorStream>> CheckpointReader::OpenStream(const Tensor& tensor) const {
  return files_[tensor.file]->OpenStream(tensor.index);
}

}  // namespace te
