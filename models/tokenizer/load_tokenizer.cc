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
          "{}: its tokenizer is tokenizer.json, which is not read yet (nor is tiktoken's format: "
          "Llama 3 and later have these two); text needs SentencePiece's tokenizer.model, as Llama "
          "2 has it; {}",
          directory, kWhatWorksWithoutText);
    }
    return NotFound(
        "{}: no tokenizer (tokenizer.model); copy it from where the checkpoint comes "
        "from; {}",
        directory, kWhatWorksWithoutText);
  }
  const std::string config_path = (folder / "tokenizer_config.json").string();
  JsonValue config;
  if (std::filesystem::exists(config_path, error)) {
    TE_ASSIGN_OR_RETURN(config, ReadJsonFile(config_path));
    if (!config.is_object()) {
      return CorruptData("{}: {}; expected an object", config_path, config.ToString());
    }
  }
  StatusOr<std::unique_ptr<Tokenizer>> tokenizer = LoadSentencePieceTokenizer(model, config);
  if (!tokenizer.ok()) return tokenizer.status();
  return tokenizer;
}

}  // namespace te
