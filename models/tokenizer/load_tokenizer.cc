#include <filesystem>

#include "models/json/json.h"
#include "models/tokenizer/sentencepiece_tokenizer.h"
#include "models/tokenizer/tokenizer.h"

namespace te {

StatusOr<std::unique_ptr<Tokenizer>> LoadTokenizer(const std::string& directory) {
  const std::filesystem::path folder(directory);
  std::error_code error;  // a path that cannot be asked about is one that is not there
  const std::string model = (folder / "tokenizer.model").string();
  if (!std::filesystem::exists(model, error)) {
    if (std::filesystem::exists(folder / "tokenizer.json", error)) {
      return Unsupported(
          "{}: there is tokenizer.json, which is not read yet, and no tokenizer.model; put the "
          "model's SentencePiece "
          "tokenizer.model there if it has one, or tokenize elsewhere and give ids (--data "
          "FILE.safetensors with "
          "input_ids, --prompt-ids)",
          directory);
    }
    return NotFound(
        "{}: no tokenizer (tokenizer.model); copy it from where the checkpoint comes from, or give "
        "token ids (--data "
        "FILE.safetensors with input_ids, --prompt-ids)",
        directory);
  }
  const std::string config_path = (folder / "tokenizer_config.json").string();
  JsonValue config;
  if (std::filesystem::exists(config_path, error)) {
    TE_ASSIGN_OR_RETURN(config, ReadJsonFile(config_path));
  }
  StatusOr<std::unique_ptr<Tokenizer>> tokenizer = LoadSentencePieceTokenizer(model, config);
  if (!tokenizer.ok()) return tokenizer.status();
  return tokenizer;
}

}  // namespace te
