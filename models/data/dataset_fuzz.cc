// Training data as text: a first line of one letter says how the rest is read (j: JSON lines; t:
// plain text; s: token ids in safetensors; d: as what it seems to be). Whatever opens, every sample
// is in the vocabulary and of bounded length.
#include "models/data/dataset.h"
#include "models/data/token_tensors.h"
#include "tests/fuzz/fuzzing.h"

namespace te {
namespace {

constexpr int64_t kVocabulary = 256;
constexpr int64_t kMostTokens = 16;

// A token a byte.
class ByteTokenizer : public Tokenizer {
 public:
  StatusOr<std::vector<int32_t>> Encode(std::string_view text, int64_t enough) const override {
    std::vector<int32_t> ids;
    for (const char c : text) {
      if (static_cast<int64_t>(ids.size()) >= enough) break;
      ids.push_back(static_cast<unsigned char>(c));
    }
    return ids;
  }
  StatusOr<std::vector<int32_t>> EncodePrompt(std::string_view text) const override {
    return Tokenizer::Encode(text);
  }
  bool Truncate(std::vector<int32_t>* ids, int64_t max_tokens) const override {
    if (static_cast<int64_t>(ids->size()) <= max_tokens) return false;
    ids->resize(static_cast<size_t>(max_tokens));
    return true;
  }
  StatusOr<std::string> Decode(std::span<const int32_t>) const override { return std::string(); }
  int32_t vocab_size() const override { return kVocabulary; }
  const SpecialTokens& special_tokens() const override { return special_; }
  const std::vector<std::string>& special_texts() const override { return special_texts_; }
  std::string Describe() const override { return "bytes"; }

 private:
  const std::vector<std::string> special_texts_ = {"<s>", "a"};
  SpecialTokens special_;
};

void CheckSamples(Dataset* dataset) {
  TE_FUZZ_CHECK(dataset->size() > 0, "an empty data set");
  for (int64_t i = 0; i < dataset->size(); ++i) {
    fuzz::CheckRefusal(dataset->Prepare({&i, 1}));
    const StatusOr<Sample> sample = dataset->At(i);
    if (!sample.ok()) {
      fuzz::CheckRefusal(sample.status());
      continue;
    }
    const size_t length = sample->input_ids.size();
    TE_FUZZ_CHECK(length >= 1 && length <= static_cast<size_t>(kMostTokens), "{} tokens", length);
    TE_FUZZ_CHECK(sample->labels.size() == length && sample->attention_mask.size() == length,
                  "parts of different lengths");
    for (size_t k = 0; k < length; ++k) {
      const int32_t id = sample->input_ids[k], label = sample->labels[k];
      TE_FUZZ_CHECK(id >= 0 && id < kVocabulary, "id {}", id);
      TE_FUZZ_CHECK(label == kIgnoredLabel || (label >= 0 && label < kVocabulary), "label {}",
                    label);
      TE_FUZZ_CHECK(sample->attention_mask[k] <= 1, "mask {}", sample->attention_mask[k]);
    }
  }
  TE_FUZZ_CHECK(dataset->truncated() <= dataset->size(), "{} truncated", dataset->truncated());
  TE_FUZZ_CHECK(dataset->longest() <= kMostTokens, "{} tokens", dataset->longest());
  for (const SpecialText& special : dataset->special_texts())
    TE_FUZZ_CHECK(special.count > 0 && special.line > 0, "{} {}", special.count, special.line);
}

TE_FUZZ_TARGET(input) {
  static const ByteTokenizer tokenizer;
  static fuzz::MemoryFile source;
  if (input.size() < 2 || input[1] != '\n') return;
  source.Set(input.substr(2));
  // Data are read in pieces of 1 MiB.
  const fuzz::MemoryBound bound(input.size(), {.base = size_t{4} << 20, .factor = 256});
  StatusOr<DataInput> data = DataInput::Open(source.path());
  TE_FUZZ_CHECK(data.ok(), "{}", data.status().message());
  DataFormat format = DataFormat::kText;
  if (input[0] == 'j') format = DataFormat::kJsonLines;
  if (input[0] == 's') format = DataFormat::kSafetensors;
  if (input[0] == 'd') {
    const StatusOr<DataFormat> detected = DetectDataFormat(&*data);
    if (!detected.ok()) return fuzz::CheckRefusal(detected.status());
    format = *detected;
  }
  const auto dataset = OpenDataset(std::move(*data), format,
                                   {.max_sequence_length = kMostTokens,
                                    .vocab_size = kVocabulary,
                                    .tokenizer = &tokenizer,
                                    .pad_id = 0});
  if (!dataset.ok()) return fuzz::CheckRefusal(dataset.status());
  CheckSamples(dataset->get());
}

}  // namespace
}  // namespace te
