#include "models/json/utf8.h"

#include "fmt/core.h"

namespace te {

size_t FirstInvalidUtf8(std::string_view text) {
  // Unicode 15, table 3-7: the second byte's range depends on the first, the others are 80..BF.
  for (size_t i = 0; i < text.size();) {
    const auto byte = [&](size_t k) { return static_cast<unsigned char>(text[i + k]); };
    const unsigned char first = byte(0);
    if (first < 0x80) {
      ++i;
      continue;
    }
    size_t length = 0;
    unsigned char low = 0x80, high = 0xBF;
    if (first >= 0xC2 && first <= 0xDF) {
      length = 2;
    } else if (first >= 0xE0 && first <= 0xEF) {
      length = 3;
      if (first == 0xE0) low = 0xA0;
      if (first == 0xED) high = 0x9F;
    } else if (first >= 0xF0 && first <= 0xF4) {
      length = 4;
      if (first == 0xF0) low = 0x90;
      if (first == 0xF4) high = 0x8F;
    } else {
      return i;
    }
    if (text.size() - i < length || byte(1) < low || byte(1) > high) return i;
    for (size_t k = 2; k < length; ++k) {
      if ((byte(k) & 0xC0) != 0x80) return i;
    }
    i += length;
  }
  return text.size();
}

void AppendUtf8(uint32_t code_point, std::string* to) {
  const auto tail = [&](int shift) {
    to->push_back(static_cast<char>(0x80 | ((code_point >> shift) & 0x3F)));
  };
  if (code_point < 0x80) {
    to->push_back(static_cast<char>(code_point));
  } else if (code_point < 0x800) {
    to->push_back(static_cast<char>(0xC0 | (code_point >> 6)));
    tail(0);
  } else if (code_point < 0x10000) {
    to->push_back(static_cast<char>(0xE0 | (code_point >> 12)));
    tail(6);
    tail(0);
  } else {
    to->push_back(static_cast<char>(0xF0 | (code_point >> 18)));
    tail(12);
    tail(6);
    tail(0);
  }
}

std::string Printable(std::string_view text, size_t most) {
  std::string out;
  while (!text.empty()) {
    if (out.size() >= most) return out + "...";
    size_t length = 1;
    while (length < text.size() && (static_cast<unsigned char>(text[length]) & 0xC0) == 0x80) {
      ++length;
    }
    const std::string_view character = text.substr(0, length);
    const unsigned char first = static_cast<unsigned char>(text[0]);
    // C1 holds control characters, too: a terminal may obey U+009B as it obeys ESC [.
    const bool c1 = length == 2 && first == 0xC2 && static_cast<unsigned char>(text[1]) < 0xA0;
    if (!IsValidUtf8(character)) {
      out += fmt::format("\\x{:02x}", first);
      length = 1;
    } else if (first == '\n') {
      out += "\\n";
    } else if (first == '\r') {
      out += "\\r";
    } else if (first == '\t') {
      out += "\\t";
    } else if (first < 0x20 || first == 0x7F) {
      out += fmt::format("\\u{:04x}", first);
    } else if (c1) {
      out += fmt::format("\\u{:04x}", static_cast<unsigned char>(text[1]));
    } else {
      out += character;
    }
    text.remove_prefix(length);
  }
  return out;
}

}  // namespace te
