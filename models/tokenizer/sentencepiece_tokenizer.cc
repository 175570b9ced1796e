#include "models/tokenizer/sentencepiece_tokenizer.h"

#include <charconv>
#include <fstream>
#include <system_error>

#include "models/json/json.h"
#include "models/tokenizer/sentencepiece_check.h"
#include "sentencepiece_processor.h"

namespace te {
namespace {

constexpr std::streamsize kMaxModelBytes = std::streamsize{256} << 20;

// "name" or {"content": "name", ...}: both spellings of a token in tokenizer_config.json.
const std::string* TokenText(const JsonValue& config, std::string_view key) {
  const JsonValue* token = config.Find(key);
  if (token != nullptr && token->is_object()) token = token->Find("content");
  return token != nullptr && token->is_string() ? &token->string() : nullptr;
}

StatusOr<bool> Flag(const JsonValue& config, std::string_view key, bool otherwise) {
  const JsonValue* value = config.Find(key);
  if (value == nullptr || value->is_null()) return otherwise;
  if (!value->is_bool()) {
    return CorruptData("{} is {}; expected true or false", key, value->ToString());
  }
  return value->boolean();
}

class SentencePieceTokenizer : public Tokenizer {
 public:
  Status Load(const std::string& path, const JsonValue& config) {
    TE_RETURN_IF_ERROR(LoadModel(path));
    TE_ASSIGN_OR_RETURN(add_bos_, Flag(config, "add_bos_token", true));
    TE_ASSIGN_OR_RETURN(add_eos_, Flag(config, "add_eos_token", false));
    special_.bos = FindToken(config, "bos_token", processor_.bos_id());
    special_.eos = FindToken(config, "eos_token", processor_.eos_id());
    special_.pad = FindToken(config, "pad_token", processor_.pad_id());
    if (add_bos_ && !special_.bos) {
      return CorruptData("add_bos_token is true, but {} has no bos token", path);
    }
    if (add_eos_ && !special_.eos) {
      return CorruptData("add_eos_token is true, but {} has no eos token", path);
    }
    return OkStatus();
  }

  StatusOr<std::vector<int32_t>> Encode(std::string_view text) const override {
    TE_ASSIGN_OR_RETURN(std::vector<int32_t> ids, EncodePrompt(text));
    if (add_eos_) ids.push_back(*special_.eos);
    return ids;
  }

  StatusOr<std::vector<int32_t>> EncodePrompt(std::string_view text) const override {
    std::vector<int> pieces;
    const auto status = processor_.Encode(text, &pieces);
    if (!status.ok()) return Internal("SentencePiece: {}", status.ToString());
    std::vector<int32_t> ids;
    ids.reserve(pieces.size() + 2);
    if (add_bos_) ids.push_back(*special_.bos);
    ids.insert(ids.end(), pieces.begin(), pieces.end());
    return ids;
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
  std::string Describe() const override {
    return fmt::format("SentencePiece, {} pieces", vocab_size());
  }

 private:
  Status LoadModel(const std::string& path) {
    std::ifstream file(path, std::ios::binary | std::ios::ate);
    if (!file) return IoError("{}: {}", path, std::generic_category().message(errno));
    const std::streamsize bytes = file.tellg();
    if (bytes <= 0 || bytes > kMaxModelBytes) {
      return CorruptData("{}: {} bytes; a SentencePiece model has 1 to {}", path, bytes,
                         kMaxModelBytes);
    }
    std::string model(static_cast<size_t>(bytes), '\0');
    file.seekg(0);
    if (!file.read(model.data(), bytes)) return IoError("{}: could not be read", path);
    if (model.starts_with("version https://git-lfs")) {
      return CorruptData(
          "{}: a git-lfs pointer, not the file itself; run `git lfs pull` in its folder", path);
    }
    if (const Status checked = CheckSentencePieceModel(model); !checked.ok())
      return checked.WithContext(path + ": not a SentencePiece model");
    const auto status = processor_.LoadFromSerializedProto(model);
    if (!status.ok() || processor_.GetPieceSize() == 0) {
      return CorruptData("{}: not a SentencePiece model", path);
    }
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
};

}  // namespace

StatusOr<std::unique_ptr<Tokenizer>> LoadSentencePieceTokenizer(const std::string& model_path,
                                                                const JsonValue& config) {
  auto tokenizer = std::make_unique<SentencePieceTokenizer>();
  TE_RETURN_IF_ERROR(tokenizer->Load(model_path, config));
  return std::unique_ptr<Tokenizer>(std::move(tokenizer));
}

}  // namespace te
