#include "te_core/quantization/recipe.h"

#include <cmath>

#include "fmt/format.h"

namespace te {
namespace {

constexpr std::string_view kWeight = "weight";
constexpr std::string_view kGradOutput = "grad_output";

QuantFormat FormatOf(Fp8Format format, const QuantizerRole& role) {
  return format == Fp8Format::kHybrid && role.tensor_type == kGradOutput ? QuantFormat::kFloat8E5M2
                                                                         : QuantFormat::kFloat8E4M3;
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
        "DelayedScaling(margin={}, fp8_format={}, amax_history_len={}, amax_compute_algo={})",
        o_.margin, Name(o_.fp8_format), o_.amax_history_len, Name(o_.amax_compute_algo));
  }
  TensorQuantization For(const QuantizerRole& role) const override {
    return {.format = FormatOf(o_.fp8_format, role),
            .scaling = QuantScaling::kTensor,
            .margin = o_.margin,
            .amax_history_len = o_.amax_history_len,
            .amax_compute_algo = o_.amax_compute_algo,
            .reduce_amax = o_.reduce_amax};
  }
  bool calibrates() const override { return true; }
  bool SplitAccumulator(GemmKind kind) const override { return SplitInBackward(kind); }

 private:
  DelayedScalingRecipe o_;
};

class CurrentScaling : public Recipe {
 public:
  explicit CurrentScaling(const Float8CurrentScalingRecipe& options) : o_(options) {}
  std::string name() const override {
    return fmt::format(
        "Float8CurrentScaling(fp8_format={}, use_power_2_scales={}, amax_epsilon={})",
        Name(o_.fp8_format), o_.use_power_2_scales, o_.amax_epsilon);
  }
  TensorQuantization For(const QuantizerRole& role) const override {
    return {.format = FormatOf(o_.fp8_format, role),
            .scaling = QuantScaling::kTensorCurrent,
            .power_of_2_scales = o_.use_power_2_scales,
            .amax_epsilon = o_.amax_epsilon};
  }
  bool SplitAccumulator(GemmKind kind) const override { return SplitInBackward(kind); }

 private:
  Float8CurrentScalingRecipe o_;
};

class BlockScaling : public Recipe {
 public:
  explicit BlockScaling(const Float8BlockScalingRecipe& options) : o_(options) {}
  std::string name() const override {
    return fmt::format("Float8BlockScaling(fp8_format={}, use_power_2_scales={}, amax_epsilon={})",
                       Name(o_.fp8_format), o_.use_power_2_scales, o_.amax_epsilon);
  }
  TensorQuantization For(const QuantizerRole& role) const override {
    return {.format = FormatOf(o_.fp8_format, role),
            .scaling = role.tensor_type == kWeight ? QuantScaling::kBlock128x128
                                                   : QuantScaling::kBlock1x128,
            .power_of_2_scales = o_.use_power_2_scales,
            .amax_epsilon = o_.amax_epsilon};
  }
  bool SplitAccumulator(GemmKind) const override { return true; }

 private:
  Float8BlockScalingRecipe o_;
};

class Mxfp8 : public Recipe {
 public:
  explicit Mxfp8(const MXFP8BlockScalingRecipe& options) : o_(options) {}
  std::string name() const override {
    return fmt::format("MXFP8BlockScaling(fp8_format={}, enable_2d_quantization={})",
                       Name(o_.fp8_format), o_.enable_2d_quantization);
  }
  TensorQuantization For(const QuantizerRole& role) const override {
    return {.format = FormatOf(o_.fp8_format, role),
            .scaling = o_.enable_2d_quantization && role.tensor_type == kWeight
                           ? QuantScaling::kMx32x32
                           : QuantScaling::kMx1x32};
  }
  bool SplitAccumulator(GemmKind) const override { return true; }

 private:
  MXFP8BlockScalingRecipe o_;
};

class Nvfp4 : public Recipe {
 public:
  explicit Nvfp4(const NVFP4BlockScalingRecipe& options) : o_(options) {}
  std::string name() const override {
    return fmt::format(
        "NVFP4BlockScaling(disable_rht={}, disable_stochastic_rounding={}, "
        "disable_2d_quantization={})",
        o_.disable_rht, o_.disable_stochastic_rounding, o_.disable_2d_quantization);
  }
  TensorQuantization For(const QuantizerRole& role) const override {
    const bool weight = role.tensor_type == kWeight;
    return {
        .format = QuantFormat::kFloat4E2M1,
        .scaling = weight && !o_.disable_2d_quantization ? QuantScaling::kNvfp4_16x16
                                                         : QuantScaling::kNvfp4_1x16,
        .stochastic_rounding = role.tensor_type == kGradOutput && !o_.disable_stochastic_rounding,
        .random_hadamard = !weight && !o_.disable_rht};
  }
  bool SplitAccumulator(GemmKind) const override { return true; }

 private:
  NVFP4BlockScalingRecipe o_;
};

}  // namespace

const char* Name(Fp8Format format) { return format == Fp8Format::kHybrid ? "hybrid" : "e4m3"; }

StatusOr<Fp8Format> ParseFp8Format(std::string_view name) {
  if (name == "hybrid") return Fp8Format::kHybrid;
  if (name == "e4m3") return Fp8Format::kE4M3;
  return InvalidArgument("fp8_format is '{}'; expected hybrid or e4m3", name);
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
  return std::unique_ptr<Recipe>(new DelayedScaling(options));
}

StatusOr<std::unique_ptr<Recipe>> MakeRecipe(const Float8CurrentScalingRecipe& options) {
  TE_RETURN_IF_ERROR(CheckFormat("Float8CurrentScaling", options.fp8_format));
  TE_RETURN_IF_ERROR(CheckAmaxEpsilon("Float8CurrentScaling", options.amax_epsilon));
  return std::unique_ptr<Recipe>(new CurrentScaling(options));
}

StatusOr<std::unique_ptr<Recipe>> MakeRecipe(const Float8BlockScalingRecipe& options) {
  TE_RETURN_IF_ERROR(CheckFormat("Float8BlockScaling", options.fp8_format));
  TE_RETURN_IF_ERROR(CheckAmaxEpsilon("Float8BlockScaling", options.amax_epsilon));
  return std::unique_ptr<Recipe>(new BlockScaling(options));
}

StatusOr<std::unique_ptr<Recipe>> MakeRecipe(const MXFP8BlockScalingRecipe& options) {
  TE_RETURN_IF_ERROR(CheckFormat("MXFP8BlockScaling", options.fp8_format));
  if (options.margin != 0)
    return InvalidArgument("MXFP8BlockScaling: margin is {}; expected 0", options.margin);
  return std::unique_ptr<Recipe>(new Mxfp8(options));
}

StatusOr<std::unique_ptr<Recipe>> MakeRecipe(const NVFP4BlockScalingRecipe& options) {
  return std::unique_ptr<Recipe>(new Nvfp4(options));
}

std::unique_ptr<Recipe> MakePrecisionRecipe() { return std::make_unique<Precision>(); }

}  // namespace te
