// Text to token ids and back.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "te_kernels/base/status.h"

namespace te {

// The ids that a tokenizer gives a meaning of their own. Absent: it has none.
struct SpecialTokens {
  std::optional<int32_t> bos;
  std::optional<int32_t> eos;
  std::optional<int32_t> pad;
};

// Immutable after loading: any thread may call it.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  // What Hugging Face's tokenizer(text)["input_ids"] gives: bos in front and eos behind where the
  // tokenizer's configuration says so. Names of special tokens in `text` are text like any other:
  // data cannot inject a control token. Of a longer text the first `enough` tokens will do, for
  // Truncate to fewer: what is cut away is not worked on.
  virtual StatusOr<std::vector<int32_t>> Encode(std::string_view text, int64_t enough) const = 0;
  StatusOr<std::vector<int32_t>> Encode(std::string_view text) const {
    return Encode(text, std::numeric_limits<int64_t>::max());
  }
  // The same without an eos behind: a text to be continued.
  virtual StatusOr<std::vector<int32_t>> EncodePrompt(std::string_view text) const = 0;
  // Cuts what Encode gave to `max_tokens` as tokenizer(text, truncation=True,
  // max_length=max_tokens) does: an eos that the tokenizer appends stays at the end. True if
  // something was cut.
  virtual bool Truncate(std::vector<int32_t>* ids, int64_t max_tokens) const = 0;
  // Control tokens are left out (skip_special_tokens). An id beyond the vocabulary (a model's
  // embedding is often padded) shows as <ID>.
  virtual StatusOr<std::string> Decode(std::span<const int32_t> ids) const = 0;
  virtual int32_t vocab_size() const = 0;
  virtual const SpecialTokens& special_tokens() const = 0;
  // What special tokens are called in text: "<s>", "</s>", ... Hugging Face's tokenizer makes
  // tokens of these names; Encode does not.
  virtual const std::vector<std::string>& special_texts() const = 0;
  // "SentencePiece, 32000 pieces": for messages.
  virtual std::string Describe() const = 0;
};

// What to do where there is no tokenizer that te reads: for messages.
inline constexpr char kWhatWorksWithoutText[] =
    "token ids work: tokenize elsewhere and give --data FILE.safetensors (input_ids [N, S], "
    "optionally labels and attention_mask), or --prompt-ids 1,2,3 with --output-ids";

// The tokenizer of a checkpoint directory: tokenizer.model (SentencePiece), with
// tokenizer_config.json beside it if it is there. kNotFound when the directory has none;
// kUnsupported when it has tokenizer.json alone; kCorruptData for broken files. Each names the file
// and says what to do.
StatusOr<std::unique_ptr<Tokenizer>> LoadTokenizer(const std::string& directory);

}  // namespace te
