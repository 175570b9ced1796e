#include <cstring>
#include <utility>

#include "models/checkpoint/input_file.h"
#include "models/checkpoint/safetensors.h"
#include "models/checkpoint/tensor_file.h"
#include "models/checkpoint/torch_bin.h"

namespace te {
namespace {

bool StartsWith(const std::string& text, std::string_view prefix) {
  return text.compare(0, prefix.size(), prefix) == 0;
}

}  // namespace

StatusOr<std::unique_ptr<TensorFile>> OpenTensorFile(const std::string& path) {
  TE_ASSIGN_OR_RETURN(InputFile file, InputFile::Open(path));
  std::string head(std::min<uint64_t>(file.size(), 64), '\0');
  TE_RETURN_IF_ERROR(file.ReadAt(0, head.data(), head.size()));
  if (StartsWith(head, "version https://git-lfs")) {
    return CorruptData("{}: a git-lfs pointer, not the weights; fetch them with: git lfs pull",
                       path);
  }
  // A name is a promise: what is called safetensors never reaches the unpickler.
  if (path.ends_with(".safetensors")) {
    TE_ASSIGN_OR_RETURN(auto safetensors, SafetensorsFile::Open(std::move(file)));
    return std::unique_ptr<TensorFile>(std::move(safetensors));
  }
  if (StartsWith(head, "PK\x03\x04") || StartsWith(head, "PK\x05\x06")) {
    TE_ASSIGN_OR_RETURN(auto bin, TorchBinFile::Open(std::move(file)));
    return std::unique_ptr<TensorFile>(std::move(bin));
  }
  if (IsLegacyTorchFile(head) || path.ends_with(".bin")) return NotAZip(path, head);
  TE_ASSIGN_OR_RETURN(auto safetensors, SafetensorsFile::Open(std::move(file)));
  return std::unique_ptr<TensorFile>(std::move(safetensors));
}

}  // namespace te
