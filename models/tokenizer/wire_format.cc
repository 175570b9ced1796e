#include "models/tokenizer/wire_format.h"

namespace te {

StatusOr<bool> WireReader::Next(WireField* field) {
  *field = {};
  if (rest_.empty()) return false;
  uint64_t tag = 0, length = 0;
  std::string_view fixed;  // 4 or 8 bytes, which nobody asks for
  TE_RETURN_IF_ERROR(Varint(&tag));
  field->number = tag >> 3;
  switch (tag & 7) {
    case 0:
      TE_RETURN_IF_ERROR(Varint(&field->value));
      return true;
    case 1:
      TE_RETURN_IF_ERROR(Take(8, &fixed));
      return true;
    case 2:
      TE_RETURN_IF_ERROR(Varint(&length));
      TE_RETURN_IF_ERROR(Take(length, &field->bytes));
      return true;
    case 5:
      TE_RETURN_IF_ERROR(Take(4, &fixed));
      return true;
    default:
      return CorruptData("a field of kind {}", tag & 7);
  }
}

Status WireReader::Varint(uint64_t* out) {
  *out = 0;
  for (int shift = 0; shift < 64 && !rest_.empty(); shift += 7) {
    const auto byte = static_cast<unsigned char>(rest_[0]);
    rest_.remove_prefix(1);
    *out |= static_cast<uint64_t>(byte & 0x7f) << shift;
    if (byte < 0x80) return OkStatus();
  }
  return CorruptData("a number that does not end");
}

Status WireReader::Take(uint64_t count, std::string_view* out) {
  if (count > rest_.size()) {
    return CorruptData("a field of {} bytes, {} are left: truncated?", count, rest_.size());
  }
  *out = rest_.substr(0, count);
  rest_.remove_prefix(count);
  return OkStatus();
}

}  // namespace te
