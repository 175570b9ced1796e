#include "models/llama/checkpoint_faults.h"

#include <filesystem>
#include <set>
#include <utility>

#include "fmt/format.h"
#include "models/checkpoint/model_directory.h"
#include "models/file_kind/file_kind.h"

namespace te {
namespace {

// Of tensors that are missing, so many are named.
constexpr size_t kMostNamed = 20;

// Whether the index places a tensor in a file that could not be opened: that fault is told already.
class UnreadShards {
 public:
  explicit UnreadShards(const CheckpointReader& reader) : reader_(reader) {
    for (const auto& file : reader.files())
      read_.insert(std::filesystem::path(file->path()).lexically_normal().string());
  }
  bool Hold(const std::string& name) const {
    const std::string* says = reader_.IndexSays(name);
    if (says == nullptr) return false;
    const std::filesystem::path path = std::filesystem::path(reader_.directory()) / *says;
    return !read_.contains(path.lexically_normal().string());
  }

 private:
  const CheckpointReader& reader_;
  std::set<std::string> read_;
};

void CheckTensors(const LlamaModel& model, CheckpointFaults* out) {
  const CheckpointReader& reader = *out->reader;
  const std::vector<WantedTensor> wanted = WantedLlamaTensors(model);
  const LoadOptions options = LlamaCheckOptions(model.config(), reader);
  const UnreadShards unread(reader);
  std::vector<const WantedTensor*> absent;
  for (const WantedTensor& want : wanted) {
    const CheckpointReader::Tensor* stored = reader.Find(want.name);
    if (stored == nullptr) {
      if (!unread.Hold(want.name)) absent.push_back(&want);
      continue;
    }
    if (Status status = CheckStored(reader, *stored, want); !status.ok())
      out->faults.push_back(std::move(status));
  }
  // Nothing could be opened: that fault is told already, and every tensor is missing.
  if (!absent.empty() && !(reader.files().empty() && !out->faults.empty())) {
    out->faults.push_back(MissingTensors(reader, wanted, absent, options));
    if (absent.size() == wanted.size()) absent.resize(1);
    for (size_t i = 1; i < absent.size(); ++i) {
      if (i == kMostNamed) {
        out->faults.push_back(NotFound("{} further tensors are missing", absent.size() - i));
        break;
      }
      out->faults.push_back(NotFound("tensor {} of shape {} is missing, too", absent[i]->name,
                                     absent[i]->to.shape().ToString()));
    }
  }
  for (const TiedTensor& tied : options.tied) {
    if (Status status = CheckTied(reader, tied); !status.ok())
      out->faults.push_back(std::move(status));
  }
  out->warnings = SurplusTensors(reader, wanted, options).Warnings();
}

// Other files of a checkpoint that may be something else than their name says.
void CheckOtherFiles(const std::string& directory, std::vector<Status>* faults) {
  for (const char* name :
       {"tokenizer.model", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
        "added_tokens.json", "generation_config.json"}) {
    const std::string path = directory + "/" + name;
    const StatusOr<FileContent> content = DescribeFile(path);
    if (content.status().code() == StatusCode::kNotFound) {
      std::error_code error;
      if (std::filesystem::is_symlink(path, error)) {
        faults->push_back(
            NotFound("{}: a symbolic link that leads nowhere: an interrupted download?", path));
      }
    } else if (!content.ok()) {
      faults->push_back(content.status());
    } else if (content->foreign() || content->kind == FileKind::kServerError) {
      faults->push_back(CorruptData("{}: {}", path, content->ToString()));
    }
  }
}

}  // namespace

CheckpointFaults FindCheckpointFaults(const std::string& directory, const JsonValue& json,
                                      const LlamaModel& model, const CheckpointOptions& options) {
  CheckpointFaults out;
  const std::string folder =
      options.subfolder.empty() ? directory : directory + "/" + options.subfolder;
  CheckpointOptions collecting = options;
  collecting.faults = &out.faults;
  auto reader = OpenLlamaWeights(directory, json, model.config(), std::move(collecting));
  if (reader.ok()) {
    out.reader = std::move(reader).value();
    CheckTensors(model, &out);
  } else if (reader.status().code() == StatusCode::kNotFound && options.variant.empty() &&
             WeightLikeFiles(folder).empty() && DescribeInterruptedDownload(folder).empty()) {
    out.none = true;
  } else {
    out.faults.push_back(reader.status());
  }
  CheckOtherFiles(folder, &out.faults);
  return out;
}

}  // namespace te
