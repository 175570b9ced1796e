// Training data from a file: JSON lines, plain text, or token ids in safetensors.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "models/data/batch.h"
#include "models/data/data_input.h"
#include "models/tokenizer/tokenizer.h"
#include "te_kernels/base/status.h"

namespace te {

enum class DataFormat {
  kJsonLines,  // an object a line, the text in one of its fields
  kText,       // a sample is a line that is not blank (as Hugging Face's datasets cuts text files)
  kSafetensors,  // input_ids, optionally labels and attention_mask, each [N, S]
};
const char* Name(DataFormat format);
// By the file's suffix (.jsonl .ndjson .json, .txt .text .md, .safetensors); without a known one,
// by its first character, which stays to be read. kIoError.
StatusOr<DataFormat> DetectDataFormat(DataInput* input);

struct DatasetOptions {
  std::string text_field = "text";       // of JSON lines
  int64_t max_sequence_length = 256;     // longer samples are cut
  int64_t vocab_size = 0;                // ids must be below
  const Tokenizer* tokenizer = nullptr;  // of the text formats; must outlive the data set
  // Labels of tokens with this id are not counted, wherever they stand: what transformers' collator
  // does. Text formats only.
  int32_t pad_id = -1;
};

// Thread-compatible.
class Dataset {
 public:
  virtual ~Dataset() = default;
  virtual int64_t size() const = 0;
  // Tokenizes these samples now, so that At takes no time. Errors name file, line and what is
  // wrong.
  virtual Status Prepare(std::span<const int64_t> indices) = 0;
  virtual StatusOr<Sample> At(int64_t index) = 0;
  // Of the samples prepared so far, how many were longer than max_sequence_length.
  virtual int64_t truncated() const = 0;
  // Of the file, or of what a pipe has given.
  virtual uint64_t input_bytes() const = 0;
};

// Reads the whole input and checks its form; texts are tokenized by Prepare or At.
// kInvalidArgument: an empty data set, ids or labels outside the vocabulary, wrong shapes or
// dtypes, a line without the text field; kCorruptData: JSON or UTF-8 that is none.
StatusOr<std::unique_ptr<Dataset>> OpenDataset(DataInput input, DataFormat format,
                                               const DatasetOptions& options);

}  // namespace te
