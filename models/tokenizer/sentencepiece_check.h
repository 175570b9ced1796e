// What SentencePiece takes on trust in a model file.
#pragma once

#include <string_view>

#include "te_kernels/base/status.h"

namespace te {

// Whether the tables of a serialized ModelProto stay within themselves: SentencePiece walks the
// double-array trie of precompiled_charsmap, and reads the strings behind it, without looking where
// they end. kCorruptData says what is broken; other faults are left to SentencePiece.
Status CheckSentencePieceModel(std::string_view model);

}  // namespace te
