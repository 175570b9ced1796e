// What training data is, judged by what it begins with.
#pragma once

#include <string>
#include <string_view>

#include "models/data/data_input.h"
#include "te_kernels/base/status.h"

namespace te {

enum class DataFormat {
  kJsonLines,  // an object a line, the text in one of its fields
  kText,       // a sample is a line that is not blank (as Hugging Face's datasets cuts text files)
  kSafetensors,  // input_ids, optionally labels and attention_mask, each [N, S]
};
const char* Name(DataFormat format);
// "text", "jsonl", "safetensors".
StatusOr<DataFormat> ParseDataFormat(std::string_view name);

// Looks at the input's beginning, which stays to be read. A suffix decides only between readings
// that the content allows: one of JSON lines or of safetensors has its reader say what is wrong.
// kInvalidArgument: what no reader takes (a table, a JSON document, a compressed file, another
// program's format); the message says what it seems to be, what is read, and that the format can be
// named. kIoError.
StatusOr<DataFormat> DetectDataFormat(DataInput* input);

}  // namespace te
