// Text to token ids and back.
#pragma once

#include <cstdint>
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
  // data cannot inject a control token.
  virtual StatusOr<std::vector<int32_t>> Encode(std::string_view text) const = 0;
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
  // "SentencePiece, 32000 pieces": for messages.
  virtual std::string Describe() const = 0;
};

// The tokenizer of a checkpoint directory: tokenizer.model (SentencePiece), with
// tokenizer_config.json beside it if it is there. kNotFound when the directory has none;
// kUnsupported when it has tokenizer.json alone; kCorruptData for broken files. Each names the file
// and says what to do.
StatusOr<std::unique_ptr<Tokenizer>> LoadTokenizer(const std::string& directory);

}  // namespace te
