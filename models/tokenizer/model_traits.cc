#include "models/tokenizer/model_traits.h"

#include <cstdint>

namespace te {
namespace {

// Protocol buffers' wire format: a key (field number and wire type), then a number or bytes.
class WireReader {
 public:
  explicit WireReader(std::string_view bytes) : bytes_(bytes) {}

  struct Field {
    uint64_t number = 0;
    uint64_t value = 0;      // of a varint
    std::string_view bytes;  // of a length-delimited field
  };

  // False at the end, and at what is no message.
  bool Next(Field* field) {
    uint64_t key = 0;
    if (bytes_.empty() || !Varint(&key)) return false;
    *field = {.number = key >> 3, .value = 0, .bytes = {}};
    uint64_t length = 0;
    switch (key & 7) {
      case 0:
        return Varint(&field->value);
      case 1:
        return Take(8, &field->bytes);
      case 2:
        return Varint(&length) && Take(length, &field->bytes);
      case 5:
        return Take(4, &field->bytes);
      default:
        return false;
    }
  }

 private:
  bool Varint(uint64_t* value) {
    *value = 0;
    for (int shift = 0; shift < 64 && !bytes_.empty(); shift += 7) {
      const auto byte = static_cast<unsigned char>(bytes_[0]);
      bytes_.remove_prefix(1);
      *value |= static_cast<uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return true;
    }
    return false;
  }
  bool Take(uint64_t count, std::string_view* bytes) {
    if (count > bytes_.size()) return false;
    *bytes = bytes_.substr(0, count);
    bytes_.remove_prefix(count);
    return true;
  }

  std::string_view bytes_;
};

}  // namespace

SentencePieceTraits ReadSentencePieceTraits(std::string_view model) {
  constexpr uint64_t kTrainerSpec = 2, kNormalizerSpec = 3;  // of ModelProto
  constexpr uint64_t kModelType = 3, kWhitespaceAsSuffix = 24;
  constexpr uint64_t kCharacterMap = 2, kDummyPrefix = 3, kExtraWhitespaces = 4, kEscape = 5;
  constexpr uint64_t kBpe = 2;
  SentencePieceTraits traits;
  WireReader proto(model);
  for (WireReader::Field field; proto.Next(&field);) {
    if (field.number != kTrainerSpec && field.number != kNormalizerSpec) continue;
    WireReader spec(field.bytes);
    for (WireReader::Field inner; spec.Next(&inner);) {
      if (field.number == kTrainerSpec) {
        if (inner.number == kModelType) traits.is_bpe = inner.value == kBpe;
        if (inner.number == kWhitespaceAsSuffix) traits.whitespace_as_suffix = inner.value != 0;
      } else {
        if (inner.number == kCharacterMap) traits.has_character_map = !inner.bytes.empty();
        if (inner.number == kDummyPrefix) traits.add_dummy_prefix = inner.value != 0;
        if (inner.number == kExtraWhitespaces) traits.remove_extra_whitespaces = inner.value != 0;
        if (inner.number == kEscape) traits.escape_whitespaces = inner.value != 0;
      }
    }
  }
  return traits;
}

}  // namespace te
