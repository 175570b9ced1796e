#include "models/llama/name_map.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <utility>

namespace te {
namespace {

LlamaConfig SmallConfig() {
  LlamaConfig config;
  config.vocab_size = 11;
  config.hidden_size = 12;
  config.intermediate_size = 10;
  config.num_hidden_layers = 2;
  config.num_attention_heads = 4;
  config.num_key_value_heads = 2;
  config.head_dim = 6;
  return config;
}

TEST(LlamaNameMapTest, NamesRowsAndShapesOfTheTutorialsTable) {
  std::map<std::string, LlamaTensorName> map;
  for (const LlamaTensorName& entry : LlamaNameMap(SmallConfig())) map[entry.hf_name] = entry;
  const std::string hf = "model.layers.1.", te = "model.layers.1.";
  const struct {
    std::string hf_name, te_name;
    Shape shape;
  } expected[] = {
      {hf + "input_layernorm.weight", te + "self_attention.layernorm_qkv.layer_norm_weight", {12}},
      {hf + "self_attn.q_proj.weight", te + "self_attention.layernorm_qkv.query_weight", {24, 12}},
      {hf + "self_attn.k_proj.weight", te + "self_attention.layernorm_qkv.key_weight", {12, 12}},
      {hf + "self_attn.v_proj.weight", te + "self_attention.layernorm_qkv.value_weight", {12, 12}},
      {hf + "self_attn.o_proj.weight", te + "self_attention.proj.weight", {12, 24}},
      {hf + "post_attention_layernorm.weight", te + "layernorm_mlp.layer_norm_weight", {12}},
      {hf + "mlp.gate_proj.weight", te + "layernorm_mlp.fc1_weight[0:10]", {10, 12}},
      {hf + "mlp.up_proj.weight", te + "layernorm_mlp.fc1_weight[10:20]", {10, 12}},
      {hf + "mlp.down_proj.weight", te + "layernorm_mlp.fc2_weight", {12, 10}},
      {"model.embed_tokens.weight", "model.embed_tokens.weight", {11, 12}},
      {"model.norm.weight", "model.norm.weight", {12}},
      {"lm_head.weight", "lm_head.weight", {11, 12}},
  };
  for (const auto& e : expected) {
    ASSERT_TRUE(map.contains(e.hf_name)) << e.hf_name;
    EXPECT_EQ(map[e.hf_name].te_name_with_rows(), e.te_name);
    EXPECT_EQ(map[e.hf_name].shape, e.shape) << e.hf_name;
  }
  EXPECT_EQ(map.size(), 2u * 9 + 3);
}

TEST(LlamaNameMapTest, BiasesAppearWhereTheConfigHasThem) {
  const auto names = [](bool attention, bool mlp) {
    LlamaConfig config = SmallConfig();
    config.attention_bias = attention;
    config.mlp_bias = mlp;
    std::set<std::string> out;
    for (const LlamaTensorName& entry : LlamaNameMap(config)) {
      if (entry.layer == 0 && entry.hf_name.ends_with(".bias"))
        out.insert(entry.hf_name.substr(15));
    }
    return out;
  };
  EXPECT_EQ(names(false, false), std::set<std::string>{});
  EXPECT_EQ(names(true, false),
            (std::set<std::string>{"self_attn.q_proj.bias", "self_attn.k_proj.bias",
                                   "self_attn.v_proj.bias", "self_attn.o_proj.bias"}));
  EXPECT_EQ(names(false, true), (std::set<std::string>{"mlp.gate_proj.bias", "mlp.up_proj.bias",
                                                       "mlp.down_proj.bias"}));
}

TEST(LlamaNameMapTest, ATiedHeadHasNoEntry) {
  LlamaConfig config = SmallConfig();
  config.tie_word_embeddings = true;
  for (const LlamaTensorName& entry : LlamaNameMap(config))
    EXPECT_NE(entry.hf_name, "lm_head.weight");
}

TEST(LlamaNameMapTest, ElementsOfTheMapAreTheConfigsParameters) {
  for (int bits = 0; bits < 8; ++bits) {
    LlamaConfig config = SmallConfig();
    config.attention_bias = (bits & 1) != 0;
    config.mlp_bias = (bits & 2) != 0;
    config.tie_word_embeddings = (bits & 4) != 0;
    int64_t elements = 0;
    for (const LlamaTensorName& entry : LlamaNameMap(config)) elements += entry.shape.elements();
    EXPECT_EQ(elements, config.ParameterCount()) << bits;
  }
}

TEST(LlamaNameMapTest, ClassifiesNamesOfACheckpoint) {
  LlamaConfig config = SmallConfig();
  const auto kind = [&](const char* name) { return ClassifyLlamaName(config, name); };
  EXPECT_EQ(kind("model.layers.1.mlp.up_proj.weight"), LlamaNameKind::kModelTensor);
  EXPECT_EQ(kind("model.layers.2.mlp.up_proj.weight"), LlamaNameKind::kExtraLayer);
  EXPECT_EQ(kind("model.layers.10.mlp.up_proj.weight"), LlamaNameKind::kExtraLayer);
  EXPECT_EQ(kind("model.layers.0.self_attn.rotary_emb.inv_freq"), LlamaNameKind::kIgnored);
  EXPECT_EQ(kind("model.layers.1.mlp.up_proj.bias"), LlamaNameKind::kUnexpected);
  EXPECT_EQ(kind("model.layers.x.mlp.up_proj.weight"), LlamaNameKind::kUnexpected);
  EXPECT_EQ(kind("model.layers.-1.mlp.up_proj.weight"), LlamaNameKind::kUnexpected);
  EXPECT_EQ(kind("model.layers.01.mlp.up_proj.weight"), LlamaNameKind::kUnexpected);
  EXPECT_EQ(kind("model.layers.99999999999999999999.mlp.up_proj.weight"),
            LlamaNameKind::kUnexpected);
  EXPECT_EQ(kind("lm_head.weight"), LlamaNameKind::kModelTensor);
  config.tie_word_embeddings = true;
  EXPECT_EQ(kind("lm_head.weight"), LlamaNameKind::kTiedHead);
}

// What transformers makes of the names (tests/odd_directories has whole directories).
TEST(LlamaNameMapTest, StoredNamesAreThoseOfTheBaseModelToo) {
  LlamaConfig config = SmallConfig();
  config.tie_word_embeddings = true;
  const LlamaStoredNames names(config);
  const std::pair<const char*, const char*> cases[] = {
      {"model.norm.weight", "model.norm.weight"},
      {"norm.weight", "model.norm.weight"},
      {"layers.1.mlp.up_proj.weight", "model.layers.1.mlp.up_proj.weight"},
      {"model.model.norm.weight", "model.norm.weight"},
      {"model.lm_head.weight", "lm_head.weight"},
      {"model_lm_head.weight", "lm_head.weight"},
      {"lm_head.weight", "lm_head.weight"},
      {"model.model.model.norm.weight", "model.model.model.norm.weight"},
      {"module.model.norm.weight", "module.model.norm.weight"},
      {"layers.2.mlp.up_proj.weight", "layers.2.mlp.up_proj.weight"},
      {"model.layers.01.mlp.up_proj.weight", "model.layers.01.mlp.up_proj.weight"},
      {"model\nlm_head.weight", "model\nlm_head.weight"},
      {"model", "model"},
      {"model.", "model."},
      {"", ""},
  };
  for (const auto& [stored, name] : cases) EXPECT_EQ(names.NameOf(stored), name);
}

TEST(LlamaNameMapTest, EveryShapeHasAMeaning) {
  LlamaConfig config = SmallConfig();
  config.attention_bias = config.mlp_bias = true;
  for (const LlamaTensorName& entry : LlamaNameMap(config)) {
    const std::string meaning = LlamaShapeMeaning(entry.hf_name);
    EXPECT_EQ(std::count(meaning.begin(), meaning.end(), ',') + 1, entry.shape.rank())
        << entry.hf_name << ": " << meaning;
  }
}

}  // namespace
}  // namespace te
