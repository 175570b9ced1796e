#include "models/tokenizer/text_parts.h"

namespace te {
namespace {

constexpr std::string_view kSpace = "\xe2\x96\x81";  // U+2581, SentencePiece's space

}  // namespace

TextParts::TextParts(const SentencePieceTraits& traits,
                     const std::vector<std::string_view>& pieces) {
  // Each of these would make a part's beginning or end differ from the same place within the text.
  cuts_ = traits.is_bpe && !traits.whitespace_as_suffix && !traits.has_character_map &&
          traits.add_dummy_prefix && !traits.remove_extra_whitespaces && traits.escape_whitespaces;
  for (const std::string_view piece : pieces) {
    for (size_t at = piece.find(kSpace, 1); at < piece.size(); at = piece.find(kSpace, at + 1)) {
      before_space_[static_cast<unsigned char>(piece[at - 1])] = true;
    }
  }
  // A space's own last byte: runs of spaces are pieces, and no cut is within one.
  before_space_[static_cast<unsigned char>(kSpace.back())] = true;
  before_space_[static_cast<unsigned char>(' ')] = true;
}

std::string_view TextParts::First(std::string_view text, std::string_view* rest) const {
  *rest = {};
  if (!cuts_ || text.size() <= kLeastBytes) return text;
  for (size_t at = text.find(' ', kLeastBytes); at < text.size() - 1; at = text.find(' ', at + 1)) {
    if (before_space_[static_cast<unsigned char>(text[at - 1])]) continue;
    *rest = text.substr(at + 1);
    return text.substr(0, at);
  }
  return text;
}

}  // namespace te
