#include "te_core/quantization/recipe.h"

#include <cmath>

#include "fmt/format.h"

namespace te {
namespace {

constexpr std::string_view kInput = "input";
constexpr std::string_view kWeight = "weight";
constexpr std::string_view kGradOutput = "grad_output";

QuantFormat FormatOf(Fp8Format format, bool gradient) {
  return format == Fp8Format::kHybrid && gradient ? QuantFormat::kFloat8E5M2
                                                  : QuantFormat::kFloat8E4M3;
}
QuantFormat FormatOf(Fp8Format format, const QuantizerRole& role) {
  return FormatOf(format, role.tensor_type == kGradOutput);
}

// `_2X_ACC_FPROP`, `_2X_ACC_DGRAD`, `_2X_ACC_WGRAD` of Transformer Engine's module/base.py.
bool SplitInBackward(GemmKind kind) { return kind != GemmKind::kFprop; }

Status CheckFormat(const char* recipe, Fp8Format format) {
  if (format == Fp8Format::kHybrid || format == Fp8Format::kE4M3) return OkStatus();
  return InvalidArgument("{}: fp8_format is {}; expected hybrid (0) or e4m3 (1)", recipe,
                         static_cast<int>(format));
}

Status CheckAmaxEpsilon(const char* recipe, float epsilon) {
  if (epsilon >= 0 && std::isfinite(epsilon)) return OkStatus();
  return InvalidArgument("{}: amax_epsilon is {}; expected a finite number, 0 or more", recipe,
                         epsilon);
}

Status CheckBackwardOverride(const char* recipe, BackwardOverride value) {
  switch (value) {
    case BackwardOverride::kNone:
    case BackwardOverride::kHighPrecision:
    case BackwardOverride::kDequantized:
      return OkStatus();
  }
  return InvalidArgument(
      "{}: backward_override is {}; expected none (0), high_precision (1) or dequantized (2)",
      recipe, static_cast<int>(value));
}

// What the recipes but delayed scaling share.
template <typename Options>
class WithBackwardOverride : public Recipe {
 public:
  explicit WithBackwardOverride(const Options& options) : o_(options) {}
  BackwardOverride backward_override() const override { return o_.backward_override; }

 protected:
  Options o_;
};

// use_split_accumulator of three MMParams.
template <typename Options>
bool SplitsBy(const Options& o, GemmKind kind) {
  switch (kind) {
    case GemmKind::kFprop:
      return o.fp8_gemm_fprop.use_split_accumulator;
    case GemmKind::kDgrad:
      return o.fp8_gemm_dgrad.use_split_accumulator;
    case GemmKind::kWgrad:
      break;
  }
  return o.fp8_gemm_wgrad.use_split_accumulator;
}

class Precision : public Recipe {
 public:
  std::string name() const override { return "precision"; }
  const Recipe* ForModule(std::string_view, std::string_view, bool) const override {
    return nullptr;
  }
  TensorQuantization For(const QuantizerRole&) const override { return {}; }
  bool SplitAccumulator(GemmKind) const override { return true; }
};

class DelayedScaling : public Recipe {
 public:
  explicit DelayedScaling(const DelayedScalingRecipe& options) : o_(options) {}
  std::string name() const override {
    return fmt::format(
        "DelayedScaling(margin={}, fp8_format={}, amax_history_len={}, amax_compute_algo={}{})",
        o_.margin, Name(o_.fp8_format), o_.amax_history_len, Name(o_.amax_compute_algo),
        o_.fp8_dpa ? ", fp8_dpa=true" : "");
  }
  TensorQuantization For(const QuantizerRole& role) const override {
    return Of(FormatOf(o_.fp8_format, role.tensor_type == kGradOutput));
  }
  TensorQuantization ForAttention(AttentionTensor tensor) const override {
    if (!o_.fp8_dpa) return {};
    return Of(FormatOf(o_.fp8_format, IsGradient(tensor)));
  }
  bool calibrates() const override { return true; }
  bool SplitAccumulator(GemmKind kind) const override { return SplitInBackward(kind); }

 private:
  TensorQuantization Of(QuantFormat format) const {
    return {.format = format,
            .scaling = QuantScaling::kTensor,
            .margin = o_.margin,
            .amax_history_len = o_.amax_history_len,
            .amax_compute_algo = o_.amax_compute_algo,
            .reduce_amax = o_.reduce_amax};
  }

  DelayedScalingRecipe o_;
};

class CurrentScaling : public WithBackwardOverride<Float8CurrentScalingRecipe> {
 public:
  using WithBackwardOverride::WithBackwardOverride;
  std::string name() const override {
    return fmt::format(
        "Float8CurrentScaling(fp8_format={}, use_power_2_scales={}, amax_epsilon={}, "
        "use_split_accumulator={}/{}/{}, backward_override={})",
        Name(o_.fp8_format), o_.use_power_2_scales, o_.amax_epsilon,
        o_.fp8_gemm_fprop.use_split_accumulator, o_.fp8_gemm_dgrad.use_split_accumulator,
        o_.fp8_gemm_wgrad.use_split_accumulator, Name(o_.backward_override));
  }
  TensorQuantization For(const QuantizerRole& role) const override {
    return {.format = FormatOf(o_.fp8_format, role),
            .scaling = QuantScaling::kTensorCurrent,
            .power_of_2_scales = o_.use_power_2_scales,
            .amax_epsilon = o_.amax_epsilon};
  }
  bool SplitAccumulator(GemmKind kind) const override { return SplitsBy(o_, kind); }
};

class BlockScaling : public WithBackwardOverride<Float8BlockScalingRecipe> {
 public:
  using WithBackwardOverride::WithBackwardOverride;
  std::string name() const override {
    return fmt::format(
        "Float8BlockScaling(fp8_format={}, use_power_2_scales={}, amax_epsilon={}, "
        "block_scaling_dim={}/{}/{}, backward_override={})",
        Name(o_.fp8_format), o_.use_power_2_scales, o_.amax_epsilon, o_.x_block_scaling_dim,
        o_.w_block_scaling_dim, o_.grad_block_scaling_dim, Name(o_.backward_override));
  }
  TensorQuantization For(const QuantizerRole& role) const override {
    const int dim = role.tensor_type == kWeight       ? o_.w_block_scaling_dim
                    : role.tensor_type == kGradOutput ? o_.grad_block_scaling_dim
                                                      : o_.x_block_scaling_dim;
    return {.format = FormatOf(o_.fp8_format, role),
            .scaling = dim == 2 ? QuantScaling::kBlock128x128 : QuantScaling::kBlock1x128,
            .power_of_2_scales = o_.use_power_2_scales,
            .amax_epsilon = o_.amax_epsilon};
  }
  bool SplitAccumulator(GemmKind kind) const override { return SplitsBy(o_, kind); }
};

class Mxfp8 : public WithBackwardOverride<MXFP8BlockScalingRecipe> {
 public:
  using WithBackwardOverride::WithBackwardOverride;
  std::string name() const override {
    return fmt::format(
        "MXFP8BlockScaling(fp8_format={}, enable_2d_quantization={}, backward_override={})",
        Name(o_.fp8_format), o_.enable_2d_quantization, Name(o_.backward_override));
  }
  TensorQuantization For(const QuantizerRole& role) const override {
    return {.format = FormatOf(o_.fp8_format, role),
            .scaling = o_.enable_2d_quantization && role.tensor_type == kWeight
                           ? QuantScaling::kMx32x32
                           : QuantScaling::kMx1x32};
  }
  bool SplitAccumulator(GemmKind) const override { return true; }
};

bool Includes(Nvfp4Scope scope, const QuantizerRole& role) {
  return scope == Nvfp4Scope::kAll ||
         scope == (role.tensor_type == kWeight ? Nvfp4Scope::kWeights : Nvfp4Scope::kActivations);
}

class Nvfp4 : public WithBackwardOverride<NVFP4BlockScalingRecipe> {
 public:
  using WithBackwardOverride::WithBackwardOverride;
  std::string name() const override {
    return fmt::format(
        "NVFP4BlockScaling(disable_rht={}, disable_stochastic_rounding={}, "
        "disable_2d_quantization={}, row_scaled_activation={}, nvfp4_4over6={}, "
        "nvfp4_4over6_e4m3_use_256={}, nvfp4_4over6_err_mode={}, backward_override={})",
        o_.disable_rht, o_.disable_stochastic_rounding, o_.disable_2d_quantization,
        o_.row_scaled_activation, Name(o_.nvfp4_4over6), Name(o_.nvfp4_4over6_e4m3_use_256),
        Name(o_.nvfp4_4over6_err_mode), Name(o_.backward_override));
  }
  TensorQuantization For(const QuantizerRole& role) const override {
    const bool weight = role.tensor_type == kWeight;
    const bool gradient = role.tensor_type == kGradOutput;
    const bool chooses = !gradient && Includes(o_.nvfp4_4over6, role);
    return {.format = QuantFormat::kFloat4E2M1,
            .scaling = weight && !o_.disable_2d_quantization ? QuantScaling::kNvfp4_16x16
                                                             : QuantScaling::kNvfp4_1x16,
            .stochastic_rounding = gradient && !o_.disable_stochastic_rounding,
            .random_hadamard = !weight && !o_.disable_rht,
            .row_scaled = role.tensor_type == kInput && o_.row_scaled_activation,
            .four_over_six = chooses ? o_.nvfp4_4over6_err_mode : FourOverSix::kOff,
            .e4m3_use_256 = chooses && Includes(o_.nvfp4_4over6_e4m3_use_256, role)};
  }
  bool SplitAccumulator(GemmKind) const override { return true; }
};

Status CheckDim(const char* name, int dim) {
  if (dim == 1 || dim == 2) return OkStatus();
  return InvalidArgument("Float8BlockScaling: {} is {}; expected 1 (1x128) or 2 (128x128)", name,
                         dim);
}

Status CheckScope(const char* name, Nvfp4Scope scope) {
  if (scope >= Nvfp4Scope::kNone && scope <= Nvfp4Scope::kAll) return OkStatus();
  return InvalidArgument(
      "NVFP4BlockScaling: {} is {}; expected none (0), weights (1), activations (2) or all (3)",
      name, static_cast<int>(scope));
}

}  // namespace

const char* Name(Fp8Format format) { return format == Fp8Format::kHybrid ? "hybrid" : "e4m3"; }

StatusOr<Fp8Format> ParseFp8Format(std::string_view name) {
  if (name == "hybrid") return Fp8Format::kHybrid;
  if (name == "e4m3") return Fp8Format::kE4M3;
  return InvalidArgument("fp8_format is '{}'; expected hybrid or e4m3", name);
}

const char* Name(AttentionTensor tensor) {
  constexpr const char* kNames[kAttentionTensors] = {"qkv", "s", "o", "do", "dp", "dqkv"};
  return kNames[static_cast<int>(tensor)];
}

const char* Name(BackwardOverride value) {
  switch (value) {
    case BackwardOverride::kNone:
      return "none";
    case BackwardOverride::kHighPrecision:
      return "high_precision";
    case BackwardOverride::kDequantized:
      return "dequantized";
  }
  return "unknown";
}

StatusOr<BackwardOverride> ParseBackwardOverride(std::string_view name) {
  for (const auto value :
       {BackwardOverride::kNone, BackwardOverride::kHighPrecision, BackwardOverride::kDequantized})
    if (name == Name(value)) return value;
  return InvalidArgument("backward_override is '{}'; expected none, high_precision or dequantized",
                         name);
}

const char* Name(Nvfp4Scope scope) {
  switch (scope) {
    case Nvfp4Scope::kNone:
      return "none";
    case Nvfp4Scope::kWeights:
      return "weights";
    case Nvfp4Scope::kActivations:
      return "activations";
    case Nvfp4Scope::kAll:
      return "all";
  }
  return "unknown";
}

StatusOr<Nvfp4Scope> ParseNvfp4Scope(std::string_view name) {
  for (const auto scope :
       {Nvfp4Scope::kNone, Nvfp4Scope::kWeights, Nvfp4Scope::kActivations, Nvfp4Scope::kAll})
    if (name == Name(scope)) return scope;
  return InvalidArgument(
      "nvfp4_4over6 or its e4m3_use_256 is '{}'; expected none, weights, "
      "activations or all",
      name);
}

StatusOr<FourOverSix> ParseFourOverSixErrMode(std::string_view name) {
  if (name == "MAE") return FourOverSix::kMAE;
  if (name == "MSE") return FourOverSix::kMSE;
  return InvalidArgument("nvfp4_4over6_err_mode is '{}'; expected MAE or MSE", name);
}

const char* Name(AmaxComputeAlgo algo) {
  return algo == AmaxComputeAlgo::kMax ? "max" : "most_recent";
}

StatusOr<AmaxComputeAlgo> ParseAmaxComputeAlgo(std::string_view name) {
  if (name == "max") return AmaxComputeAlgo::kMax;
  if (name == "most_recent") return AmaxComputeAlgo::kMostRecent;
  return InvalidArgument("amax_compute_algo is '{}'; expected max or most_recent", name);
}

StatusOr<std::unique_ptr<Recipe>> MakeRecipe(const DelayedScalingRecipe& options) {
  constexpr const char* kName = "DelayedScaling";
  // A power of two that float32 holds, and a history that memory holds.
  constexpr int kMaxMargin = 100;
  constexpr int64_t kMaxHistory = 1 << 20;
  TE_RETURN_IF_ERROR(CheckFormat(kName, options.fp8_format));
  if (options.margin < -kMaxMargin || options.margin > kMaxMargin) {
    return InvalidArgument("{}: margin is {}; expected a number from {} to {}", kName,
                           options.margin, -kMaxMargin, kMaxMargin);
  }
  if (options.amax_history_len < 1 || options.amax_history_len > kMaxHistory) {
    return InvalidArgument("{}: amax_history_len is {}; expected a number from 1 to {}", kName,
                           options.amax_history_len, kMaxHistory);
  }
  if (options.amax_compute_algo != AmaxComputeAlgo::kMax &&
      options.amax_compute_algo != AmaxComputeAlgo::kMostRecent) {
    return InvalidArgument("{}: amax_compute_algo is {}; expected max (0) or most_recent (1)",
                           kName, static_cast<int>(options.amax_compute_algo));
  }
  TE_RETURN_IF_ERROR(CheckBackwardOverride(kName, options.backward_override));
  if (options.backward_override != BackwardOverride::kNone) {
    return InvalidArgument("{}: backward_override is {}; expected none, which is all that it takes",
                           kName, Name(options.backward_override));
  }
  return std::unique_ptr<Recipe>(new DelayedScaling(options));
}

StatusOr<std::unique_ptr<Recipe>> MakeRecipe(const Float8CurrentScalingRecipe& options) {
  TE_RETURN_IF_ERROR(CheckFormat("Float8CurrentScaling", options.fp8_format));
  TE_RETURN_IF_ERROR(CheckAmaxEpsilon("Float8CurrentScaling", options.amax_epsilon));
  TE_RETURN_IF_ERROR(CheckBackwardOverride("Float8CurrentScaling", options.backward_override));
  return std::unique_ptr<Recipe>(new CurrentScaling(options));
}

StatusOr<std::unique_ptr<Recipe>> MakeRecipe(const Float8BlockScalingRecipe& options) {
  constexpr const char* kName = "Float8BlockScaling";
  TE_RETURN_IF_ERROR(CheckFormat(kName, options.fp8_format));
  TE_RETURN_IF_ERROR(CheckAmaxEpsilon(kName, options.amax_epsilon));
  TE_RETURN_IF_ERROR(CheckBackwardOverride(kName, options.backward_override));
  const int x = options.x_block_scaling_dim, w = options.w_block_scaling_dim,
            grad = options.grad_block_scaling_dim;
  TE_RETURN_IF_ERROR(CheckDim("x_block_scaling_dim", x));
  TE_RETURN_IF_ERROR(CheckDim("w_block_scaling_dim", w));
  TE_RETURN_IF_ERROR(CheckDim("grad_block_scaling_dim", grad));
  // Each pair meets in a product.
  if ((x == 2) + (w == 2) + (grad == 2) > 1) {
    return InvalidArgument(
        "{}: x_block_scaling_dim is {}, w_block_scaling_dim {}, grad_block_scaling_dim {}; "
        "expected "
        "2 for one of them at most: no product takes two operands of 128x128",
        kName, x, w, grad);
  }
  const auto splits = [](const char* name, const MMParams& params) -> Status {
    if (params.use_split_accumulator) return OkStatus();
    return InvalidArgument(
        "Float8BlockScaling: {}.use_split_accumulator is false; expected true: sums of scaled "
        "blocks "
        "are split in any case",
        name);
  };
  TE_RETURN_IF_ERROR(splits("fp8_gemm_fprop", options.fp8_gemm_fprop));
  TE_RETURN_IF_ERROR(splits("fp8_gemm_dgrad", options.fp8_gemm_dgrad));
  TE_RETURN_IF_ERROR(splits("fp8_gemm_wgrad", options.fp8_gemm_wgrad));
  return std::unique_ptr<Recipe>(new BlockScaling(options));
}

StatusOr<std::unique_ptr<Recipe>> MakeRecipe(const MXFP8BlockScalingRecipe& options) {
  TE_RETURN_IF_ERROR(CheckFormat("MXFP8BlockScaling", options.fp8_format));
  TE_RETURN_IF_ERROR(CheckBackwardOverride("MXFP8BlockScaling", options.backward_override));
  if (options.margin != 0)
    return InvalidArgument("MXFP8BlockScaling: margin is {}; expected 0", options.margin);
  return std::unique_ptr<Recipe>(new Mxfp8(options));
}

StatusOr<std::unique_ptr<Recipe>> MakeRecipe(const NVFP4BlockScalingRecipe& options) {
  constexpr const char* kName = "NVFP4BlockScaling";
  TE_RETURN_IF_ERROR(CheckBackwardOverride(kName, options.backward_override));
  TE_RETURN_IF_ERROR(CheckScope("nvfp4_4over6", options.nvfp4_4over6));
  TE_RETURN_IF_ERROR(CheckScope("nvfp4_4over6_e4m3_use_256", options.nvfp4_4over6_e4m3_use_256));
  if (options.nvfp4_4over6_err_mode != FourOverSix::kMAE &&
      options.nvfp4_4over6_err_mode != FourOverSix::kMSE) {
    return InvalidArgument("{}: nvfp4_4over6_err_mode is {}; expected MAE (1) or MSE (2)", kName,
                           static_cast<int>(options.nvfp4_4over6_err_mode));
  }
  const NVFP4BlockScalingRecipe unset;
  if (options.nvfp4_4over6 == Nvfp4Scope::kNone &&
      (options.nvfp4_4over6_e4m3_use_256 != unset.nvfp4_4over6_e4m3_use_256 ||
       options.nvfp4_4over6_err_mode != unset.nvfp4_4over6_err_mode)) {
    return InvalidArgument(
        "{}: nvfp4_4over6_e4m3_use_256 is {} and nvfp4_4over6_err_mode {} with nvfp4_4over6 none; "
        "expected them with a tensor that it names",
        kName, Name(options.nvfp4_4over6_e4m3_use_256), Name(options.nvfp4_4over6_err_mode));
  }
  // Inputs are what the transform is for.
  const bool of_inputs =
      options.nvfp4_4over6 == Nvfp4Scope::kActivations || options.nvfp4_4over6 == Nvfp4Scope::kAll;
  if (!options.disable_rht && (of_inputs || options.row_scaled_activation)) {
    return InvalidArgument(
        "{}: row_scaled_activation is {} and nvfp4_4over6 {}; expected disable_rht true with them: "
        "neither is defined for inputs under the random Hadamard transform",
        kName, options.row_scaled_activation, Name(options.nvfp4_4over6));
  }
  return std::unique_ptr<Recipe>(new Nvfp4(options));
}

std::unique_ptr<Recipe> MakePrecisionRecipe() { return std::make_unique<Precision>(); }

}  // namespace te
