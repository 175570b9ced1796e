#include "models/cli/data_warnings.h"

#include "fmt/format.h"
#include "fmt/ranges.h"
#include "models/cli/exit_code.h"
#include "models/json/utf8.h"

namespace te {

void WarnBeyondPositions(const std::string& what, int64_t tokens, const LlamaConfig& config) {
  if (tokens <= config.max_position_embeddings) return;
  PrintWarning(fmt::format(
      "{} {} tokens, but the model has positions for {} (max_position_embeddings in config.json): "
      "what it computes beyond them it was not made for{}",
      what, tokens, config.max_position_embeddings,
      config.rope.type == LlamaRopeType::kDynamic ? ", but for its dynamic RoPE scaling" : ""));
}

void WarnOfSpecialTexts(const std::vector<SpecialText>& found, const std::string& where) {
  if (found.empty()) return;
  std::vector<std::string> parts;
  constexpr size_t kMostShown = 8;
  for (const SpecialText& special : found) {
    if (parts.size() == kMostShown) {
      parts.push_back("...");
      break;
    }
    parts.push_back(fmt::format(
        "{} {} time{}{}", Printable(special.text, 60), special.count, special.count == 1 ? "" : "s",
        special.line > 0 ? fmt::format(" from line {} on", special.line) : std::string()));
  }
  PrintWarning(fmt::format(
      "{}: special tokens are read as text: {}; Hugging Face's tokenizer makes tokens of these "
      "names, te does not",
      where, fmt::join(parts, ", ")));
}

void WarnOfSpecialTexts(const std::string& prompt, const Tokenizer& tokenizer) {
  std::vector<SpecialText> found;
  for (const std::string& text : tokenizer.special_texts()) {
    int64_t count = 0;
    for (size_t at = prompt.find(text); at != std::string::npos;
         at = prompt.find(text, at + text.size())) {
      ++count;
    }
    if (count > 0) found.push_back({.text = text, .count = count, .line = 0});
  }
  WarnOfSpecialTexts(found, "--prompt");
}

void WarnOfPadIsEos(const Tokenizer& tokenizer, int32_t pad_id, int64_t pad_labels) {
  const SpecialTokens& special = tokenizer.special_tokens();
  if (pad_labels == 0 || special.eos != pad_id) return;
  PrintWarning(fmt::format(
      "no end of a text is trained: the pad token is {}the eos token (id {}), and labels that are "
      "pad tokens do not count, as in Hugging Face's collator ({} of them here), so the tuned "
      "model may never stop; another pad_token in tokenizer_config.json, such as \"<unk>\", "
      "trains it",
      special.pad ? "" : "missing, and in its place stands ", pad_id, pad_labels));
}

}  // namespace te
