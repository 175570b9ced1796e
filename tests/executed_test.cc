// What a BF16 training step of the te path executes on a CUDA device, in order: a silent fallback,
// a lost fusion or a pass too many shows here.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <string>
#include <vector>

#include "models/llama/training_step.h"
#include "te_core/quantization/module_recipes.h"
#include "te_kernels/testing/checked.h"

namespace te {
namespace {

using test::Value;

// "operation" or "operation orientation".
std::string Line(const KernelRecord& record) {
  return record.orientation.empty() ? record.operation
                                    : record.operation + " " + record.orientation;
}

// The Llama 3 shape, small: GQA, head_dim 128, two layers.
LlamaConfig Config() {
  LlamaConfig config;
  config.vocab_size = 512;
  config.hidden_size = 512;
  config.intermediate_size = 1024;
  config.num_hidden_layers = 2;
  config.num_attention_heads = 4;
  config.num_key_value_heads = 2;
  config.head_dim = 128;
  config.max_position_embeddings = 256;
  return config;
}

// One step; with a recipe, the first after the calibrating one and the one that casts the weights.
std::vector<KernelRecord> ExecutedBy(LlamaPath path, bool padded, const Recipe* recipe = nullptr,
                                     bool fp8_only = false, bool recompute = false,
                                     bool allow_nondeterministic = false) {
  const auto context =
      Value(Context::Create({.device = "cuda", .allow_nondeterministic = allow_nondeterministic}));
  const QuantizedInit init(context.get(), fp8_only ? recipe : nullptr);
  LlamaModelOptions options = {.params_dtype = DType::kBFloat16, .path = path};
  if (recompute) options.recompute_granularity = RecomputeGranularity::kFull;
  const auto model = Value(LlamaModel::Create(context.get(), Config(), options));
  EXPECT_TRUE(model->InitializeAll().ok());
  const auto optimizer = Value(
      AdamWOptimizer::Create(context.get(), model->parameters(), {.moments = DType::kBFloat16}));
  const auto step = Value(
      LlamaTrainingStep::Create(model.get(), optimizer.get(), {.record = false, .recipe = recipe}));
  std::vector<int32_t> ids(2 * 128);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i * 7 % 512);
  std::vector<uint8_t> mask(ids.size(), 1);
  if (padded) std::fill(mask.begin() + 100, mask.begin() + 128, 0);
  const LlamaBatch batch = {
      .batch = 2, .sequence = 128, .input_ids = ids, .labels = ids, .attention_mask = mask};
  for (int i = 0; recipe != nullptr && i < 2; ++i)
    EXPECT_TRUE(step->Run({&batch, 1}, {.learning_rate = 1e-4f}).ok());
  KernelLog log;
  context->set_kernel_log(&log);
  const Status status = step->Run({&batch, 1}, {.learning_rate = 1e-4f});
  EXPECT_TRUE(status.ok()) << status.message();
  EXPECT_TRUE(step->Result(0).ok());
  context->set_kernel_log(nullptr);
  return log.records();
}

// What runs of a recomputed layer before its backward pass: all but the last product.
std::vector<std::string> SecondRun(const std::vector<std::string>& layer) {
  return {layer.begin(), layer.end() - 1};
}

std::vector<std::string> BFloat16Step(bool recompute) {
  const std::vector<std::string> layer = {
      "rms_norm_forward",  "gemm fprop",         "rope",
      "attention_forward", "gemm fprop",         "rms_norm_forward",
      "gemm fprop",        "activation_forward", "gemm fprop"};
  const std::vector<std::string> layer_backward = {
      // the MLP's, then the attention's: inputs first, then weights
      "gemm dgrad",        "activation_backward", "gemm dgrad", "rms_norm_backward",
      "gemm dgrad",        "attention_backward",  "rope",       "gemm dgrad",
      "rms_norm_backward", "gemm wgrad",          "gemm wgrad", "gemm wgrad",
      "gemm wgrad"};
  std::vector<std::string> want = {"embedding_forward"};
  const auto add = [&want](const std::vector<std::string>& lines) {
    want.insert(want.end(), lines.begin(), lines.end());
  };
  add(layer);
  add(layer);
  add({"rms_norm_forward", "gemm fprop", "cross_entropy", "gemm wgrad", "gemm dgrad", "sum",
       "count_labels", "rms_norm_backward"});
  for (int i = 0; i < 2; ++i) {
    if (recompute) add(SecondRun(layer));
    add(layer_backward);
  }
  add({"embedding_backward", "cast", "step_update", "cast"});
  // One update a buffer: embedding, final norm, lm_head, and of each layer two norms, QKV, proj,
  // gate + up, down.
  add(std::vector<std::string>(3 + 2 * 6, "adamw"));
  return want;
}

// What a shape's third step lists: it is recorded, but not within a caller's scope.
std::vector<KernelRecord> ThirdStep(const AdamWOptimizer::StepInputs& inputs,
                                    bool in_scope = false) {
  const auto context = Value(Context::Create({.device = "cuda"}));
  const auto model =
      Value(LlamaModel::Create(context.get(), Config(), {.params_dtype = DType::kBFloat16}));
  EXPECT_TRUE(model->InitializeAll().ok());
  const auto optimizer = Value(
      AdamWOptimizer::Create(context.get(), model->parameters(), {.moments = DType::kBFloat16}));
  const auto step = Value(LlamaTrainingStep::Create(model.get(), optimizer.get(),
                                                    {.update_beside_tokens = 0, .sm_margin = 8}));
  std::vector<int32_t> ids(2 * 128, 5);
  const LlamaBatch batch = {.batch = 2, .sequence = 128, .input_ids = ids, .labels = ids};
  if (in_scope) context->BeginQuantization(nullptr, {});
  for (int i = 0; i < 2; ++i) EXPECT_TRUE(step->Run({&batch, 1}, inputs).ok());
  EXPECT_EQ(step->launches(), 0);
  KernelLog log;
  context->set_kernel_log(&log);
  EXPECT_TRUE(step->Run({&batch, 1}, inputs).ok());
  context->set_kernel_log(nullptr);
  EXPECT_TRUE(step->Result(0).ok());
  EXPECT_EQ(step->launches(), in_scope ? 0 : 1);
  return log.records();
}

// " beside" where it is on the second queue.
std::vector<std::string> Lines(const std::vector<KernelRecord>& records) {
  std::vector<std::string> out;
  for (const KernelRecord& record : records)
    out.push_back(Line(record) + (record.beside ? " beside" : ""));
  return out;
}

// BFloat16Step's forward and backward pass, and `beside` behind each operation that ends a
// gradient.
std::vector<std::string> BFloat16Pass(const std::vector<std::string>& beside) {
  std::vector<std::string> out;
  bool head = true;  // whose gradient is whole when its last chunk of logits has been counted
  for (const std::string& line : BFloat16Step(false)) {
    if (line == "cast") break;  // the updates behind the pass
    out.push_back(line);
    if (line == "count_labels" || (!head && (line == "gemm wgrad" || line == "rms_norm_backward" ||
                                             line == "embedding_backward"))) {
      for (const std::string& more : beside) out.push_back(more + " beside");
      head = false;
    }
  }
  return out;
}

// A recorded step: each parameter's update stands right behind the operation that made its
// gradient, on the second queue, and nothing else does but, where the norm is asked for, the sum
// of its squares; of the products, those between the first update and the pass's end leave
// multiprocessors to it.
TEST(Executed, ARecordedStepUpdatesBesideItsBackwardPass) {
  for (const bool norm : {false, true}) {
    SCOPED_TRACE(norm);
    std::vector<std::string> want = {"count_labels", "cast", "step_update", "cast"}, beside, end;
    if (norm) beside = end = {"sum"};  // the end's: of all sums
    beside.emplace_back("adamw");
    end.emplace_back("step_update");
    const std::vector<std::string> pass = BFloat16Pass(beside);
    want.insert(want.end(), pass.begin(), pass.end());
    want.insert(want.end(), end.begin(), end.end());
    const std::vector<KernelRecord> records =
        ThirdStep({.learning_rate = 1e-4f, .want_grad_norm = norm});
    EXPECT_EQ(Lines(records), want);
    bool updating = false;
    for (const KernelRecord& record : records) {
      updating |= record.beside;
      if (record.operation == "gemm") {
        EXPECT_EQ(record.kernel.ends_with(" SMs"), updating) << record.kernel;
      }
    }
  }
}

// With clipping the second queue gets the sums of squares, and the updates wait for all of them.
TEST(Executed, ARecordedStepThatClipsSumsSquaresBesideItsBackwardPass) {
  std::vector<std::string> want = BFloat16Pass({"sum"});
  for (const char* line : {"sum", "cast", "step_update", "cast"}) want.emplace_back(line);
  want.insert(want.end(), 3 + 2 * 6, "adamw");
  const std::vector<KernelRecord> records = ThirdStep({.learning_rate = 1e-4f, .max_grad_norm = 1});
  EXPECT_EQ(Lines(records), want);
  for (const KernelRecord& record : records)
    EXPECT_FALSE(record.kernel.ends_with(" SMs")) << record.kernel;
}

// Where nothing is recorded nothing runs beside, and products leave nothing to it.
TEST(Executed, AStepWithinAScopeUsesTheWholeCard) {
  const std::vector<KernelRecord> records = ThirdStep({.learning_rate = 1e-4f}, /*in_scope=*/true);
  EXPECT_EQ(Lines(records), BFloat16Step(false));
  for (const KernelRecord& record : records)
    EXPECT_FALSE(record.kernel.ends_with(" SMs")) << record.kernel;
}

TEST(Executed, WithRecomputationALayerRunsAgainButForItsLastProduct) {
  std::vector<std::string> got;
  for (const KernelRecord& record : ExecutedBy(LlamaPath::kTe, false, nullptr, false, true))
    got.push_back(Line(record));
  EXPECT_EQ(got, BFloat16Step(true));
  EXPECT_NE(got, BFloat16Step(false));
}

TEST(Executed, TheTePathRunsTheseOperationsAndNoOther) {
  const std::vector<std::string> want = BFloat16Step(false);
  const std::vector<KernelRecord> records = ExecutedBy(LlamaPath::kTe, false);
  std::vector<std::string> got;
  for (const KernelRecord& record : records) got.push_back(Line(record));
  EXPECT_EQ(got, want);
  for (const KernelRecord& record : records) {
    if (record.operation.starts_with("attention")) {
      EXPECT_TRUE(record.kernel.starts_with("cudnn_sdpa")) << record.kernel;
    }
    if (record.operation == "gemm") {
      EXPECT_TRUE(record.kernel.starts_with("cublasLt")) << record.kernel;
      EXPECT_EQ(record.dtype, DType::kBFloat16);
    }
    EXPECT_GT(record.bytes, 0) << record.operation;
  }
  // The twin: the hf path runs others.
  std::vector<std::string> hf;
  for (const KernelRecord& record : ExecutedBy(LlamaPath::kHf, false)) hf.push_back(Line(record));
  EXPECT_NE(hf, want);
  EXPECT_GT(hf.size(), want.size());
}

// Delayed scaling: every cast inside the kernel that makes the tensor, but that of attention's
// output; weights by AdamW; two updates of the scales. With recomputation a copy of the scales each
// layer (one kernel for all of them), and the layer's second run.
std::vector<std::string> Fp8Step(bool fp8_only, bool recompute) {
  const std::vector<std::string> layer = {
      "rms_norm_forward rms_norm_forward_fp8_cuda",
      "gemm fprop float8_e4m3 tensor * float8_e4m3 tensor fast",
      "rope rope_cuda",
      "attention_forward",
      "quantize",
      "gemm fprop float8_e4m3 tensor * float8_e4m3 tensor fast",
      "rms_norm_forward rms_norm_forward_fp8_cuda",
      "gemm fprop float8_e4m3 tensor * float8_e4m3 tensor fast",
      "activation_forward activation_forward_fp8_cuda",
      "gemm fprop float8_e4m3 tensor * float8_e4m3 tensor fast"};
  const std::vector<std::string> layer_backward_with_copies = {
      "gemm dgrad float8_e5m2 tensor * float8_e4m3 tensor split",
      "activation_backward activation_backward_fp8_cuda",
      "gemm dgrad float8_e5m2 tensor * float8_e4m3 tensor split",
      "rms_norm_backward rms_norm_backward_fp8_cuda",
      "gemm dgrad float8_e5m2 tensor * float8_e4m3 tensor split",
      "attention_backward",
      "rope rope_fp8_cuda",
      "gemm dgrad float8_e5m2 tensor * float8_e4m3 tensor split",
      "rms_norm_backward rms_norm_backward_fp8_cuda",
      "gemm wgrad float8_e5m2 tensor * float8_e4m3 tensor split",
      "gemm wgrad float8_e5m2 tensor * float8_e4m3 tensor split",
      "gemm wgrad float8_e5m2 tensor * float8_e4m3 tensor split",
      "gemm wgrad float8_e5m2 tensor * float8_e4m3 tensor split"};
  // Of weights in FP8 alone, each dgrad's weight is transposed into scratch.
  std::vector<std::string> layer_backward;
  for (const std::string& line : layer_backward_with_copies) {
    if (fp8_only && line.starts_with("gemm dgrad")) layer_backward.emplace_back("transpose");
    layer_backward.push_back(line);
  }
  std::vector<std::string> want = {"embedding_forward"};
  const auto add = [&want](const std::vector<std::string>& lines) {
    want.insert(want.end(), lines.begin(), lines.end());
  };
  for (int i = 0; i < 2; ++i) {
    add(layer);
    if (recompute) add({"cast"});
  }
  add({"rms_norm_forward rms_norm_forward_cuda", "delayed_scaling", "gemm fprop bfloat16",
       "cross_entropy", "gemm wgrad bfloat16", "gemm dgrad bfloat16", "sum", "count_labels",
       "rms_norm_backward rms_norm_backward_fp8_cuda"});
  for (int i = 0; i < 2; ++i) {
    if (recompute) add(SecondRun(layer));
    add(layer_backward);
  }
  // The last norm's backward writes for no layer below.
  want[want.size() - 5] = "rms_norm_backward rms_norm_backward_cuda";
  add({"delayed_scaling", "embedding_backward", "cast", "step_update", "cast"});
  // What each of two layers' four weights is read with, kept before it is written.
  if (fp8_only) add(std::vector<std::string>(2 * 4, "cast"));
  add({"adamw"});
  return want;
}

void ExpectFp8Step(bool fp8_only, bool recompute = false) {
  const auto recipe =
      MakeModuleRecipes({{.pattern = "lm_head", .training = nullptr, .evaluation = nullptr}},
                        Value(MakeRecipe(DelayedScalingRecipe())));
  std::vector<std::string> got;
  int fused_updates = 0;
  for (const KernelRecord& record :
       ExecutedBy(LlamaPath::kTe, false, recipe.get(), fp8_only, recompute)) {
    if (record.operation == "adamw") {
      // One a buffer: the four weights of each layer write their copies, or are themselves codes.
      fused_updates += record.kernel == (fp8_only ? "adamw_fp8_weights_cuda" : "adamw_fp8_cuda");
      if (got.back() != "adamw") got.push_back("adamw");
      continue;
    }
    std::string line = Line(record);
    if (record.operation == "gemm") {
      const size_t types = record.kernel.find("float8");
      line += " ";
      line += types == std::string::npos ? Name(record.dtype) : record.kernel.substr(types);
    } else if (record.kernel.find("_cuda") != std::string::npos &&
               (record.operation.starts_with("rms_norm") || record.operation == "rope" ||
                record.operation.starts_with("activation"))) {
      line += " " + record.kernel;
    }
    got.push_back(line);
  }
  EXPECT_EQ(got, Fp8Step(fp8_only, recompute));
  EXPECT_NE(got, Fp8Step(!fp8_only, recompute));
  EXPECT_NE(got, Fp8Step(fp8_only, !recompute));
  EXPECT_EQ(fused_updates, 2 * 4);
}

// fp8_dpa: the rotation writes the codes of q, k and v, and reads those of dq, dk and dv; proj's
// copies are made of out's codes in one pass, as they are of BF16 without; dO alone is cast by a
// kernel of its own. The rest of the step is what it is without.
TEST(Executed, Fp8AttentionAddsTheCastOfItsOutputsGradientAndNothingElse) {
  const auto executed = [](bool fp8_dpa) {
    const auto recipe =
        MakeModuleRecipes({{.pattern = "lm_head", .training = nullptr, .evaluation = nullptr}},
                          Value(MakeRecipe(DelayedScalingRecipe{.fp8_dpa = fp8_dpa})));
    return ExecutedBy(LlamaPath::kTe, false, recipe.get());
  };
  std::vector<std::string> want;
  for (const KernelRecord& record : executed(false)) {
    if (record.operation == "rope") {
      want.emplace_back("rope rope_fp8_cuda");
    } else if (record.operation == "attention_forward") {
      want.emplace_back("attention_fp8_forward cudnn_sdpa_fp8");
    } else if (record.operation == "quantize") {  // out, the only one
      want.emplace_back("dequantize dequantize_fp8_cuda");
    } else if (record.operation == "attention_backward") {
      want.emplace_back("quantize");
      want.emplace_back("attention_fp8_backward cudnn_sdpa_fp8_backward");
    } else {
      want.push_back(Line(record));
    }
  }
  std::vector<std::string> got;
  int attentions = 0;
  for (const KernelRecord& record : executed(true)) {
    const bool attention = record.operation.starts_with("attention");
    attentions += attention ? 1 : 0;
    const bool names_kernel =
        attention || record.operation == "rope" || record.operation == "dequantize";
    got.push_back(names_kernel ? record.operation + " " + record.kernel : Line(record));
  }
  EXPECT_EQ(got, want);
  EXPECT_EQ(attentions, 2 * 2);
  EXPECT_EQ(std::count(got.begin(), got.end(), "quantize"), 2) << "one a layer";
}

// backward_override: the backward pass is that of BF16, after the forward pass in FP8; where the
// operands are dequantized ones, each of a layer's products comes after the pass that makes its
// own.
TEST(Executed, ABackwardOverrideMultipliesInBFloat16) {
  for (const auto override : {BackwardOverride::kHighPrecision, BackwardOverride::kDequantized}) {
    SCOPED_TRACE(Name(override));
    const auto recipe = MakeModuleRecipes(
        {{.pattern = "lm_head", .training = nullptr, .evaluation = nullptr}},
        Value(MakeRecipe(Float8CurrentScalingRecipe{.backward_override = override})));
    std::vector<std::string> want = {"cross_entropy", "gemm wgrad bfloat16", "gemm dgrad bfloat16",
                                     "sum",           "count_labels",        "rms_norm_backward"};
    for (int layer = 0; layer < 2; ++layer) {
      for (const char* line :
           {"gemm dgrad bfloat16", "activation_backward", "gemm dgrad bfloat16",
            "rms_norm_backward", "gemm dgrad bfloat16", "attention_backward", "rope",
            "gemm dgrad bfloat16", "rms_norm_backward", "gemm wgrad bfloat16",
            "gemm wgrad bfloat16", "gemm wgrad bfloat16", "gemm wgrad bfloat16"}) {
        if (override == BackwardOverride::kDequantized && std::string(line).starts_with("gemm"))
          want.emplace_back("dequantize");
        want.emplace_back(line);
      }
    }
    want.emplace_back("embedding_backward");
    std::vector<std::string> got;
    int quantized_products = 0;
    for (const KernelRecord& record : ExecutedBy(LlamaPath::kTe, false, recipe.get())) {
      const bool quantized = record.kernel.find("float8") != std::string::npos;
      if (record.operation == "gemm" && quantized) ++quantized_products;
      if (got.empty() && record.operation != "cross_entropy") continue;
      if (!got.empty() && got.back() == "embedding_backward") break;
      const std::string type = quantized ? " float8" : std::string(" ") + Name(record.dtype);
      got.push_back(Line(record) + (record.operation == "gemm" ? type : ""));
    }
    EXPECT_EQ(got, want);
    EXPECT_EQ(quantized_products, 2 * 4) << "the forward pass's";
  }
}

TEST(Executed, AnFp8StepCastsInsideItsProducers) { ExpectFp8Step(false); }

TEST(Executed, WithRecomputationAnFp8StepCastsInsideItsProducersTwice) {
  ExpectFp8Step(false, true);
  ExpectFp8Step(true, true);
}

// The same, but for one transposition a dgrad and the scale that each update reads.
TEST(Executed, AStepOfWeightsInFp8AloneTransposesThemForDgradAlone) { ExpectFp8Step(true); }

// One kernel differs, and only where it is allowed.
TEST(Executed, AllowingNondeterminismChangesAttentionsBackwardPassAlone) {
  std::vector<std::string> want;
  for (const KernelRecord& record : ExecutedBy(LlamaPath::kTe, false)) {
    want.push_back(Line(record) + " " + record.kernel);
    EXPECT_EQ(record.kernel.find("nondeterministic"), std::string::npos) << want.back();
    if (record.operation == "attention_backward") want.back() += "_nondeterministic";
  }
  std::vector<std::string> got;
  for (const KernelRecord& record : ExecutedBy(LlamaPath::kTe, false, nullptr, false, false, true))
    got.push_back(Line(record) + " " + record.kernel);
  EXPECT_EQ(got, want);
}

TEST(Executed, RightPaddingStaysOnTheFusedAttention) {
  int attentions = 0;
  for (const KernelRecord& record : ExecutedBy(LlamaPath::kTe, true)) {
    if (!record.operation.starts_with("attention")) continue;
    ++attentions;
    EXPECT_TRUE(record.kernel.starts_with("cudnn_sdpa")) << record.kernel;
  }
  EXPECT_EQ(attentions, 4);
}

}  // namespace
}  // namespace te
