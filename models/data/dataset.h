// Training data from a file: JSON lines, plain text, or token ids in safetensors.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "models/data/batch.h"
#include "models/data/data_format.h"
#include "models/data/data_input.h"
#include "models/tokenizer/tokenizer.h"
#include "te_kernels/base/status.h"

namespace te {

struct DatasetOptions {
  std::string text_field = "text";       // of JSON lines
  int64_t max_sequence_length = 256;     // longer samples are cut
  int64_t vocab_size = 0;                // ids must be below
  const Tokenizer* tokenizer = nullptr;  // of the text formats; must outlive the data set
  // Labels of tokens with this id are not counted, wherever they stand: what transformers' collator
  // does. Text formats only.
  int32_t pad_id = -1;
};

// A special token's name in the text of samples.
struct SpecialText {
  std::string text;
  int64_t count = 0;
  int64_t line = 0;  // where it stands first
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
  // Of the samples prepared so far, the most tokens that one has (padding at its end apart).
  virtual int64_t longest() const = 0;
  // Of the samples prepared so far, the labels that count nothing because they are pad tokens, and
  // the names of special tokens that stood in their text and were read as text.
  virtual int64_t pad_labels() const { return 0; }
  virtual std::vector<SpecialText> special_texts() const { return {}; }
  // Of the file, or of what a pipe has given.
  virtual uint64_t input_bytes() const = 0;
};

// Reads the whole input and checks its form; texts are tokenized by Prepare or At.
// kInvalidArgument: an empty data set, ids or labels outside the vocabulary, wrong shapes or
// dtypes, a line without the text field; kCorruptData: JSON or UTF-8 that is none.
StatusOr<std::unique_ptr<Dataset>> OpenDataset(DataInput input, DataFormat format,
                                               const DatasetOptions& options);

}  // namespace te
