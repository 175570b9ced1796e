// Where a long text can be cut without changing its tokens.
#pragma once

#include <string_view>
#include <vector>

#include "models/tokenizer/model_traits.h"

namespace te {

// SentencePiece builds a message of every piece of a text: 10 MB on one line took 20 s and a
// gigabyte. With BPE no token reaches over a place between two characters that stand beside each
// other in no piece, and merges on its two sides know nothing of each other: before a space, in
// Llama's vocabulary, nearly everywhere. There the text is cut.
class TextParts {
 public:
  // Cuts nothing.
  TextParts() = default;
  // `pieces`: all that a token of text can be, with U+2581 for a space.
  TextParts(const SentencePieceTraits& traits, const std::vector<std::string_view>& pieces);

  // The first part of `text`, of at least kLeastBytes unless the text is shorter; *rest is what
  // follows it, without the space at the cut, which the model's dummy prefix stands for.
  std::string_view First(std::string_view text, std::string_view* rest) const;

  static constexpr size_t kLeastBytes = 8192;

 private:
  bool cuts_ = false;
  // Bytes that a character ends with, of those that have a space behind them within some piece.
  bool before_space_[256] = {};
};

}  // namespace te
