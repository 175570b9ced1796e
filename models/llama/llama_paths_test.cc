// The fused path and Hugging Face's decomposition against each other, on random configurations.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "models/llama/testing_model.h"

namespace te {
namespace {

// What the error of gradient `name` is measured by beside its own norm. Scores have the gradient
// P (dP - sum(P dP)): a difference, zero where a query sees one key only, whose error is rounding
// of its terms. Their size is that of v_proj's gradient, P^T dO.
double ErrorFloor(const std::map<std::string, std::vector<float>>& trace, std::string name) {
  for (const char* projection : {".q_proj.", ".k_proj."}) {
    const size_t at = name.find(projection);
    if (at != std::string::npos) return Norm(trace.at(name.replace(at, 8, ".v_proj.")));
  }
  return 0;
}

// The two paths share weights and kernels' contracts, but neither attention, nor GEMM shapes, nor
// loss.
TEST(LlamaModelTest, BothPathsAgreeOnRandomConfigurations) {
  std::mt19937 engine(20);
  const auto pick = [&](std::initializer_list<int64_t> values) {
    return *(values.begin() + engine() % values.size());
  };
  for (int trial = 0; trial < 24; ++trial) {
    LlamaConfig config;
    config.vocab_size = pick({7, 33, 61, 128});
    config.hidden_size = pick({5, 16, 27, 40});
    config.intermediate_size = pick({1, 13, 31, 48});
    config.num_hidden_layers = pick({1, 2, 3});
    config.num_key_value_heads = pick({1, 2, 3});
    config.num_attention_heads = config.num_key_value_heads * pick({1, 2, 3, 5});
    config.head_dim = pick({2, 6, 10, 14, 16});
    config.max_position_embeddings = 32;
    config.rms_norm_eps = 1e-5;
    config.attention_bias = engine() % 2 == 0;
    config.mlp_bias = engine() % 2 == 0;
    config.tie_word_embeddings = engine() % 2 == 0;
    config.rope.theta = engine() % 2 == 0 ? 1e4 : 5e5;
    const LlamaRopeType types[] = {LlamaRopeType::kDefault, LlamaRopeType::kLinear,
                                   LlamaRopeType::kDynamic, LlamaRopeType::kLlama3,
                                   LlamaRopeType::kYarn};
    config.rope.type = types[trial % 5];
    if (config.rope.type == LlamaRopeType::kDynamic)
      config.head_dim = std::max<int64_t>(config.head_dim, 6);
    config.rope.factor = 4;
    config.rope.original_max_position_embeddings = 8;
    const int64_t sequence = pick({1, 2, 7, 17, 40});
    SCOPED_TRACE(config.ToJson());
    const Data data(config, pick({1, 2, 3}), std::max<int64_t>(sequence, 2), 3, engine() % 2 == 0);
    const auto context = NewContext();
    const auto te = NewModel(context.get(), config, LlamaPath::kTe);
    const auto hf = NewModel(context.get(), config, LlamaPath::kHf);
    Data one = data;
    one.labels = one.ids;  // something counts even in the shortest
    const auto a = Trace(te.get(), one.Batch()), b = Trace(hf.get(), one.Batch());
    const double tolerance = Tolerance(config, data.sequence, 0x1p-24);
    ASSERT_EQ(a.size(), b.size());
    for (const auto& [name, values] : a) {
      ASSERT_TRUE(b.contains(name)) << name;
      EXPECT_LE(RelativeError(values, b.at(name), ErrorFloor(b, name)), tolerance) << name;
    }
    // Twin: another weight in one layer of one path.
    const TensorView up = te->FindTensor("model.layers.0.mlp.down_proj.weight")->value();
    up.as<float>()[0] += 0.5f;
    EXPECT_GT(RelativeError(Trace(te.get(), one.Batch()).at("logits"), b.at("logits")), tolerance);
  }
}

}  // namespace
}  // namespace te
