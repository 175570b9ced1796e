// A checkpoint directory in Hugging Face's layout: which files hold its weights, and which tensor
// stands where.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "models/checkpoint/tensor_file.h"

namespace te {

struct CheckpointOptions {
  std::string variant;    // "fp16": model.fp16.safetensors, model.safetensors.index.fp16.json, ...;
                          // empty: none
  std::string subfolder;  // of the checkpoint directory; empty: the directory itself
};

// Holds the weight files open: a checkpoint that is replaced on disk meanwhile is still read as it
// was. Thread-compatible.
class CheckpointReader {
 public:
  struct Tensor {
    const TensorEntry* entry = nullptr;
    size_t file = 0;   // into files()
    size_t index = 0;  // into that file's entries()
  };

  // Opens the first of these that exists, Hugging Face's order of preference: model.safetensors,
  // model.safetensors.index.json with its shards, pytorch_model.bin, pytorch_model.bin.index.json
  // with its shards. Refused: an index whose file names lead out of the directory (links are
  // followed), names a file that is missing or a tensor that its shard lacks; a tensor in two
  // shards. The error names file and tensor.
  static StatusOr<std::unique_ptr<CheckpointReader>> Open(const std::string& directory,
                                                          const CheckpointOptions& options = {});
  // These files, without an index.
  static StatusOr<std::unique_ptr<CheckpointReader>> OpenFiles(
      const std::string& directory, const std::vector<std::string>& paths);

  // Where config.json and the tokenizer stand, too: the directory with its subfolder.
  const std::string& directory() const { return directory_; }
  const std::vector<std::unique_ptr<TensorFile>>& files() const { return files_; }
  const std::map<std::string, Tensor, std::less<>>& tensors() const { return tensors_; }
  // Null when there is none.
  const Tensor* Find(std::string_view name) const;
  const std::string& PathOf(const Tensor& tensor) const { return files_[tensor.file]->path(); }
  // "model-00001-of-00002.safetensors, model-00002-of-00002.safetensors": for messages.
  std::string FileNames() const;

  // TensorFile::ReadTensor by name; kNotFound names the tensor and the files searched.
  Status Read(std::string_view name, TensorView to, const CopyFromHost& copy = {}) const;
  StatusOr<std::unique_ptr<TensorStream>> OpenStream(const Tensor& tensor) const;

 private:
  Status AddFile(const std::string& path);
  Status OpenIndex(const std::string& path);

  std::string directory_;
  std::vector<std::unique_ptr<TensorFile>> files_;
  std::map<std::string, Tensor, std::less<>> tensors_;
};

}  // namespace te
