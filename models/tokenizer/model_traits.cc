#include "models/tokenizer/model_traits.h"

#include <cstdint>

#include "models/tokenizer/wire_format.h"

namespace te {
namespace {

constexpr uint64_t kTrainerSpec = 2, kNormalizerSpec = 3;  // of ModelProto

Status ReadTrainer(std::string_view message, SentencePieceTraits* traits) {
  constexpr uint64_t kModelType = 3, kWhitespaceAsSuffix = 24, kBpe = 2;
  WireReader fields(message);
  WireField field;
  while (true) {
    TE_ASSIGN_OR_RETURN(const bool more, fields.Next(&field));
    if (!more) return OkStatus();
    if (field.number == kModelType) traits->is_bpe = field.value == kBpe;
    if (field.number == kWhitespaceAsSuffix) traits->whitespace_as_suffix = field.value != 0;
  }
}

Status ReadNormalizer(std::string_view message, SentencePieceTraits* traits) {
  constexpr uint64_t kCharacterMap = 2, kDummyPrefix = 3, kExtraWhitespaces = 4, kEscape = 5;
  WireReader fields(message);
  WireField field;
  while (true) {
    TE_ASSIGN_OR_RETURN(const bool more, fields.Next(&field));
    if (!more) return OkStatus();
    if (field.number == kCharacterMap) traits->has_character_map = !field.bytes.empty();
    if (field.number == kDummyPrefix) traits->add_dummy_prefix = field.value != 0;
    if (field.number == kExtraWhitespaces) traits->remove_extra_whitespaces = field.value != 0;
    if (field.number == kEscape) traits->escape_whitespaces = field.value != 0;
  }
}

}  // namespace

StatusOr<SentencePieceTraits> ReadSentencePieceTraits(std::string_view model) {
  SentencePieceTraits traits;
  WireReader fields(model);
  WireField field;
  while (true) {
    TE_ASSIGN_OR_RETURN(const bool more, fields.Next(&field));
    if (!more) return traits;
    if (field.number == kTrainerSpec) TE_RETURN_IF_ERROR(ReadTrainer(field.bytes, &traits));
    if (field.number == kNormalizerSpec) TE_RETURN_IF_ERROR(ReadNormalizer(field.bytes, &traits));
  }
}

}  // namespace te
