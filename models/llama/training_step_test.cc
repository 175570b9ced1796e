// On the device that TE_TEST_DEVICE names ("cpu" without it).
#include "models/llama/training_step.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "te_core/quantization/module_recipes.h"
#include "te_kernels/testing/checked.h"

namespace te {
namespace {

using test::Ok;
using test::TestDevice;
using test::Value;

struct Settings {
  DType dtype = DType::kBFloat16;
  LlamaPath path = LlamaPath::kTe;
  RecomputeGranularity recompute = RecomputeGranularity::kNone;
  int64_t recompute_num_layers = 0;
  int64_t layers = 2;
  int64_t head_dim = 10;
  int64_t intermediate_size = 40;
  float attention_dropout = 0;
  bool tied = false;
  bool fp8_only = false;
  Rounding rounding = Rounding::kStochastic;
  size_t micro_batches = 1;
  int steps = 5;
  float max_grad_norm = 0;
  bool want_grad_norm = false;
  LlamaTrainingStepOptions step;
};

LlamaConfig ConfigOf(const Settings& settings) {
  LlamaConfig config;
  config.vocab_size = 61;
  config.hidden_size = 48;
  config.intermediate_size = settings.intermediate_size;
  config.num_hidden_layers = settings.layers;
  config.num_attention_heads = 4;
  config.num_key_value_heads = 2;
  config.head_dim = settings.head_dim;
  config.max_position_embeddings = 64;
  config.rms_norm_eps = 1e-5;
  config.attention_dropout = settings.attention_dropout;
  config.tie_word_embeddings = settings.tied;
  return config;
}

// Everything that a run leaves.
struct Outcome {
  std::vector<std::vector<char>> parameters;
  std::vector<double> losses;
  std::vector<double> grad_norms;
  std::map<std::string, std::vector<float>> scaling;  // scale and history of each quantized tensor
  size_t bytes = 0;                                   // that the context holds
  int64_t launches = 0;
};

std::vector<char> BytesOf(Context* context, ConstTensorView view) {
  std::vector<char> out(view.bytes());
  Ok(context->CopyToHost(view, out.data()));
  return out;
}

// Data, labels' holes and the learning rate change from step to step; two lengths alternate.
Outcome Train(const Settings& settings) {
  const LlamaConfig config = ConfigOf(settings);
  const auto context =
      Value(Context::Create({.device = TestDevice(), .num_threads = 2, .seed = 3}));
  const QuantizedInit init(context.get(), settings.fp8_only ? settings.step.recipe : nullptr);
  const auto model =
      Value(LlamaModel::Create(context.get(), config,
                               {.params_dtype = settings.dtype,
                                .path = settings.path,
                                .recompute_granularity = settings.recompute,
                                .recompute_num_layers = settings.recompute_num_layers}));
  Ok(model->InitializeAll());
  const auto optimizer =
      Value(AdamWOptimizer::Create(context.get(), model->parameters(),
                                   {.moments = settings.dtype, .rounding = settings.rounding}));
  const auto step = Value(LlamaTrainingStep::Create(model.get(), optimizer.get(), settings.step));
  Outcome out;
  std::mt19937 engine(11);
  for (int k = 0; k < settings.steps; ++k) {
    const int64_t sequence = k % 3 == 2 ? 16 : 32, batch = 3;
    std::vector<std::vector<int32_t>> ids(settings.micro_batches), labels(settings.micro_batches);
    std::vector<LlamaBatch> batches;
    for (size_t i = 0; i < settings.micro_batches; ++i) {
      for (int64_t t = 0; t < batch * sequence; ++t) {
        ids[i].push_back(static_cast<int32_t>(engine() % 61));
        labels[i].push_back(engine() % 5 == 0 ? -100 : ids[i].back());
      }
      batches.push_back(
          {.batch = batch, .sequence = sequence, .input_ids = ids[i], .labels = labels[i]});
    }
    Ok(step->Run(batches, {.learning_rate = 1e-3f * static_cast<float>(1 + k % 4),
                           .max_grad_norm = settings.max_grad_norm,
                           .want_grad_norm = settings.want_grad_norm}));
    const StepScalars scalars = Value(step->Result(0));
    out.losses.push_back(scalars.loss_sum / static_cast<double>(scalars.token_count));
    out.grad_norms.push_back(scalars.grad_square_sum);
  }
  for (const Parameter* p : model->parameters()) {
    out.parameters.push_back(
        BytesOf(context.get(), p->fp8_only() ? p->quantized.spec.rowwise_data : p->value.view()));
  }
  for (const auto& state : Value(context->delayed_scaling().Export(context->exec()))) {
    out.scaling[state.name] = state.amax_history;
    out.scaling[state.name].push_back(state.scale);
  }
  out.bytes = context->memory_statistics().bytes;
  out.launches = step->launches();
  return out;
}

void ExpectSame(const Outcome& a, const Outcome& b) {
  EXPECT_EQ(a.losses, b.losses);
  EXPECT_EQ(a.grad_norms, b.grad_norms);
  EXPECT_EQ(a.parameters == b.parameters, true) << "parameters differ";
  EXPECT_EQ(a.scaling, b.scaling);
}

// Of every layer's GEMMs; 61 tokens of vocabulary are no shape for a GPU's FP8 product.
std::unique_ptr<Recipe> WithoutHead(StatusOr<std::unique_ptr<Recipe>> recipe) {
  return MakeModuleRecipes({{.pattern = "lm_head", .training = nullptr, .evaluation = nullptr}},
                           Value(std::move(recipe)));
}

TEST(TrainingStep, TheSameRunGivesTheSameBits) {
  Settings settings;
  settings.micro_batches = 2;
  const Outcome first = Train(settings);
  ExpectSame(first, Train(settings));
  settings.steps = 4;  // the twin: one step less
  EXPECT_FALSE(first.parameters == Train(settings).parameters);
}

TEST(TrainingStep, UpdatesInsideTheBackwardPassChangeNoBit) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    for (const bool tied : {false, true}) {
      for (const LlamaPath path : {LlamaPath::kTe, LlamaPath::kHf}) {
        Settings settings = {.dtype = dtype, .path = path, .attention_dropout = 0.1f, .tied = tied};
        for (const bool norm : {false, true}) {
          settings.want_grad_norm = norm;
          settings.step.update_in_backward = false;
          const Outcome plain = Train(settings);
          EXPECT_EQ(plain.grad_norms.back() > 0, norm);
          settings.step.update_in_backward = true;
          ExpectSame(plain, Train(settings));
        }
      }
    }
  }
}

TEST(TrainingStep, ALaunchedStepEqualsAnEagerOneBitForBit) {
  for (const int64_t head_dim : {10, 64}) {  // our attention kernel, and cuDNN's
    Settings settings = {.head_dim = head_dim,
                         .attention_dropout = head_dim == 10 ? 0.1f : 0.0f,
                         .micro_batches = 2,
                         .steps = 100};
    settings.max_grad_norm = 0.5f;
    if (std::strcmp(TestDevice(), "cpu") == 0) settings.steps = 6;  // nothing is recorded there
    const Outcome launched = Train(settings);
    settings.step.record = false;
    const Outcome eager = Train(settings);
    ExpectSame(launched, eager);
    EXPECT_EQ(eager.launches, 0);
    // All but the first steps of each length.
    if (std::strcmp(TestDevice(), "cpu") != 0) {
      EXPECT_GT(launched.launches, 180);
    }
  }
}

// What a device's second queue gets, if it is there: with clipping no update.
TEST(TrainingStep, SaysWhatItRunsBesideTheBackwardPass) {
  const auto context = Value(Context::Create({.device = TestDevice()}));
  const bool cuda = std::strcmp(TestDevice(), "cpu") != 0;
  EXPECT_EQ(context->has_queue_beside(), cuda);
  const auto model = Value(LlamaModel::Create(context.get(), ConfigOf({}), {}));
  Ok(model->InitializeAll());
  const auto optimizer = Value(AdamWOptimizer::Create(context.get(), model->parameters(), {}));
  const auto beside = [&](const LlamaTrainingStepOptions& options, float max_grad_norm = 0) {
    return Value(LlamaTrainingStep::Create(model.get(), optimizer.get(), options))
        ->RunsBeside(100, max_grad_norm);
  };
  constexpr auto kNothing = BesideBackward::kNothing;
  const auto updates = cuda ? BesideBackward::kUpdates : kNothing;
  EXPECT_EQ(beside({.update_beside_tokens = 0}), updates);
  EXPECT_EQ(beside({.update_beside_tokens = 100}), updates);
  EXPECT_EQ(beside({.update_beside_tokens = 101}), kNothing);
  EXPECT_EQ(beside({.update_beside_tokens = -1}), kNothing);
  EXPECT_EQ(beside({.update_beside_tokens = 0}, 1), cuda ? BesideBackward::kGradSquares : kNothing);
  EXPECT_EQ(beside({.update_beside_tokens = -1}, 1), kNothing);
  EXPECT_EQ(beside({.update_beside_tokens = 0, .record = false}), kNothing);
  EXPECT_EQ(beside({.update_in_backward = true, .update_beside_tokens = 0}), kNothing);
}

TEST(TrainingStep, UpdatesBesideTheBackwardPassChangeNoBit) {
  if (std::strcmp(TestDevice(), "cpu") == 0)
    GTEST_SKIP() << "nothing is recorded on the cpu, so nothing is updated beside anything";
  const auto recipe = WithoutHead(MakeRecipe(DelayedScalingRecipe{.amax_history_len = 16}));
  const auto current = WithoutHead(MakeRecipe(Float8CurrentScalingRecipe()));
  struct Case {
    const char* name;
    Settings settings;
  };
  Settings fp8 = {.head_dim = 64, .intermediate_size = 64, .steps = 30};
  Settings bf16 = fp8;
  fp8.step.recipe = recipe.get();
  std::vector<Case> cases = {{"BF16", bf16}, {"delayed", fp8}};
  cases.push_back({"FP32", bf16});
  cases.back().settings.dtype = DType::kFloat32;
  cases.push_back({"tied, dropout", bf16});
  cases.back().settings.tied = true;
  cases.back().settings.head_dim = 10;  // our attention kernel
  cases.back().settings.attention_dropout = 0.1f;
  cases.push_back({"Hugging Face's operations", bf16});
  cases.back().settings.path = LlamaPath::kHf;
  cases.push_back({"recomputation", fp8});
  cases.back().settings.recompute = RecomputeGranularity::kFull;
  cases.push_back({"gradients of their own", fp8});
  cases.back().settings.step.lend_gradients = false;
  cases.push_back({"current", fp8});
  cases.back().settings.step.recipe = current.get();
  cases.push_back({"weights in FP8 alone", fp8});
  cases.back().settings.fp8_only = true;
  cases.push_back({"norm", bf16});
  cases.back().settings.want_grad_norm = true;
  cases.push_back({"clipping", fp8});
  cases.back().settings.max_grad_norm = 0.5f;
  for (auto& [name, settings] : cases) {
    SCOPED_TRACE(name);
    settings.step.update_beside_tokens = 0;
    const Outcome beside = Train(settings);
    settings.step.update_beside_tokens = -1;
    const Outcome behind = Train(settings);
    ExpectSame(beside, behind);
    EXPECT_EQ(beside.launches, behind.launches);
    settings.step.update_beside_tokens = 64;  // two of three steps are
    ExpectSame(beside, Train(settings));
    settings.step.update_beside_tokens = 0;
    settings.step.sm_margin = 0;
    ExpectSame(beside, Train(settings));
  }
}

TEST(TrainingStep, InFp8ALaunchedStepEqualsAnEagerOneAndTheLossIsNearThatOfBf16) {
  Settings settings = {.head_dim = 64, .intermediate_size = 64, .steps = 40};
  const bool cpu = std::strcmp(TestDevice(), "cpu") == 0;
  if (cpu) settings.steps = 6;
  const Outcome bf16 = Train(settings);
  std::vector<std::unique_ptr<Recipe>> recipes;
  recipes.push_back(WithoutHead(MakeRecipe(DelayedScalingRecipe{.amax_history_len = 16})));
  recipes.push_back(WithoutHead(MakeRecipe(Float8CurrentScalingRecipe())));
  recipes.push_back(WithoutHead(MakeRecipe(Float8BlockScalingRecipe())));
  if (cpu) {
    recipes.push_back(WithoutHead(MakeRecipe(MXFP8BlockScalingRecipe())));
    recipes.push_back(WithoutHead(MakeRecipe(NVFP4BlockScalingRecipe())));
  }
  for (const auto& recipe : recipes) {
    SCOPED_TRACE(recipe->name());
    for (const size_t micro_batches : {1, 2}) {
      settings.micro_batches = micro_batches;
      settings.step.recipe = recipe.get();
      settings.step.record = true;
      const Outcome launched = Train(settings);
      settings.step.record = false;
      ExpectSame(launched, Train(settings));
      if (micro_batches == 2) continue;
      EXPECT_FALSE(launched.parameters == bf16.parameters) << "nothing was quantized";
      // Losses of a model that has learned next to nothing: log 61 = 4.1 or less. One cast moves a
      // logit by some percent of itself.
      ASSERT_EQ(launched.losses.size(), bf16.losses.size());
      for (size_t k = 0; k < bf16.losses.size(); ++k)
        EXPECT_NEAR(launched.losses[k], bf16.losses[k], 0.05 * bf16.losses[k]) << "step " << k;
    }
    if (recipe == recipes.front()) {
      settings.micro_batches = 1;
      settings.step.record = true;
      const Outcome plain = Train(settings);
      settings.step.update_in_backward = true;
      ExpectSame(plain, Train(settings));
      settings.step.update_in_backward = false;
    }
  }
}

// head_dim 128 is what a GPU's FP8 attention takes.
TEST(TrainingStep, WithFp8AttentionALaunchedStepEqualsAnEagerOneAndTheLossIsNearThatOfBf16) {
  Settings settings = {.head_dim = 128, .intermediate_size = 64, .steps = 40};
  if (std::strcmp(TestDevice(), "cpu") == 0) settings.steps = 6;
  const Outcome bf16 = Train(settings);
  const auto gemms = WithoutHead(MakeRecipe(DelayedScalingRecipe{.amax_history_len = 16}));
  const auto attention =
      WithoutHead(MakeRecipe(DelayedScalingRecipe{.amax_history_len = 16, .fp8_dpa = true}));
  for (const size_t micro_batches : {1, 2}) {
    settings.micro_batches = micro_batches;
    settings.step.recipe = attention.get();
    settings.step.record = true;
    const Outcome launched = Train(settings);
    settings.step.record = false;
    ExpectSame(launched, Train(settings));
    if (micro_batches == 2) continue;
    ASSERT_EQ(launched.losses.size(), bf16.losses.size());
    for (size_t k = 0; k < bf16.losses.size(); ++k)
      EXPECT_NEAR(launched.losses[k], bf16.losses[k], 0.05 * bf16.losses[k]) << "step " << k;
    settings.step.recipe = gemms.get();
    EXPECT_FALSE(launched.parameters == Train(settings).parameters)
        << "attention was not quantized";
  }
}

TEST(TrainingStep, LentGradientsChangeNoBitAndSaveMemory) {
  for (const bool tied : {false, true}) {
    Settings settings = {.tied = tied};
    const Outcome lent = Train(settings);
    settings.step.lend_gradients = false;
    const Outcome own = Train(settings);
    ExpectSame(lent, own);
  }
}

// One run with every activation kept, the others with recomputation: of both layers and of the
// first.
void ExpectRecomputationChangesNoBit(Settings settings) {
  const Outcome kept = Train(settings);
  settings.recompute = RecomputeGranularity::kFull;
  for (const int64_t layers : {0, 1}) {
    settings.recompute_num_layers = layers;
    const Outcome recomputed = Train(settings);
    ExpectSame(kept, recomputed);
  }
}

TEST(TrainingStep, RecomputationChangesNoBit) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    for (const LlamaPath path : {LlamaPath::kTe, LlamaPath::kHf}) {
      for (const size_t micro_batches : {1, 2}) {
        SCOPED_TRACE(std::string(Name(dtype)) + " " + Name(path) + " " +
                     std::to_string(micro_batches));
        Settings settings = {.dtype = dtype,
                             .path = path,
                             .attention_dropout = 0.1f,
                             .micro_batches = micro_batches};
        settings.want_grad_norm = true;
        ExpectRecomputationChangesNoBit(settings);
      }
      Settings settings = {.dtype = dtype, .path = path, .attention_dropout = 0.1f, .tied = true};
      settings.step.update_in_backward = true;
      ExpectRecomputationChangesNoBit(settings);
    }
  }
}

// Scales move at the end of the forward pass and of the backward pass of its first module: the
// second run of a layer lies between the two.
TEST(TrainingStep, InFp8RecomputationChangesNoBitNoScaleAndNoHistory) {
  Settings settings = {.head_dim = 64, .intermediate_size = 64, .steps = 6};
  std::vector<std::unique_ptr<Recipe>> recipes;
  const DelayedScalingRecipe delayed = {.amax_history_len = 3};
  recipes.push_back(WithoutHead(MakeRecipe(delayed)));
  recipes.push_back(WithoutHead(MakeRecipe(Float8CurrentScalingRecipe())));
  recipes.push_back(WithoutHead(MakeRecipe(Float8BlockScalingRecipe())));
  if (std::strcmp(TestDevice(), "cpu") == 0) {
    recipes.push_back(Value(MakeRecipe(delayed)));  // lm_head, too
    recipes.push_back(WithoutHead(MakeRecipe(MXFP8BlockScalingRecipe())));
    recipes.push_back(WithoutHead(MakeRecipe(NVFP4BlockScalingRecipe())));
    recipes.push_back(WithoutHead(
        MakeRecipe(NVFP4BlockScalingRecipe{.disable_rht = true, .row_scaled_activation = true})));
  }
  for (const auto override : {BackwardOverride::kHighPrecision, BackwardOverride::kDequantized}) {
    recipes.push_back(
        WithoutHead(MakeRecipe(Float8CurrentScalingRecipe{.backward_override = override})));
  }
  for (const auto& recipe : recipes) {
    SCOPED_TRACE(recipe->name());
    settings.step.recipe = recipe.get();
    for (const size_t micro_batches : {1, 2}) {
      settings.micro_batches = micro_batches;
      ExpectRecomputationChangesNoBit(settings);
    }
  }
  settings.micro_batches = 1;
  for (size_t i : {0, 1}) {
    SCOPED_TRACE(recipes[i]->name() + ", updates in the backward pass");
    settings.step.recipe = recipes[i].get();
    settings.step.update_in_backward = true;
    for (const bool fp8_only : {false, true}) {
      settings.fp8_only = fp8_only;
      ExpectRecomputationChangesNoBit(settings);
    }
  }
  // What the comparison of scales compares.
  const Outcome delayed_only = Train(
      {.head_dim = 64, .intermediate_size = 64, .steps = 2, .step = {.recipe = recipes[0].get()}});
  EXPECT_EQ(delayed_only.scaling.size(), 2u * 4 * 3);
}

TEST(TrainingStep, WithFp8AttentionRecomputationChangesNoBitNoScaleAndNoHistory) {
  Settings settings = {.head_dim = 128, .intermediate_size = 64, .steps = 6};
  const auto recipe =
      WithoutHead(MakeRecipe(DelayedScalingRecipe{.amax_history_len = 3, .fp8_dpa = true}));
  settings.step.recipe = recipe.get();
  for (const size_t micro_batches : {1, 2}) {
    settings.micro_batches = micro_batches;
    ExpectRecomputationChangesNoBit(settings);
  }
}

TEST(TrainingStep, WithRecomputationALaunchedStepEqualsAnEagerOneBitForBit) {
  const auto recipe = WithoutHead(MakeRecipe(DelayedScalingRecipe{.amax_history_len = 3}));
  for (const bool fp8 : {false, true}) {
    Settings settings = {.recompute = RecomputeGranularity::kFull,
                         .head_dim = 64,
                         .intermediate_size = 64,
                         .steps = 40};
    if (std::strcmp(TestDevice(), "cpu") == 0) settings.steps = 4;  // nothing is recorded there
    settings.step.recipe = fp8 ? recipe.get() : nullptr;
    const Outcome launched = Train(settings);
    settings.step.record = false;
    ExpectSame(launched, Train(settings));
    if (std::strcmp(TestDevice(), "cpu") != 0) {
      EXPECT_GT(launched.launches, 30);
    }
  }
}

// Of every layer but one the activations that its backward pass reads have gone: the arena holds
// the activations of max(kept layers, 1), because the one that runs again needs room, too.
TEST(TrainingStep, RecomputationFreesTheActivationsOfALayerEach) {
  // 3 x 32 tokens in FP32, head_dim 64, 4 heads, 2 groups: each tensor is a multiple of 256 bytes.
  Settings settings = {.dtype = DType::kFloat32, .layers = 5, .head_dim = 64, .micro_batches = 2};
  settings.intermediate_size = 1024;
  settings.step.record = false;
  const LlamaConfig config = ConfigOf(settings);
  const int64_t hidden = config.hidden_size, heads = config.num_attention_heads * config.head_dim,
                groups = config.num_key_value_heads * config.head_dim,
                ffn = config.intermediate_size;
  // Float32 numbers a token: two norms with their statistics, QKV, logarithms of the softmax's
  // sums, attention's output, h, gate and up, their product.
  const int64_t numbers = 2 * (hidden + 1) + heads + 2 * groups + config.num_attention_heads +
                          heads + hidden + 2 * ffn + ffn;
  const int64_t statistics_padding = 2 * (512 - 3 * 32 * 4);  // to 256 bytes
  const int64_t layer = 3 * 32 * 4 * numbers + statistics_padding;
  const auto bytes = [&](RecomputeGranularity granularity, int64_t layers) {
    settings.recompute = granularity;
    settings.recompute_num_layers = layers;
    return static_cast<int64_t>(Train(settings).bytes);
  };
  const int64_t kept = bytes(RecomputeGranularity::kNone, 0);
  EXPECT_EQ(kept - bytes(RecomputeGranularity::kFull, 0), (settings.layers - 1) * layer);
  EXPECT_EQ(kept - bytes(RecomputeGranularity::kFull, 5), (settings.layers - 1) * layer);
  EXPECT_EQ(kept - bytes(RecomputeGranularity::kFull, 4), (settings.layers - 1) * layer);
  EXPECT_EQ(kept - bytes(RecomputeGranularity::kFull, 2), 2 * layer);
}

TEST(TrainingStep, RecomputationOfLayersThatAreNotThereIsRefused) {
  const auto context = Value(Context::Create({.device = TestDevice()}));
  const LlamaConfig config = ConfigOf({});
  const auto refused = [&](RecomputeGranularity granularity, int64_t layers) {
    const auto model =
        LlamaModel::Create(context.get(), config,
                           {.recompute_granularity = granularity, .recompute_num_layers = layers});
    ASSERT_FALSE(model.ok());
    EXPECT_EQ(model.status().code(), StatusCode::kInvalidArgument);
    EXPECT_NE(model.status().message().find("recompute_num_layers is " + std::to_string(layers)),
              std::string::npos)
        << model.status().message();
  };
  refused(RecomputeGranularity::kFull, 3);
  refused(RecomputeGranularity::kFull, -1);
  refused(RecomputeGranularity::kNone, 1);
}

TEST(TrainingStep, OptionsThatExcludeEachOtherAreRefused) {
  Settings settings;
  const auto context = Value(Context::Create({.device = TestDevice()}));
  const auto model = Value(
      LlamaModel::Create(context.get(), ConfigOf(settings), {.params_dtype = DType::kFloat32}));
  const auto optimizer = Value(AdamWOptimizer::Create(context.get(), model->parameters(), {}));
  const std::vector<int32_t> ids = {1, 2}, outside = {1, 61};
  const LlamaBatch batch = {.batch = 1, .sequence = 2, .input_ids = ids, .labels = ids};
  LlamaBatch no_labels = batch, bad = batch;
  no_labels.labels = {};
  bad.input_ids = outside;
  for (const bool update_in_backward : {true, false}) {
    const auto step = Value(LlamaTrainingStep::Create(model.get(), optimizer.get(),
                                                      {.update_in_backward = update_in_backward}));
    const auto refused = [&](const std::vector<LlamaBatch>& batches,
                             const AdamWOptimizer::StepInputs& inputs, const std::string& part) {
      const Status status = step->Run(batches, inputs);
      EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << part;
      EXPECT_NE(status.message().find(part), std::string::npos) << status.message();
    };
    const AdamWOptimizer::StepInputs inputs = {.learning_rate = 0.1f};
    refused({}, inputs, "0 micro-batches");
    refused({no_labels}, inputs, "labels are missing");
    refused({bad}, inputs, "input_ids[0, 1] is 61");
    refused({batch}, {.learning_rate = -1}, "learning_rate is -1");
    refused({batch}, {.learning_rate = 0.1f, .max_grad_norm = -1}, "max_grad_norm is -1");
    if (update_in_backward) {
      refused({batch, batch}, inputs, "2 micro-batches");
      refused({batch}, {.learning_rate = 0.1f, .max_grad_norm = 1}, "max_grad_norm 1");
    } else {
      // The second batch is looked at before the first one runs.
      refused({batch, bad}, inputs, "input_ids[0, 1] is 61");
    }
    EXPECT_FALSE(step->Result(0).ok());  // nothing has run
  }
}

// Clipping comes and goes with the steps: each way is recorded once.
TEST(TrainingStep, EachStepsNormIsItsOwn) {
  const auto context = Value(Context::Create({.device = TestDevice(), .num_threads = 2}));
  const auto model = Value(LlamaModel::Create(context.get(), ConfigOf({}), {}));
  Ok(model->InitializeAll());
  const auto optimizer = Value(AdamWOptimizer::Create(context.get(), model->parameters(), {}));
  for (const int64_t beside_tokens : {0, -1}) {
    const auto step = Value(LlamaTrainingStep::Create(model.get(), optimizer.get(),
                                                      {.update_beside_tokens = beside_tokens}));
    const std::vector<int32_t> ids(32, 7);
    const LlamaBatch batch = {.batch = 2, .sequence = 16, .input_ids = ids, .labels = ids};
    // Learning rate 0: every step meets the same gradients.
    std::vector<double> scales, norms;
    for (int round = 0; round < 4; ++round) {
      for (const AdamWOptimizer::StepInputs& inputs : {AdamWOptimizer::StepInputs{},
                                                       {.want_grad_norm = true},
                                                       {.max_grad_norm = 0.25f},
                                                       {.max_grad_norm = 0.125f}}) {
        Ok(step->Run({&batch, 1}, inputs));
        const StepScalars scalars = Value(step->Result(0));
        if (round < 3) continue;
        norms.push_back(scalars.grad_square_sum);
        scales.push_back(scalars.grad_scale * 30);  // counted tokens
      }
    }
    EXPECT_EQ(norms[0], 0);
    EXPECT_GT(norms[1], 0);
    EXPECT_EQ(norms[2], norms[1]);
    EXPECT_EQ(norms[3], norms[1]);
    const double norm = std::sqrt(norms[1]) / 30;
    ASSERT_GT(norm, 0.25);
    EXPECT_NEAR(scales[1], 1, 1e-6);
    EXPECT_NEAR(scales[2], 0.25 / norm, 1e-5);
    EXPECT_NEAR(scales[3], 0.125 / norm, 1e-5);
    if (std::strcmp(TestDevice(), "cpu") != 0) {
      EXPECT_GE(step->launches(), 4 * (4 - 2)) << "two of each at most run as they are";
    }
  }
}

// Within a caller's scope every step runs as it is, and it is not the scope's recipe that counts.
TEST(TrainingStep, NothingIsRecordedWithinAScope) {
  const auto recipe = WithoutHead(MakeRecipe(Float8CurrentScalingRecipe()));
  Settings settings = {.head_dim = 64, .intermediate_size = 64};
  std::vector<double> losses[2];
  for (const bool scoped : {false, true}) {
    const auto context = Value(Context::Create({.device = TestDevice(), .num_threads = 2}));
    const auto model = Value(LlamaModel::Create(context.get(), ConfigOf(settings), {}));
    Ok(model->InitializeAll());
    const auto optimizer = Value(AdamWOptimizer::Create(context.get(), model->parameters(), {}));
    const auto step =
        Value(LlamaTrainingStep::Create(model.get(), optimizer.get(), {.recipe = recipe.get()}));
    const std::vector<int32_t> ids(64, 7);
    const LlamaBatch batch = {.batch = 4, .sequence = 16, .input_ids = ids, .labels = ids};
    for (int k = 0; k < 5; ++k) {
      if (scoped) context->BeginQuantization(nullptr, {});
      Ok(step->Run({&batch, 1}, {.learning_rate = 1e-3f}));
      if (scoped) Ok(context->EndQuantization());
      losses[scoped].push_back(Value(step->Result(0)).loss_sum);
    }
    EXPECT_EQ(step->launches() > 0, !scoped && std::strcmp(TestDevice(), "cpu") != 0);
  }
  EXPECT_EQ(losses[0], losses[1]);
}

}  // namespace
}  // namespace te
