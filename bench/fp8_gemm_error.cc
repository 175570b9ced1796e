// The error of FP8 products against float64 products of the same dequantized operands, where sums
// are long: K as in Llama's layers, with and without split accumulation.
//
//   bin/fp8_gemm_error [--device cuda] [--k 4096 11008 14336]
//
// Beside the measured error stands what is known beforehand. Hopper's FP8 tensor cores keep about
// 14 bits of a sum: each instruction aligns 32 products and the sum so far to the largest of these
// 33 and cuts them 13 bits below it, an error of at most 33 * 2^-13 of sum |a b|. Without split
// accumulation all K / 32 instructions of an element do that to one sum. With it a sum ends after
// at most 128 terms, 4 instructions, and goes to float32 registers, which add K u sum |a b|. The
// bound is the worst case: cuts of both signs' products, and of sums far below sum |a b|, are
// small.
#include <CLI/CLI.hpp>
#include <cmath>
#include <cstdio>
#include <random>
#include <string>
#include <vector>

#include "bench/quantized_tensor.h"
#include "fmt/format.h"

namespace te::bench {
namespace {

constexpr int64_t kRows = 256, kColumns = 256;  // of the product

struct Options {
  std::string device = "cuda";
  std::vector<int64_t> k = {4096, 11008, 14336};
};

struct Mode {
  const char* name;
  QuantScaling a, b;
  bool split;
};
constexpr Mode kModes[] = {
    {"tensor fast", QuantScaling::kTensorCurrent, QuantScaling::kTensorCurrent, false},
    {"tensor split", QuantScaling::kTensorCurrent, QuantScaling::kTensorCurrent, true},
    {"block", QuantScaling::kBlock1x128, QuantScaling::kBlock128x128, true}};

// Normal numbers, or their magnitudes: sums that grow with K.
StatusOr<Tensor> Upload(Context* context, const Shape& shape, uint64_t seed, bool positive) {
  std::mt19937_64 generator(seed);
  std::normal_distribution<float> normal;
  std::vector<bfloat16> values(static_cast<size_t>(shape.elements()));
  for (bfloat16& value : values) {
    const float x = normal(generator);
    value = bfloat16(positive ? std::abs(x) : x);
  }
  TE_ASSIGN_OR_RETURN(Tensor out, context->NewTensor(DType::kBFloat16, shape));
  TE_RETURN_IF_ERROR(context->CopyFromHost(values.data(), out.view()));
  return out;
}

Status Measure(Context* context, int64_t k, bool positive, const Mode& mode) {
  constexpr auto kRowwise = Orientation::kRowwise;
  constexpr auto kFormat = QuantFormat::kFloat8E4M3;
  TE_ASSIGN_OR_RETURN(const Tensor x, Upload(context, {kRows, k}, 1, positive));
  TE_ASSIGN_OR_RETURN(const Tensor w, Upload(context, {kColumns, k}, 2, positive));
  TE_ASSIGN_OR_RETURN(const QuantizedTensor a,
                      QuantizedTensor::Make(context, x, kFormat, mode.a, kRowwise));
  TE_ASSIGN_OR_RETURN(const QuantizedTensor b,
                      QuantizedTensor::Make(context, w, kFormat, mode.b, kRowwise));
  TE_ASSIGN_OR_RETURN(const Tensor y, context->NewTensor(DType::kFloat32, {kRows, kColumns}));
  GemmArgs args;
  args.a = a.operand();
  args.b = b.operand();
  args.d = y.view();
  args.split_accumulator = mode.split;
  TE_RETURN_IF_ERROR(context->kernels().gemm(context->exec(), args));
  std::vector<float> got(static_cast<size_t>(kRows * kColumns));
  TE_RETURN_IF_ERROR(context->CopyToHost(y.view(), got.data()));
  TE_ASSIGN_OR_RETURN(const std::vector<float> a_values, a.Values(context));
  TE_ASSIGN_OR_RETURN(const std::vector<float> b_values, b.Values(context));

  double squares = 0, error_squares = 0, largest = 0;
  for (int64_t i = 0; i < kRows; ++i) {
    for (int64_t j = 0; j < kColumns; ++j) {
      double sum = 0, magnitude = 0;
      for (int64_t p = 0; p < k; ++p) {
        const double product = static_cast<double>(a_values[static_cast<size_t>(i * k + p)]) *
                               static_cast<double>(b_values[static_cast<size_t>(j * k + p)]);
        sum += product;
        magnitude += std::abs(product);
      }
      const double error = got[static_cast<size_t>(i * kColumns + j)] - sum;
      squares += sum * sum;
      error_squares += error * error;
      largest = std::max(largest, std::abs(error) / magnitude);
    }
  }
  const double instructions = mode.split ? 4 : std::ceil(static_cast<double>(k) / 32);
  const double bound = instructions * 33 * 0x1p-13 + static_cast<double>(k + 6) * 0x1p-24;
  fmt::print("{:>7} {:<9} {:<13} {:>14.3e} {:>18.3e} {:>12.3e}\n", k,
             positive ? "positive" : "normal", mode.name, std::sqrt(error_squares / squares),
             largest, bound);
  std::fflush(stdout);
  if (!(largest <= bound)) {
    return Internal("K = {}, {}: the error {} of sum |a b| exceeds its bound {}", k, mode.name,
                    largest, bound);
  }
  return OkStatus();
}

Status Run(const Options& options) {
  TE_ASSIGN_OR_RETURN(const std::unique_ptr<Context> context,
                      Context::Create({.device = options.device}));
  fmt::print("{:>7} {:<9} {:<13} {:>14} {:>18} {:>12}\n", "K", "data", "accumulation",
             "|error|/|y|", "max error/sum|ab|", "bound");
  for (const int64_t k : options.k) {
    for (const bool positive : {false, true}) {
      for (const Mode& mode : kModes) TE_RETURN_IF_ERROR(Measure(context.get(), k, positive, mode));
    }
  }
  return OkStatus();
}

}  // namespace
}  // namespace te::bench

int main(int argc, char** argv) {
  te::bench::Options options;
  CLI::App app("The error of FP8 products against float64, where sums are long.", "fp8_gemm_error");
  app.add_option("--device", options.device, "cuda, cuda:N or cpu")->capture_default_str();
  app.add_option("--k", options.k, "Terms of the sums")->capture_default_str();
  CLI11_PARSE(app, argc, argv);

  if (const te::Status status = te::bench::Run(options); !status.ok()) {
    fmt::print(stderr, "fp8_gemm_error: error: {}\n", status.message());
    return 2;
  }
  return 0;
}
