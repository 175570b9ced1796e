#include "models/llama/config.h"

#include <gtest/gtest.h>

#include <string>

namespace te {
namespace {

constexpr char kHead[] = R"("architectures": ["LlamaForCausalLM"], "model_type": "llama")";

StatusOr<LlamaConfig> Parse(const std::string& members) {
  return LlamaConfig::FromJson(std::string("{") + kHead + (members.empty() ? "" : ", ") + members +
                               "}");
}

// The failure must be of this kind and its message must contain every one of these words.
void ExpectError(const StatusOr<LlamaConfig>& config, StatusCode code,
                 const std::vector<std::string>& words) {
  ASSERT_FALSE(config.ok());
  EXPECT_EQ(config.status().code(), code) << config.status().message();
  for (const std::string& word : words) {
    EXPECT_NE(config.status().message().find(word), std::string::npos)
        << "'" << word << "' is not in: " << config.status().message();
  }
}

TEST(LlamaConfigTest, AbsentKeysHaveHuggingFacesDefaults) {
  const auto config = Parse("");
  ASSERT_TRUE(config.ok()) << config.status().message();
  EXPECT_EQ(config->vocab_size, 32000);
  EXPECT_EQ(config->hidden_size, 4096);
  EXPECT_EQ(config->intermediate_size, 11008);
  EXPECT_EQ(config->num_hidden_layers, 32);
  EXPECT_EQ(config->num_attention_heads, 32);
  EXPECT_EQ(config->num_key_value_heads, 32);
  EXPECT_EQ(config->head_dim, 128);
  EXPECT_EQ(config->max_position_embeddings, 2048);
  EXPECT_EQ(config->rms_norm_eps, 1e-6);
  EXPECT_EQ(config->initializer_range, 0.02);
  EXPECT_EQ(config->rope.type, LlamaRopeType::kDefault);
  EXPECT_EQ(config->rope.theta, 10000.0);
  EXPECT_FALSE(config->dtype.has_value());
  EXPECT_EQ(config->bos_token_id, 1);
  EXPECT_EQ(config->eos_token_ids, std::vector<int64_t>{2});
  EXPECT_FALSE(config->pad_token_id.has_value());
  EXPECT_EQ(config->ParameterCount(), 6738415616);  // Llama 2 7B's published count
}

// Files as the hub holds them, whole.
TEST(LlamaConfigTest, TakesLlama2OfTheHub) {
  const auto config = LlamaConfig::FromJson(R"({
    "_name_or_path": "meta-llama/Llama-2-7b-hf", "architectures": ["LlamaForCausalLM"], "bos_token_id": 1,
    "eos_token_id": 2, "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02,
    "intermediate_size": 11008, "max_position_embeddings": 4096, "model_type": "llama",
    "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 32, "pretraining_tp": 1,
    "rms_norm_eps": 1e-05, "rope_scaling": null, "tie_word_embeddings": false, "torch_dtype": "float16",
    "transformers_version": "4.31.0.dev0", "use_cache": true, "vocab_size": 32000})");
  ASSERT_TRUE(config.ok()) << config.status().message();
  EXPECT_EQ(config->dtype, DType::kFloat16);
  EXPECT_EQ(config->rope.theta, 10000.0);
}

TEST(LlamaConfigTest, TakesLlama31OfTheHub) {
  const auto config = LlamaConfig::FromJson(R"({
    "architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
    "bos_token_id": 128000, "eos_token_id": [128001, 128008, 128009], "hidden_act": "silu",
    "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 14336,
    "max_position_embeddings": 131072, "mlp_bias": false, "model_type": "llama", "num_attention_heads": 32,
    "num_hidden_layers": 32, "num_key_value_heads": 8, "pretraining_tp": 1, "rms_norm_eps": 1e-05,
    "rope_scaling": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192, "rope_type": "llama3"}, "rope_theta": 500000.0,
    "tie_word_embeddings": false, "torch_dtype": "bfloat16", "transformers_version": "4.42.3",
    "use_cache": true, "vocab_size": 128256})");
  ASSERT_TRUE(config.ok()) << config.status().message();
  EXPECT_EQ(config->eos_token_ids, (std::vector<int64_t>{128001, 128008, 128009}));
  EXPECT_EQ(config->rope.type, LlamaRopeType::kLlama3);
  EXPECT_EQ(config->rope.factor, 8.0);
  EXPECT_EQ(config->rope.original_max_position_embeddings, 8192);
  EXPECT_EQ(config->num_key_value_heads, 8);
  EXPECT_EQ(config->ParameterCount(), 8030261248);  // Llama 3.1 8B's published count
}

TEST(LlamaConfigTest, TakesSmolLmOfTheHub) {
  const auto config = LlamaConfig::FromJson(R"({
    "architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
    "bos_token_id": 0, "eos_token_id": 0, "hidden_act": "silu", "hidden_size": 576,
    "initializer_range": 0.041666666666666664, "intermediate_size": 1536, "is_llama_config": true,
    "max_position_embeddings": 8192, "model_type": "llama", "num_attention_heads": 9,
    "num_hidden_layers": 30, "num_key_value_heads": 3, "pretraining_tp": 1, "rms_norm_eps": 1e-05,
    "rope_interleaved": false, "rope_scaling": null, "rope_theta": 100000, "tie_word_embeddings": true,
    "torch_dtype": "bfloat16", "transformers_version": "4.40.1", "transformers.js_config": {"dtype": "q4"},
    "use_cache": true, "vocab_size": 49152})");
  ASSERT_TRUE(config.ok()) << config.status().message();
  EXPECT_EQ(config->head_dim, 64);
  EXPECT_EQ(config->rope.theta, 100000.0);
  EXPECT_TRUE(config->tie_word_embeddings);
  EXPECT_EQ(config->ParameterCount(), 134515008);  // SmolLM2 135M's published count
}

TEST(LlamaConfigTest, TakesTheFirstHubFiles) {
  const auto config = LlamaConfig::FromJson(
      R"({"architectures": ["LLaMAForCausalLM"], "model_type": "llama", "pad_token_id": -1, "bos_token_id": 0,
          "eos_token_id": 1, "max_sequence_length": 2048})");
  ASSERT_TRUE(config.ok()) << config.status().message();
  EXPECT_EQ(config->pad_token_id, -1);
  EXPECT_EQ(config->PaddingIndex(), 31999);
}

// nn.Embedding(vocab_size, hidden_size, pad_token_id) of transformers 5.24 with torch 2.15.
TEST(LlamaConfigTest, ThePaddingIndexIsThatOfHuggingFace) {
  const auto index = [](const std::string& pad) -> int64_t {
    const auto config = Parse((R"("vocab_size": 16, "pad_token_id": )" + pad).c_str());
    EXPECT_TRUE(config.ok()) << config.status().message();
    return config.ok() ? config->PaddingIndex() : -2;
  };
  EXPECT_EQ(Parse("")->PaddingIndex(), -1);
  EXPECT_EQ(index("null"), -1);
  EXPECT_EQ(index("0"), 0);
  EXPECT_EQ(index("2"), 2);
  EXPECT_EQ(index("15"), 15);
  EXPECT_EQ(index("-1"), 15);
  EXPECT_EQ(index("-16"), 0);
  for (const char* pad : {"16", "-17", "32000", "true", "2.5", "\"2\"", "[2]"}) {
    ExpectError(Parse((R"("vocab_size": 16, "pad_token_id": )" + std::string(pad)).c_str()),
                StatusCode::kInvalidArgument, {"pad_token_id", pad, "expected"});
  }
}

TEST(LlamaConfigTest, BothSpellingsOfRopeMeanTheSame) {
  const char* same[] = {
      R"("rope_theta": 5e5, "rope_scaling": {"rope_type": "linear", "factor": 2})",
      R"("rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 2.0})",
      R"("rope_theta": 500000, "rope_scaling": {"type": "linear", "rope_type": "linear", "factor": 2.0})",
      R"("rope_parameters": {"rope_theta": 500000.0, "rope_type": "linear", "factor": 2.0})",
      R"("rope_theta": 5e5, "rope_parameters": {"rope_type": "linear", "factor": 2.0})",
      // What is inside wins over what stands at the top; rope_scaling over rope_parameters.
      R"("rope_theta": 7, "rope_parameters": {"rope_theta": 5e5, "rope_type": "linear", "factor": 2.0})",
      R"("rope_theta": 5e5, "rope_scaling": {"rope_type": "linear", "factor": 2},
         "rope_parameters": {"rope_theta": 7, "rope_type": "default"})"};
  for (const char* text : same) {
    const auto config = Parse(text);
    ASSERT_TRUE(config.ok()) << text << ": " << config.status().message();
    EXPECT_EQ(config->rope.type, LlamaRopeType::kLinear) << text;
    EXPECT_EQ(config->rope.theta, 500000.0) << text;
    EXPECT_EQ(config->rope.factor, 2.0) << text;
  }
}

TEST(LlamaConfigTest, ReadsEveryYarnMember) {
  const auto config = Parse(
      R"("max_position_embeddings": 4096, "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "beta_fast": 16,
         "beta_slow": 2, "mscale": 0.7, "mscale_all_dim": 0.9, "attention_factor": 1.25, "truncate": false,
         "original_max_position_embeddings": 1024})");
  ASSERT_TRUE(config.ok()) << config.status().message();
  const LlamaRopeConfig& rope = config->rope;
  EXPECT_EQ(rope.type, LlamaRopeType::kYarn);
  EXPECT_EQ(rope.factor, 4.0);
  EXPECT_EQ(rope.beta_fast, 16);
  EXPECT_EQ(rope.beta_slow, 2);
  EXPECT_EQ(rope.mscale, 0.7);
  EXPECT_EQ(rope.mscale_all_dim, 0.9);
  EXPECT_EQ(rope.attention_factor, 1.25);
  EXPECT_FALSE(rope.truncate);
  EXPECT_EQ(rope.original_max_position_embeddings, 1024);
}

TEST(LlamaConfigTest, YarnWithoutFactorTakesTheRatioOfLengths) {
  const auto config = Parse(
      R"("max_position_embeddings": 4096, "rope_scaling": {"rope_type": "yarn", "factor": null,
         "original_max_position_embeddings": 512})");
  ASSERT_TRUE(config.ok()) << config.status().message();
  EXPECT_EQ(config->rope.factor, 8.0);
}

TEST(LlamaConfigTest, OriginalLengthDefaultsToTheLengthAndTheTopWins) {
  const std::string scaling =
      R"("rope_scaling": {"rope_type": "llama3", "factor": 2.0, "low_freq_factor": 1,
                                 "high_freq_factor": 4)";
  auto config = Parse(R"("max_position_embeddings": 640, )" + scaling + "}");
  ASSERT_TRUE(config.ok()) << config.status().message();
  EXPECT_EQ(config->rope.original_max_position_embeddings, 640);
  config = Parse(R"("original_max_position_embeddings": 77, )" + scaling +
                 R"(, "original_max_position_embeddings": 9})");
  ASSERT_TRUE(config.ok()) << config.status().message();
  EXPECT_EQ(config->rope.original_max_position_embeddings, 77);
}

TEST(LlamaConfigTest, HeadCountsAndHeadDim) {
  auto config = Parse(
      R"("hidden_size": 96, "num_attention_heads": 6, "num_key_value_heads": null, "head_dim": null)");
  ASSERT_TRUE(config.ok()) << config.status().message();
  EXPECT_EQ(config->num_key_value_heads, 6);
  EXPECT_EQ(config->head_dim, 16);
  config = Parse(
      R"("hidden_size": 100, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 32)");
  ASSERT_TRUE(config.ok()) << config.status().message();
  EXPECT_EQ(config->num_key_value_heads, 2);
  EXPECT_EQ(config->head_dim, 32);
}

TEST(LlamaConfigTest, DTypeWinsOverTorchDType) {
  EXPECT_EQ(Parse(R"("dtype": "bfloat16", "torch_dtype": "float32")")->dtype, DType::kBFloat16);
  EXPECT_EQ(Parse(R"("dtype": null, "torch_dtype": "torch.float16")")->dtype, DType::kFloat16);
  ExpectError(Parse(R"("torch_dtype": "int8")"), StatusCode::kUnsupported,
              {"torch_dtype", "int8", "bfloat16"});
}

TEST(LlamaConfigTest, TokensMayBeNullOrLists) {
  auto config = Parse(R"("bos_token_id": null, "eos_token_id": null, "pad_token_id": 5)");
  ASSERT_TRUE(config.ok()) << config.status().message();
  EXPECT_FALSE(config->bos_token_id.has_value());
  EXPECT_TRUE(config->eos_token_ids.empty());
  EXPECT_EQ(config->pad_token_id, 5);
  ExpectError(Parse(R"("eos_token_id": [1, -3])"), StatusCode::kInvalidArgument,
              {"eos_token_id", "-3"});
  ExpectError(Parse(R"("eos_token_id": "2")"), StatusCode::kInvalidArgument,
              {"eos_token_id", "\"2\""});
}

TEST(LlamaConfigTest, SizesWhoseProductsOverflowAreRefused) {
  // Each key is within its bounds; found by config_fuzz.
  ExpectError(LlamaConfig::FromJson(
                  R"({"model_type": "llama", "vocab_size": 2147483647, "hidden_size": 2147483647,
          "num_hidden_layers": 10000, "num_attention_heads": 1, "num_key_value_heads": 1,
          "head_dim": 2, "intermediate_size": 1073741823})"),
              StatusCode::kInvalidArgument,
              {"num_hidden_layers (10000)", "hidden_size (2147483647)"});
}

// Whatever class was saved: transformers takes the model_type's word.
TEST(LlamaConfigTest, OtherClassesOfTheFamilyAreRead) {
  for (const char* architectures :
       {R"(["LlamaModel"])", R"(["LlamaForSequenceClassification"])", "[]", "null"}) {
    const auto config = LlamaConfig::FromJson(
        std::string(R"({"model_type": "llama", "architectures": )") + architectures + "}");
    EXPECT_TRUE(config.ok()) << architectures << ": " << config.status().message();
  }
}

TEST(LlamaConfigTest, WhatIsNotLlamaIsRefusedByName) {
  ExpectError(LlamaConfig::FromJson(R"({"architectures": ["MistralForCausalLM"]})"),
              StatusCode::kUnsupported,
              {"architectures", "MistralForCausalLM", "LlamaForCausalLM"});
  ExpectError(
      LlamaConfig::FromJson(R"({"architectures": ["LlamaForCausalLM"], "model_type": "qwen2"})"),
      StatusCode::kUnsupported, {"model_type", "qwen2", "llama"});
  // Without a model_type it may be anybody's.
  ExpectError(LlamaConfig::FromJson(R"({"architectures": ["LlamaForSequenceClassification"]})"),
              StatusCode::kUnsupported, {"LlamaForSequenceClassification"});
  ExpectError(
      LlamaConfig::FromJson(R"({"model_type": "llama", "architectures": ["MyLlamaForCausalLM"]})"),
      StatusCode::kUnsupported, {"MyLlamaForCausalLM"});
  ExpectError(Parse(R"("configuration_files": ["config.4.0.0.json"])"), StatusCode::kUnsupported,
              {"configuration_files"});
  ExpectError(LlamaConfig::FromJson("{}"), StatusCode::kInvalidArgument,
              {"architectures", "model_type"});
  ExpectError(LlamaConfig::FromJson("[1]"), StatusCode::kInvalidArgument, {"object"});
  ExpectError(LlamaConfig::FromJson("{"), StatusCode::kCorruptData, {"config.json"});
  ExpectError(Parse(R"("hidden_act": "gelu")"), StatusCode::kUnsupported,
              {"hidden_act", "gelu", "silu"});
  ExpectError(Parse(R"("rope_scaling": {"type": "longrope", "factor": 2})"),
              StatusCode::kUnsupported,
              {"rope_scaling.type", "longrope", "default, linear, dynamic, llama3, yarn"});
  ExpectError(Parse(R"("partial_rotary_factor": 0.5)"), StatusCode::kUnsupported,
              {"partial_rotary_factor", "0.5"});
  ExpectError(Parse(R"("quantization_config": {"bits": 4})"), StatusCode::kUnsupported,
              {"quantization_config"});
}

TEST(LlamaConfigTest, BadValuesNameKeyValueAndExpectation) {
  const struct {
    const char* members;
    std::vector<std::string> words;
  } cases[] = {
      {R"("hidden_size": -1)", {"hidden_size", "-1", "from 1"}},
      {R"("hidden_size": 0)", {"hidden_size", "0"}},
      {R"("hidden_size": 64.5)", {"hidden_size", "64.5", "integer"}},
      {R"("hidden_size": "64")", {"hidden_size", "\"64\""}},
      {R"("vocab_size": 99999999999999999999)", {"vocab_size"}},
      {R"("num_hidden_layers": 1000000)", {"num_hidden_layers", "1000000"}},
      {R"("hidden_size": 100, "num_attention_heads": 3)",
       {"hidden_size", "100", "num_attention_heads", "3"}},
      {R"("num_attention_heads": 32, "num_key_value_heads": 5)",
       {"num_key_value_heads", "5", "32"}},
      {R"("head_dim": 7)", {"head_dim", "7", "even"}},
      {R"("num_attention_heads": 2147483647, "head_dim": 2147483646)", {"head_dim", "2147483646"}},
      {R"("intermediate_size": 2147483647)", {"intermediate_size", "2147483647"}},
      {R"("rms_norm_eps": -1e-5)", {"rms_norm_eps", "-0.00001"}},
      {R"("rms_norm_eps": true)", {"rms_norm_eps", "true"}},
      {R"("initializer_range": -0.1)", {"initializer_range", "-0.1"}},
      {R"("attention_dropout": 1.0)", {"attention_dropout", "1"}},
      {R"("attention_bias": 1)", {"attention_bias", "1", "true or false"}},
      {R"("rope_theta": 0)", {"rope_theta", "0"}},
      {R"("rope_scaling": [])", {"rope_scaling", "[]", "object"}},
      {R"("rope_scaling": {"factor": 8})", {"rope_scaling.rope_type", "missing"}},
      {R"("rope_scaling": {"rope_type": "linear"})", {"rope_scaling.factor", "missing", "linear"}},
      {R"("rope_scaling": {"rope_type": "linear", "factor": 0.5})", {"rope_scaling.factor", "0.5"}},
      {R"("rope_scaling": {"rope_type": "linear", "type": "yarn", "factor": 2})",
       {"linear", "yarn"}},
      {R"("rope_scaling": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 1})",
       {"high_freq_factor", "1", "4"}},
      {R"("rope_scaling": {"rope_type": "llama3", "factor": 8, "high_freq_factor": 4})",
       {"low_freq_factor"}},
      {R"("architectures": [])", {"architectures", "twice"}},
  };
  for (const auto& c : cases) {
    const auto config = Parse(c.members);
    ASSERT_FALSE(config.ok()) << c.members;
    for (const std::string& word : c.words) {
      EXPECT_NE(config.status().message().find(word), std::string::npos)
          << c.members << ": '" << word << "' is not in: " << config.status().message();
    }
  }
}

TEST(LlamaConfigTest, AMissingFileIsNamed) {
  const auto config = LlamaConfig::FromFile("/nowhere/config.json");
  ExpectError(config, StatusCode::kNotFound, {"/nowhere/config.json"});
}

TEST(LlamaConfigTest, ToJsonReadsBackEqual) {
  const char* members[] = {
      "",
      R"("eos_token_id": [1, 2], "bos_token_id": null, "pad_token_id": 3, "dtype": "bfloat16", "mlp_bias": true)",
      R"("pad_token_id": -1)",
      R"("rope_theta": 12345.678, "rope_scaling": {"type": "dynamic", "factor": 2.5}, "attention_dropout": 0.25)",
      R"("rope_scaling": {"type": "llama3", "factor": 8, "low_freq_factor": 1.5, "high_freq_factor": 4.25,
         "original_max_position_embeddings": 99}, "eos_token_id": null, "tie_word_embeddings": true)",
      R"("rope_scaling": {"type": "yarn", "factor": 8, "mscale": 0.5, "mscale_all_dim": 0.25, "beta_slow": 1.5,
         "attention_factor": 1.125, "truncate": false}, "attention_bias": true, "head_dim": 6)"};
  for (const char* text : members) {
    const auto config = Parse(text);
    ASSERT_TRUE(config.ok()) << text << ": " << config.status().message();
    const auto again = LlamaConfig::FromJson(config->ToJson());
    ASSERT_TRUE(again.ok()) << config->ToJson() << ": " << again.status().message();
    EXPECT_EQ(config->ToJson(), again->ToJson());
    EXPECT_EQ(config->rope.attention_factor, again->rope.attention_factor);
    EXPECT_EQ(config->rope.theta, again->rope.theta);
    EXPECT_EQ(config->eos_token_ids, again->eos_token_ids);
    EXPECT_EQ(config->bos_token_id, again->bos_token_id);
    EXPECT_EQ(config->pad_token_id, again->pad_token_id);
    EXPECT_EQ(config->head_dim, again->head_dim);
  }
}

}  // namespace
}  // namespace te
