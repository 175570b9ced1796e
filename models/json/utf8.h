// UTF-8: whether text is it, and how a message shows text that comes from a file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace te {

// Where well-formed UTF-8 ends: the offset of the first byte that belongs to no character, or
// text.size(). No overlong form, no surrogate, nothing above U+10FFFF is a character.
size_t FirstInvalidUtf8(std::string_view text);
inline bool IsValidUtf8(std::string_view text) { return FirstInvalidUtf8(text) == text.size(); }

// Adds the character's bytes. A surrogate gets the three bytes that it would have (WTF-8).
void AppendUtf8(uint32_t code_point, std::string* to);

// `text` as a message may show it, whatever a file holds: on one line, control characters and bytes
// that are no UTF-8 as escapes, cut after `most` bytes ("...") and never within a character.
std::string Printable(std::string_view text, size_t most = 200);

}  // namespace te
