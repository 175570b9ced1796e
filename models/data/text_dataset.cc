#include <algorithm>
#include <utility>
#include <vector>

#include "models/data/dataset_formats.h"
#include "models/json/json.h"
#include "models/json/utf8.h"

namespace te {
namespace {

class TextDataset : public Dataset {
 public:
  TextDataset(std::string path, const DatasetOptions& options)
      : path_(std::move(path)), options_(options) {
    for (const std::string& text : options_.tokenizer->special_texts())
      special_texts_.push_back({.text = text, .count = 0, .line = 0});
  }

  Status Read(DataInput* input, DataFormat format) {
    std::string line;
    for (int64_t number = 1;; ++number) {
      TE_ASSIGN_OR_RETURN(const bool more, input->ReadLine(&line));
      if (!more) break;
      std::string_view text = line;
      if (number == 1 && text.starts_with("\xef\xbb\xbf"))
        text.remove_prefix(3);  // byte order mark
      if (text.ends_with('\r')) text.remove_suffix(1);
      if (text.find_first_not_of(" \t") == std::string_view::npos) continue;
      TE_RETURN_IF_ERROR(format == DataFormat::kJsonLines ? AddJson(text, number)
                                                          : AddText(text, number));
    }
    input_bytes_ = input->bytes_read();
    if (input_bytes_ == 0) return InvalidArgument("{}: no samples: it is empty", path_);
    if (records_.empty()) return InvalidArgument("{}: no samples: every line is blank", path_);
    return OkStatus();
  }

  int64_t size() const override { return static_cast<int64_t>(records_.size()); }
  int64_t truncated() const override { return truncated_; }
  int64_t longest() const override { return longest_; }
  int64_t pad_labels() const override { return pad_labels_; }
  std::vector<SpecialText> special_texts() const override {
    std::vector<SpecialText> out;
    for (const SpecialText& special : special_texts_) {
      if (special.count > 0) out.push_back(special);
    }
    return out;
  }
  uint64_t input_bytes() const override { return input_bytes_; }

  Status Prepare(std::span<const int64_t> indices) override {
    for (int64_t index : indices)
      TE_RETURN_IF_ERROR(Tokenize(&records_[static_cast<size_t>(index)]));
    return OkStatus();
  }

  StatusOr<Sample> At(int64_t index) override {
    Record& record = records_[static_cast<size_t>(index)];
    TE_RETURN_IF_ERROR(Tokenize(&record));
    Sample sample;
    sample.input_ids = record.ids;
    // A text without a token (no bos, nothing but spaces): one token that is not counted, so that
    // attention has a key to look at.
    if (record.ids.empty()) return Sample{{std::max(options_.pad_id, 0)}, {kIgnoredLabel}, {1}};
    sample.labels = record.ids;
    for (int32_t& label : sample.labels) {
      if (label == options_.pad_id) label = kIgnoredLabel;
    }
    sample.attention_mask.assign(record.ids.size(), 1);
    return sample;
  }

 private:
  struct Record {
    int64_t line = 0;
    std::string text;
    bool tokenized = false;
    std::vector<int32_t> ids;
  };

  Status AddText(std::string_view text, int64_t line) {
    if (!IsValidUtf8(text)) return CorruptData("{}:{}: not valid UTF-8", path_, line);
    records_.push_back({.line = line, .text = std::string(text), .tokenized = false, .ids = {}});
    return OkStatus();
  }

  Status AddJson(std::string_view text, int64_t line) {
    if (line == 1 && text[text.find_first_not_of(" \t")] == '[') {
      return InvalidArgument(
          "{}:1: a JSON array; expected JSON lines, one object a line (`jq -c '.[]'` converts)",
          path_);
    }
    TE_ASSIGN_OR_RETURN(JsonValue value, ParseJsonLine(text, path_, line));
    if (!value.is_object()) {
      return InvalidArgument("{}:{}: {}; expected an object with the field \"{}\"", path_, line,
                             value.kind_name(), options_.text_field);
    }
    const JsonValue* field = value.Find(options_.text_field);
    if (field == nullptr) {
      std::string fields;
      for (const JsonMember& member : value.members())
        fields += (fields.empty() ? "" : ", ") + member.key;
      return InvalidArgument("{}:{}: no field \"{}\"; the line has: {}; choose with --text-field",
                             path_, line, options_.text_field,
                             fields.empty() ? "none" : Printable(fields));
    }
    if (!field->is_string()) {
      return InvalidArgument("{}:{}: field \"{}\" is {}; expected a string", path_, line,
                             options_.text_field, field->kind_name());
    }
    // Escapes can write halves of surrogate pairs, which are no characters.
    if (!IsValidUtf8(field->string())) {
      return CorruptData(
          "{}:{}: field \"{}\" has half of a surrogate pair (as \\ud800), which no tokenizer reads",
          path_, line, options_.text_field);
    }
    records_.push_back({.line = line, .text = field->string(), .tokenized = false, .ids = {}});
    return OkStatus();
  }

  Status Tokenize(Record* record) {
    if (record->tokenized) return OkStatus();
    // One token more than is kept shows that something is cut.
    TE_ASSIGN_OR_RETURN(record->ids,
                        options_.tokenizer->Encode(record->text, options_.max_sequence_length + 1));
    for (int32_t id : record->ids) {
      if (id < 0 || id >= options_.vocab_size) {
        return InvalidArgument(
            "{}:{}: the tokenizer gives id {}, the model has ids below {} (vocab_size in "
            "config.json); tokenizer and "
            "checkpoint do not belong together",
            path_, record->line, id, options_.vocab_size);
      }
    }
    if (options_.tokenizer->Truncate(&record->ids, options_.max_sequence_length)) ++truncated_;
    record->tokenized = true;
    longest_ = std::max(longest_, static_cast<int64_t>(record->ids.size()));
    pad_labels_ += std::ranges::count(record->ids, options_.pad_id);
    for (SpecialText& special : special_texts_) CountSpecialText(*record, &special);
    std::string().swap(record->text);
    return OkStatus();
  }

  static void CountSpecialText(const Record& record, SpecialText* special) {
    for (size_t at = record.text.find(special->text); at != std::string::npos;
         at = record.text.find(special->text, at + special->text.size())) {
      if (special->count++ == 0) special->line = record.line;
    }
  }

  std::string path_;
  DatasetOptions options_;
  std::vector<Record> records_;
  int64_t truncated_ = 0;
  int64_t longest_ = 0;
  int64_t pad_labels_ = 0;
  std::vector<SpecialText> special_texts_;
  uint64_t input_bytes_ = 0;
};

}  // namespace

StatusOr<std::unique_ptr<Dataset>> OpenTextDataset(DataInput input, DataFormat format,
                                                   const DatasetOptions& options) {
  const std::string path = input.path();
  if (options.tokenizer == nullptr) return InvalidArgument("{}: text needs a tokenizer", path);
  auto dataset = std::make_unique<TextDataset>(path, options);
  try {
    TE_RETURN_IF_ERROR(dataset->Read(&input, format));
  } catch (const std::bad_alloc&) {
    return OutOfMemory("{}: the file does not fit into memory", path);
  }
  return std::unique_ptr<Dataset>(std::move(dataset));
}

}  // namespace te
