// A recipe says how each tensor of a GEMM is quantized. Layers name a tensor's role and pass on
// what they get; no layer ever asks which recipe runs. Names, options and defaults are Transformer
// Engine's (common/recipe/__init__.py); the semantics: te_kernels/quantize/quantize.h and
// te_kernels/delayed_scaling/delayed_scaling.h.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "te_kernels/delayed_scaling/delayed_scaling.h"
#include "te_kernels/gemm/gemm.h"

namespace te {

// Transformer Engine's QuantizerRole.
struct QuantizerRole {
  std::string_view
      module_type;  // "linear", "layernorm_linear", "layernorm_mlp.fc2", "lm_head", ...
  std::string_view tensor_type;  // "input", "weight", "grad_output"
  std::string_view name;         // the module's full name
};

// The tensors of attention's products, of which q, k and v share a scale, and their gradients do
// (te_kernels/attention/attention_fp8.h).
enum class AttentionTensor : int32_t { kQkv = 0, kS = 1, kO = 2, kDo = 3, kDp = 4, kDqkv = 5 };
inline constexpr int kAttentionTensors = 6;
const char* Name(AttentionTensor tensor);  // "qkv", "s", "o", "do", "dp", "dqkv"
inline bool IsGradient(AttentionTensor tensor) { return tensor >= AttentionTensor::kDo; }

// How the tensors of one role are quantized. A value.
struct TensorQuantization {
  QuantFormat format = QuantFormat::kNone;  // kNone: in the tensor's own dtype
  QuantScaling scaling = QuantScaling::kTensor;
  bool power_of_2_scales = false;
  float amax_epsilon = 0;
  bool stochastic_rounding = false;
  bool random_hadamard = false;
  bool row_scaled = false;
  FourOverSix four_over_six = FourOverSix::kOff;
  bool e4m3_use_256 = false;
  // Of kTensor, whose scales have a history.
  int margin = 0;
  int64_t amax_history_len = 0;
  AmaxComputeAlgo amax_compute_algo = AmaxComputeAlgo::kMax;
  bool reduce_amax = true;

  bool quantized() const { return format != QuantFormat::kNone; }
  bool delayed() const { return quantized() && scaling == QuantScaling::kTensor; }
  // Whether a weight can exist in these codes alone (QuantizedInit): E4M3 with one scale, which
  // follows from an amax as delayed scaling derives it.
  bool fp8_only() const {
    return format == QuantFormat::kFloat8E4M3 &&
           (scaling == QuantScaling::kTensor || scaling == QuantScaling::kTensorCurrent) &&
           !power_of_2_scales && amax_epsilon == 0;
  }
  friend bool operator==(const TensorQuantization&, const TensorQuantization&) = default;
};

// What the backward pass multiplies where the forward pass multiplied quantized tensors. With
// either override the gradient of the output stays in its own dtype, and dgrad and wgrad are
// products in that dtype; there are no columnwise copies.
enum class BackwardOverride : int32_t {
  kNone = 0,           // the quantized tensors, the gradient of the output among them
  kHighPrecision = 1,  // input and weight as they were before they were quantized
  kDequantized = 2,    // the values of the forward pass's quantized input and weight
};
const char* Name(BackwardOverride value);  // "none", "high_precision", "dequantized"
StatusOr<BackwardOverride> ParseBackwardOverride(std::string_view name);

// Immutable: any number of scopes and threads may use one.
class Recipe {
 public:
  virtual ~Recipe() = default;
  virtual std::string name() const = 0;
  // The recipe of one module: this one, unless it chooses by name. Null: no quantization.
  virtual const Recipe* ForModule(std::string_view /*module_type*/, std::string_view /*name*/,
                                  bool /*training*/) const {
    return this;
  }
  virtual TensorQuantization For(const QuantizerRole& role) const = 0;
  // Whether scales come from the past, so that a first step has to look before it casts.
  virtual bool calibrates() const { return false; }
  // GemmArgs::split_accumulator.
  virtual bool SplitAccumulator(GemmKind kind) const = 0;
  virtual BackwardOverride backward_override() const { return BackwardOverride::kNone; }
  // How the tensors of attention's own products are quantized (Transformer Engine's fp8_dpa); none
  // of them, or all, delayed.
  virtual TensorQuantization ForAttention(AttentionTensor) const { return {}; }
};

enum class Fp8Format : int32_t {
  kHybrid = 0,  // E4M3 forward, E5M2 for gradients
  kE4M3 = 1,
};
const char* Name(Fp8Format format);                         // "hybrid", "e4m3"
StatusOr<Fp8Format> ParseFp8Format(std::string_view name);  // kInvalidArgument lists both
const char* Name(AmaxComputeAlgo algo);                     // "max", "most_recent"
StatusOr<AmaxComputeAlgo> ParseAmaxComputeAlgo(std::string_view name);

// Options of one kind of product.
struct MMParams {
  bool use_split_accumulator = true;
};

// The scale of a tensor comes from the amaxes of the steps before.
struct DelayedScalingRecipe {
  int margin = 0;
  Fp8Format fp8_format = Fp8Format::kHybrid;
  int64_t amax_history_len = 1024;
  AmaxComputeAlgo amax_compute_algo = AmaxComputeAlgo::kMax;
  bool reduce_amax = true;  // over the data- and tensor-parallel group
  bool fp8_dpa = false;     // attention's products in FP8, in training
  BackwardOverride backward_override = BackwardOverride::kNone;  // the only one that it takes
};
// The scale of a tensor comes from its own amax.
struct Float8CurrentScalingRecipe {
  Fp8Format fp8_format = Fp8Format::kHybrid;
  bool use_power_2_scales = false;
  float amax_epsilon = 0;
  MMParams fp8_gemm_fprop = {.use_split_accumulator = false};
  MMParams fp8_gemm_dgrad;
  MMParams fp8_gemm_wgrad;
  BackwardOverride backward_override = BackwardOverride::kNone;
};
// One scale for 1x128 elements of inputs and gradients, 128x128 of weights, unless the dims say
// otherwise: 1 or 2, and of the two operands of a product one at most 2.
struct Float8BlockScalingRecipe {
  Fp8Format fp8_format = Fp8Format::kE4M3;
  bool use_power_2_scales = true;
  float amax_epsilon = 0;
  int x_block_scaling_dim = 1;
  int w_block_scaling_dim = 2;
  int grad_block_scaling_dim = 1;
  MMParams fp8_gemm_fprop;  // sums of blocks are split in any case: true alone
  MMParams fp8_gemm_dgrad;
  MMParams fp8_gemm_wgrad;
  BackwardOverride backward_override = BackwardOverride::kNone;
};
// One E8M0 scale for 32 elements.
struct MXFP8BlockScalingRecipe {
  int margin = 0;  // the reference declares it and knows 0 alone
  Fp8Format fp8_format = Fp8Format::kE4M3;
  bool enable_2d_quantization = false;  // of weights
  BackwardOverride backward_override = BackwardOverride::kNone;
};

// Which tensors of the forward pass an option of NVFP4 is for.
enum class Nvfp4Scope : int32_t { kNone = 0, kWeights = 1, kActivations = 2, kAll = 3 };
const char* Name(Nvfp4Scope scope);  // "none", "weights", "activations", "all"
StatusOr<Nvfp4Scope> ParseNvfp4Scope(std::string_view name);
StatusOr<FourOverSix> ParseFourOverSixErrMode(std::string_view name);  // "MAE", "MSE"
// One E4M3 scale for 16 elements of E2M1, and one float32 a tensor.
struct NVFP4BlockScalingRecipe {
  bool disable_rht = false;
  bool disable_stochastic_rounding = false;
  bool disable_2d_quantization = false;
  // Of inputs, a float32 for each row (columnwise: for each column) instead of one a tensor. Not
  // with the random Hadamard transform.
  bool row_scaled_activation = false;
  // Blocks stored with the better of two scales. Not with the random Hadamard transform, which
  // inputs have.
  Nvfp4Scope nvfp4_4over6 = Nvfp4Scope::kNone;
  Nvfp4Scope nvfp4_4over6_e4m3_use_256 = Nvfp4Scope::kAll;  // of those that nvfp4_4over6 names
  FourOverSix nvfp4_4over6_err_mode = FourOverSix::kMAE;
  BackwardOverride backward_override = BackwardOverride::kNone;
};

// kInvalidArgument names the option.
StatusOr<std::unique_ptr<Recipe>> MakeRecipe(const DelayedScalingRecipe& options);
StatusOr<std::unique_ptr<Recipe>> MakeRecipe(const Float8CurrentScalingRecipe& options);
StatusOr<std::unique_ptr<Recipe>> MakeRecipe(const Float8BlockScalingRecipe& options);
StatusOr<std::unique_ptr<Recipe>> MakeRecipe(const MXFP8BlockScalingRecipe& options);
StatusOr<std::unique_ptr<Recipe>> MakeRecipe(const NVFP4BlockScalingRecipe& options);

// Every tensor in its own dtype: FP32 and BF16 training.
std::unique_ptr<Recipe> MakePrecisionRecipe();

}  // namespace te
