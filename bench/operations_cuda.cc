// Every operation of a Llama step on a GPU against its ceiling, measured in the same run: memory
// operations against a copy's bandwidth, matrix products against the fastest of cuBLASLt's
// candidates, attention against the fastest plan of cuDNN's, deterministic and not.
//
//   with_cuda bin/operations_cuda [--filter TEXT] [--hot] [--attention-knobs] [--json FILE]
#include "bench/operations_cuda.h"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <utility>

#include "fmt/format.h"
#include "models/json/json.h"

namespace te::bench {
namespace {

constexpr double kAllTheTime = 1e6;

constexpr int64_t kLargeCopy = int64_t{8} << 30;  // read and written

constexpr BenchModelShape kModels[] = {{"7B", 4096, 11008, 32, 32, 128, 32000},
                                       {"8B", 4096, 14336, 32, 8, 128, 128256}};

}  // namespace

Status OperationsBench::Run() {
  TE_ASSIGN_OR_RETURN(copy_, timer_->CopyBandwidth(kLargeCopy));
  fmt::print(
      "copy of 4 GiB: {:.0f} GB/s, read and written; last column: of a copy of the operation's own "
      "size; of products: the ratio where each candidate is looped for 0.1 s (at the card's power "
      "limit)\n\n{:<30}{:<26}{:>10}{:>12}{:>12}{:>9}{:>9}\n",
      copy_ * 1e-9, "operation", "shape", "us", "rate", "ceiling", "ratio", "last");
  for (const BenchModelShape& model : kModels) {
    for (const int64_t tokens : options_.tokens) {
      TE_RETURN_IF_ERROR(Norms(model, tokens));
      TE_RETURN_IF_ERROR(SwiGlu(model, tokens));
      TE_RETURN_IF_ERROR(Rope(model, tokens));
      TE_RETURN_IF_ERROR(Losses(model, tokens));
      TE_RETURN_IF_ERROR(Embeddings(model, tokens));
      TE_RETURN_IF_ERROR(Elementwise(model, tokens));
      TE_RETURN_IF_ERROR(Float8Norms(model, tokens));
      TE_RETURN_IF_ERROR(Float8SwiGlu(model, tokens));
      TE_RETURN_IF_ERROR(Float8Attention(model, tokens));
    }
    TE_RETURN_IF_ERROR(Optimizer(model));
    for (const Rounding rounding : {Rounding::kNearest, Rounding::kStochastic}) {
      TE_RETURN_IF_ERROR(Float8Optimizer(model, rounding, false));
      TE_RETURN_IF_ERROR(Float8Optimizer(model, rounding, true));
    }
  }
  for (const BenchModelShape& model : kModels) {
    for (const int64_t tokens : options_.tokens) {
      for (const int64_t sequence : {int64_t{256}, tokens})
        TE_RETURN_IF_ERROR(Attention(model, tokens, sequence));
      TE_RETURN_IF_ERROR(Gemms(model, tokens));
    }
  }
  return OkStatus();
}

bool OperationsBench::Wanted(const std::string& operation, const std::string& shape) const {
  return (operation + " " + shape).find(options_.filter) != std::string::npos;
}

void OperationsBench::Add(OperationRow row) {
  const double unit = row.flops ? 1e-12 : 1e-9;
  fmt::print("{:<30}{:<26}{:>10.1f}{:>7.{}f} {}", row.operation, row.shape, row.seconds * 1e6,
             row.rate * unit, row.flops ? 1 : 0, row.flops ? "TF/s" : "GB/s");
  if (row.ceiling > 0) {
    fmt::print("{:>12.{}f}{:>8.1f}%", row.ceiling * unit, row.flops ? 1 : 0,
               100 * row.rate / row.ceiling);
  }
  if (row.copy_of_its_size > 0) fmt::print("{:>8.1f}%", 100 * row.rate / row.copy_of_its_size);
  if (row.ratio_at_the_limit > 0) fmt::print("{:>8.1f}%", 100 * row.ratio_at_the_limit);
  fmt::print("\n");
  std::fflush(stdout);
  rows_.push_back(std::move(row));
}

Status OperationsBench::Memory(
    const char* operation, const BenchModelShape& model, int64_t tokens, int64_t bytes,
    const std::function<StatusOr<OperationTimer::Call>(int rotations)>& prepare) {
  const std::string shape = fmt::format("{} {} tokens", model.name, tokens);
  if (!Wanted(operation, shape)) return OkStatus();
  const int rotations = OperationTimer::Rotations(bytes);
  TE_ASSIGN_OR_RETURN(const OperationTimer::Call call, prepare(rotations));
  TE_ASSIGN_OR_RETURN(const double seconds, timer_->Seconds(call, rotations));
  double& copy = copies_[bytes];
  if (copy == 0) {
    TE_ASSIGN_OR_RETURN(copy, timer_->CopyBandwidth(bytes));
  }
  Add({.operation = operation,
       .shape = shape,
       .seconds = seconds,
       .rate = static_cast<double>(bytes) / seconds,
       .ceiling = copy_,
       .copy_of_its_size = copy});
  return OkStatus();
}

StatusOr<OperationsBench::Buffers> OperationsBench::Random(const Shape& shape, int count,
                                                           DType dtype) {
  TE_ASSIGN_OR_RETURN(std::vector<Tensor> tensors, timer_->Random(dtype, shape, count));
  return std::make_shared<std::vector<Tensor>>(std::move(tensors));
}

StatusOr<OperationsBench::Float8Copies> OperationsBench::Float8(const Shape& shape, int count) {
  const Shape words = {shape.elements() / 4};
  Float8Copies out = {.shape = shape, .rowwise = {}, .columnwise = {}, .numbers = {}};
  TE_ASSIGN_OR_RETURN(out.rowwise, Random(words, count, DType::kFloat32));
  TE_ASSIGN_OR_RETURN(out.columnwise, Random(words, count, DType::kFloat32));
  TE_ASSIGN_OR_RETURN(out.numbers, Random({1}, 3, DType::kFloat32));
  for (int i = 1; i < 3; ++i) TE_RETURN_IF_ERROR(timer_->context()->Zero(View(out.numbers, i)));
  return out;
}

QuantSpec OperationsBench::Float8Copies::Spec(int i) const {
  return {.format = QuantFormat::kFloat8E4M3,
          .scale = View(numbers, 0).as<float>(),
          .scale_inv = View(numbers, 1).as<float>(),
          .amax = View(numbers, 2).as<float>(),
          .rowwise_data = TensorView(View(rowwise, i).data(), DType::kUInt8, shape),
          .columnwise_data =
              TensorView(View(columnwise, i).data(), DType::kUInt8, {shape[1], shape[0]})};
}

namespace {

Status Write(const std::vector<OperationRow>& rows, const std::string& path) {
  JsonValue::Array out;
  for (const OperationRow& row : rows) {
    out.push_back(JsonValue::MakeObject(
        {{"operation", JsonValue::String(row.operation)},
         {"shape", JsonValue::String(row.shape)},
         {"microseconds", JsonValue::Double(row.seconds * 1e6)},
         {row.flops ? "flops_per_second" : "bytes_per_second", JsonValue::Double(row.rate)},
         {"ceiling", JsonValue::Double(row.ceiling)},
         {"copy_of_its_size", JsonValue::Double(row.copy_of_its_size)},
         {"ratio_at_the_limit", JsonValue::Double(row.ratio_at_the_limit)}}));
  }
  TE_ASSIGN_OR_RETURN(const std::string text, WriteJson(JsonValue::MakeArray(std::move(out))));
  std::FILE* file = std::fopen(path.c_str(), "w");
  if (file == nullptr) return IoError("{}: cannot be written", path);
  const bool written = std::fputs((text + "\n").c_str(), file) >= 0;
  if (std::fclose(file) != 0 || !written) return IoError("{}: cannot be written", path);
  return OkStatus();
}

Status RunBench(const OperationsOptions& options) {
  TE_ASSIGN_OR_RETURN(const std::unique_ptr<Context> context, Context::Create({.device = "cuda"}));
  // A run meets more shapes than a training step.
  context->device().ConfigureSearches(context->exec(),
                                      {.limit_seconds = kAllTheTime, .thorough = true});
  TE_ASSIGN_OR_RETURN(const auto machine, DescribeMachine(context->device()));
  for (const auto& [name, value] : machine) fmt::print("{}: {}\n", name, value);
  TE_ASSIGN_OR_RETURN(OperationTimer timer, OperationTimer::Make(context.get()));
  if (options.hot) TE_RETURN_IF_ERROR(timer.StayHot());
  OperationsBench bench(&timer, options);
  TE_RETURN_IF_ERROR(bench.Run());
  return options.json.empty() ? OkStatus() : Write(bench.rows(), options.json);
}

}  // namespace
}  // namespace te::bench

int main(int argc, char** argv) {
  te::bench::OperationsOptions options;
  CLI::App app("Times the operations of a Llama step on a GPU, each against its ceiling.",
               "operations_cuda");
  app.add_option("--filter", options.filter,
                 "Only rows whose operation and shape hold this text: 'gemm wgrad 8B'");
  app.add_option("--tokens", options.tokens, "Tokens of a step")->capture_default_str();
  app.add_flag("--hot", options.hot,
               "Matrix products before each timing: the card has the clock that it has in a step");
  app.add_flag("--attention-knobs", options.attention_knobs,
               "Look beyond cuDNN's heuristics: each knob of the best attention plan, one by one");
  app.add_option("--json", options.json, "Write the rows to this file, too");
  CLI11_PARSE(app, argc, argv);

  if (const te::Status status = te::bench::RunBench(options); !status.ok()) {
    fmt::print(stderr, "operations_cuda: error: {}\n", status.message());
    return 2;
  }
  return 0;
}
