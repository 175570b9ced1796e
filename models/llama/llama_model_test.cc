#include "models/llama/llama_model.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <set>

#include "models/llama/inspect.h"
#include "models/llama/testing_model.h"
#include "models/llama/trace.h"

namespace te {
namespace {

std::vector<float> Gradients(LlamaModel* model) {
  std::vector<float> out;
  for (const Parameter* p : model->parameters()) {
    const float* grad = p->grad.view().as<float>();
    out.insert(out.end(), grad, grad + p->grad.view().elements());
  }
  return out;
}

class LlamaPathTest : public testing::TestWithParam<LlamaPath> {};

TEST_P(LlamaPathTest, GradientsAreDerivativesOfTheLoss) {
  LlamaConfig config = SmallConfig();
  config.attention_bias = config.mlp_bias = true;
  config.rope.type = LlamaRopeType::kYarn;
  config.rope.factor = 4;
  config.rope.original_max_position_embeddings = 8;
  const Data data(config, 2, 9, 5, true);
  const auto context = NewContext();
  const auto model = NewModel(context.get(), config, GetParam());
  const auto trace = Trace(model.get(), data.Batch());
  const auto loss = [&] {
    Ok(context->WriteScalars({}));
    auto pass = Value(model->Forward(data.Batch()));
    Ok(model->EvaluateLoss(&pass));
    const StepScalars s = Value(context->ReadScalars());
    return s.loss_sum / static_cast<double>(s.token_count);
  };
  EXPECT_NEAR(loss(), trace.at("loss")[0], 1e-6 * trace.at("loss")[0]);
  for (const LlamaTensor& tensor : model->tensors()) {
    // Along the gradient itself: the directional derivative is its norm, and no error hides behind
    // a small one.
    const auto& grad = trace.at("grad." + tensor.name.hf_name);
    double norm = 0;
    for (float g : grad) norm += static_cast<double>(g) * g;
    norm = std::sqrt(norm);
    ASSERT_GT(norm, 0) << tensor.name.hf_name;
    const TensorView value = tensor.value();
    const std::vector<float> before(value.as<float>(), value.as<float>() + value.elements());
    // Central difference: its truncation error falls as h^2, the rounding of the loss (float32
    // logits) rises as 1 / h.
    const double h = 4e-3;
    double side[2];
    for (int sign : {0, 1}) {
      for (size_t i = 0; i < before.size(); ++i) {
        value.as<float>()[i] =
            static_cast<float>(before[i] + (sign == 0 ? h : -h) * grad[i] / norm);
      }
      side[sign] = loss();
    }
    std::copy(before.begin(), before.end(), value.as<float>());
    const double numeric = (side[0] - side[1]) / (2 * h);
    const double tolerance = 1e-2 * norm + 4 * 0x1p-24 * trace.at("loss")[0] / h;
    EXPECT_NEAR(numeric, norm, tolerance) << tensor.name.hf_name;
    EXPECT_GT(std::abs(numeric - 1.1 * norm), tolerance)
        << tensor.name.hf_name;  // twin: a gradient 10% off
  }
}

TEST_P(LlamaPathTest, PassesInFlightDoNotDisturbEachOther) {
  const LlamaConfig config = SmallConfig();
  const auto context = NewContext();
  const auto model = NewModel(context.get(), config, GetParam());
  Ok(model->EnsureGradients());
  const Data a(config, 2, 11, 1, true), b(config, 1, 5, 2, false), c(config, 2, 11, 3, true);
  Ok(model->RunMicroBatch(a.Batch(), {}));
  Ok(model->RunMicroBatch(b.Batch(), {.accumulate_gradients = true}));
  Ok(model->RunMicroBatch(c.Batch(), {.accumulate_gradients = true}));
  const std::vector<float> expected = Gradients(model.get());
  auto pass_a = Value(model->Forward(a.Batch()));
  auto pass_b = Value(model->Forward(b.Batch()));
  auto pass_c = Value(model->Forward(c.Batch()));
  Ok(model->Backward(&pass_a, {}));
  pass_a.reset();
  Ok(model->Backward(&pass_b, {.accumulate_gradients = true}));
  Ok(model->Backward(&pass_c, {.accumulate_gradients = true}));
  EXPECT_EQ(Gradients(model.get()), expected);
  Ok(model->RunMicroBatch(a.Batch(), {}));
  EXPECT_NE(Gradients(model.get()), expected);
}

TEST_P(LlamaPathTest, ARepeatedShapeAllocatesNothingAndGivesTheSameBits) {
  const LlamaConfig config = SmallConfig();
  const auto context = NewContext();
  const auto model = NewModel(context.get(), config, GetParam());
  Ok(model->EnsureGradients());
  const Data data(config, 2, 13, 1, true);
  for (int i = 0; i < 2; ++i)
    Ok(model->RunMicroBatch(data.Batch(), {}));  // the second merges what the first grew
  const std::vector<float> first = Gradients(model.get());
  Ok(model->RunMicroBatch(data.Batch(), {}));
  const int64_t before = context->memory_statistics().allocations;
  Ok(model->RunMicroBatch(data.Batch(), {}));
  EXPECT_EQ(context->memory_statistics().allocations, before);
  EXPECT_EQ(Gradients(model.get()), first);
}

TEST_P(LlamaPathTest, PaddingIsInvisible) {
  const LlamaConfig config = SmallConfig();
  const auto context = NewContext();
  const auto model = NewModel(context.get(), config, GetParam());
  Data data(config, 3, 16, 1, true);
  const auto before = Trace(model.get(), data.Batch());
  Data other = data;
  int changed = 0;
  for (size_t i = 0; i < other.ids.size(); ++i) {
    if (other.mask[i] == 0) {
      other.ids[i] = (other.ids[i] + 5) % static_cast<int32_t>(config.vocab_size);
      ++changed;
    }
  }
  ASSERT_GT(changed, 0);
  const auto after = Trace(model.get(), other.Batch());
  for (const auto& [name, values] : before) {
    if (!name.starts_with("hidden.") && name != "logits") {
      EXPECT_EQ(values, after.at(name)) << name;
    }
  }
  // Twin: unmasked, the same change is seen.
  other.mask.assign(other.mask.size(), 1);
  other.labels = data.ids;
  Data unmasked = data;
  unmasked.mask = other.mask;
  unmasked.labels = other.labels;
  EXPECT_NE(Trace(model.get(), unmasked.Batch()).at("loss"),
            Trace(model.get(), other.Batch()).at("loss"));
}

TEST_P(LlamaPathTest, AFullMaskIsNoMask) {
  const LlamaConfig config = SmallConfig();
  const auto context = NewContext();
  const auto model = NewModel(context.get(), config, GetParam());
  const Data data(config, 2, 9, 1, false);
  LlamaBatch without = data.Batch();
  without.attention_mask = {};
  EXPECT_EQ(Trace(model.get(), data.Batch()), Trace(model.get(), without));
}

TEST_P(LlamaPathTest, EachGradientIsReadyOnceAndWhenItIsComplete) {
  for (bool tied : {false, true}) {
    LlamaConfig config = SmallConfig();
    config.tie_word_embeddings = tied;
    config.attention_bias = config.mlp_bias = true;
    const auto context = NewContext();
    const auto model = NewModel(context.get(), config, GetParam());
    Ok(model->EnsureGradients());
    std::map<Parameter*, std::vector<float>> seen;
    const GradientReady ready = [&](Parameter& p) {
      const float* grad = p.grad.view().as<float>();
      EXPECT_TRUE(
          seen.emplace(&p, std::vector<float>(grad, grad + p.grad.view().elements())).second)
          << p.name;
      return OkStatus();
    };
    const Data data(config, 2, 8, 1, false);
    Ok(model->RunMicroBatch(data.Batch(), {.gradient_ready = &ready}));
    EXPECT_EQ(seen.size(), model->parameters().size());
    for (const auto& [parameter, at_callback] : seen) {
      const float* grad = parameter->grad.view().as<float>();
      EXPECT_EQ(at_callback, std::vector<float>(grad, grad + at_callback.size()))
          << parameter->name;
    }
  }
}

TEST_P(LlamaPathTest, FrozenParametersGetNoGradientAndChangeNoOther) {
  const LlamaConfig config = SmallConfig();
  const auto context = NewContext();
  const auto model = NewModel(context.get(), config, GetParam());
  const Data data(config, 2, 8, 1, false);
  const auto all = Trace(model.get(), data.Batch());
  const auto frozen = NewModel(context.get(), config, GetParam());
  for (const char* name :
       {"model.embed_tokens.weight", "model.layers.0.self_attn.k_proj.weight",
        "model.layers.1.mlp.gate_proj.weight", "model.layers.1.input_layernorm.weight",
        "model.norm.weight", "lm_head.weight"}) {
    frozen->FindTensor(name)->parameter->requires_grad = false;
  }
  const auto some = Trace(frozen.get(), data.Batch());
  std::set<std::string> missing;
  for (const auto& [name, values] : all) {
    const auto it = some.find(name);
    if (it == some.end()) {
      missing.insert(name);
    } else {
      EXPECT_EQ(it->second, values) << name;
    }
  }
  // A buffer is frozen whole: q, k and v, or gate and up.
  EXPECT_EQ(
      missing,
      (std::set<std::string>{
          "grad.model.embed_tokens.weight", "grad.model.layers.0.self_attn.q_proj.weight",
          "grad.model.layers.0.self_attn.k_proj.weight",
          "grad.model.layers.0.self_attn.v_proj.weight", "grad.model.layers.1.mlp.gate_proj.weight",
          "grad.model.layers.1.mlp.up_proj.weight", "grad.model.layers.1.input_layernorm.weight",
          "grad.model.norm.weight", "grad.lm_head.weight"}));
}

TEST_P(LlamaPathTest, AttentionDropoutIsOfTrainingAndRepeats) {
  LlamaConfig config = SmallConfig();
  const Data data(config, 2, 12, 1, false);
  const auto plain_context = NewContext();
  const auto plain = NewModel(plain_context.get(), config, GetParam());
  const auto without = Trace(plain.get(), data.Batch());
  config.attention_dropout = 0.5;
  const auto trace = [&](uint64_t seed) {
    const auto context = NewContext(seed);
    const auto model = NewModel(context.get(), config, GetParam());
    return Trace(model.get(), data.Batch());
  };
  EXPECT_NE(trace(1).at("loss"), without.at("loss"));
  EXPECT_EQ(trace(1), trace(1));
  EXPECT_NE(trace(1).at("loss"), trace(2).at("loss"));
  // Inference drops nothing.
  const auto context = NewContext();
  const auto model = NewModel(context.get(), config, GetParam());
  std::vector<float> logits[2];
  for (int i : {0, 1}) {
    const Tensor out = Value(context->NewTensor(DType::kFloat32, {2, config.vocab_size}));
    logits[i].resize(static_cast<size_t>(2 * config.vocab_size));
    Ok((i == 0 ? model : plain)->Infer(2, 12, data.ids, {}, out.view()));
    Ok(context->CopyToHost(out, logits[i].data()));
  }
  EXPECT_EQ(logits[0], logits[1]);
}

TEST_P(LlamaPathTest, InferenceGivesTheLogitsOfTraining) {
  const LlamaConfig config = SmallConfig();
  const auto context = NewContext();
  const auto model = NewModel(context.get(), config, GetParam());
  const Data data(config, 2, 9, 1, false);
  const auto trace = Trace(model.get(), data.Batch()).at("logits");
  const Tensor out = Value(context->NewTensor(DType::kFloat32, {2, config.vocab_size}));
  Ok(model->Infer(2, 9, data.ids, {}, out.view()));
  const auto vocab = static_cast<size_t>(config.vocab_size);
  for (size_t b = 0; b < 2; ++b) {
    const std::vector<float> last(trace.begin() + static_cast<int64_t>((b * 9 + 8) * vocab),
                                  trace.begin() + static_cast<int64_t>((b * 9 + 9) * vocab));
    const float* got = out.view().as<float>() + b * vocab;
    EXPECT_LE(RelativeError({got, got + vocab}, last), Tolerance(config, 9, 0x1p-24));
  }
}

TEST_P(LlamaPathTest, WrongBatchesAreNamed) {
  const LlamaConfig config = SmallConfig();
  const auto context = NewContext();
  const auto model = NewModel(context.get(), config, GetParam());
  const Data good(config, 2, 4, 1, false);
  Data bad = good;
  bad.ids[5] = 37;
  ExpectError(model->RunMicroBatch(bad.Batch(), {}), StatusCode::kInvalidArgument,
              {"input_ids[1, 1]", "37", "36"});
  bad = good;
  bad.ids[2] = -1;
  ExpectError(model->RunMicroBatch(bad.Batch(), {}), StatusCode::kInvalidArgument,
              {"input_ids[0, 2]", "-1"});
  bad = good;
  bad.labels[7] = -7;
  ExpectError(model->RunMicroBatch(bad.Batch(), {}), StatusCode::kInvalidArgument,
              {"labels[1, 3]", "-7", "-100"});
  bad = good;
  bad.mask[3] = 2;
  ExpectError(model->RunMicroBatch(bad.Batch(), {}), StatusCode::kInvalidArgument,
              {"attention_mask[0, 3]", "2"});
  LlamaBatch batch = good.Batch();
  batch.batch = 3;
  ExpectError(model->RunMicroBatch(batch, {}), StatusCode::kInvalidArgument, {"input_ids", "8"});
  batch = good.Batch();
  batch.labels = batch.labels.subspan(1);
  ExpectError(model->RunMicroBatch(batch, {}), StatusCode::kInvalidArgument, {"labels", "7"});
  batch = good.Batch();
  batch.labels = {};
  ExpectError(model->RunMicroBatch(batch, {}), StatusCode::kInvalidArgument, {"labels"});
  batch.batch = 0;
  ExpectError(model->Forward(batch).status(), StatusCode::kInvalidArgument, {"[0, 4]"});
  batch = good.Batch();
  ExpectError(model->RunMicroBatch(batch, {}), StatusCode::kFailedPrecondition,
              {"EnsureGradients"});
  Ok(model->EnsureGradients());
  auto pass = Value(model->Forward(batch));
  Ok(model->Backward(&pass, {}));
  ExpectError(model->Backward(&pass, {}), StatusCode::kFailedPrecondition, {"backward"});
  Data none = good;
  none.labels.assign(none.labels.size(), kIgnoreIndex);
  ExpectError(TraceLlama(model.get(), none.Batch(), {}).status(), StatusCode::kInvalidArgument,
              {"no label counts"});
}

INSTANTIATE_TEST_SUITE_P(Paths, LlamaPathTest, testing::Values(LlamaPath::kTe, LlamaPath::kHf),
                         [](const auto& info) { return std::string(Name(info.param)); });

TEST(LlamaModelTest, PathNames) {
  EXPECT_EQ(Value(ParseLlamaPath("te")), LlamaPath::kTe);
  EXPECT_EQ(Value(ParseLlamaPath("hf")), LlamaPath::kHf);
  ExpectError(ParseLlamaPath("pt").status(), StatusCode::kInvalidArgument, {"'pt'", "te", "hf"});
}

TEST(LlamaModelTest, ADtypeThatIsNotBuiltIsRefused) {
  const auto context = NewContext();
  ExpectError(
      LlamaModel::Create(context.get(), SmallConfig(), {.params_dtype = DType::kFloat16}).status(),
      StatusCode::kUnsupported, {"float16", "bfloat16"});
}

TEST(LlamaModelTest, InitializationHasTheConfigsWidthAndOnlyDependsOnTheSeed) {
  LlamaConfig config = SmallConfig();
  config.hidden_size = 64;
  config.initializer_range = 0.05;
  config.attention_bias = true;
  const auto values = [&](uint64_t seed) {
    const auto context = NewContext(seed);
    const auto model = Value(LlamaModel::Create(context.get(), config, {}));
    Ok(model->InitializeAll());
    std::map<std::string, std::vector<float>> out;
    for (const LlamaTensor& t : model->tensors()) {
      out[t.name.hf_name].assign(t.value().as<float>(),
                                 t.value().as<float>() + t.value().elements());
    }
    return out;
  };
  const auto a = values(1);
  EXPECT_EQ(a, values(1));
  EXPECT_NE(a.at("lm_head.weight"), values(2).at("lm_head.weight"));
  EXPECT_NE(a.at("lm_head.weight"), a.at("model.embed_tokens.weight"));
  for (const auto& [name, x] : a) {
    if (name.ends_with("norm.weight")) {
      EXPECT_EQ(x, std::vector<float>(x.size(), 1.0f)) << name;
    } else if (name.ends_with(".bias")) {
      EXPECT_EQ(x, std::vector<float>(x.size(), 0.0f)) << name;
    } else {
      double square = 0;
      for (float v : x) square += static_cast<double>(v) * v;
      const double std = std::sqrt(square / static_cast<double>(x.size()));
      // Five standard errors of a standard deviation: sigma / sqrt(2 n).
      EXPECT_NEAR(std, 0.05, 5 * 0.05 / std::sqrt(2.0 * static_cast<double>(x.size()))) << name;
    }
  }
}

// Hugging Face's _init_weights: 0 in the padding token's row, in a tied head's as well.
TEST(LlamaModelTest, InitializationZeroesThePaddingRow) {
  for (const bool tied : {false, true}) {
    LlamaConfig config = SmallConfig();
    config.tie_word_embeddings = tied;
    config.pad_token_id = 3;
    const auto context = NewContext();
    const auto model = Value(LlamaModel::Create(context.get(), config, {}));
    Ok(model->InitializeAll());
    for (const LlamaTensor& t : model->tensors()) {
      if (t.name.shape.rank() != 2 || t.name.shape[0] != config.vocab_size) continue;
      const float* x = t.value().as<float>();
      for (int64_t row = 0; row < config.vocab_size; ++row) {
        const float* begin = x + row * config.hidden_size;
        const bool zero =
            std::all_of(begin, begin + config.hidden_size, [](float v) { return v == 0; });
        EXPECT_EQ(zero, row == 3 && t.name.hf_name == kLlamaEmbeddingName) << t.name.hf_name << row;
      }
    }
    EXPECT_NE(InspectLlama(*model).find("padding_idx=3"), std::string::npos);
  }
}

TEST(LlamaModelTest, DescribesTheTreeAndTheTable) {
  LlamaConfig config = SmallConfig();
  const auto context = NewContext();
  const auto model = NewModel(context.get(), config, LlamaPath::kTe);
  const std::string text = InspectLlama(*model);
  for (const char* part :
       {"LlamaForCausalLM(\n  (model): LlamaModel(\n    (embed_tokens): Embedding(",
        "(0-1): 2 x TransformerLayer(", "(self_attention): MultiheadAttention(",
        "(layernorm_qkv): LayerNormLinear(", "model.layers.1.layernorm_mlp.fc1_weight[29:58]",
        "model.layers.0.self_attention.layernorm_qkv.query_weight"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part << "\nis not in\n" << text;
  }
  config.tie_word_embeddings = true;
  const auto tied = NewModel(context.get(), config, LlamaPath::kHf);
  EXPECT_NE(InspectLlama(*tied).find("model.embed_tokens.weight (tied)"), std::string::npos);
}

}  // namespace
}  // namespace te
