#include "models/llama/generation_config.h"

#include "models/json/json.h"

namespace te {
namespace {

constexpr size_t kMaxBytes = size_t{16} << 20;

// What changes the choice of the likeliest token, or ends the text (transformers 5.24,
// GenerationConfig), and the number that changes nothing.
constexpr struct {
  const char* key;
  double neutral;
} kGreedyParameters[] = {{"repetition_penalty", 1},
                         {"no_repeat_ngram_size", 0},
                         {"min_length", 0},
                         {"min_new_tokens", 0},
                         {"bad_words_ids", 0},
                         {"suppress_tokens", 0},
                         {"begin_suppress_tokens", 0},
                         {"forced_bos_token_id", -1},
                         {"forced_eos_token_id", -1},
                         {"sequence_bias", 0},
                         {"exponential_decay_length_penalty", 0},
                         {"encoder_repetition_penalty", 1},
                         {"encoder_no_repeat_ngram_size", 0},
                         {"guidance_scale", 1},
                         {"num_beams", 1},
                         {"penalty_alpha", 0},
                         {"dola_layers", 0},
                         {"stop_strings", 0},
                         {"max_time", 0},
                         {"watermarking_config", 0}};

bool ChangesNothing(const JsonValue& value, double neutral) {
  switch (value.kind()) {
    case JsonValue::Kind::kNull:
      return true;
    case JsonValue::Kind::kBool:
      return !value.boolean();
    case JsonValue::Kind::kArray:
      return value.array().empty();
    case JsonValue::Kind::kObject:
      return value.members().empty();
    case JsonValue::Kind::kString:
      return value.string().empty();
    case JsonValue::Kind::kInteger:
    case JsonValue::Kind::kDouble:
    case JsonValue::Kind::kBigInteger:
      return value.number() == neutral;
  }
  return false;
}

// One id: a negative one is no token, as in config.json.
Status AddEos(const std::string& path, const JsonValue& value, std::vector<int64_t>* ids) {
  if (!value.is_integer()) {
    return CorruptData("{}: eos_token_id has {}; expected a token id, a list of them, or null",
                       path, value.ToString());
  }
  if (value.integer() >= 0) ids->push_back(value.integer());
  return OkStatus();
}

}  // namespace

StatusOr<GenerationConfig> ReadGenerationConfig(const std::string& directory,
                                                const LlamaConfig& config) {
  const std::string path = directory + "/generation_config.json";
  StatusOr<JsonValue> root = ReadJsonFile(path, kMaxBytes);
  GenerationConfig out;
  if (root.status().code() == StatusCode::kNotFound) {
    out.eos_token_ids = config.eos_token_ids;
    return out;
  }
  if (!root.ok()) return root.status();
  if (!root->is_object()) {
    return CorruptData("{}: {}; expected an object", path, root->ToString());
  }
  out.present = true;
  const JsonValue* eos = root->Find("eos_token_id");
  if (eos != nullptr && eos->is_array()) {
    for (const JsonValue& id : eos->array())
      TE_RETURN_IF_ERROR(AddEos(path, id, &out.eos_token_ids));
  } else if (eos != nullptr && !eos->is_null()) {
    TE_RETURN_IF_ERROR(AddEos(path, *eos, &out.eos_token_ids));
  }
  for (const auto& parameter : kGreedyParameters) {
    const JsonValue* value = root->Find(parameter.key);
    if (value == nullptr || ChangesNothing(*value, parameter.neutral)) continue;
    out.not_applied.push_back(fmt::format("{} {}", parameter.key, value->ToString()));
  }
  return out;
}

}  // namespace te
