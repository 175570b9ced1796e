// What a SentencePiece model says of itself and its library's interface does not tell.
#pragma once

#include <string_view>

#include "te_kernels/base/status.h"

namespace te {

// Of a tokenizer.model: fields of sentencepiece_model.proto.
struct SentencePieceTraits {
  bool is_bpe = false;                   // trainer_spec.model_type
  bool whitespace_as_suffix = false;     // trainer_spec.treat_whitespace_as_suffix
  bool has_character_map = false;        // normalizer_spec.precompiled_charsmap: not identity
  bool add_dummy_prefix = true;          // normalizer_spec
  bool remove_extra_whitespaces = true;  // normalizer_spec
  bool escape_whitespaces = true;        // normalizer_spec
};

// `model`: a serialized ModelProto. kCorruptData when it is none.
StatusOr<SentencePieceTraits> ReadSentencePieceTraits(std::string_view model);

}  // namespace te
