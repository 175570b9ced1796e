// Whole fine-tuning steps of a Llama with random weights and random tokens, optimizer included, and
// in the same run a large GEMM: what share of the machine's matrix-product rate a step keeps. Then
// a few steps at a learning rate that teaches, to see that they do.
//
//   bazel run --config=opt //bench:step -- --precision bf16
//   bazel run --config=opt //bench:step -- --device cuda --model llama2-7b --precision bf16
//       --batch-size 8 --sequence-length 256
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "bench/gemm_yardstick.h"
#include "bench/learning_check.h"
#include "bench/step_models.h"
#include "bench/step_report.h"
#include "bench/stream_timer.h"
#include "bench/timed_device.h"
#include "fmt/format.h"
#include "models/llama/training_step.h"
#include "models/llama/tuned_choices.h"
#include "te_core/quantization/module_recipes.h"

namespace te::bench {
namespace {

constexpr float kLearningRate = 1.41e-5f;  // the tutorial's
constexpr float kTeachingRate = 1e-3f;

struct Options {
  std::string device = "cpu";
  std::string model = "110m";
  int64_t layers = 0;       // 0: the model's
  int64_t vocab_size = 0;   // 0: the model's
  int64_t hidden_size = 0;  // 0: the model's; else heads of 128 and a feed-forward 8/3 as wide
  std::string path = "te";
  std::string precision = "fp32";
  std::string recipe = "delayed";
  bool fp8_lm_head = false;
  bool fp8_weights_only = false;
  bool fp8_dpa = false;
  std::string rounding = "nearest";
  int64_t batch = 4;
  int64_t sequence = 256;
  int64_t micro_batches = 1;
  float max_grad_norm = 0;
  bool grad_norm = false;
  bool update_in_backward = false;
  int64_t update_beside_tokens = LlamaTrainingStepOptions().update_beside_tokens;
  bool update_beside = false;  // asked for by --update-beside-tokens
  int sm_margin = -1;
  std::string recompute = "none";
  int64_t recompute_num_layers = 0;  // 0: all
  bool record = true;
  bool allow_nondeterministic = false;
  int threads = 0;
  int steps = 10;
  int warmup = 5;
  int check_steps = 5;
  bool profile = false;
  bool kernels = false;
  std::string choices;
  bool searches = false;
  double search_limit = SearchSettings().limit_seconds;
  std::string json;
};

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// --searches: each search on a line of its own, when it ends.
void PrintSearch(const SearchProgress& search) {
  if (!search.ended) return;
  fmt::print(
      "search {:3}: {:6.0f} ms ({:.0f} until timing began), {:2} candidates, {:5.1f} s so far: "
      "{}\n",
      search.totals.searches, 1e3 * search.seconds, 1e3 * search.build_seconds, search.candidates,
      search.totals.seconds, search.problem);
  std::fflush(stdout);
}

// Members are destroyed in reverse order: the context goes last.
struct Training {
  LlamaConfig config;
  std::unique_ptr<Recipe> recipe;  // null: none
  std::unique_ptr<Context> context;
  ChoicesFile choices_file = ChoicesFile::kAbsent;
  int64_t choices_loaded = 0;
  std::unique_ptr<LlamaModel> model;
  std::unique_ptr<AdamWOptimizer> optimizer;
  std::unique_ptr<LlamaTrainingStep> step;
  std::vector<std::vector<int32_t>> tokens;  // of each micro-batch
  std::vector<LlamaBatch> batches;
};

// Token ids that do not repeat soon; every token is counted but the first of a row.
std::vector<int32_t> RandomTokens(int64_t count, int64_t vocabulary, uint64_t seed) {
  std::vector<int32_t> tokens(static_cast<size_t>(count));
  uint64_t state = seed;
  for (int32_t& token : tokens) {
    state = state * 6364136223846793005ull + 1442695040888963407ull;  // Knuth's MMIX generator
    token = static_cast<int32_t>((state >> 33) % static_cast<uint64_t>(vocabulary));
  }
  return tokens;
}

// Norm weights start at 1, where bfloat16's neighbors stand 1/128 apart: an update of 1e-3 rounds
// back to nothing, and CheckLearning could not tell it from none. Random ones in [1/8, 1/4) move.
Status RandomizeNorms(LlamaModel* model) {
  Context* context = model->context();
  for (const LlamaTensor& tensor : model->tensors()) {
    if (tensor.name.shape.rank() != 1) continue;
    ++tensor.parameter->version;
    TE_RETURN_IF_ERROR(context->kernels().random_fill(
        context->exec(), {.distribution = RandomDistribution::kUniform,
                          .a = 0.125f,
                          .b = 0.25f,
                          .random = context->Random(context->NewRandomStream()),
                          .out = tensor.value()}));
  }
  return OkStatus();
}

// Of --recipe, with its reference's defaults; lm_head stays in BF16 unless asked for.
StatusOr<std::unique_ptr<Recipe>> MakeFp8Recipe(const Options& options) {
  std::unique_ptr<Recipe> recipe;
  if (options.fp8_dpa && options.recipe != "delayed") {
    return InvalidArgument("--fp8-dpa with --recipe {}; expected it with --recipe delayed",
                           options.recipe);
  }
  if (options.recipe == "delayed") {
    TE_ASSIGN_OR_RETURN(recipe, MakeRecipe(DelayedScalingRecipe{.fp8_dpa = options.fp8_dpa}));
  } else if (options.recipe == "current") {
    TE_ASSIGN_OR_RETURN(recipe, MakeRecipe(Float8CurrentScalingRecipe()));
  } else if (options.recipe == "block") {
    TE_ASSIGN_OR_RETURN(recipe, MakeRecipe(Float8BlockScalingRecipe()));
  } else if (options.recipe == "mxfp8") {
    TE_ASSIGN_OR_RETURN(recipe, MakeRecipe(MXFP8BlockScalingRecipe()));
  } else {
    TE_ASSIGN_OR_RETURN(recipe, MakeRecipe(NVFP4BlockScalingRecipe()));
  }
  if (options.fp8_lm_head) return recipe;
  return MakeModuleRecipes({{.pattern = "lm_head", .training = nullptr, .evaluation = nullptr}},
                           std::move(recipe));
}

StatusOr<int64_t> CountChoices(Context* context) {
  TE_ASSIGN_OR_RETURN(const std::string text,
                      context->device().TunedChoices(context->exec(), WhichChoices::kOfRun));
  int64_t count = 0;
  for (size_t at = 0; (at = text.find(" : ", at)) != std::string::npos; ++at) ++count;
  return count;
}

BesideBackward RunsBeside(const Options& options, const LlamaTrainingStep& step) {
  if (options.micro_batches != 1) return BesideBackward::kNothing;
  return step.RunsBeside(options.batch * options.sequence, options.max_grad_norm);
}

const char* Name(BesideBackward beside) {
  if (beside == BesideBackward::kNothing) return "nothing";
  return beside == BesideBackward::kUpdates ? "updates" : "gradients' squares";
}

AdamWOptimizer::StepInputs Inputs(const Options& options, float learning_rate) {
  return {.learning_rate = learning_rate,
          .max_grad_norm = options.max_grad_norm,
          .want_grad_norm = options.grad_norm};
}

StatusOr<Training> MakeTraining(const Options& options) {
  Training t;
  TE_ASSIGN_OR_RETURN(t.config, BenchModel(options.model));
  if (options.layers != 0) t.config.num_hidden_layers = options.layers;
  if (options.vocab_size != 0) t.config.vocab_size = options.vocab_size;
  if (options.hidden_size != 0) SetHiddenSize(options.hidden_size, &t.config);
  TE_RETURN_IF_ERROR(t.config.Validate());
  TE_ASSIGN_OR_RETURN(const LlamaPath path, ParseLlamaPath(options.path));
  TE_ASSIGN_OR_RETURN(const RecomputeGranularity recompute,
                      ParseRecomputeGranularity(options.recompute));
  const DType dtype = options.precision == "fp32" ? DType::kFloat32 : DType::kBFloat16;
  if (options.precision == "fp8") {
    if (path != LlamaPath::kTe)
      return InvalidArgument("--precision fp8 with --path hf: only the te path has FP8");
    TE_ASSIGN_OR_RETURN(t.recipe, MakeFp8Recipe(options));
  }
  if (options.fp8_dpa && t.recipe == nullptr) {
    return InvalidArgument("--fp8-dpa with --precision {}; expected --precision fp8",
                           options.precision);
  }
  if (options.fp8_weights_only && (t.recipe == nullptr || options.rounding != "stochastic")) {
    return InvalidArgument(
        "--fp8-weights-only with --precision {} and --rounding {}; expected fp8 and stochastic",
        options.precision, options.rounding);
  }

  TE_ASSIGN_OR_RETURN(std::unique_ptr<Device> device, MakeDevice(options.device));
  if (options.profile) device = MakeTimedDevice(std::move(device));
  ContextOptions context_options;
  context_options.device = options.device;
  context_options.num_threads = options.threads;
  context_options.allow_nondeterministic = options.allow_nondeterministic;
  TE_ASSIGN_OR_RETURN(t.context, Context::Create(context_options, std::move(device)));
  t.context->device().ConfigureSearches(
      t.context->exec(), {.limit_seconds = options.search_limit,
                          .observer = options.searches ? PrintSearch : SearchObserver()});
  if (!options.choices.empty()) {
    if (t.context->device().host_accessible()) {
      return InvalidArgument(
          "--choices with --device {}: nothing is chosen by timing there; expected --device cuda",
          options.device);
    }
    TE_ASSIGN_OR_RETURN(t.choices_file, PinChoicesOf(options.choices, t.context.get()));
    if (t.choices_file == ChoicesFile::kPinned) {
      TE_ASSIGN_OR_RETURN(t.choices_loaded, CountChoices(t.context.get()));
    }
  }
  {
    const QuantizedInit init(t.context.get(), options.fp8_weights_only ? t.recipe.get() : nullptr);
    TE_ASSIGN_OR_RETURN(t.model,
                        LlamaModel::Create(t.context.get(), t.config,
                                           {.params_dtype = dtype,
                                            .path = path,
                                            .recompute_granularity = recompute,
                                            .recompute_num_layers = options.recompute_num_layers}));
  }
  TE_RETURN_IF_ERROR(t.model->InitializeAll());
  TE_RETURN_IF_ERROR(RandomizeNorms(t.model.get()));
  AdamWOptions adamw;
  adamw.moments = dtype;
  adamw.rounding = options.rounding == "stochastic" ? Rounding::kStochastic : Rounding::kNearest;
  TE_ASSIGN_OR_RETURN(t.optimizer,
                      AdamWOptimizer::Create(t.context.get(), t.model->parameters(), adamw));
  TE_ASSIGN_OR_RETURN(t.step, LlamaTrainingStep::Create(
                                  t.model.get(), t.optimizer.get(),
                                  {.update_in_backward = options.update_in_backward,
                                   .update_beside_tokens =
                                       path == LlamaPath::kHf ? -1 : options.update_beside_tokens,
                                   .sm_margin = options.sm_margin,
                                   .record = options.record,
                                   .recipe = t.recipe.get()}));
  const bool asked_for = options.update_beside && options.update_beside_tokens >= 0 &&
                         options.update_beside_tokens <= options.batch * options.sequence;
  const BesideBackward beside = RunsBeside(options, *t.step);
  if (asked_for && beside == BesideBackward::kNothing) {
    return InvalidArgument(
        "--update-beside-tokens: nothing runs beside this backward pass; expected a recorded step "
        "of one micro-batch on cuda, --path te, no --update-in-backward");
  }
  if (options.sm_margin >= 0 && beside != BesideBackward::kUpdates) {
    return InvalidArgument(
        "--sm-margin: {} beside this backward pass; expected updates there: a recorded step of one "
        "micro-batch of --update-beside-tokens or more on cuda, --path te, no clipping, no "
        "--update-in-backward",
        Name(beside));
  }

  t.tokens.reserve(static_cast<size_t>(options.micro_batches));
  for (int64_t i = 0; i < options.micro_batches; ++i) {
    t.tokens.push_back(RandomTokens(options.batch * options.sequence, t.config.vocab_size,
                                    static_cast<uint64_t>(i + 1)));
    LlamaBatch batch;
    batch.batch = options.batch;
    batch.sequence = options.sequence;
    batch.input_ids = t.tokens.back();
    batch.labels = t.tokens.back();
    t.batches.push_back(batch);
  }
  return t;
}

double MeanLoss(const StepScalars& scalars) {
  return scalars.loss_sum / static_cast<double>(scalars.token_count);
}

double HostPeakGib() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / (1 << 20);
}

// Each loss is read when the next step has been enqueued: a GPU never waits for the host. Where
// the host computes, `between` runs before each step, so that both see the same machine.
Status RunSteps(const Options& options, Training* t, const std::function<Status()>& between,
                StepReport* report) {
  TE_ASSIGN_OR_RETURN(const std::unique_ptr<StreamTimer> timer,
                      MakeStreamTimer(t->context->device()));
  const auto read_loss = [&](int steps_ago) -> Status {
    TE_ASSIGN_OR_RETURN(const StepScalars scalars, t->step->Result(steps_ago));
    report->losses.push_back(MeanLoss(scalars));
    return OkStatus();
  };
  const int steps = options.warmup + options.steps;
  for (int i = 0; i < steps; ++i) {
    const bool timed = i >= options.warmup;
    if (i == options.warmup) ResetProfile();
    TE_RETURN_IF_ERROR(between());
    if (timed) TE_RETURN_IF_ERROR(timer->Begin(t->context->exec()));
    const double begin = Now();
    const double searched = t->context->device().Searches(t->context->exec()).seconds;
    TE_RETURN_IF_ERROR(t->step->Run(t->batches, Inputs(options, kLearningRate)));
    if (options.searches && !timed) {
      TE_RETURN_IF_ERROR(t->context->Synchronize());
      fmt::print("warm-up step {}: {:.2f} s, {:.2f} of them in searches\n", i + 1, Now() - begin,
                 t->context->device().Searches(t->context->exec()).seconds - searched);
      std::fflush(stdout);
    }
    if (timed) TE_RETURN_IF_ERROR(timer->End(t->context->exec()));
    if (i > 0) TE_RETURN_IF_ERROR(read_loss(1));
  }
  TE_RETURN_IF_ERROR(read_loss(0));
  TE_ASSIGN_OR_RETURN(const StreamTimer::Times times, timer->Read());
  report->warmup = static_cast<size_t>(options.warmup);
  report->seconds = times.each;
  report->mean_seconds = times.whole / options.steps;
  if (t->context->device().host_accessible()) {  // what ran in between stays out
    report->mean_seconds = 0;
    for (const double seconds : times.each) report->mean_seconds += seconds / options.steps;
  }
  return OkStatus();
}

Status RunBench(const Options& options) {
  const double begin = Now();
  TE_ASSIGN_OR_RETURN(Training training, MakeTraining(options));
  if (options.searches) {
    TE_RETURN_IF_ERROR(training.context->Synchronize());
    fmt::print("model and optimizer: {:.2f} s\n", Now() - begin);
  }
  Context* context = training.context.get();
  const bool on_host = context->device().host_accessible();
  const DType dtype = training.model->options().params_dtype;

  StepReport report;
  report.flops = static_cast<double>(options.micro_batches) *
                 ModelFlops(training.config, options.batch, options.sequence);
  report.tokens = static_cast<double>(options.micro_batches * options.batch * options.sequence);
  report.settings = {
      {"model", options.model},
      {"parameters", std::to_string(training.config.ParameterCount())},
      {"hidden_size", std::to_string(training.config.hidden_size)},
      {"layers", std::to_string(training.config.num_hidden_layers)},
      {"path", options.path},
      {"precision", options.precision},
      {"recipe", training.recipe == nullptr ? "none" : training.recipe->name()},
      {"weights", options.fp8_weights_only ? "fp8 alone" : Name(dtype)},
      {"moments", Name(dtype)},
      {"rounding", options.rounding},
      {"batch_size", std::to_string(options.batch)},
      {"sequence_length", std::to_string(options.sequence)},
      {"micro_batches", std::to_string(options.micro_batches)},
      {"max_grad_norm", fmt::format("{}", options.max_grad_norm)},
      {"update_in_backward", options.update_in_backward ? "yes" : "no"},
      {"beside_backward", Name(RunsBeside(options, *training.step))},
      {"recompute", options.recompute},
      {"recomputed_layers", std::to_string(training.model->recomputed_layers())},
      {"recorded", options.record && context->device().can_record(context->exec()) ? "yes" : "no"},
      {"nondeterminism", options.allow_nondeterministic ? "allowed" : "none"},
      {"threads", std::to_string(context->options().num_threads)}};
  TE_ASSIGN_OR_RETURN(const auto machine, DescribeMachine(context->device()));
  report.settings.insert(report.settings.end(), machine.begin(), machine.end());
  for (const auto& [name, value] : report.settings) fmt::print("{}: {}\n", name, value);
  std::fflush(stdout);

  const int64_t gemm_size = on_host ? 2048 : 8192;
  report.gemm_name = fmt::format("{} {}^3", on_host ? "oneDNN" : "gemm", gemm_size);
  std::unique_ptr<GemmYardstick> gemm;
  if (on_host) {
    StatusOr<std::unique_ptr<GemmYardstick>> made = MakeGemmYardstick(context, dtype, gemm_size);
    if (dtype == DType::kBFloat16 && made.status().code() == StatusCode::kUnsupported) {
      // A CPU without instructions for bfloat16, where te converts and multiplies in float32, too.
      report.gemm_name += " in float32";
      made = MakeGemmYardstick(context, DType::kFloat32, gemm_size);
    }
    TE_ASSIGN_OR_RETURN(gemm, std::move(made));
  }
  const auto time_gemm = [&]() -> Status {
    for (int i = 0; i < 3; ++i) {
      TE_ASSIGN_OR_RETURN(const double rate, gemm->Run());
      report.gemm_rates.push_back(rate);
    }
    return OkStatus();
  };
  const auto between = [&]() -> Status { return on_host ? time_gemm() : OkStatus(); };
  TE_RETURN_IF_ERROR(RunSteps(options, &training, between, &report));
  report.peak_gib =
      static_cast<double>(context->memory_statistics().peak_bytes) / (int64_t{1} << 30);
  report.host_peak_gib = HostPeakGib();
  const Profile profile = CurrentProfile();

  KernelLog log;
  if (options.kernels) {
    // Recorded work has been listed when it was recorded: this step runs as it is.
    LlamaTrainingStepOptions plain;
    plain.update_in_backward = options.update_in_backward;
    plain.record = false;
    plain.recipe = training.recipe.get();
    plain.calibration_steps = 0;
    TE_ASSIGN_OR_RETURN(
        const auto step,
        LlamaTrainingStep::Create(training.model.get(), training.optimizer.get(), plain));
    context->set_kernel_log(&log);
    TE_RETURN_IF_ERROR(step->Run(training.batches, Inputs(options, kLearningRate)));
    context->set_kernel_log(nullptr);
    TE_RETURN_IF_ERROR(context->Synchronize());
  }
  if (options.check_steps > 0) {
    const auto teach = [&]() -> StatusOr<double> {
      TE_RETURN_IF_ERROR(training.step->Run(training.batches, Inputs(options, kTeachingRate)));
      TE_ASSIGN_OR_RETURN(const StepScalars scalars, training.step->Result(0));
      return MeanLoss(scalars);
    };
    TE_ASSIGN_OR_RETURN(report.check,
                        CheckLearning(training.model.get(), options.check_steps, teach));
  }
  if (!on_host) {
    context->device().ConfigureSearches(context->exec(), {.limit_seconds = 1e6});
    TE_ASSIGN_OR_RETURN(gemm, MakeGemmYardstick(context, dtype, gemm_size));
  }
  TE_RETURN_IF_ERROR(time_gemm());
  if (!on_host) {
    TE_ASSIGN_OR_RETURN(const int64_t known, CountChoices(context));
    const int64_t found = known - training.choices_loaded;
    report.settings.emplace_back(
        "choices", fmt::format("{} loaded, {} found", training.choices_loaded, found));
    fmt::print("choices: {}{}\n", report.settings.back().second,
               training.choices_file == ChoicesFile::kOfAnother
                   ? fmt::format(" ({} was of another card, driver or library)", options.choices)
                   : "");
    if (!options.choices.empty()) TE_RETURN_IF_ERROR(WriteChoices(options.choices, context));
  }

  PrintStepReport(report);
  if (options.profile) PrintProfile(profile, report.mean_seconds, options.steps);
  if (options.kernels) PrintKernels(log);
  if (!options.json.empty()) TE_RETURN_IF_ERROR(WriteStepReport(report, options.json));
  if (!report.check.failure.empty())
    return Internal("steps at learning rate {}: {}", kTeachingRate, report.check.failure);
  return OkStatus();
}

}  // namespace
}  // namespace te::bench

int main(int argc, char** argv) {
  te::bench::Options options;
  CLI::App app("Times whole fine-tuning steps of a Llama with random weights.", "step");
  app.option_defaults()->always_capture_default();
  app.add_option("--device", options.device, "cpu or cuda");
  app.add_option("--model", options.model, "110m, llama2-7b or llama3-8b");
  app.add_option("--layers", options.layers, "Decoder layers; 0: the model's")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--vocab-size", options.vocab_size,
                 "Rows of the embedding and of lm_head; 0: the model's")
      ->check(CLI::NonNegativeNumber);
  app.add_option(
         "--hidden-size", options.hidden_size,
         "A multiple of 128: as many heads of 128, a feed-forward of 8/3 of it; 0: the model's")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--precision", options.precision,
                 "Storage and arithmetic; fp8: BF16, and the GEMMs by --recipe")
      ->check(CLI::IsMember({"fp32", "bf16", "fp8"}));
  app.add_option("--recipe", options.recipe, "Of --precision fp8")
      ->check(CLI::IsMember({"delayed", "current", "block", "mxfp8", "nvfp4"}));
  app.add_flag("--fp8-lm-head", options.fp8_lm_head, "lm_head by the recipe, too");
  app.add_flag("--fp8-weights-only", options.fp8_weights_only,
               "The layers' matrices in FP8 alone (delayed, current; --rounding stochastic)");
  app.add_flag("--fp8-dpa", options.fp8_dpa, "delayed: attention's products in FP8, too");
  app.add_option("--path", options.path, "Fused layers, or Hugging Face's operations one by one")
      ->check(CLI::IsMember({"te", "hf"}));
  app.add_option("--rounding", options.rounding, "Of AdamW's bfloat16 and FP8 stores")
      ->check(CLI::IsMember({"nearest", "stochastic"}));
  app.add_option("--batch-size", options.batch, "Sequences of a micro-batch")
      ->check(CLI::PositiveNumber);
  app.add_option("--sequence-length", options.sequence, "Tokens of a sequence")
      ->check(CLI::PositiveNumber);
  app.add_option("--micro-batches", options.micro_batches, "Of a step")->check(CLI::PositiveNumber);
  app.add_option("--max-grad-norm", options.max_grad_norm, "Clip the gradient's norm; 0: never")
      ->check(CLI::NonNegativeNumber);
  app.add_flag("--grad-norm", options.grad_norm,
               "Ask for the norm of all gradients without clipping, too, as te finetune does");
  app.add_flag("--update-in-backward", options.update_in_backward,
               "AdamW inside the backward pass: gradients are never all resident");
  app.add_option("--update-beside-tokens", options.update_beside_tokens,
                 "AdamW (with clipping: the gradients' squares) beside the backward pass, of "
                 "recorded steps of one micro-batch of so many tokens or more (cuda, --path te); "
                 "-1: never")
      ->check(CLI::Range(int64_t{-1}, std::numeric_limits<int64_t>::max()));
  app.add_option("--sm-margin", options.sm_margin,
                 "Multiprocessors that products then leave to it (at most a quarter of the card); "
                 "-1: as many as were best")
      ->check(CLI::Range(-1, 33));
  app.add_option("--recompute", options.recompute,
                 "full: of a decoder layer's activations its input alone is kept")
      ->check(CLI::IsMember({"none", "full"}));
  app.add_option("--recompute-num-layers", options.recompute_num_layers,
                 "Of --recompute full: the first N decoder layers; 0: all")
      ->check(CLI::NonNegativeNumber);
  app.add_flag("--record,!--no-record", options.record,
               "Record the step's work and launch it as one, where the device can [yes]");
  app.add_flag("--allow-nondeterministic", options.allow_nondeterministic,
               "Faster kernels whose bits differ from run to run: cuDNN's attention backward; "
               "changes nothing on the cpu");
  app.add_option("--threads", options.threads, "0: as many as this process may run on")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--steps", options.steps, "Timed steps")->check(CLI::PositiveNumber);
  app.add_option("--warmup", options.warmup, "Untimed steps before them")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--check-steps", options.check_steps,
                 "Steps at learning rate 1e-3 after them, which must teach; 0: none")
      ->check(CLI::NonNegativeNumber);
  app.add_flag("--profile", options.profile, "Time each operation, too (and wait for each)");
  app.add_flag("--kernels", options.kernels, "cuda: list what one step executes");
  app.add_option(
      "--choices", options.choices,
      "cuda: take the algorithms that an earlier run has found from this file, if it fits "
      "the card and libraries, and write what is known after this run");
  app.add_flag("--searches", options.searches,
               "cuda: list the searches for algorithms, and how long the warm-up steps take");
  app.add_option("--search-limit", options.search_limit,
                 "cuda: seconds that all searches together take, about")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--json", options.json, "Write the result to this file, too");
  CLI11_PARSE(app, argc, argv);
  options.update_beside = app.count("--update-beside-tokens") > 0;

  if (const te::Status status = te::bench::RunBench(options); !status.ok()) {
    fmt::print(stderr, "step: error: {}\n", status.message());
    return 2;
  }
  return 0;
}
