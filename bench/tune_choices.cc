// Searches the algorithms of training steps' matrix products, of several models and shapes in one
// process: what models/llama/shipped_choices holds. A step of a model with two of its layers has
// all products of the whole one.
//
//   bazel run --config=opt //bench:tune_choices -- --output choices.txt --seconds 300
#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "bench/step_models.h"
#include "models/llama/training_step.h"
#include "models/llama/tuned_choices.h"
#include "te_core/quantization/module_recipes.h"

namespace te::bench {
namespace {

struct Options {
  std::string device = "cuda";
  std::vector<std::string> models = {"llama2-7b", "llama3-8b", "llama3.2-3b", "llama3.2-1b"};
  std::vector<std::string> recipes = {"bf16", "delayed", "current", "block"};
  std::vector<int64_t> tokens = {2048, 4096, 8192};
  std::string output;
  double seconds = 300;
};

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// lm_head stays in BF16, as in te finetune and bench/step. Null: none.
StatusOr<std::unique_ptr<Recipe>> MakeStepRecipe(const std::string& name) {
  std::unique_ptr<Recipe> recipe;
  if (name == "bf16") return recipe;
  if (name == "delayed") {
    TE_ASSIGN_OR_RETURN(recipe, MakeRecipe(DelayedScalingRecipe()));
  } else if (name == "current") {
    TE_ASSIGN_OR_RETURN(recipe, MakeRecipe(Float8CurrentScalingRecipe()));
  } else {
    TE_ASSIGN_OR_RETURN(recipe, MakeRecipe(Float8BlockScalingRecipe()));
  }
  return MakeModuleRecipes({{.pattern = "lm_head", .training = nullptr, .evaluation = nullptr}},
                           std::move(recipe));
}

std::vector<int32_t> RandomTokens(int64_t count, int64_t vocabulary) {
  std::vector<int32_t> tokens(static_cast<size_t>(count));
  uint64_t state = 1;
  for (int32_t& token : tokens) {
    state = state * 6364136223846793005ull + 1442695040888963407ull;  // Knuth's MMIX generator
    token = static_cast<int32_t>((state >> 33) % static_cast<uint64_t>(vocabulary));
  }
  return tokens;
}

// One step of `micro_batches`, which searches what has no choice yet. Products add to their
// result from the second micro-batch on.
Status RunStep(LlamaModel* model, AdamWOptimizer* optimizer, const Recipe* recipe, int64_t tokens,
               size_t micro_batches) {
  constexpr int64_t kSequence = 256;  // attention is no matter here
  // The first step of a recipe counts, too: nothing is calibrated.
  TE_ASSIGN_OR_RETURN(const auto step,
                      LlamaTrainingStep::Create(model, optimizer,
                                                {.lend_gradients = micro_batches == 1,
                                                 .record = false,
                                                 .recipe = recipe,
                                                 .calibration_steps = 0}));
  const std::vector<int32_t> ids = RandomTokens(tokens, model->config().vocab_size);
  LlamaBatch batch;
  batch.batch = tokens / kSequence;
  batch.sequence = kSequence;
  batch.input_ids = ids;
  batch.labels = ids;
  TE_RETURN_IF_ERROR(
      step->Run(std::vector<LlamaBatch>(micro_batches, batch), {.learning_rate = 1.41e-5f}));
  return model->context()->Synchronize();
}

Status TuneModel(const Options& options, Context* context, const std::string& name, int64_t tokens,
                 double end) {
  TE_ASSIGN_OR_RETURN(LlamaConfig config, BenchModel(name));
  config.num_hidden_layers = 2;
  TE_ASSIGN_OR_RETURN(const auto model,
                      LlamaModel::Create(context, config, {.params_dtype = DType::kBFloat16}));
  TE_RETURN_IF_ERROR(model->InitializeAll());
  AdamWOptions adamw;
  adamw.moments = DType::kBFloat16;
  TE_ASSIGN_OR_RETURN(const auto optimizer,
                      AdamWOptimizer::Create(context, model->parameters(), adamw));
  for (const std::string& recipe_name : options.recipes) {
    TE_ASSIGN_OR_RETURN(const auto recipe, MakeStepRecipe(recipe_name));
    const double begin = Now();
    if (begin > end) return OkStatus();
    const SearchTotals before = context->device().Searches(context->exec());
    for (const size_t micro_batches : {1, 2})
      TE_RETURN_IF_ERROR(
          RunStep(model.get(), optimizer.get(), recipe.get(), tokens, micro_batches));
    const SearchTotals after = context->device().Searches(context->exec());
    fmt::print("{} {} {}: {} searches, {:.1f} of {:.1f} s\n", name, tokens, recipe_name,
               after.searches - before.searches, after.seconds - before.seconds, Now() - begin);
    std::fflush(stdout);
  }
  return OkStatus();
}

Status RunTuner(const Options& options) {
  const double begin = Now();
  TE_ASSIGN_OR_RETURN(const auto context, Context::Create({.device = options.device}));
  context->device().ConfigureSearches(context->exec(), {.limit_seconds = 1e6, .thorough = true});
  for (const int64_t tokens : options.tokens) {
    for (const std::string& name : options.models) {
      const Status status =
          TuneModel(options, context.get(), name, tokens, begin + options.seconds);
      // What has been found is kept, whatever became of the rest.
      TE_RETURN_IF_ERROR(WriteChoices(options.output, context.get(), WhichChoices::kFound));
      if (!status.ok()) return status.WithContext(name);
    }
  }
  const SearchTotals totals = context->device().Searches(context->exec());
  fmt::print("{} searches, {:.1f} s of {:.1f}\n", totals.searches, totals.seconds, Now() - begin);
  if (Now() - begin > options.seconds) fmt::print("stopped: --seconds {}\n", options.seconds);
  return OkStatus();
}

}  // namespace
}  // namespace te::bench

int main(int argc, char** argv) {
  te::bench::Options options;
  CLI::App app("Searches the algorithms of training steps' matrix products.", "tune_choices");
  app.option_defaults()->always_capture_default();
  app.add_option("--device", options.device, "cuda or cuda:N");
  app.add_option("--models", options.models, "In this order");
  app.add_option("--recipes", options.recipes, "In this order")
      ->check(CLI::IsMember({"bf16", "delayed", "current", "block"}));
  app.add_option("--tokens", options.tokens, "Of a micro-batch: multiples of 256, in this order");
  app.add_option("--output", options.output, "Where what was found is written")->required();
  app.add_option("--seconds", options.seconds, "No search begins after so long")
      ->check(CLI::PositiveNumber);
  CLI11_PARSE(app, argc, argv);
  if (const te::Status status = te::bench::RunTuner(options); !status.ok()) {
    fmt::print(stderr, "tune_choices: error: {}\n", status.message());
    return 2;
  }
  return 0;
}
