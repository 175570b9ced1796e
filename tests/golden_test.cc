// Parity with Hugging Face: what transformers computed from the checkpoints of tests/golden
// (make_golden.py says how), both paths. Every comparison has twins with one disturbed weight, or
// one ignored field of the config, that must fail. On the device that TE_TEST_DEVICE names ("cpu"
// without it).

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "models/checkpoint/checkpoint_reader.h"
#include "models/json/json.h"
#include "models/llama/generate.h"
#include "models/llama/llama_model.h"
#include "models/llama/load_weights.h"
#include "models/llama/trace.h"
#include "te_core/optimizer/adamw_optimizer.h"
#include "te_kernels/testing/checked.h"

namespace te {
namespace {

using test::Ok;
using test::Value;

// One thread: these models are too small to share, and waiting threads would starve on a busy
// machine.
std::unique_ptr<Context> NewContext() {
  return Value(Context::Create({.device = test::TestDevice(), .num_threads = 1}));
}

// A dense tensor's elements, and back.
template <typename T>
std::vector<T> Fetch(Context* context, const TensorView& tensor) {
  std::vector<T> out(static_cast<size_t>(tensor.elements()));
  Ok(context->CopyToHost(tensor, out.data()));
  return out;
}
template <typename T>
void Store(Context* context, const std::vector<T>& values, const TensorView& tensor) {
  Ok(context->CopyFromHost(values.data(), tensor));
}

// One folder of tests/golden or tests/golden_rope.
class Golden {
 public:
  explicit Golden(const std::string& name) : directory_("tests/" + name) {
    config = Value(LlamaConfig::FromFile(directory_ + "/checkpoint/config.json"));
    json = Value(ReadJsonFile(directory_ + "/expected.json"));
    file_ = Value(OpenTensorFile(directory_ + "/expected.safetensors"));
    ids = Integers("input_ids");
    labels = Integers("labels");
    for (int32_t keep : Integers("attention_mask")) mask.push_back(static_cast<uint8_t>(keep));
    shape = file_->Find("input_ids")->shape;
  }

  LlamaBatch Batch() const {
    return {.batch = shape[0],
            .sequence = shape[1],
            .input_ids = ids,
            .labels = labels,
            .attention_mask = mask};
  }
  std::unique_ptr<LlamaModel> Load(Context* context, LlamaPath path, DType dtype,
                                   const LlamaConfig& with) const {
    const auto reader = Value(CheckpointReader::Open(directory_ + "/checkpoint"));
    auto model = Value(LlamaModel::Create(context, with, {.params_dtype = dtype, .path = path}));
    const LoadReport report = Value(LoadLlamaWeights(model.get(), *reader));
    EXPECT_TRUE(report.Warnings().empty()) << report.Warnings().front();
    return model;
  }
  std::unique_ptr<LlamaModel> Load(Context* context, LlamaPath path, DType dtype) const {
    return Load(context, path, dtype, config);
  }
  std::vector<std::string> Names() const {
    std::vector<std::string> names;
    for (const TensorEntry& entry : file_->entries()) names.push_back(entry.name);
    return names;
  }
  std::vector<float> Floats(const std::string& name) const {
    return Read<float>(name, DType::kFloat32);
  }
  double loss() const { return json.Find("loss")->number(); }

  LlamaConfig config;
  JsonValue json;
  std::vector<int64_t> shape;  // [B, S]
  std::vector<int32_t> ids, labels;
  std::vector<uint8_t> mask;

 private:
  std::vector<int32_t> Integers(const std::string& name) const {
    return Read<int32_t>(name, DType::kInt32);
  }
  template <typename T>
  std::vector<T> Read(const std::string& name, DType dtype) const {
    const auto& entries = file_->entries();
    for (size_t i = 0; i < entries.size(); ++i) {
      if (entries[i].name != name) continue;
      std::vector<T> out(static_cast<size_t>(entries[i].elements));
      const Status status =
          file_->ReadTensor(i, TensorView(out.data(), dtype, Shape(entries[i].shape)));
      EXPECT_TRUE(status.ok()) << status.message();
      return out;
    }
    ADD_FAILURE() << "expected.safetensors has no " << name;
    return {};
  }

  std::string directory_;
  std::unique_ptr<TensorFile> file_;
};

// Relative tolerance in the 2-norm. Rounding to nearest with unit roundoff u makes a sum of k
// products err by about u sqrt(k) of its norm when roundings are independent (Higham 2002,
// section 2.8); the products that a value passes through, one after the other, add in quadrature.
// Per decoder layer their lengths are H (q, k, v), d (scores), S (values), n d (o), H (gate and up)
// and I (down); then H of lm_head; a gradient passes through all of them twice more. Both sides
// round: a factor sqrt(2). `factor` covers the norms, softmax, rotation and residuals between, and
// the tails.
double Tolerance(const LlamaConfig& c, int64_t sequence, double u, double factor, bool gradient) {
  const int64_t layer = 2 * c.hidden_size + c.head_dim + sequence +
                        c.num_attention_heads * c.head_dim + c.intermediate_size;
  const int64_t length = c.num_hidden_layers * layer + c.hidden_size;
  return factor * u * std::sqrt(2.0 * static_cast<double>(gradient ? 3 * length : length));
}

double RelativeError(const std::vector<float>& got, const std::vector<float>& expected) {
  if (got.size() != expected.size()) return HUGE_VAL;
  double difference = 0, norm = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    difference += std::pow(static_cast<double>(got[i]) - expected[i], 2);
    norm += std::pow(expected[i], 2);
  }
  // Written so that a NaN is an error, too.
  return norm > 0 && difference >= 0 ? std::sqrt(difference / norm)
                                     : (difference == 0 ? 0 : HUGE_VAL);
}

struct Limits {
  double forward, gradient, loss;
};

// FP32: u = 2^-24, factor 2.
Limits Fp32Limits(const Golden& golden) {
  const double forward = Tolerance(golden.config, golden.shape[1], 0x1p-24, 2, false);
  // The loss is a mean over many tokens' logits: it errs less than any of them, relative to its own
  // size of about ln V.
  return {forward, Tolerance(golden.config, golden.shape[1], 0x1p-24, 2, true), forward};
}

// Names of the tensors that are out of tolerance, with their errors; all names of
// expected.safetensors but the inputs are compared, so that one that the trace lacks is out of
// tolerance as well.
std::vector<std::string> Failures(const Golden& golden, const std::vector<LlamaTraceTensor>& trace,
                                  const Limits& limits, double* largest = nullptr) {
  std::map<std::string, const LlamaTraceTensor*> by_name;
  for (const LlamaTraceTensor& tensor : trace) by_name[tensor.name] = &tensor;
  std::vector<std::string> out;
  const auto check = [&](const std::string& name, double error, double limit) {
    if (largest != nullptr) *largest = std::max(*largest, error / limit);
    if (!(error <= limit))
      out.push_back(name + ": " + std::to_string(error) + " > " + std::to_string(limit));
  };
  size_t compared = 0;
  for (const std::string& name : golden.Names()) {
    if (name == "input_ids" || name == "labels" || name == "attention_mask") continue;
    ++compared;
    const auto it = by_name.find(name);
    if (it == by_name.end()) {
      out.push_back(name + ": missing");
      continue;
    }
    const bool gradient = name.starts_with("grad.");
    check(name, RelativeError(it->second->values, golden.Floats(name)),
          gradient ? limits.gradient : limits.forward);
  }
  const auto loss = by_name.find("loss");
  if (loss == by_name.end()) {
    out.push_back("loss: missing");
  } else {
    check("loss", std::abs(loss->second->values[0] - golden.loss()) / golden.loss(), limits.loss);
  }
  if (compared + 1 != trace.size())
    out.push_back("the trace has tensors that Hugging Face has not");
  return out;
}

std::vector<LlamaTraceTensor> Trace(LlamaModel* model, const LlamaBatch& batch) {
  return Value(TraceLlama(model, batch, {.gradients = true, .hidden_states = true}));
}

std::string Joined(const std::vector<std::string>& lines) {
  std::string out;
  for (const std::string& line : lines) out += line + "\n";
  return out;
}

struct Case {
  const char* name;
  LlamaPath path;
};

class GoldenTest : public testing::TestWithParam<Case> {
 protected:
  GoldenTest() : golden_(std::string("golden/") + GetParam().name), context_(NewContext()) {}
  std::unique_ptr<LlamaModel> Load(DType dtype = DType::kFloat32) {
    return golden_.Load(context_.get(), GetParam().path, dtype);
  }
  std::vector<std::string> FailuresWith(const LlamaConfig& config, const LlamaBatch& batch) {
    const auto model = golden_.Load(context_.get(), GetParam().path, DType::kFloat32, config);
    return Failures(golden_, Trace(model.get(), batch), Fp32Limits(golden_));
  }

  // The golden's 20 AdamW steps on its batch; with `compare`, each loss is checked.
  void TrainAsGolden(LlamaModel* model, bool compare) {
    const JsonValue* adamw = golden_.json.Find("adamw");
    const double lr = adamw->Find("lr")->number();
    const int64_t warmup = adamw->Find("warmup_steps")->integer(),
                  steps = adamw->Find("training_steps")->integer();
    Ok(model->EnsureGradients());
    const auto optimizer =
        Value(AdamWOptimizer::Create(context_.get(), model->parameters(),
                                     {.beta1 = adamw->Find("betas")->array()[0].number(),
                                      .beta2 = adamw->Find("betas")->array()[1].number(),
                                      .epsilon = adamw->Find("eps")->number(),
                                      .weight_decay = adamw->Find("weight_decay")->number()}));
    const auto& expected = golden_.json.Find("losses")->array();
    ASSERT_EQ(static_cast<int64_t>(expected.size()), steps);
    for (int64_t step = 0; step < steps; ++step) {
      Ok(optimizer->BeginStep());
      Ok(model->RunMicroBatch(golden_.Batch(), {}));
      const StepScalars scalars = Value(context_->ReadScalars());
      const double loss = scalars.loss_sum / static_cast<double>(scalars.token_count);
      const double want = expected[static_cast<size_t>(step)].number();
      if (compare) {
        EXPECT_NEAR(loss, want, 1e-4 * want) << "step " << step;
      }
      const double scale =
          step < warmup ? static_cast<double>(step) / static_cast<double>(warmup)
                        : static_cast<double>(steps - step) / static_cast<double>(steps - warmup);
      Ok(optimizer->Step({.learning_rate = static_cast<float>(lr * scale)}));
    }
  }

  Golden golden_;
  std::unique_ptr<Context> context_;
};

TEST_P(GoldenTest, LogitsHiddenStatesLossAndEveryGradientInFp32) {
  const auto model = Load();
  double largest = 0;
  const auto failures =
      Failures(golden_, Trace(model.get(), golden_.Batch()), Fp32Limits(golden_), &largest);
  EXPECT_TRUE(failures.empty()) << Joined(failures);
  RecordProperty("largest_error_over_tolerance", std::to_string(largest));
}

TEST_P(GoldenTest, OneDisturbedWeightOfAnyTensorFails) {
  const auto model = Load();
  const std::vector<float> expected = golden_.Floats("logits");
  const auto error = [&] {
    LlamaBatch batch = golden_.Batch();
    batch.labels = {};
    return RelativeError(Value(TraceLlama(model.get(), batch, {}))[0].values, expected);
  };
  const double limit = Fp32Limits(golden_).forward;
  for (const LlamaTensor& tensor : model->tensors()) {
    const TensorView value = tensor.value();
    int64_t index = value.elements() / 2;
    if (tensor.name.hf_name == kLlamaEmbeddingName) {
      index = golden_.ids[9] * golden_.config.hidden_size;
    }
    const std::vector<float> before = Fetch<float>(context_.get(), value);
    std::vector<float> disturbed = before;
    disturbed[static_cast<size_t>(index)] += 0.05f;
    Store(context_.get(), disturbed, value);
    EXPECT_GT(error(), limit) << tensor.name.hf_name;
    Store(context_.get(), before, value);
  }
  // Undisturbed again: what failed was the weight.
  EXPECT_LE(error(), limit);
}

TEST_P(GoldenTest, IgnoredFieldsOfTheConfigFail) {
  LlamaConfig config = golden_.config;
  config.rope.theta *= 1.5;
  EXPECT_FALSE(FailuresWith(config, golden_.Batch()).empty()) << "rope_theta";
  config = golden_.config;
  if (config.rope.type != LlamaRopeType::kDefault) {
    config.rope.type = LlamaRopeType::kDefault;
    EXPECT_FALSE(FailuresWith(config, golden_.Batch()).empty()) << "rope_scaling";
  }
  config = golden_.config;
  config.rms_norm_eps *= 100;
  EXPECT_FALSE(FailuresWith(config, golden_.Batch()).empty()) << "rms_norm_eps";
  LlamaBatch batch = golden_.Batch();
  const std::vector<uint8_t> ones(golden_.mask.size(), 1);
  batch.attention_mask = ones;
  EXPECT_FALSE(FailuresWith(golden_.config, batch).empty()) << "attention_mask";
  if (golden_.config.PaddingIndex() < 0) return;
  // The padding token's row alone differs, and nothing but its gradient.
  for (const std::optional<int64_t>& other :
       {std::optional<int64_t>(), std::optional<int64_t>(3)}) {
    config = golden_.config;
    config.pad_token_id = other;
    const std::vector<std::string> failures = FailuresWith(config, golden_.Batch());
    ASSERT_EQ(failures.size(), 1u) << Joined(failures);
    EXPECT_TRUE(failures[0].starts_with(std::string("grad.") + kLlamaEmbeddingName)) << failures[0];
  }
}

// Through the embedding the padding row gets no gradient; untied, none at all. The norm of all
// gradients is that of Hugging Face's, and AdamW goes on with the row as torch.optim.AdamW does.
TEST_P(GoldenTest, ThePaddingRowInTheNormAndAfterTwentySteps) {
  const int64_t row = golden_.config.PaddingIndex(), hidden = golden_.config.hidden_size;
  if (row < 0) GTEST_SKIP() << "no pad_token_id";
  EXPECT_GT(std::ranges::count(golden_.ids, static_cast<int32_t>(row)), 3);
  const auto rows = [&](const std::vector<float>& table, int64_t which) {
    return std::vector<float>(table.begin() + which * hidden, table.begin() + (which + 1) * hidden);
  };
  double square_sum = 0;
  for (const std::string& name : golden_.Names()) {
    if (!name.starts_with("grad.")) continue;
    for (const float g : golden_.Floats(name)) square_sum += static_cast<double>(g) * g;
  }
  const std::vector<float> grad =
      rows(golden_.Floats(std::string("grad.") + kLlamaEmbeddingName), row);
  EXPECT_EQ(std::ranges::all_of(grad, [](float g) { return g == 0; }),
            !golden_.config.tie_word_embeddings);

  const auto train = [&](const LlamaConfig& config, double* norm) {
    const auto model = golden_.Load(context_.get(), GetParam().path, DType::kFloat32, config);
    Ok(model->EnsureGradients());
    const auto optimizer = Value(AdamWOptimizer::Create(context_.get(), model->parameters(), {}));
    Ok(optimizer->BeginStep());
    Ok(model->RunMicroBatch(golden_.Batch(), {}));
    Ok(optimizer->Step({.learning_rate = 0, .want_grad_norm = true}));
    *norm = GradNorm(Value(context_->ReadScalars()));
    TrainAsGolden(model.get(), false);
    return rows(Fetch<float>(context_.get(), model->FindTensor(kLlamaEmbeddingName)->value()), row);
  };
  std::vector<float> want;
  for (const JsonValue& value : golden_.json.Find("trained_padding_row")->array())
    want.push_back(static_cast<float>(value.number()));
  double norm = 0, norm_without = 0;
  const std::vector<float> got = train(golden_.config, &norm);
  EXPECT_LE(RelativeError(got, want), 1e-5);
  EXPECT_NEAR(norm, std::sqrt(square_sum), 1e-5 * norm);
  LlamaConfig without = golden_.config;
  without.pad_token_id.reset();
  EXPECT_GT(RelativeError(train(without, &norm_without), want), 1e-3);
  EXPECT_GT(std::abs(norm_without - std::sqrt(square_sum)), 1e-3 * norm);
}

// Exchanging two tensors of one shape is what a wrong row order does.
TEST_P(GoldenTest, ExchangedTensorsFail) {
  const auto model = Load();
  for (const auto& [a, b] : {std::pair("mlp.gate_proj.weight", "mlp.up_proj.weight"),
                             std::pair("self_attn.k_proj.weight", "self_attn.v_proj.weight")}) {
    const TensorView x = model->FindTensor(std::string("model.layers.0.") + a)->value();
    const TensorView y = model->FindTensor(std::string("model.layers.0.") + b)->value();
    const std::vector<float> x_values = Fetch<float>(context_.get(), x),
                             y_values = Fetch<float>(context_.get(), y);
    Store(context_.get(), y_values, x);
    Store(context_.get(), x_values, y);
    EXPECT_FALSE(
        Failures(golden_, Trace(model.get(), golden_.Batch()), Fp32Limits(golden_)).empty())
        << a;
    Store(context_.get(), x_values, x);
    Store(context_.get(), y_values, y);
  }
}

TEST_P(GoldenTest, TwentyAdamWLosses) {
  const auto model = Load();
  TrainAsGolden(model.get(), true);
}

// Three micro-batches of one row each make the same step as one batch of three rows: the count of
// tokens divides once.
TEST_P(GoldenTest, AccumulatedMicroBatchesHaveTheSameGradients) {
  const auto model = Load();
  Ok(model->EnsureGradients());
  Ok(context_->WriteScalars({}));
  const LlamaBatch whole = golden_.Batch();
  const auto row_length = static_cast<size_t>(whole.sequence);
  for (size_t row = 0; row < static_cast<size_t>(whole.batch); ++row) {
    Ok(model->RunMicroBatch(
        {.batch = 1,
         .sequence = whole.sequence,
         .input_ids = whole.input_ids.subspan(row * row_length, row_length),
         .labels = whole.labels.subspan(row * row_length, row_length),
         .attention_mask = whole.attention_mask.subspan(row * row_length, row_length)},
        {.accumulate_gradients = row > 0}));
  }
  const StepScalars scalars = Value(context_->ReadScalars());
  const double count = static_cast<double>(scalars.token_count);
  const Limits limits = Fp32Limits(golden_);
  EXPECT_NEAR(scalars.loss_sum / count, golden_.loss(), limits.loss * golden_.loss());
  for (const LlamaTensor& tensor : model->tensors()) {
    std::vector<float> got = Fetch<float>(context_.get(), tensor.grad());
    for (float& x : got) x /= static_cast<float>(count);
    EXPECT_LE(RelativeError(got, golden_.Floats("grad." + tensor.name.hf_name)), limits.gradient)
        << tensor.name.hf_name;
  }
}

TEST_P(GoldenTest, TwentyFourGreedyTokens) {
  const auto model = Load();
  std::vector<int32_t> prompt, expected;
  for (const JsonValue& id : golden_.json.Find("prompt")->array())
    prompt.push_back(static_cast<int32_t>(id.integer()));
  for (const JsonValue& id : golden_.json.Find("generated")->array()) {
    expected.push_back(static_cast<int32_t>(id.integer()));
  }
  ASSERT_EQ(expected.size(), 24u);
  const auto got =
      Value(GenerateGreedy(model.get(), prompt, {.max_new_tokens = 24, .ignore_eos = true}));
  EXPECT_EQ(got, expected);
}

// BF16 storage and GEMMs. u = 2^-9 (8 bits of significand); a value is rounded to BF16 after each
// of about 12 operations a layer (forward; twice as many again backward), independently: u
// sqrt(roundings), times 4 for what later layers make of it. Weights that the checkpoint holds in
// float32 or float16 are rounded as well: one rounding more a product.
TEST_P(GoldenTest, Bf16StaysWithinItsRounding) {
  const auto model = Load(DType::kBFloat16);
  const double roundings = 20.0 * static_cast<double>(golden_.config.num_hidden_layers) + 4;
  const double forward = 4 * 0x1p-9 * std::sqrt(roundings);
  const Limits limits = {forward, 4 * 0x1p-9 * std::sqrt(3 * roundings), 0x1p-9};
  double largest = 0;
  const auto failures = Failures(golden_, Trace(model.get(), golden_.Batch()), limits, &largest);
  EXPECT_TRUE(failures.empty()) << Joined(failures);
  RecordProperty("largest_error_over_tolerance", std::to_string(largest));
  // Twin: one matrix with the wrong sign.
  const TensorView w = model->FindTensor("model.layers.0.mlp.down_proj.weight")->value();
  std::vector<bfloat16> values = Fetch<bfloat16>(context_.get(), w);
  for (bfloat16& x : values) x = bfloat16(-static_cast<float>(x));
  Store(context_.get(), values, w);
  EXPECT_FALSE(Failures(golden_, Trace(model.get(), golden_.Batch()), limits).empty());
}

std::vector<Case> Cases(std::initializer_list<const char*> names) {
  std::vector<Case> out;
  for (const char* name : names) {
    for (LlamaPath path : {LlamaPath::kTe, LlamaPath::kHf}) out.push_back({name, path});
  }
  return out;
}

std::string CaseName(const testing::TestParamInfo<Case>& info) {
  std::string name = std::string(info.param.name) + "_" + Name(info.param.path);
  for (char& c : name) c = c == '-' ? '_' : c;
  return name;
}

INSTANTIATE_TEST_SUITE_P(HuggingFace, GoldenTest,
                         testing::ValuesIn(Cases({"llama2-mha", "llama3-gqa", "llama31-tied",
                                                  "llama-bias-bin", "llama2-bin-single",
                                                  "llama-pad", "llama-pad-tied"})),
                         CaseName);

// tests/golden_rope: every rope type in every spelling, one kind of bias alone, unusual head
// shapes.
class GoldenRopeTest : public testing::TestWithParam<Case> {};

TEST_P(GoldenRopeTest, LogitsHiddenStatesLossAndEveryGradientInFp32) {
  const Golden golden(std::string("golden_rope/") + GetParam().name);
  const auto context = NewContext();
  const auto failures = [&](const LlamaConfig& config) {
    const auto model = golden.Load(context.get(), GetParam().path, DType::kFloat32, config);
    return Failures(golden, Trace(model.get(), golden.Batch()), Fp32Limits(golden));
  };
  const auto none = failures(golden.config);
  EXPECT_TRUE(none.empty()) << Joined(none);
  // Twins: each number of the scaling that is read from the file changes the result.
  std::vector<std::pair<const char*, std::function<void(LlamaRopeConfig*)>>> twins;
  switch (golden.config.rope.type) {
    case LlamaRopeType::kDefault:
      twins.push_back({"theta", [](auto* r) { r->theta *= 2; }});
      break;
    case LlamaRopeType::kDynamic:
      // Within max_position_embeddings the factor does nothing, as it should.
      if (golden.config.max_position_embeddings < golden.shape[1]) {
        twins.push_back({"factor", [](auto* r) { r->factor *= 2; }});
      } else {
        twins.push_back({"theta", [](auto* r) { r->theta *= 2; }});
      }
      break;
    case LlamaRopeType::kYarn:
      if (golden.config.rope.mscale != 0) {
        twins.push_back({"mscale", [](auto* r) { r->mscale *= 2; }});
        twins.push_back({"mscale_all_dim", [](auto* r) { r->mscale_all_dim *= 2; }});
        twins.push_back({"beta_fast", [](auto* r) { r->beta_fast *= 4; }});
        twins.push_back({"beta_slow", [](auto* r) { r->beta_slow /= 4; }});
        twins.push_back({"truncate", [](auto* r) { r->truncate = true; }});
      }
      if (golden.config.rope.attention_factor) {
        twins.push_back({"attention_factor", [](auto* r) { r->attention_factor.reset(); }});
      }
      [[fallthrough]];
    case LlamaRopeType::kLinear:
    case LlamaRopeType::kLlama3:
      twins.push_back({"factor", [](auto* r) { r->factor *= 2; }});
      twins.push_back({"type", [](auto* r) { r->type = LlamaRopeType::kDefault; }});
      if (golden.config.rope.type == LlamaRopeType::kLlama3) {
        twins.push_back({"high_freq_factor", [](auto* r) { r->high_freq_factor *= 2; }});
        twins.push_back({"low_freq_factor", [](auto* r) { r->low_freq_factor *= 2; }});
      }
      if (golden.config.rope.type != LlamaRopeType::kLinear) {
        twins.push_back({"original_max_position_embeddings",
                         [](auto* r) { r->original_max_position_embeddings *= 4; }});
      }
      break;
  }
  for (const auto& [name, change] : twins) {
    LlamaConfig config = golden.config;
    change(&config.rope);
    EXPECT_FALSE(failures(config).empty()) << name;
  }
}

INSTANTIATE_TEST_SUITE_P(HuggingFace, GoldenRopeTest,
                         testing::ValuesIn(Cases({"linear", "dynamic-within", "dynamic-beyond",
                                                  "llama3", "yarn", "yarn-mscale",
                                                  "yarn-attention-factor", "attention-bias",
                                                  "mlp-bias"})),
                         CaseName);

}  // namespace
}  // namespace te
