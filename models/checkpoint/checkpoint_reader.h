// A checkpoint directory in Hugging Face's layout: which files hold its weights, and which tensor
// stands where.
#pragma once

#include <functional>
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
  // The weights' file or index, where config.json names it (transformers_weights); empty: the first
  // of Hugging Face's names that is there.
  std::string weights_file;
  // Not null: what is wrong is collected here, and what can be read is read all the same.
  std::vector<Status>* faults = nullptr;
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
  // with its shards. Of an index Hugging Face reads the file names alone: every tensor of every
  // shard is there, whether the index lists it or places it elsewhere, and of a tensor in two
  // shards the one in the last file (by name) counts. So it is here. Refused: an index whose file
  // names lead out of the directory (links are followed), or that names a file that is missing. The
  // error names file and tensor.
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
  // From now on each tensor goes by the name that `rename` makes of its own (TensorEntry::name
  // stays what the file says). Of two that then have one name, that which had it before is kept.
  void Rename(const std::function<std::string(const std::string& stored_name)>& rename);
  // Find(name) finds what Find(other) finds, unless there is a tensor of that name.
  void FindAlso(const std::string& name, const std::string& other);
  // Refuses a tensor that is there twice with different values: of two shards, where the index
  // names one and Hugging Face takes the other; under two names. Reads both.
  Status CheckCopies(std::string_view name) const;
  // The names of those that are there twice.
  std::vector<std::string> Copied() const;
  // What the index says of a tensor: its file's name; null where there is no index or it says
  // nothing.
  const std::string* IndexSays(std::string_view stored_name) const;
  const std::string& index_path() const { return index_path_; }  // empty: none
  const std::string& PathOf(const Tensor& tensor) const { return files_[tensor.file]->path(); }
  // "model-00001-of-00002.safetensors, model-00002-of-00002.safetensors": for messages.
  std::string FileNames() const;

  // TensorFile::ReadTensor by name; kNotFound names the tensor and the files searched.
  Status Read(std::string_view name, TensorView to, const CopyFromHost& copy = {}) const;
  StatusOr<std::unique_ptr<TensorStream>> OpenStream(const Tensor& tensor) const;

 private:
  struct Copy {
    std::string name;
    Tensor kept;
    Tensor other;
  };

  // `status` itself, or ok when faults are collected.
  Status Report(Status status);
  Status AddFile(const std::string& path);
  Status OpenIndex(const std::string& path);
  // The first of Hugging Face's file names that is there.
  StatusOr<std::string> FindWeights(const CheckpointOptions& options) const;

  std::string directory_;
  std::string index_path_;
  std::map<std::string, std::string, std::less<>> index_;  // tensor and file, as the index says
  std::vector<Status>* faults_ = nullptr;                  // while opening
  std::vector<Copy> copies_;
  std::vector<std::unique_ptr<TensorFile>> files_;
  std::map<std::string, Tensor, std::less<>> tensors_;
};

}  // namespace te
