// Safetensors files: 8 bytes of header length (little endian), a JSON header, the tensors' bytes
// without gaps. Format: https://github.com/huggingface/safetensors#format. Every rule written there
// is checked when a file is opened.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "models/checkpoint/input_file.h"
#include "models/checkpoint/tensor_file.h"

namespace te {

inline constexpr uint64_t kMaxSafetensorsHeader = 100'000'000;

class SafetensorsFile : public TensorFile {
 public:
  static StatusOr<std::unique_ptr<SafetensorsFile>> Open(const std::string& path);
  static StatusOr<std::unique_ptr<SafetensorsFile>> Open(InputFile input);

  const std::string& path() const override { return file_.path(); }
  const std::vector<TensorEntry>& entries() const override { return entries_; }
  StatusOr<std::unique_ptr<TensorStream>> OpenStream(size_t index) const override;
  // The header's __metadata__.
  const std::vector<std::pair<std::string, std::string>>& metadata() const { return metadata_; }

 private:
  Status ParseHeader(const std::string& header, uint64_t data_bytes);

  InputFile file_;
  std::vector<TensorEntry> entries_;
  std::vector<uint64_t> offsets_;  // of each entry's data in the file
  std::vector<std::pair<std::string, std::string>> metadata_;
};

// One tensor to be written. The bytes come from `write`, which calls its argument with successive
// pieces until all elements (row-major, of `type`) have been handed over: no tensor needs to be in
// host memory as a whole.
struct SafetensorsItem {
  using Sink = std::function<Status(const void* bytes, size_t count)>;
  std::string name;
  StoredType type = StoredType::kF32;
  std::vector<int64_t> shape;
  std::function<Status(const Sink&)> write;

  uint64_t bytes() const;
};

// A tensor as an item, through `copy` in pieces of 1 MiB where it is not host memory (null: it is);
// `data` (dense) must stay alive and unchanged until it is written.
StatusOr<SafetensorsItem> TensorItem(const std::string& name, ConstTensorView data,
                                     CopyToHost copy);
// Of host memory.
StatusOr<SafetensorsItem> HostItem(const std::string& name, ConstTensorView data);

// Creates `path` (which must not exist, unless `replace`) with the items in order of falling
// element size, so that each is aligned to its element, and fsyncs it. On failure the half-written
// file is removed.
Status WriteSafetensors(const std::string& path, const std::vector<SafetensorsItem>& items,
                        const std::vector<std::pair<std::string, std::string>>& metadata,
                        bool replace);

}  // namespace te
