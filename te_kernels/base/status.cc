#include "te_kernels/base/status.h"

#include <string_view>

namespace te {
namespace {

// Bytes of the printable UTF-8 character that `text` begins with; 0: it begins with none. Unicode
// 15, table 3-7, without the control characters C0, DEL and C1.
size_t PrintableLength(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = byte(0);
  if (first < 0x80) return first >= 0x20 && first != 0x7f ? 1 : 0;
  const size_t length = first < 0xc2   ? 0
                        : first < 0xe0 ? 2
                        : first < 0xf0 ? 3
                        : first < 0xf5 ? 4
                                       : 0;
  if (length == 0 || length > text.size()) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
  }
  const unsigned char second = byte(1);
  if ((first == 0xe0 && second < 0xa0) || (first == 0xed && second > 0x9f) ||
      (first == 0xf0 && second < 0x90) || (first == 0xf4 && second > 0x8f) ||
      (first == 0xc2 && second < 0xa0)) {
    return 0;
  }
  return length;
}

bool IsPlain(std::string_view text) {
  for (const char c : text) {
    if (c < 0x20 || c == 0x7f) return false;  // bytes from 0x80 on are negative
  }
  return true;
}

std::string Line(std::string_view text) {
  constexpr std::string_view kCut = "...";
  std::string out;
  size_t fits = 0;  // whole characters, with room for the mark of a cut
  while (!text.empty()) {
    const size_t length = PrintableLength(text);
    std::string piece(text.substr(0, length));
    if (length == 0) {
      piece = text[0] == '\n'   ? "\\n"
              : text[0] == '\t' ? "\\t"
              : text[0] == '\r' ? "\\r"
                                : fmt::format("\\x{:02x}", static_cast<unsigned char>(text[0]));
    }
    if (out.size() + piece.size() > kMaxStatusMessage) {
      out.resize(fits);
      return out.append(kCut);
    }
    if (out.size() + piece.size() <= kMaxStatusMessage - kCut.size())
      fits = out.size() + piece.size();
    out += piece;
    text.remove_prefix(length == 0 ? 1 : length);
  }
  return out;
}

}  // namespace

Status::Status(StatusCode code, std::string message) : code_(code), message_(std::move(message)) {
  if (message_.size() > kMaxStatusMessage || !IsPlain(message_)) message_ = Line(message_);
}

Status MakeStatus(StatusCode code, fmt::string_view format, fmt::format_args args) {
  return Status(code, fmt::vformat(format, args));
}

}  // namespace te
