#include "models/llama/config.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <string_view>
#include <utility>

#include "fmt/ranges.h"
#include "models/json/json.h"

namespace te {
namespace {

// Row and element counts of one GEMM operand must fit: oneDNN and cuBLASLt take 32-bit leading
// dimensions on some paths.
constexpr int64_t kMaxDimension = std::numeric_limits<int32_t>::max();
// Far above any Llama; keeps a damaged file from asking for a million layers.
constexpr int64_t kMaxLayers = 10000;

constexpr int64_t kMaxParameters = int64_t{1} << 56;

// 128 bits: each size may be close to 2^31, and there are thousands of layers.
using Wide = __int128;
Wide CountParameters(const LlamaConfig& c) {
  const Wide hidden = c.hidden_size, inner = c.intermediate_size, head = c.head_dim;
  const Wide q = c.num_attention_heads * head;
  const Wide kv = c.num_key_value_heads * head;
  Wide layer = 2 * hidden + (q + 2 * kv) * hidden + hidden * q + 3 * inner * hidden;
  if (c.attention_bias) layer += q + 2 * kv + hidden;
  if (c.mlp_bias) layer += 2 * inner + hidden;
  return c.num_hidden_layers * layer + (c.tie_word_embeddings ? 1 : 2) * c.vocab_size * hidden +
         hidden;
}

constexpr struct {
  const char* name;
  LlamaRopeType type;
} kRopeTypes[] = {{"default", LlamaRopeType::kDefault},
                  {"linear", LlamaRopeType::kLinear},
                  {"dynamic", LlamaRopeType::kDynamic},
                  {"llama3", LlamaRopeType::kLlama3},
                  {"yarn", LlamaRopeType::kYarn}};

constexpr struct {
  const char* name;
  DType dtype;
} kDTypes[] = {{"float32", DType::kFloat32}, {"bfloat16", DType::kBFloat16},
               {"float16", DType::kFloat16}, {"float64", DType::kFloat64},
               {"float", DType::kFloat32},   {"half", DType::kFloat16},
               {"double", DType::kFloat64}};

// Reads the members of one JSON object; `path` is how messages name it ("" at the top,
// "rope_scaling.").
class ObjectReader {
 public:
  ObjectReader(const JsonValue& object, std::string path)
      : object_(object), path_(std::move(path)) {}

  // Null and absent are the same thing in a config.json.
  const JsonValue* Find(const char* key) const {
    const JsonValue* value = object_.Find(key);
    return value == nullptr || value->is_null() ? nullptr : value;
  }
  bool Has(const char* key) const { return Find(key) != nullptr; }

  Status Integer(const char* key, int64_t low, int64_t high, int64_t* out) const {
    const JsonValue* value = Find(key);
    if (value == nullptr) return OkStatus();
    if (!value->is_integer() || value->integer() < low || value->integer() > high) {
      return InvalidArgument("{}{} is {}; expected an integer from {} to {}", path_, key,
                             value->ToString(), low, high);
    }
    *out = value->integer();
    return OkStatus();
  }
  // `expected` says in words what `accept` tests.
  template <typename Accept>
  Status Number(const char* key, const Accept& accept, const char* expected, double* out) const {
    const JsonValue* value = Find(key);
    if (value == nullptr) return OkStatus();
    if (!value->is_number() || !accept(value->number())) {
      return InvalidArgument("{}{} is {}; expected {}", path_, key, value->ToString(), expected);
    }
    *out = value->number();
    return OkStatus();
  }
  Status Boolean(const char* key, bool* out) const {
    const JsonValue* value = Find(key);
    if (value == nullptr) return OkStatus();
    if (!value->is_bool()) {
      return InvalidArgument("{}{} is {}; expected true or false", path_, key, value->ToString());
    }
    *out = value->boolean();
    return OkStatus();
  }
  Status String(const char* key, std::optional<std::string>* out) const {
    const JsonValue* value = Find(key);
    if (value == nullptr) return OkStatus();
    if (!value->is_string()) {
      return InvalidArgument("{}{} is {}; expected a string", path_, key, value->ToString());
    }
    *out = value->string();
    return OkStatus();
  }
  Status Required(const char* key, const std::string& why) const {
    if (Has(key)) return OkStatus();
    return InvalidArgument("{}{} is missing; {} needs it", path_, key, why);
  }
  const std::string& path() const { return path_; }

 private:
  const JsonValue& object_;
  std::string path_;
};

bool Positive(double x) { return std::isfinite(x) && x > 0; }
bool AtLeastOne(double x) { return std::isfinite(x) && x >= 1; }
bool NotNegative(double x) { return std::isfinite(x) && x >= 0; }
bool Probability(double x) { return x >= 0 && x < 1; }

Status CheckArchitecture(const ObjectReader& top) {
  std::optional<std::string> model_type;
  TE_RETURN_IF_ERROR(top.String("model_type", &model_type));
  if (model_type && *model_type != "llama") {
    return Unsupported("model_type is '{}'; supported: llama", *model_type);
  }
  const JsonValue* architectures = top.Find("architectures");
  if (architectures == nullptr) {
    if (model_type) return OkStatus();
    return InvalidArgument(
        "architectures and model_type are both missing; expected architectures "
        "[\"LlamaForCausalLM\"] or model_type "
        "\"llama\"");
  }
  if (!architectures->is_array() || (architectures->array().empty() && !model_type)) {
    return InvalidArgument("architectures is {}; expected [\"LlamaForCausalLM\"]",
                           architectures->ToString());
  }
  for (const JsonValue& value : architectures->array()) {
    // LLaMAForCausalLM: the class's name before its first release, still in old hub files.
    if (value.is_string() &&
        (value.string() == "LlamaForCausalLM" || value.string() == "LLaMAForCausalLM"))
      continue;
    // The class that was saved: the base alone, or with another head. Hugging Face loads such a
    // directory as a causal language model, too, if the tensors of one are there.
    constexpr std::string_view kOfOneBase[] = {"LlamaModel", "LlamaForSequenceClassification",
                                               "LlamaForTokenClassification",
                                               "LlamaForQuestionAnswering"};
    if (value.is_string() && model_type &&
        std::find(std::begin(kOfOneBase), std::end(kOfOneBase), value.string()) !=
            std::end(kOfOneBase)) {
      continue;
    }
    return Unsupported("architectures has {}; supported: LlamaForCausalLM", value.ToString());
  }
  return OkStatus();
}

StatusOr<LlamaRopeType> ParseRopeType(const std::string& key, const std::string& name) {
  std::string names;
  for (const auto& entry : kRopeTypes) {
    if (name == entry.name) return entry.type;
    names += names.empty() ? entry.name : std::string(", ") + entry.name;
  }
  return Unsupported("{} is '{}'; supported: {}", key, name, names);
}

// Hugging Face's order of precedence (RotaryEmbeddingConfigMixin): a non-null rope_scaling before
// rope_parameters; rope_theta inside it before rope_theta at the top;
// original_max_position_embeddings at the top before the one inside.
Status ReadRope(const ObjectReader& top, LlamaConfig* config) {
  LlamaRopeConfig& rope = config->rope;
  TE_RETURN_IF_ERROR(top.Number("rope_theta", Positive, "a number above 0", &rope.theta));
  double partial = 1.0;
  TE_RETURN_IF_ERROR(top.Number("partial_rotary_factor", Positive, "a number above 0", &partial));
  const char* key = top.Has("rope_scaling") ? "rope_scaling" : "rope_parameters";
  const JsonValue* object = top.Find(key);
  if (object != nullptr) {
    if (!object->is_object()) {
      return InvalidArgument("{} is {}; expected an object", key, object->ToString());
    }
    const ObjectReader reader(*object, std::string(key) + ".");
    std::optional<std::string> type, rope_type;
    TE_RETURN_IF_ERROR(reader.String("type", &type));
    TE_RETURN_IF_ERROR(reader.String("rope_type", &rope_type));
    if (type && rope_type && *type != *rope_type) {
      return InvalidArgument(
          "{}type is '{}' and {}rope_type is '{}'; expected one of them, or both alike",
          reader.path(), *type, reader.path(), *rope_type);
    }
    if (type || rope_type) {
      TE_ASSIGN_OR_RETURN(rope.type,
                          ParseRopeType(reader.path() + (rope_type ? "rope_type" : "type"),
                                        rope_type ? *rope_type : *type));
    } else if (reader.Has("factor")) {
      // A factor without a type would silently be no scaling at all.
      return InvalidArgument("{}rope_type is missing beside a factor; expected rope_type or type",
                             reader.path());
    }
    TE_RETURN_IF_ERROR(reader.Number("rope_theta", Positive, "a number above 0", &rope.theta));
    TE_RETURN_IF_ERROR(
        reader.Number("partial_rotary_factor", Positive, "a number above 0", &partial));

    const std::string why = std::string("rope type '") + Name(rope.type) + "'";
    const bool original = rope.type == LlamaRopeType::kLlama3 || rope.type == LlamaRopeType::kYarn;
    if (original) {
      const ObjectReader& where = top.Has("original_max_position_embeddings") ? top : reader;
      rope.original_max_position_embeddings = config->max_position_embeddings;
      TE_RETURN_IF_ERROR(where.Integer("original_max_position_embeddings", 1, kMaxDimension,
                                       &rope.original_max_position_embeddings));
    }
    if (rope.type != LlamaRopeType::kDefault) {
      if (rope.type == LlamaRopeType::kYarn) {
        rope.factor = static_cast<double>(config->max_position_embeddings) /
                      static_cast<double>(rope.original_max_position_embeddings);
      } else {
        TE_RETURN_IF_ERROR(reader.Required("factor", why));
      }
      TE_RETURN_IF_ERROR(
          reader.Number("factor", AtLeastOne, "a number of 1 or more", &rope.factor));
    }
    if (rope.type == LlamaRopeType::kLlama3) {
      TE_RETURN_IF_ERROR(reader.Required("low_freq_factor", why));
      TE_RETURN_IF_ERROR(reader.Required("high_freq_factor", why));
      TE_RETURN_IF_ERROR(
          reader.Number("low_freq_factor", Positive, "a number above 0", &rope.low_freq_factor));
      TE_RETURN_IF_ERROR(
          reader.Number("high_freq_factor", Positive, "a number above 0", &rope.high_freq_factor));
      if (rope.high_freq_factor <= rope.low_freq_factor) {
        return InvalidArgument(
            "{}high_freq_factor is {}; expected a number above low_freq_factor ({})", reader.path(),
            rope.high_freq_factor, rope.low_freq_factor);
      }
    }
    if (rope.type == LlamaRopeType::kYarn) {
      if (reader.Has("attention_factor")) {
        double value = 0;
        TE_RETURN_IF_ERROR(reader.Number("attention_factor", Positive, "a number above 0", &value));
        rope.attention_factor = value;
      }
      TE_RETURN_IF_ERROR(reader.Number("beta_fast", Positive, "a number above 0", &rope.beta_fast));
      TE_RETURN_IF_ERROR(reader.Number("beta_slow", Positive, "a number above 0", &rope.beta_slow));
      TE_RETURN_IF_ERROR(
          reader.Number("mscale", NotNegative, "a number of 0 or more", &rope.mscale));
      TE_RETURN_IF_ERROR(reader.Number("mscale_all_dim", NotNegative, "a number of 0 or more",
                                       &rope.mscale_all_dim));
      TE_RETURN_IF_ERROR(reader.Boolean("truncate", &rope.truncate));
      if (rope.beta_fast < rope.beta_slow) {
        return InvalidArgument("{}beta_fast is {}; expected at least beta_slow ({})", reader.path(),
                               rope.beta_fast, rope.beta_slow);
      }
    }
  }
  if (partial != 1.0) {
    return Unsupported(
        "partial_rotary_factor is {}; supported: 1 (LlamaForCausalLM rotates whole heads)",
        partial);
  }
  return OkStatus();
}

// A token id: absent when null, or when negative.
Status ReadToken(const ObjectReader& top, const char* key, std::optional<int64_t>* out) {
  if (!top.Has(key)) return OkStatus();
  int64_t value = 0;
  TE_RETURN_IF_ERROR(top.Integer(key, -1, kMaxDimension, &value));
  *out = value < 0 ? std::nullopt : std::optional<int64_t>(value);
  return OkStatus();
}

Status ReadTokens(const ObjectReader& top, const JsonValue& root, LlamaConfig* config) {
  // An explicit null means "none"; only an absent key has the default.
  if (root.Find("bos_token_id") != nullptr) config->bos_token_id.reset();
  TE_RETURN_IF_ERROR(ReadToken(top, "bos_token_id", &config->bos_token_id));
  if (top.Has("pad_token_id")) {
    // Also negative, as in the first hub files (-1): nn.Embedding counts from the end.
    TE_RETURN_IF_ERROR(top.Integer("pad_token_id", -kMaxDimension, kMaxDimension,
                                   &config->pad_token_id.emplace()));
  }
  const JsonValue* eos = root.Find("eos_token_id");
  if (eos == nullptr) return OkStatus();
  config->eos_token_ids.clear();
  if (eos->is_array()) {
    for (const JsonValue& value : eos->array()) {
      if (!value.is_integer() || value.integer() < 0 || value.integer() > kMaxDimension) {
        return InvalidArgument("eos_token_id has {}; expected token ids from 0 to {}",
                               value.ToString(), kMaxDimension);
      }
      config->eos_token_ids.push_back(value.integer());
    }
    return OkStatus();
  }
  std::optional<int64_t> id;
  TE_RETURN_IF_ERROR(ReadToken(top, "eos_token_id", &id));
  if (id) config->eos_token_ids.push_back(*id);
  return OkStatus();
}

Status ReadDType(const ObjectReader& top, LlamaConfig* config) {
  const char* key = top.Has("dtype") ? "dtype" : "torch_dtype";  // Hugging Face: dtype wins
  std::optional<std::string> text;
  TE_RETURN_IF_ERROR(top.String(key, &text));
  if (!text) return OkStatus();
  const std::string name = text->starts_with("torch.") ? text->substr(6) : *text;
  for (const auto& entry : kDTypes) {
    if (name == entry.name) {
      config->dtype = entry.dtype;
      return OkStatus();
    }
  }
  return Unsupported("{} is '{}'; supported: float32, bfloat16, float16, float64", key, *text);
}

}  // namespace

const char* Name(LlamaRopeType type) {
  for (const auto& entry : kRopeTypes) {
    if (entry.type == type) return entry.name;
  }
  return "unknown";
}

StatusOr<LlamaConfig> LlamaConfig::FromJson(std::string_view json) {
  TE_ASSIGN_OR_RETURN(const JsonValue root, ParseJson(json, "config.json"));
  return FromJson(root);
}

StatusOr<LlamaConfig> LlamaConfig::FromFile(const std::string& path) {
  TE_ASSIGN_OR_RETURN(const JsonValue root, ReadJsonFile(path));
  StatusOr<LlamaConfig> config = FromJson(root);
  if (!config.ok()) return config.status().WithContext(path);
  return config;
}

StatusOr<LlamaConfig> LlamaConfig::FromJson(const JsonValue& root) {
  if (!root.is_object()) {
    return InvalidArgument("the top level is {}; expected an object", root.ToString());
  }
  const ObjectReader top(root, "");
  LlamaConfig config;
  TE_RETURN_IF_ERROR(CheckArchitecture(top));
  if (top.Has("configuration_files")) {
    return Unsupported(
        "configuration_files is present, a list of other files for other versions of transformers; "
        "supported: one config.json");
  }
  if (top.Has("quantization_config")) {
    return Unsupported(
        "quantization_config is present; supported: weights in float32, bfloat16, float16 or "
        "float64");
  }
  std::optional<std::string> hidden_act;
  TE_RETURN_IF_ERROR(top.String("hidden_act", &hidden_act));
  // ACT2FN has two names for the one function.
  if (hidden_act && *hidden_act != "silu" && *hidden_act != "swish") {
    return Unsupported("hidden_act is '{}'; supported: silu", *hidden_act);
  }
  const struct {
    const char* key;
    int64_t high;
    int64_t* out;
  } sizes[] = {{"vocab_size", kMaxDimension, &config.vocab_size},
               {"hidden_size", kMaxDimension, &config.hidden_size},
               {"intermediate_size", kMaxDimension, &config.intermediate_size},
               {"num_hidden_layers", kMaxLayers, &config.num_hidden_layers},
               {"num_attention_heads", kMaxDimension, &config.num_attention_heads},
               {"max_position_embeddings", kMaxDimension, &config.max_position_embeddings}};
  for (const auto& size : sizes) TE_RETURN_IF_ERROR(top.Integer(size.key, 1, size.high, size.out));
  config.num_key_value_heads = config.num_attention_heads;
  TE_RETURN_IF_ERROR(
      top.Integer("num_key_value_heads", 1, kMaxDimension, &config.num_key_value_heads));
  if (top.Has("head_dim")) {
    TE_RETURN_IF_ERROR(top.Integer("head_dim", 1, kMaxDimension, &config.head_dim));
  } else {
    if (config.hidden_size % config.num_attention_heads != 0) {
      return InvalidArgument(
          "hidden_size is {}; expected a multiple of num_attention_heads ({}), or a head_dim",
          config.hidden_size, config.num_attention_heads);
    }
    config.head_dim = config.hidden_size / config.num_attention_heads;
  }
  TE_RETURN_IF_ERROR(
      top.Number("rms_norm_eps", NotNegative, "a number of 0 or more", &config.rms_norm_eps));
  TE_RETURN_IF_ERROR(top.Number("initializer_range", NotNegative, "a number of 0 or more",
                                &config.initializer_range));
  TE_RETURN_IF_ERROR(top.Number("attention_dropout", Probability, "a number from 0 to below 1",
                                &config.attention_dropout));
  TE_RETURN_IF_ERROR(top.Boolean("attention_bias", &config.attention_bias));
  TE_RETURN_IF_ERROR(top.Boolean("mlp_bias", &config.mlp_bias));
  TE_RETURN_IF_ERROR(top.Boolean("tie_word_embeddings", &config.tie_word_embeddings));
  TE_RETURN_IF_ERROR(ReadRope(top, &config));
  TE_RETURN_IF_ERROR(ReadTokens(top, root, &config));
  TE_RETURN_IF_ERROR(ReadDType(top, &config));
  TE_RETURN_IF_ERROR(config.Validate());
  return config;
}

Status LlamaConfig::Validate() const {
  const struct {
    const char* key;
    int64_t value;
  } sizes[] = {{"vocab_size", vocab_size},
               {"hidden_size", hidden_size},
               {"intermediate_size", intermediate_size},
               {"num_hidden_layers", num_hidden_layers},
               {"num_attention_heads", num_attention_heads},
               {"num_key_value_heads", num_key_value_heads},
               {"head_dim", head_dim},
               {"max_position_embeddings", max_position_embeddings}};
  for (const auto& size : sizes) {
    if (size.value < 1 || size.value > kMaxDimension) {
      return InvalidArgument("{} is {}; expected an integer from 1 to {}", size.key, size.value,
                             kMaxDimension);
    }
  }
  if (pad_token_id && (*pad_token_id < -vocab_size || *pad_token_id >= vocab_size)) {
    return InvalidArgument(
        "pad_token_id is {}; expected null or a token from 0 to {} (vocab_size - 1), or from {} to "
        "-1 counted from the end: it is the embedding's padding_idx",
        *pad_token_id, vocab_size - 1, -vocab_size);
  }
  if (num_attention_heads % num_key_value_heads != 0) {
    return InvalidArgument(
        "num_key_value_heads is {}; expected a divisor of num_attention_heads ({})",
        num_key_value_heads, num_attention_heads);
  }
  if (head_dim % 2 != 0) {
    return InvalidArgument(
        "head_dim is {}; expected an even number (rotary embedding rotates pairs)", head_dim);
  }
  // NTK scaling raises theta to the power d / (d - 2).
  if (rope.type == LlamaRopeType::kDynamic && head_dim <= 2) {
    return InvalidArgument("head_dim is {}; expected more than 2 with rope type 'dynamic'",
                           head_dim);
  }
  if (rope.type == LlamaRopeType::kYarn && rope.theta <= 1) {
    return InvalidArgument("rope_theta is {}; expected more than 1 with rope type 'yarn'",
                           rope.theta);
  }
  // Both fit 64 bits: each factor is below 2^31.
  if ((num_attention_heads + 2 * num_key_value_heads) > kMaxDimension / head_dim) {
    return InvalidArgument(
        "num_attention_heads ({}) and num_key_value_heads ({}) times head_dim ({}): expected at "
        "most {} rows of query, key "
        "and value together",
        num_attention_heads, num_key_value_heads, head_dim, kMaxDimension);
  }
  if (2 * intermediate_size > kMaxDimension) {
    return InvalidArgument("intermediate_size is {}; expected at most {}", intermediate_size,
                           kMaxDimension / 2);
  }
  // Sizes and counts of bytes are computed in 64 bits.
  if (CountParameters(*this) > kMaxParameters) {
    return InvalidArgument(
        "num_hidden_layers ({}), hidden_size ({}), intermediate_size ({}) and vocab_size ({}) make "
        "more than {} parameters; no machine holds them",
        num_hidden_layers, hidden_size, intermediate_size, vocab_size, kMaxParameters);
  }
  return OkStatus();
}

int64_t LlamaConfig::PaddingIndex() const {
  if (!pad_token_id) return -1;
  return *pad_token_id < 0 ? *pad_token_id + vocab_size : *pad_token_id;
}

int64_t LlamaConfig::ParameterCount() const {
  return static_cast<int64_t>(std::min<Wide>(CountParameters(*this), kMaxParameters));
}

std::string LlamaConfig::ToJson() const {
  std::string out =
      "{\n  \"architectures\": [\"LlamaForCausalLM\"],\n  \"model_type\": \"llama\",\n";
  const auto raw = [&](const char* key, const std::string& value) {
    out += fmt::format("  \"{}\": {},\n", key, value);
  };
  const auto token = [](const std::optional<int64_t>& id) {
    return id ? std::to_string(*id) : std::string("null");
  };
  const auto boolean = [](bool value) { return std::string(value ? "true" : "false"); };
  // The shortest text that reads back equal, and a point: Hugging Face refuses an integer where a
  // float belongs.
  const auto number = [](double value) {
    std::string text = fmt::format("{}", value);
    return text.find_first_of(".e") == std::string::npos ? text + ".0" : text;
  };
  raw("vocab_size", std::to_string(vocab_size));
  raw("hidden_size", std::to_string(hidden_size));
  raw("intermediate_size", std::to_string(intermediate_size));
  raw("num_hidden_layers", std::to_string(num_hidden_layers));
  raw("num_attention_heads", std::to_string(num_attention_heads));
  raw("num_key_value_heads", std::to_string(num_key_value_heads));
  raw("head_dim", std::to_string(head_dim));
  raw("hidden_act", "\"silu\"");
  raw("max_position_embeddings", std::to_string(max_position_embeddings));
  raw("rms_norm_eps", number(rms_norm_eps));
  raw("initializer_range", number(initializer_range));
  raw("attention_dropout", number(attention_dropout));
  raw("attention_bias", boolean(attention_bias));
  raw("mlp_bias", boolean(mlp_bias));
  raw("tie_word_embeddings", boolean(tie_word_embeddings));
  raw("rope_theta", number(rope.theta));
  if (rope.type == LlamaRopeType::kDefault) {
    raw("rope_scaling", "null");
  } else {
    std::string scaling = fmt::format("{{\"rope_type\": \"{}\", \"factor\": {}", Name(rope.type),
                                      number(rope.factor));
    if (rope.type == LlamaRopeType::kLlama3) {
      scaling += fmt::format(", \"low_freq_factor\": {}, \"high_freq_factor\": {}",
                             number(rope.low_freq_factor), number(rope.high_freq_factor));
    }
    if (rope.type == LlamaRopeType::kYarn) {
      if (rope.attention_factor)
        scaling += fmt::format(", \"attention_factor\": {}", number(*rope.attention_factor));
      scaling +=
          fmt::format(", \"beta_fast\": {}, \"beta_slow\": {}, \"truncate\": {}",
                      number(rope.beta_fast), number(rope.beta_slow), boolean(rope.truncate));
      if (rope.mscale != 0) scaling += fmt::format(", \"mscale\": {}", number(rope.mscale));
      if (rope.mscale_all_dim != 0)
        scaling += fmt::format(", \"mscale_all_dim\": {}", number(rope.mscale_all_dim));
    }
    if (rope.type == LlamaRopeType::kLlama3 || rope.type == LlamaRopeType::kYarn) {
      scaling += fmt::format(", \"original_max_position_embeddings\": {}",
                             rope.original_max_position_embeddings);
    }
    raw("rope_scaling", scaling + "}");
  }
  raw("bos_token_id", token(bos_token_id));
  if (eos_token_ids.size() == 1) {
    raw("eos_token_id", std::to_string(eos_token_ids[0]));
  } else if (eos_token_ids.empty()) {
    raw("eos_token_id", "null");
  } else {
    raw("eos_token_id", fmt::format("[{}]", fmt::join(eos_token_ids, ", ")));
  }
  raw("pad_token_id", token(pad_token_id));
  if (dtype) raw("torch_dtype", std::string("\"") + Name(*dtype) + "\"");
  out += "  \"use_cache\": true\n}\n";
  return out;
}

}  // namespace te
