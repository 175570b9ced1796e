#include <algorithm>
#include <utility>

#include "models/checkpoint/input_file.h"
#include "models/checkpoint/safetensors.h"
#include "models/checkpoint/tensor_file.h"
#include "models/checkpoint/torch_bin.h"
#include "models/file_kind/file_kind.h"

namespace te {
namespace {

// A file of eight bytes or more whose first ones are no length of a header that could be: what it
// is instead says more than that.
Status CheckSafetensors(const InputFile& file, const FileContent& content) {
  switch (content.kind) {
    case FileKind::kSafetensors:
    case FileKind::kEmpty:
    case FileKind::kBinary:
      return OkStatus();
    case FileKind::kTorchZip:
    case FileKind::kTorchLegacy:
    case FileKind::kPickle:
      return CorruptData("{}: {}, and not of safetensors; name it pytorch_model.bin", file.path(),
                         content.what);
    default:
      return file.size() < 8 ? OkStatus()
                             : CorruptData("{}: {}; expected a safetensors file", file.path(),
                                           content.ToString());
  }
}

}  // namespace

StatusOr<std::unique_ptr<TensorFile>> OpenTensorFile(const std::string& path) {
  TE_ASSIGN_OR_RETURN(InputFile file, InputFile::Open(path));
  std::string head(std::min<uint64_t>(file.size(), kFileHeadBytes), '\0');
  TE_RETURN_IF_ERROR(file.ReadAt(0, head.data(), head.size()));
  const FileContent content = DescribeContent(head, file.size());
  const bool zip = head.starts_with("PK\x03\x04") || head.starts_with("PK\x05\x06");
  const bool bin = zip || content.kind == FileKind::kTorchLegacy || path.ends_with(".bin");
  // A name is a promise: what is called safetensors never reaches the unpickler.
  if (path.ends_with(".safetensors") || !bin) {
    TE_RETURN_IF_ERROR(CheckSafetensors(file, content));
    TE_ASSIGN_OR_RETURN(auto safetensors, SafetensorsFile::Open(std::move(file)));
    return std::unique_ptr<TensorFile>(std::move(safetensors));
  }
  if (!zip) return NotAZip(path, content);
  TE_ASSIGN_OR_RETURN(auto torch, TorchBinFile::Open(std::move(file)));
  return std::unique_ptr<TensorFile>(std::move(torch));
}

}  // namespace te
