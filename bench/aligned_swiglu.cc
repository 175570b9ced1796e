// What FP8 recipes do to the input of fc2 when a SwiGLU channel's gate and up weights align (arXiv
// 2409.12517): its output is silu(a) * a, which grows with the square of their norm.
//
//   bin/aligned_swiglu [--device cpu] [--norm 1 4 16 64 256]
//
// x [256, 512] normal; 1024 channels with gate and up rows normal / sqrt(512), one of which has
// both of the given norm in one direction; h = silu(x gate^T) * (x up^T) in bfloat16; y = h w^T, w
// [128, 1024] normal / 32. Rows: the recipes' quantization of h and w (delayed: h's scale is from
// the amax of half the norm, a step before). Columns, of h: amax over the root mean square of the
// other channels; elements clipped, and not zero but cast to zero; of y against the product of
// float64: |error| / |y| in 2-norms over all tokens, and, with w's column of the channel at zero so
// that what it costs the others is seen, of the median token.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <optional>
#include <random>
#include <vector>

#include "bench/quantized_tensor.h"
#include "fmt/format.h"

namespace te::bench {
namespace {

constexpr int64_t kTokens = 256, kHidden = 512, kChannels = 1024, kOutputs = 128, kChannel = 100;
using Matrix = std::vector<float>;

struct Options {
  std::string device = "cpu";
  std::vector<double> norms = {1, 4, 16, 64, 256};
};

Matrix Normal(int64_t elements, uint64_t seed, double deviation) {
  std::mt19937_64 generator(seed);
  std::normal_distribution<float> normal(0, static_cast<float>(deviation));
  Matrix out(static_cast<size_t>(elements));
  for (float& value : out) value = static_cast<float>(bfloat16(normal(generator)));
  return out;
}

// a [rows, k] b [columns, k]^T.
std::vector<double> Product(const Matrix& a, const Matrix& b, int64_t rows, int64_t columns,
                            int64_t k) {
  std::vector<double> out;
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < columns; ++j) {
      double sum = 0;
      for (int64_t p = 0; p < k; ++p)
        sum += static_cast<double>(a[static_cast<size_t>(i * k + p)]) *
               static_cast<double>(b[static_cast<size_t>(j * k + p)]);
      out.push_back(sum);
    }
  }
  return out;
}

// The SwiGLU of all channels, one of which is aligned.
Matrix Activated(double norm) {
  const Matrix x = Normal(kTokens * kHidden, 1, 1);
  Matrix gate = Normal(kChannels * kHidden, 2, 1 / std::sqrt(kHidden));
  Matrix up = Normal(kChannels * kHidden, 3, 1 / std::sqrt(kHidden));
  const auto row = gate.begin() + kChannel * kHidden;
  double squares = 0;
  for (int64_t i = 0; i < kHidden; ++i) squares += static_cast<double>(row[i]) * row[i];
  for (int64_t i = 0; i < kHidden; ++i) {
    row[i] = static_cast<float>(bfloat16(static_cast<float>(row[i] * norm / std::sqrt(squares))));
    up[static_cast<size_t>(kChannel * kHidden + i)] = row[i];
  }
  const std::vector<double> a = Product(x, gate, kTokens, kChannels, kHidden),
                            b = Product(x, up, kTokens, kChannels, kHidden);
  Matrix out;
  for (size_t i = 0; i < a.size(); ++i)
    out.push_back(
        static_cast<float>(bfloat16(static_cast<float>(a[i] / (1 + std::exp(-a[i])) * b[i]))));
  return out;
}

float Amax(const Matrix& values) {
  float amax = 0;
  for (const float value : values) amax = std::max(amax, std::abs(value));
  return amax;
}

struct RecipeCase {
  const char* name;
  QuantFormat format;
  QuantScaling h, w;
};
constexpr RecipeCase kRecipes[] = {
    {"delayed", QuantFormat::kFloat8E4M3, QuantScaling::kTensor, QuantScaling::kTensorCurrent},
    {"current", QuantFormat::kFloat8E4M3, QuantScaling::kTensorCurrent,
     QuantScaling::kTensorCurrent},
    {"block", QuantFormat::kFloat8E4M3, QuantScaling::kBlock1x128, QuantScaling::kBlock128x128},
    {"mxfp8", QuantFormat::kFloat8E4M3, QuantScaling::kMx1x32, QuantScaling::kMx1x32},
    {"nvfp4", QuantFormat::kFloat4E2M1, QuantScaling::kNvfp4_1x16, QuantScaling::kNvfp4_16x16}};

struct Decoded {
  Matrix values;
  Matrix largest;  // that the scales can hold
};
StatusOr<Decoded> Decode(Context* context, const Matrix& values, int64_t rows, int64_t columns,
                         QuantFormat format, QuantScaling scaling, std::optional<float> scale) {
  std::vector<bfloat16> rounded;
  for (const float value : values) rounded.emplace_back(value);
  TE_ASSIGN_OR_RETURN(const Tensor x, context->NewTensor(DType::kBFloat16, {rows, columns}));
  TE_RETURN_IF_ERROR(context->CopyFromHost(rounded.data(), x.view()));
  TE_ASSIGN_OR_RETURN(
      const QuantizedTensor quantized,
      QuantizedTensor::Make(context, x, format, scaling, Orientation::kRowwise, scale));
  Decoded out;
  TE_ASSIGN_OR_RETURN(out.values, quantized.Values(context));
  TE_ASSIGN_OR_RETURN(out.largest, quantized.LargestValues(context));
  return out;
}

struct Error {
  double all = 0;           // 2-norms over all tokens
  double median_token = 0;  // of tokens' own
};
Error ErrorOf(const std::vector<double>& got, const std::vector<double>& want) {
  double squares = 0, norm = 0;
  std::vector<double> tokens;
  for (int64_t t = 0; t < kTokens; ++t) {
    double s = 0, n = 0;
    for (int64_t j = 0; j < kOutputs; ++j) {
      const auto i = static_cast<size_t>(t * kOutputs + j);
      s += (got[i] - want[i]) * (got[i] - want[i]);
      n += want[i] * want[i];
    }
    squares += s;
    norm += n;
    tokens.push_back(std::sqrt(s / n));
  }
  std::nth_element(tokens.begin(), tokens.begin() + kTokens / 2, tokens.end());
  return {std::sqrt(squares / norm), tokens[kTokens / 2]};
}

Status Measure(Context* context, double norm) {
  const Matrix h = Activated(norm);
  const Matrix w = Normal(kOutputs * kChannels, 4, 1.0 / 32);
  Matrix others = w;  // without the channel
  for (int64_t j = 0; j < kOutputs; ++j) others[static_cast<size_t>(j * kChannels + kChannel)] = 0;
  double squares = 0;
  for (size_t i = 0; i < h.size(); ++i) {
    if (i % kChannels != kChannel) squares += static_cast<double>(h[i]) * h[i];
  }
  const double rms = std::sqrt(squares / static_cast<double>(kTokens * (kChannels - 1)));
  const std::vector<double> want = Product(h, w, kTokens, kOutputs, kChannels);
  const std::vector<double> want_of_others = Product(h, others, kTokens, kOutputs, kChannels);
  for (const RecipeCase& recipe : kRecipes) {
    std::optional<float> scale;
    if (recipe.h == QuantScaling::kTensor)
      scale = QuantMax(recipe.format) / Amax(Activated(norm / 2));
    const auto decode = [&](const Matrix& values, int64_t rows, QuantScaling scaling,
                            std::optional<float> of_tensor) {
      return Decode(context, values, rows, kChannels, recipe.format, scaling, of_tensor);
    };
    TE_ASSIGN_OR_RETURN(const Decoded q, decode(h, kTokens, recipe.h, scale));
    TE_ASSIGN_OR_RETURN(const Decoded q_w, decode(w, kOutputs, recipe.w, std::nullopt));
    TE_ASSIGN_OR_RETURN(const Decoded q_others, decode(others, kOutputs, recipe.w, std::nullopt));
    int64_t clipped = 0, to_zero = 0;
    // Clipped: beyond what half a step at the top of the range explains. E4M3's last step is 32 of
    // 448, E2M1's 2 of 6.
    const double half_step = recipe.format == QuantFormat::kFloat8E4M3 ? 16.0 / 448 : 1.0 / 6;
    for (size_t i = 0; i < h.size(); ++i) {
      if (h[i] != 0 && q.values[i] == 0) {
        ++to_zero;
      } else if (std::abs(h[i]) > q.largest[i] * (1 + half_step)) {
        ++clipped;
      }
    }
    const Error all = ErrorOf(Product(q.values, q_w.values, kTokens, kOutputs, kChannels), want);
    const Error of_others =
        ErrorOf(Product(q.values, q_others.values, kTokens, kOutputs, kChannels), want_of_others);
    fmt::print("{:>6} {:>12.3g} {:<8} {:>8} {:>8.1f}% {:>12.2e} {:>12.2e}\n", norm,
               static_cast<double>(Amax(h)) / rms, recipe.name, clipped,
               100.0 * static_cast<double>(to_zero) / static_cast<double>(h.size()), all.all,
               of_others.median_token);
    std::fflush(stdout);
  }
  return OkStatus();
}

Status Run(const Options& options) {
  TE_ASSIGN_OR_RETURN(const std::unique_ptr<Context> context,
                      Context::Create({.device = options.device}));
  fmt::print("{:>6} {:>12} {:<8} {:>8} {:>9} {:>12} {:>12}\n", "norm", "amax / rms", "recipe",
             "clipped", "to zero", "all tokens", "others");
  for (const double norm : options.norms) TE_RETURN_IF_ERROR(Measure(context.get(), norm));
  return OkStatus();
}

}  // namespace
}  // namespace te::bench

int main(int argc, char** argv) {
  te::bench::Options options;
  CLI::App app("What FP8 recipes do to an aligned SwiGLU channel.", "aligned_swiglu");
  app.add_option("--device", options.device, "cpu; cuda or cuda:N refuse mxfp8 and nvfp4")
      ->capture_default_str();
  app.add_option("--norm", options.norms, "Norms of the aligned weights")->capture_default_str();
  CLI11_PARSE(app, argc, argv);

  if (const te::Status status = te::bench::Run(options); !status.ok()) {
    fmt::print(stderr, "aligned_swiglu: error: {}\n", status.message());
    return 2;
  }
  return 0;
}
