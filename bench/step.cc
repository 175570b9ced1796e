// Whole fine-tuning steps of a Llama of 110M parameters (random weights, 4 x 256 random tokens),
// and in the same run oneDNN's 2048^3 GEMM: what share of the machine's matrix-product rate a step
// keeps.
//
//   bazel run --config=opt //bench:step -- --precision bf16
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <numeric>
#include <string>
#include <vector>

#include "bench/gemm_yardstick.h"
#include "bench/timed_device.h"
#include "fmt/format.h"
#include "models/llama/llama_model.h"
#include "te_core/optimizer/adamw_optimizer.h"

namespace te::bench {
namespace {

struct Options {
  LlamaConfig config;
  int64_t batch = 4;
  int64_t sequence = 256;
  std::string precision = "fp32";
  std::string path = "te";
  std::string rounding = "nearest";
  int threads = 0;
  int steps = 5;
  int warmup = 2;
  bool profile = false;
};

// FLOP of the model itself (recomputation does not count): 6 a matmul weight and token, lm_head in
// and embedding out, and three causal attention forwards of 2 * hidden * sequence FLOP a layer and
// token.
double ModelFlops(const Options& options) {
  const LlamaConfig& c = options.config;
  const double heads = static_cast<double>(c.num_attention_heads * c.head_dim);
  const double groups = static_cast<double>(c.num_key_value_heads * c.head_dim);
  const double hidden = static_cast<double>(c.hidden_size);
  const double layer =
      hidden * (2 * heads + 2 * groups) + 3 * hidden * static_cast<double>(c.intermediate_size);
  const double layers = static_cast<double>(c.num_hidden_layers);
  const double weights = layers * layer + hidden * static_cast<double>(c.vocab_size);
  const double sequence = static_cast<double>(options.sequence);
  const double tokens = static_cast<double>(options.batch) * sequence;
  return tokens * (6 * weights + 3 * 2 * heads * sequence * layers);
}

// Token ids that do not repeat soon; every token is counted but the first of a row.
std::vector<int32_t> RandomTokens(int64_t count, int64_t vocabulary) {
  std::vector<int32_t> tokens(static_cast<size_t>(count));
  uint64_t state = 1;
  for (int32_t& token : tokens) {
    state = state * 6364136223846793005ull + 1442695040888963407ull;  // Knuth's MMIX generator
    token = static_cast<int32_t>((state >> 33) % static_cast<uint64_t>(vocabulary));
  }
  return tokens;
}

double Median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

double Mean(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

double PeakGigabytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) * 1024 * 1e-9;
}

void PrintProfile(const Profile& profile, double step_seconds, int steps) {
  std::vector<std::pair<std::string, OperationTime>> rows(profile.begin(), profile.end());
  std::sort(rows.begin(), rows.end(),
            [](const auto& a, const auto& b) { return a.second.seconds > b.second.seconds; });
  fmt::print("\n{:<22}{:>10}{:>12}{:>9}{:>12}\n", "operation", "calls", "ms/step", "share",
             "GFLOP/s");
  double sum = 0;
  for (const auto& [name, time] : rows) {
    const double seconds = time.seconds / steps;
    sum += seconds;
    fmt::print("{:<22}{:>10}{:>12.2f}{:>8.1f}%", name, time.calls / steps, seconds * 1e3,
               100 * seconds / step_seconds);
    if (time.flops > 0) fmt::print("{:>12.1f}", time.flops / time.seconds * 1e-9);
    fmt::print("\n");
  }
  fmt::print("{:<22}{:>10}{:>12.2f}{:>8.1f}%\n", "between operations", "",
             (step_seconds - sum) * 1e3, 100 * (step_seconds - sum) / step_seconds);
}

Status RunBench(const Options& options) {
  const bool bf16 = options.precision == "bf16";
  TE_ASSIGN_OR_RETURN(const LlamaPath path, ParseLlamaPath(options.path));
  TE_RETURN_IF_ERROR(options.config.Validate());

  TE_ASSIGN_OR_RETURN(std::unique_ptr<Device> device, MakeDevice("cpu"));
  if (options.profile) device = MakeTimedDevice(std::move(device));
  ContextOptions context_options;
  context_options.num_threads = options.threads;
  TE_ASSIGN_OR_RETURN(const std::unique_ptr<Context> context,
                      Context::Create(context_options, std::move(device)));
  const DType dtype = bf16 ? DType::kBFloat16 : DType::kFloat32;
  TE_ASSIGN_OR_RETURN(
      const std::unique_ptr<LlamaModel> model,
      LlamaModel::Create(context.get(), options.config, {.params_dtype = dtype, .path = path}));
  TE_RETURN_IF_ERROR(model->InitializeAll());
  TE_RETURN_IF_ERROR(model->EnsureGradients());
  AdamWOptions adamw;
  adamw.moments = dtype;
  adamw.rounding = options.rounding == "stochastic" ? Rounding::kStochastic : Rounding::kNearest;
  TE_ASSIGN_OR_RETURN(const std::unique_ptr<AdamWOptimizer> optimizer,
                      AdamWOptimizer::Create(context.get(), model->parameters(), adamw));

  const std::vector<int32_t> tokens =
      RandomTokens(options.batch * options.sequence, options.config.vocab_size);
  LlamaBatch batch;
  batch.batch = options.batch;
  batch.sequence = options.sequence;
  batch.input_ids = tokens;
  batch.labels = tokens;

  const int threads = context->options().num_threads;
  constexpr int64_t kGemmSize = 2048;
  TE_ASSIGN_OR_RETURN(const std::unique_ptr<GemmYardstick> gemm,
                      MakeGemmYardstick(dtype, kGemmSize, threads));
  std::vector<double> gemm_rates;
  const auto time_gemm = [&](int times) -> Status {
    for (int i = 0; i < times; ++i) {
      TE_ASSIGN_OR_RETURN(const double rate, gemm->Run());
      gemm_rates.push_back(rate);
    }
    return OkStatus();
  };

  fmt::print(
      "{} parameters, {} x {} tokens, path {}, {}, {} threads, AdamW with {} moments, rounding "
      "{}\n",
      options.config.ParameterCount(), options.batch, options.sequence, options.path,
      options.precision, threads, Name(dtype), options.rounding);
  const double flops = ModelFlops(options);
  const double token_count = static_cast<double>(options.batch * options.sequence);
  std::vector<double> seconds;
  for (int step = 0; step < options.warmup + options.steps; ++step) {
    // Around each step, so that both see the same machine; the first products only warm up.
    TE_RETURN_IF_ERROR(time_gemm(3));
    if (step == 0) gemm_rates.clear();
    if (step == options.warmup) ResetProfile();
    const auto start = std::chrono::steady_clock::now();
    TE_RETURN_IF_ERROR(optimizer->BeginStep());
    TE_RETURN_IF_ERROR(model->RunMicroBatch(batch, {}));
    TE_RETURN_IF_ERROR(optimizer->Step({.learning_rate = 1.41e-5f}));
    TE_ASSIGN_OR_RETURN(const StepScalars scalars, context->ReadScalars());
    const double elapsed =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    const bool timed = step >= options.warmup;
    if (timed) seconds.push_back(elapsed);
    fmt::print("{} {}: {:.1f} ms, loss {:.4f}\n", timed ? "step" : "warm-up",
               timed ? step - options.warmup + 1 : step + 1, elapsed * 1e3,
               scalars.loss_sum / static_cast<double>(scalars.token_count));
    std::fflush(stdout);
  }
  const Profile profile = CurrentProfile();
  TE_RETURN_IF_ERROR(time_gemm(3));

  const double step = Median(seconds);
  const double best = *std::min_element(seconds.begin(), seconds.end());
  const double gemm_median = Median(gemm_rates);
  const double gemm_best = *std::max_element(gemm_rates.begin(), gemm_rates.end());
  fmt::print("\n{:<26}{:>12}{:>12}\n", "", "median", "best");
  fmt::print("{:<26}{:>12.1f}{:>12.1f}\n", "ms/step", step * 1e3, best * 1e3);
  fmt::print("{:<26}{:>12.1f}{:>12.1f}\n", "tokens/s", token_count / step, token_count / best);
  fmt::print("{:<26}{:>12.1f}{:>12.1f}\n", "model GFLOP/s", flops / step * 1e-9,
             flops / best * 1e-9);
  fmt::print("{:<26}{:>12.1f}{:>12.1f}\n", "oneDNN 2048^3 GFLOP/s", gemm_median * 1e-9,
             gemm_best * 1e-9);
  fmt::print("{:<26}{:>11.1f}%{:>11.1f}%\n", "model / GEMM", 100 * flops / step / gemm_median,
             100 * flops / best / gemm_best);
  fmt::print("peak memory {:.2f} GB (te's tensors {:.2f} GB)\n", PeakGigabytes(),
             static_cast<double>(context->memory_statistics().peak_bytes) * 1e-9);
  if (options.profile) PrintProfile(profile, Mean(seconds), options.steps);
  return OkStatus();
}

}  // namespace
}  // namespace te::bench

int main(int argc, char** argv) {
  te::bench::Options options;
  te::LlamaConfig& config = options.config;
  config.hidden_size = 768;
  config.intermediate_size = 2048;
  config.num_hidden_layers = 12;
  config.num_attention_heads = 12;
  config.num_key_value_heads = 12;
  config.head_dim = 64;
  config.vocab_size = 32000;

  CLI::App app("Times whole fine-tuning steps of a Llama with random weights.", "step");
  app.option_defaults()->always_capture_default();
  app.add_option("--precision", options.precision, "Storage and arithmetic")
      ->check(CLI::IsMember({"fp32", "bf16"}));
  app.add_option("--path", options.path, "Fused layers, or Hugging Face's operations one by one")
      ->check(CLI::IsMember({"te", "hf"}));
  app.add_option("--rounding", options.rounding, "Of AdamW's bfloat16 stores")
      ->check(CLI::IsMember({"nearest", "stochastic"}));
  app.add_option("--threads", options.threads, "0: as many as this process may run on")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--steps", options.steps, "Timed steps")->check(CLI::PositiveNumber);
  app.add_option("--warmup", options.warmup, "Untimed steps before them")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--batch", options.batch, "Sequences a step")->check(CLI::PositiveNumber);
  app.add_option("--sequence", options.sequence, "Tokens a sequence")->check(CLI::PositiveNumber);
  app.add_option("--layers", config.num_hidden_layers, "Decoder layers")
      ->check(CLI::PositiveNumber);
  app.add_option("--vocab-size", config.vocab_size, "Rows of the embedding and of lm_head")
      ->check(CLI::PositiveNumber);
  app.add_flag("--profile", options.profile, "Time each operation, too");
  CLI11_PARSE(app, argc, argv);

  if (const te::Status status = te::bench::RunBench(options); !status.ok()) {
    fmt::print(stderr, "step: error: {}\n", status.message());
    return 2;
  }
  return 0;
}
