#include "models/tokenizer/sentencepiece_tokenizer.h"

#include <algorithm>
#include <charconv>
#include <exception>
#include <limits>

#include "models/file_kind/file_kind.h"
#include "models/json/json.h"
#include "models/tokenizer/model_traits.h"
#include "models/tokenizer/sentencepiece_check.h"
#include "models/tokenizer/text_parts.h"
#include "sentencepiece_processor.h"

namespace te {
namespace {

constexpr size_t kMaxModelBytes = size_t{256} << 20;

// "name" or {"content": "name", ...}: both spellings of a token in tokenizer_config.json.
const std::string* TokenText(const JsonValue& config, std::string_view key) {
  const JsonValue* token = config.Find(key);
  if (token != nullptr && token->is_object()) token = token->Find("content");
  return token != nullptr && token->is_string() ? &token->string() : nullptr;
}

// Whether this is the beginning of a vocabulary of tiktoken (OpenAI's library, and Llama 3's
// original/tokenizer.model): a token in base64, a space and its rank on each line.
bool LooksLikeTiktoken(std::string_view text) {
  const size_t end = text.find('\n');
  const size_t space = text.substr(0, end).find(' ');
  if (end == std::string_view::npos || space == 0 || space == std::string_view::npos) return false;
  const std::string_view rank = text.substr(space + 1, end - space - 1);
  const auto is_base64 = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '+' ||
           c == '/' || c == '=';
  };
  return space % 4 == 0 && std::ranges::all_of(text.substr(0, space), is_base64) && !rank.empty() &&
         rank.find_first_not_of("0123456789\r") == std::string_view::npos;
}

StatusOr<bool> Flag(const JsonValue& config, std::string_view key, bool otherwise) {
  const JsonValue* value = config.Find(key);
  if (value == nullptr || value->is_null()) return otherwise;
  if (!value->is_bool()) {
    return CorruptData("tokenizer_config.json: {} is {}; expected true or false", key,
                       value->ToString());
  }
  return value->boolean();
}

class SentencePieceTokenizer : public Tokenizer {
 public:
  Status Load(const std::string& path, const JsonValue& config) {
    TE_RETURN_IF_ERROR(LoadModel(path));
    TE_ASSIGN_OR_RETURN(add_bos_, Flag(config, "add_bos_token", true));
    TE_ASSIGN_OR_RETURN(add_eos_, Flag(config, "add_eos_token", false));
    AddSpecialTexts(config);
    special_.bos = FindToken(config, "bos_token", processor_.bos_id());
    special_.eos = FindToken(config, "eos_token", processor_.eos_id());
    special_.pad = FindToken(config, "pad_token", processor_.pad_id());
    // Without the file, too, add_bos_token is true.
    if (add_bos_ && !special_.bos) {
      return CorruptData("tokenizer_config.json: add_bos_token is true, but {} has no bos token",
                         path);
    }
    if (add_eos_ && !special_.eos) {
      return CorruptData("tokenizer_config.json: add_eos_token is true, but {} has no eos token",
                         path);
    }
    return OkStatus();
  }

  StatusOr<std::vector<int32_t>> Encode(std::string_view text, int64_t enough) const override {
    TE_ASSIGN_OR_RETURN(std::vector<int32_t> ids, EncodeParts(text, enough));
    if (add_eos_) ids.push_back(*special_.eos);
    return ids;
  }

  StatusOr<std::vector<int32_t>> EncodePrompt(std::string_view text) const override {
    return EncodeParts(text, std::numeric_limits<int64_t>::max());
  }

  bool Truncate(std::vector<int32_t>* ids, int64_t max_tokens) const override {
    if (static_cast<int64_t>(ids->size()) <= max_tokens) return false;
    ids->resize(static_cast<size_t>(max_tokens));
    if (add_eos_ && max_tokens > 0) ids->back() = *special_.eos;
    return true;
  }

  StatusOr<std::string> Decode(std::span<const int32_t> ids) const override {
    std::string text;
    std::vector<int> run;
    // Runs of known pieces are decoded as one: the first piece of a run loses its leading space.
    const auto flush = [&]() -> Status {
      std::string part;
      const auto status = processor_.Decode(run, &part);
      if (!status.ok()) return Internal("SentencePiece: {}", status.ToString());
      text += part;
      run.clear();
      return OkStatus();
    };
    for (int32_t id : ids) {
      if (id == special_.bos || id == special_.eos || (id == special_.pad && id >= vocab_size())) {
        continue;
      }
      if (id >= 0 && id < vocab_size()) {
        run.push_back(id);
        continue;
      }
      TE_RETURN_IF_ERROR(flush());
      text += fmt::format("<{}>", id);
    }
    TE_RETURN_IF_ERROR(flush());
    return text;
  }

  int32_t vocab_size() const override { return processor_.GetPieceSize(); }
  const SpecialTokens& special_tokens() const override { return special_; }
  const std::vector<std::string>& special_texts() const override { return special_texts_; }
  std::string Describe() const override {
    return fmt::format("SentencePiece, {} pieces", vocab_size());
  }

 private:
  // bos, where the configuration says so, and the text's tokens: all, or the first `enough` and
  // perhaps more.
  StatusOr<std::vector<int32_t>> EncodeParts(std::string_view text, int64_t enough) const {
    std::vector<int32_t> ids;
    if (add_bos_) ids.push_back(*special_.bos);
    std::vector<int> pieces;
    do {
      std::string_view rest;
      const auto status = processor_.Encode(parts_.First(text, &rest), &pieces);
      if (!status.ok()) return Internal("SentencePiece: {}", status.ToString());
      ids.insert(ids.end(), pieces.begin(), pieces.end());
      text = rest;
    } while (!text.empty() && static_cast<int64_t>(ids.size()) < enough);
    return ids;
  }

  void AddSpecialText(const std::string& text) {
    if (text.empty() || std::ranges::find(special_texts_, text) != special_texts_.end()) return;
    special_texts_.push_back(text);
  }

  // The names that the configuration gives to special tokens, beside the model's own.
  void AddSpecialTexts(const JsonValue& config) {
    for (const char* key : {"bos_token", "eos_token", "unk_token", "pad_token"}) {
      if (const std::string* text = TokenText(config, key)) AddSpecialText(*text);
    }
    const JsonValue* added = config.Find("added_tokens_decoder");
    if (added == nullptr || !added->is_object()) return;
    for (const JsonMember& member : added->members()) {
      const JsonValue* special = member.value.Find("special");
      const JsonValue* content = member.value.Find("content");
      if (special != nullptr && special->is_bool() && special->boolean() && content != nullptr &&
          content->is_string()) {
        AddSpecialText(content->string());
      }
    }
  }

  Status LoadModel(const std::string& path) {
    TE_ASSIGN_OR_RETURN(const std::string model, ReadTextFile(path, kMaxModelBytes));
    if (model.empty())
      return CorruptData("{}: an empty file; expected a SentencePiece model", path);
    if (LooksLikeTiktoken(model)) {
      return Unsupported(
          "{}: a vocabulary of tiktoken (Llama 3 and later), which is not read yet; {}", path,
          kWhatWorksWithoutText);
    }
    const FileContent content = DescribeContent(model, model.size());
    if (content.foreign() || content.kind == FileKind::kServerError) {
      return CorruptData("{}: expected a SentencePiece model; this is {}", path,
                         content.ToString());
    }
    if (const Status checked = CheckSentencePieceModel(model); !checked.ok())
      return checked.WithContext(path + ": not a SentencePiece model");
    // Its trie throws at an empty piece.
    bool loaded = false;
    try {
      loaded = processor_.LoadFromSerializedProto(model).ok();
    } catch (const std::exception& error) {
      return CorruptData("{}: not a SentencePiece model: {}", path, error.what());
    }
    if (!loaded || processor_.GetPieceSize() == 0) {
      return CorruptData("{}: not a SentencePiece model", path);
    }
    std::vector<std::string_view> pieces;
    for (int id = 0; id < processor_.GetPieceSize(); ++id) {
      if (processor_.IsControl(id) || processor_.IsUnknown(id)) {
        AddSpecialText(processor_.IdToPiece(id));
      } else {
        pieces.push_back(processor_.IdToPiece(id));
      }
    }
    TE_ASSIGN_OR_RETURN(const SentencePieceTraits traits, ReadSentencePieceTraits(model));
    parts_ = TextParts(traits, pieces);
    return OkStatus();
  }

  std::optional<int32_t> FindToken(const JsonValue& config, std::string_view key,
                                   int otherwise) const {
    const std::string* text = TokenText(config, key);
    if (text != nullptr) {
      const int id = processor_.PieceToId(*text);
      if (id != processor_.unk_id() || *text == processor_.IdToPiece(id)) return id;
      const JsonValue* added = config.Find("added_tokens_decoder");
      if (added != nullptr && added->is_object()) {
        for (const JsonMember& member : added->members()) {
          const JsonValue* content = member.value.Find("content");
          int32_t value = 0;
          const char* end = member.key.data() + member.key.size();
          if (content != nullptr && content->is_string() && content->string() == *text &&
              std::from_chars(member.key.data(), end, value).ptr == end) {
            return value;
          }
        }
      }
    }
    if (otherwise < 0) return std::nullopt;
    return otherwise;
  }

  sentencepiece::SentencePieceProcessor processor_;
  bool add_bos_ = true;
  bool add_eos_ = false;
  SpecialTokens special_;
  std::vector<std::string> special_texts_;
  TextParts parts_;
};

}  // namespace

StatusOr<std::unique_ptr<Tokenizer>> LoadSentencePieceTokenizer(const std::string& model_path,
                                                                const JsonValue& config) {
  auto tokenizer = std::make_unique<SentencePieceTokenizer>();
  TE_RETURN_IF_ERROR(tokenizer->Load(model_path, config));
  return std::unique_ptr<Tokenizer>(std::move(tokenizer));
}

}  // namespace te
