// SentencePiece's tokenizer.model, as Hugging Face's LlamaTokenizer reads it.
#pragma once

#include <memory>
#include <string>

#include "models/tokenizer/tokenizer.h"

namespace te {

class JsonValue;

// `config`: the contents of tokenizer_config.json, or null. Of it count: add_bos_token (true when
// absent), add_eos_token (false when absent), and the text of bos_token, eos_token and pad_token,
// each a piece of the model or an entry of added_tokens_decoder. A pad token beyond both is no pad
// token.
StatusOr<std::unique_ptr<Tokenizer>> LoadSentencePieceTokenizer(const std::string& model_path,
                                                                const JsonValue& config);

}  // namespace te
