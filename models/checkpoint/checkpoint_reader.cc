#include "models/checkpoint/checkpoint_reader.h"

#include <errno.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <set>

#include "fmt/ranges.h"
#include "models/checkpoint/model_directory.h"
#include "models/file_kind/file_kind.h"
#include "models/json/json.h"

namespace te {
namespace {

bool Exists(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0;
}

// A dangling link (an interrupted hub download) counts as there: opening it then names it.
bool NameExists(const std::string& path) {
  struct stat info;
  return lstat(path.c_str(), &info) == 0;
}

bool IsDirectory(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
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

// What Hugging Face's from_pretrained allows as config.json's transformers_weights.
Status CheckWeightsFile(const std::string& name) {
  if (StaysInside(name) &&
      (name.ends_with(".safetensors") || name.ends_with(".safetensors.index.json"))) {
    return OkStatus();
  }
  return InvalidArgument(
      "config.json: transformers_weights is \"{}\"; expected the name of a .safetensors or "
      ".safetensors.index.json file in its directory",
      name);
}

// The bytes of both, a piece at a time.
StatusOr<bool> SameBytes(TensorStream* a, TensorStream* b, uint64_t bytes) {
  constexpr uint64_t kPiece = 1 << 20;
  std::vector<char> x(std::min(bytes, kPiece)), y(x.size());
  for (uint64_t left = bytes; left > 0;) {
    const size_t count = static_cast<size_t>(std::min<uint64_t>(left, x.size()));
    TE_RETURN_IF_ERROR(a->Read(x.data(), count));
    TE_RETURN_IF_ERROR(b->Read(y.data(), count));
    if (std::memcmp(x.data(), y.data(), count) != 0) return false;
    left -= count;
  }
  return true;
}

}  // namespace

StatusOr<std::string> CheckpointReader::FindWeights(const CheckpointOptions& options) const {
  if (!options.weights_file.empty()) {
    TE_RETURN_IF_ERROR(CheckWeightsFile(options.weights_file));
    const std::string path = directory_ + "/" + options.weights_file;
    if (NameExists(path)) return path;
    return InvalidArgument("{}: no such file; config.json names it (transformers_weights)", path);
  }
  if (!options.variant.empty() && options.variant.find('/') != std::string::npos) {
    return InvalidArgument("variant is \"{}\"; expected a word such as fp16", options.variant);
  }
  for (const char* name : kWeightFiles) {
    const std::string path = directory_ + "/" + WithVariant(name, options.variant);
    if (NameExists(path) && !IsDirectory(path)) return path;
  }
  return DescribeMissingWeights(directory_, options.variant);
}

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
  TE_ASSIGN_OR_RETURN(const std::string path, reader->FindWeights(options));
  reader->faults_ = options.faults;
  if (!Exists(path)) {
    TE_RETURN_IF_ERROR(reader->Report(NotFound(
        "{}: no such file (a symbolic link that leads nowhere: an interrupted download?){}", path,
        DescribeInterruptedDownload(reader->directory_))));
    reader->faults_ = nullptr;
    return reader;
  }
  TE_RETURN_IF_ERROR(
      reader->Report(path.ends_with(".json") ? reader->OpenIndex(path) : reader->AddFile(path)));
  reader->faults_ = nullptr;
  return reader;
}

StatusOr<std::unique_ptr<CheckpointReader>> CheckpointReader::OpenFiles(
    const std::string& directory, const std::vector<std::string>& paths) {
  auto reader = std::make_unique<CheckpointReader>();
  reader->directory_ = directory;
  for (const std::string& path : paths) TE_RETURN_IF_ERROR(reader->AddFile(path));
  return reader;
}

Status CheckpointReader::Report(Status status) {
  if (status.ok() || faults_ == nullptr) return status;
  faults_->push_back(std::move(status));
  return OkStatus();
}

Status CheckpointReader::AddFile(const std::string& path) {
  TE_ASSIGN_OR_RETURN(std::unique_ptr<TensorFile> file, OpenTensorFile(path));
  const size_t number = files_.size();
  files_.push_back(std::move(file));
  const std::vector<TensorEntry>& entries = files_.back()->entries();
  for (size_t i = 0; i < entries.size(); ++i) {
    const Tensor tensor{&entries[i], number, i};
    const auto [it, inserted] = tensors_.try_emplace(entries[i].name, tensor);
    if (inserted) continue;
    copies_.push_back({entries[i].name, tensor, it->second});
    it->second = tensor;
  }
  return OkStatus();
}

Status CheckpointReader::OpenIndex(const std::string& path) {
  index_path_ = path;
  TE_ASSIGN_OR_RETURN(const FileContent content, DescribeFile(path));
  if (content.foreign()) return CorruptData("{}: {}", path, content.ToString());
  TE_ASSIGN_OR_RETURN(const JsonValue root, ReadJsonFile(path));
  const JsonValue* map = root.Find("weight_map");
  if (map == nullptr || !map->is_object()) {
    return CorruptData("{}: no \"weight_map\" object; expected tensor names and their files", path);
  }
  // Shards in the order of their names: that of the layers, and of Hugging Face's reading.
  std::map<std::string, std::string> shards;  // and one tensor of each, for messages
  for (const JsonMember& member : map->members()) {
    if (!member.value.is_string()) {
      TE_RETURN_IF_ERROR(Report(CorruptData("{}: the file of tensor {} is {}; expected a string",
                                            path, member.key, member.value.ToString())));
      continue;
    }
    const std::string& name = member.value.string();
    if (!StaysInside(name)) {
      TE_RETURN_IF_ERROR(Report(
          CorruptData("{}: tensor {} is said to be in \"{}\", which leads out of the directory",
                      path, member.key, name)));
      continue;
    }
    index_.try_emplace(member.key, name);
    shards.try_emplace(name, member.key);
  }
  if (shards.empty()) return CorruptData("{}: \"weight_map\" names no tensor", path);
  std::map<std::string, size_t> number_of;
  std::map<std::string, std::string> opened;  // "./x" and "x" are one file
  for (const auto& [name, tensor] : shards) {
    const std::string shard = directory_ + "/" + name;
    const std::string plain = std::filesystem::path(name).lexically_normal().string();
    if (const auto it = opened.find(plain); it != opened.end()) {
      if (number_of.contains(it->second)) number_of[name] = number_of[it->second];
      continue;
    }
    opened[plain] = name;
    Status status;
    if (!Exists(shard)) {
      status = NotFound(
          "{}: no such file; {} says that it holds tensor {}{}{}", shard, path, tensor,
          NameExists(shard) ? " (a symbolic link that leads nowhere: an interrupted download?)"
                            : "",
          DescribeInterruptedDownload(directory_));
    } else {
      const size_t number = files_.size();
      status = AddFile(shard);
      if (status.ok()) number_of[name] = number;
    }
    TE_RETURN_IF_ERROR(Report(status));
  }
  // Copies of which the index names the one that counts anyway may differ.
  std::erase_if(copies_, [&](const Copy& copy) {
    const Tensor* kept = Find(copy.name);
    const std::string* says = IndexSays(copy.name);
    return says != nullptr && number_of.contains(*says) && number_of[*says] == kept->file;
  });
  return OkStatus();
}

void CheckpointReader::Rename(
    const std::function<std::string(const std::string& stored_name)>& rename) {
  std::map<std::string, Tensor, std::less<>> renamed;
  // Those that keep their names go first.
  for (const bool keeps : {true, false}) {
    for (const auto& [name, tensor] : tensors_) {
      const std::string now = rename(name);
      if ((now == name) != keeps) continue;
      const auto [it, inserted] = renamed.try_emplace(now, tensor);
      if (!inserted) copies_.push_back({now, it->second, tensor});
    }
  }
  for (Copy& copy : copies_) copy.name = rename(copy.name);
  tensors_ = std::move(renamed);
}

void CheckpointReader::FindAlso(const std::string& name, const std::string& other) {
  const auto it = tensors_.find(other);
  if (it == tensors_.end()) return;
  const Tensor tensor = it->second;
  tensors_.try_emplace(name, tensor);
}

Status CheckpointReader::CheckCopies(std::string_view name) const {
  for (const Copy& copy : copies_) {
    if (copy.name != name) continue;
    const TensorEntry& a = *copy.kept.entry;
    const TensorEntry& b = *copy.other.entry;
    bool same = a.type == b.type && a.shape == b.shape;
    if (same) {
      TE_ASSIGN_OR_RETURN(const auto x, OpenStream(copy.kept));
      TE_ASSIGN_OR_RETURN(const auto y, OpenStream(copy.other));
      TE_ASSIGN_OR_RETURN(same, SameBytes(x.get(), y.get(), a.bytes()));
    }
    if (same) continue;
    if (a.name != b.name) {
      return CorruptData(
          "tensor {} is there under two names with different values: {} in {} and {} in {}; both "
          "mean the same one, remove that which is wrong",
          name, a.name, PathOf(copy.kept), b.name, PathOf(copy.other));
    }
    const std::string* says = IndexSays(a.name);
    return CorruptData(
        "tensor {} is in two files with different values: {} and {} ({}, Hugging Face takes the "
        "last "
        "file's); remove that which is wrong",
        a.name, PathOf(copy.other), PathOf(copy.kept),
        says == nullptr ? "the index names neither" : "the index names " + *says);
  }
  return OkStatus();
}

std::vector<std::string> CheckpointReader::Copied() const {
  std::set<std::string> names;
  for (const Copy& copy : copies_) names.insert(copy.name);
  return {names.begin(), names.end()};
}

const std::string* CheckpointReader::IndexSays(std::string_view stored_name) const {
  const auto it = index_.find(stored_name);
  return it == index_.end() ? nullptr : &it->second;
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
