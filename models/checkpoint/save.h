// Writing a model as a Hugging Face directory: safetensors shards, index, config.json, tokenizer
// files.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "models/checkpoint/checkpoint_reader.h"
#include "models/files/path_lock.h"
#include "models/json/json.h"

namespace te {

// State that belongs to the weights beside which it stands (models/quantization/fp8_state_file.h,
// models/train/optimizer_state_file.h): it goes when they are replaced.
inline constexpr char kFp8StateFile[] = "te_fp8_state.safetensors";
inline constexpr char kOptimizerStateFile[] = "te_optimizer_state.safetensors";

struct SaveTensor {
  std::string name;  // Hugging Face's
  StoredType type =
      StoredType::kF32;   // in the file: F64, F32, F16 or BF16; rounded once, to nearest even
  ConstTensorView value;  // dense
  // For a tensor that has not been changed since it was read there under this name (Find): its
  // values are taken over as they are, its very bytes when it is stored as `type` (a run in
  // bfloat16 would otherwise round a float16 checkpoint, and NaN payloads would change).
  const CheckpointReader* unchanged_in = nullptr;
  // For one whose `value` has no memory, but dtype and shape: called when the tensor's turn comes,
  // for the value itself, which is read before the next one's call.
  std::function<StatusOr<ConstTensorView>()> make_value = nullptr;
};

// The stored tensor whose bytes SaveCheckpoint takes over for this one; null: its value is written.
const CheckpointReader::Tensor* UnchangedSource(const SaveTensor& tensor);
// How the directory is taken, for a run that has looked at it before.
struct SaveTarget {
  // Its lock (LockDirectoryForSaving), where the caller holds it; null: taken for this save alone.
  const PathLock* lock = nullptr;
  // A file inside it that the caller writes: alone, it makes no directory one that is somebody's.
  std::string log;
};

struct SaveOptions {
  int64_t max_shard_bytes = 5'000'000'000;  // Hugging Face's 5GB (50GB from version 5 on)
  // Null: the config.json of `source_directory`, byte for byte.
  JsonValue config;
  // Where tokenizer files, generation_config.json, chat templates and licenses are taken from;
  // empty: nowhere.
  std::string source_directory;
  // Further files: name (no folder) and contents.
  std::vector<std::pair<std::string, std::string>> extra_files;
  // Further files that functions create and sync: name (no folder) and function of the path.
  std::vector<std::pair<std::string, std::function<Status(const std::string& path)>>> extra_writers;
  CopyToHost copy_to_host;  // null: values are host memory
  SaveTarget target;
};

// Writes `directory`: model.safetensors or model-00001-of-0000N.safetensors with
// model.safetensors.index.json (shards filled by Hugging Face's greedy rule), metadata {"format":
// "pt"}. Atomic and durable (directory_replacement.h): on every failure, and on a kill at any
// moment, the directory is complete, old or new. It may be the one that the weights were read from.
// Other files of an existing checkpoint directory stay, its weights of any format go. A non-empty
// directory without config.json is refused: it is no checkpoint.
Status SaveCheckpoint(const std::string& directory, std::span<const SaveTensor> tensors,
                      const SaveOptions& options);

// The checks that SaveCheckpoint begins with, for before a long run: may and can the directory be
// replaced? Leaves nothing behind but parents of it that were missing.
Status CheckSaveDirectory(const std::string& directory, const SaveTarget& target = {});

// Whether SaveCheckpoint may write or remove a file of this name in its directory: config.json,
// weights of any format, what belongs to them, tokenizer and other files that are carried over.
bool IsCheckpointFile(const std::string& name);

// `config` with its dtype ("dtype" and "torch_dtype", those that it has, else "torch_dtype") set to
// that of saved weights.
StatusOr<JsonValue> ConfigWithDType(const JsonValue& config, StoredType type);

// "5GB", "300MB", "1GiB", "4096": as Hugging Face reads max_shard_size (GB = 10^9, GiB = 2^30).
// kInvalidArgument.
StatusOr<int64_t> ParseByteSize(std::string_view text);

}  // namespace te
