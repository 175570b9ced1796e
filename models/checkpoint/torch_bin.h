// Files of torch.save since 1.6 (pytorch_model.bin): a zip archive with NAME/data.pkl and one entry
// NAME/data/KEY a storage.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "models/checkpoint/input_file.h"
#include "models/checkpoint/tensor_file.h"
#include "models/file_kind/file_kind.h"

struct zip;

namespace te {

// The file must hold a flat dictionary of tensors (a state dict). Several tensors may share one
// storage; they may be strided. Streams of one file must not be used by several threads.
class TorchBinFile : public TensorFile {
 public:
  // kUnsupported: big-endian files, pickles that want more than tensors and containers.
  // kCorruptData for the rest.
  static StatusOr<std::unique_ptr<TorchBinFile>> Open(const std::string& path);
  static StatusOr<std::unique_ptr<TorchBinFile>> Open(InputFile input);
  ~TorchBinFile() override;

  const std::string& path() const override { return path_; }
  const std::vector<TensorEntry>& entries() const override { return entries_; }
  // A tensor whose elements lie in order is streamed; another one is gathered in memory first, as
  // large as the tensor itself. One that overlaps itself other than by expanded dimensions is
  // refused.
  StatusOr<std::unique_ptr<TensorStream>> OpenStream(size_t index) const override;

 private:
  struct Layout {
    uint64_t zip_index = 0;
    uint64_t first_byte = 0;  // in the storage
    uint64_t span = 0;        // elements from the first to the last one
    std::vector<int64_t> strides;
    bool in_order = true;
  };
  class Builder;

  std::string path_;
  struct zip* archive_ = nullptr;
  std::vector<TensorEntry> entries_;
  std::vector<Layout> layouts_;
};

// The error for a .bin file that is no zip: what it is instead and, for an old torch file, the
// command that converts it.
Status NotAZip(const std::string& path, const FileContent& content);

}  // namespace te
