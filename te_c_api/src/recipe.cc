// te_fp8_recipe_* and the quantization scope.
#include "te_core/quantization/recipe.h"

#include <algorithm>

#include "te_c_api/src/error.h"
#include "te_c_api/src/handles.h"
#include "te_c_api/src/options.h"

namespace te::c_api {
namespace {

constexpr size_t kRecipeOptionsV1 = offsetof(te_fp8_recipe_options, reserved) + sizeof(int32_t);
constexpr size_t kQuantizationOptionsV1 =
    offsetof(te_quantization_options, reserved) + sizeof(int32_t);

constexpr int32_t kKinds = TE_FP8_RECIPE_NVFP4 + 1;
constexpr const char* kKindNames[kKinds] = {"NONE",  "DELAYED", "CURRENT",
                                            "BLOCK", "MXFP8",   "NVFP4"};
// amax_epsilon's TE_FP8_RECIPE_DEFAULT.
constexpr float kDefaultAmaxEpsilon = -1;

constexpr uint32_t Bit(int32_t kind) { return 1u << kind; }
constexpr uint32_t kDelayed = Bit(TE_FP8_RECIPE_DELAYED);
constexpr uint32_t kCurrent = Bit(TE_FP8_RECIPE_CURRENT);
constexpr uint32_t kBlock = Bit(TE_FP8_RECIPE_BLOCK);
constexpr uint32_t kMxfp8 = Bit(TE_FP8_RECIPE_MXFP8);
constexpr uint32_t kNvfp4 = Bit(TE_FP8_RECIPE_NVFP4);

te_fp8_recipe_options DefaultRecipeOptions() {
  te_fp8_recipe_options options{};
  options.struct_size = sizeof(options);
  options.kind = TE_FP8_RECIPE_NONE;
  for (int32_t* parameter : {&options.margin,
                             &options.fp8_format,
                             &options.amax_history_len,
                             &options.amax_compute_algo,
                             &options.reduce_amax,
                             &options.use_power_2_scales,
                             &options.enable_2d_quantization,
                             &options.disable_rht,
                             &options.disable_stochastic_rounding,
                             &options.disable_2d_quantization,
                             &options.backward_override,
                             &options.fp8_gemm_fprop_use_split_accumulator,
                             &options.fp8_gemm_dgrad_use_split_accumulator,
                             &options.fp8_gemm_wgrad_use_split_accumulator,
                             &options.x_block_scaling_dim,
                             &options.w_block_scaling_dim,
                             &options.grad_block_scaling_dim,
                             &options.row_scaled_activation,
                             &options.nvfp4_4over6,
                             &options.nvfp4_4over6_e4m3_use_256,
                             &options.nvfp4_4over6_err_mode,
                             &options.fp8_dpa}) {
    *parameter = TE_FP8_RECIPE_DEFAULT;
  }
  options.amax_epsilon = kDefaultAmaxEpsilon;
  return options;
}

te_quantization_options DefaultQuantizationOptions() {
  return {sizeof(te_quantization_options), 1, 0, 1, 0};
}

// Hands parameters that the caller has set to a recipe of te_core, whose own defaults stand for the
// others. Keeps the first error.
class Parameters {
 public:
  explicit Parameters(int32_t kind) : kind_(kind) {}

  // Those of kinds other than `kinds` refuse it.
  void Accept(const char* name, int32_t value, uint32_t kinds) {
    if (value != TE_FP8_RECIPE_DEFAULT) Refuse(name, value, kinds, "TE_FP8_RECIPE_DEFAULT");
  }
  void Accept(const char* name, float value, uint32_t kinds) {
    if (value != kDefaultAmaxEpsilon) Refuse(name, value, kinds, "-1");
  }
  template <typename T>
  static void Read(int32_t value, T* out) {
    if (value != TE_FP8_RECIPE_DEFAULT) *out = static_cast<T>(value);
  }
  void ReadBool(const char* argument, int32_t value, bool* out) {
    if (value == TE_FP8_RECIPE_DEFAULT) return;
    if (status_.ok()) status_ = CheckBool(value, argument);
    *out = value != 0;
  }
  static void Read(float value, float* out) {
    if (value != kDefaultAmaxEpsilon) *out = value;
  }
  template <typename Recipe>
  void ReadGemms(const te_fp8_recipe_options& o, Recipe* recipe) {
    ReadBool("options->fp8_gemm_fprop_use_split_accumulator",
             o.fp8_gemm_fprop_use_split_accumulator, &recipe->fp8_gemm_fprop.use_split_accumulator);
    ReadBool("options->fp8_gemm_dgrad_use_split_accumulator",
             o.fp8_gemm_dgrad_use_split_accumulator, &recipe->fp8_gemm_dgrad.use_split_accumulator);
    ReadBool("options->fp8_gemm_wgrad_use_split_accumulator",
             o.fp8_gemm_wgrad_use_split_accumulator, &recipe->fp8_gemm_wgrad.use_split_accumulator);
  }
  const Status& status() const { return status_; }

 private:
  template <typename T>
  void Refuse(const char* name, T value, uint32_t kinds, const char* unset) {
    if ((kinds & Bit(kind_)) != 0 || !status_.ok()) return;
    status_ = InvalidArgument(
        "options->{} is {}; TE_FP8_RECIPE_{} has no such parameter: expected what the _init wrote, "
        "{}",
        name, value, kKindNames[kind_], unset);
  }

  int32_t kind_;
  Status status_;
};

template <typename Options>
StatusOr<std::shared_ptr<const Recipe>> Make(const Parameters& parameters, const Options& options) {
  TE_RETURN_IF_ERROR(parameters.status());
  TE_ASSIGN_OR_RETURN(std::shared_ptr<const Recipe> recipe, MakeRecipe(options));
  return recipe;
}

// Null: every tensor in its own dtype.
StatusOr<std::shared_ptr<const Recipe>> MakeCoreRecipe(const te_fp8_recipe_options& o) {
  if (o.kind < 0 || o.kind >= kKinds) {
    return Unsupported(
        "options->kind is {}; this library has: TE_FP8_RECIPE_NONE (0), DELAYED (1), CURRENT (2), "
        "BLOCK (3), MXFP8 (4), NVFP4 (5)",
        o.kind);
  }
  Parameters p(o.kind);
  p.Accept("margin", o.margin, kDelayed | kMxfp8);
  p.Accept("fp8_format", o.fp8_format, kDelayed | kCurrent | kBlock | kMxfp8);
  p.Accept("amax_history_len", o.amax_history_len, kDelayed);
  p.Accept("amax_compute_algo", o.amax_compute_algo, kDelayed);
  p.Accept("reduce_amax", o.reduce_amax, kDelayed);
  p.Accept("use_power_2_scales", o.use_power_2_scales, kCurrent | kBlock);
  p.Accept("amax_epsilon", o.amax_epsilon, kCurrent | kBlock);
  p.Accept("enable_2d_quantization", o.enable_2d_quantization, kMxfp8);
  p.Accept("disable_rht", o.disable_rht, kNvfp4);
  p.Accept("disable_stochastic_rounding", o.disable_stochastic_rounding, kNvfp4);
  p.Accept("disable_2d_quantization", o.disable_2d_quantization, kNvfp4);
  p.Accept("backward_override", o.backward_override,
           kDelayed | kCurrent | kBlock | kMxfp8 | kNvfp4);
  p.Accept("fp8_gemm_fprop_use_split_accumulator", o.fp8_gemm_fprop_use_split_accumulator,
           kCurrent | kBlock);
  p.Accept("fp8_gemm_dgrad_use_split_accumulator", o.fp8_gemm_dgrad_use_split_accumulator,
           kCurrent | kBlock);
  p.Accept("fp8_gemm_wgrad_use_split_accumulator", o.fp8_gemm_wgrad_use_split_accumulator,
           kCurrent | kBlock);
  p.Accept("x_block_scaling_dim", o.x_block_scaling_dim, kBlock);
  p.Accept("w_block_scaling_dim", o.w_block_scaling_dim, kBlock);
  p.Accept("grad_block_scaling_dim", o.grad_block_scaling_dim, kBlock);
  p.Accept("row_scaled_activation", o.row_scaled_activation, kNvfp4);
  p.Accept("nvfp4_4over6", o.nvfp4_4over6, kNvfp4);
  p.Accept("nvfp4_4over6_e4m3_use_256", o.nvfp4_4over6_e4m3_use_256, kNvfp4);
  p.Accept("nvfp4_4over6_err_mode", o.nvfp4_4over6_err_mode, kNvfp4);
  p.Accept("fp8_dpa", o.fp8_dpa, kDelayed);
  switch (o.kind) {
    case TE_FP8_RECIPE_DELAYED: {
      DelayedScalingRecipe recipe;
      p.Read(o.backward_override, &recipe.backward_override);
      p.Read(o.margin, &recipe.margin);
      p.Read(o.fp8_format, &recipe.fp8_format);
      p.Read(o.amax_history_len, &recipe.amax_history_len);
      p.Read(o.amax_compute_algo, &recipe.amax_compute_algo);
      p.ReadBool("options->reduce_amax", o.reduce_amax, &recipe.reduce_amax);
      p.ReadBool("options->fp8_dpa", o.fp8_dpa, &recipe.fp8_dpa);
      return Make(p, recipe);
    }
    case TE_FP8_RECIPE_CURRENT: {
      Float8CurrentScalingRecipe recipe;
      p.Read(o.backward_override, &recipe.backward_override);
      p.ReadGemms(o, &recipe);
      p.Read(o.fp8_format, &recipe.fp8_format);
      p.ReadBool("options->use_power_2_scales", o.use_power_2_scales, &recipe.use_power_2_scales);
      p.Read(o.amax_epsilon, &recipe.amax_epsilon);
      return Make(p, recipe);
    }
    case TE_FP8_RECIPE_BLOCK: {
      Float8BlockScalingRecipe recipe;
      p.Read(o.backward_override, &recipe.backward_override);
      p.ReadGemms(o, &recipe);
      p.Read(o.x_block_scaling_dim, &recipe.x_block_scaling_dim);
      p.Read(o.w_block_scaling_dim, &recipe.w_block_scaling_dim);
      p.Read(o.grad_block_scaling_dim, &recipe.grad_block_scaling_dim);
      p.Read(o.fp8_format, &recipe.fp8_format);
      p.ReadBool("options->use_power_2_scales", o.use_power_2_scales, &recipe.use_power_2_scales);
      p.Read(o.amax_epsilon, &recipe.amax_epsilon);
      return Make(p, recipe);
    }
    case TE_FP8_RECIPE_MXFP8: {
      MXFP8BlockScalingRecipe recipe;
      p.Read(o.backward_override, &recipe.backward_override);
      p.Read(o.margin, &recipe.margin);
      p.Read(o.fp8_format, &recipe.fp8_format);
      p.ReadBool("options->enable_2d_quantization", o.enable_2d_quantization,
                 &recipe.enable_2d_quantization);
      return Make(p, recipe);
    }
    case TE_FP8_RECIPE_NVFP4: {
      NVFP4BlockScalingRecipe recipe;
      p.Read(o.backward_override, &recipe.backward_override);
      p.ReadBool("options->row_scaled_activation", o.row_scaled_activation,
                 &recipe.row_scaled_activation);
      p.Read(o.nvfp4_4over6, &recipe.nvfp4_4over6);
      p.Read(o.nvfp4_4over6_e4m3_use_256, &recipe.nvfp4_4over6_e4m3_use_256);
      p.Read(o.nvfp4_4over6_err_mode, &recipe.nvfp4_4over6_err_mode);
      p.ReadBool("options->disable_rht", o.disable_rht, &recipe.disable_rht);
      p.ReadBool("options->disable_stochastic_rounding", o.disable_stochastic_rounding,
                 &recipe.disable_stochastic_rounding);
      p.ReadBool("options->disable_2d_quantization", o.disable_2d_quantization,
                 &recipe.disable_2d_quantization);
      return Make(p, recipe);
    }
    default:
      TE_RETURN_IF_ERROR(p.status());
      return std::shared_ptr<const Recipe>();
  }
}

Status CheckRecipe(const te_fp8_recipe* recipe, const char* argument, const Context* context) {
  TE_RETURN_IF_ERROR(Check(recipe, argument));
  if (recipe->context == context) return OkStatus();
  return InvalidArgument("{} belongs to another context", argument);
}

// A rule's recipe: null for NULL.
Status ReadRuleRecipe(const te_fp8_recipe* recipe, const char* argument, const Context* context,
                      std::shared_ptr<const Recipe>* out) {
  if (recipe == nullptr) return OkStatus();
  TE_RETURN_IF_ERROR(CheckRecipe(recipe, argument, context));
  *out = recipe->core;
  return OkStatus();
}

}  // namespace
}  // namespace te::c_api

using namespace te;         // NOLINT: the whole file is one thin layer over te
using namespace te::c_api;  // NOLINT

// In parentheses, because te.h has a macro of this name.
te_status(te_fp8_recipe_options_init)(te_fp8_recipe_options* options) {
  return te_fp8_recipe_options_init_sized(options, kRecipeOptionsV1);
}

te_status te_fp8_recipe_options_init_sized(te_fp8_recipe_options* options, size_t struct_size) {
  return Guard([&] {
    return InitSizedOptions(options, "options", struct_size, kRecipeOptionsV1,
                            DefaultRecipeOptions());
  });
}

te_status te_fp8_recipe_create(te_context* context, const te_fp8_recipe_options* options,
                               te_fp8_recipe** out) {
  return Guard([&]() -> Status {
    TE_RETURN_IF_ERROR(Check(context, "context"));
    TE_RETURN_IF_ERROR(CheckNotNull(out, "out"));
    te_fp8_recipe_options read = DefaultRecipeOptions();
    TE_RETURN_IF_ERROR(ReadOptions(options, "options", kRecipeOptionsV1, &read));
    TE_RETURN_IF_ERROR(CheckReserved(read.reserved, "options->reserved"));
    TE_RETURN_IF_ERROR(CheckReserved(read.reserved2, "options->reserved2"));
    TE_ASSIGN_OR_RETURN(std::shared_ptr<const Recipe> core, MakeCoreRecipe(read));
    *out = new te_fp8_recipe(context->core.get(), std::move(core));
    return OkStatus();
  });
}

te_status te_fp8_recipe_add_rule(te_fp8_recipe* recipe, const char* pattern,
                                 const te_fp8_recipe* training_recipe,
                                 const te_fp8_recipe* evaluation_recipe) {
  return Guard([&]() -> Status {
    TE_RETURN_IF_ERROR(Check(recipe, "recipe"));
    TE_RETURN_IF_ERROR(CheckNotNull(pattern, "pattern"));
    ModuleRule rule;
    rule.pattern = pattern;
    if (rule.pattern.empty())
      return InvalidArgument("pattern is ''; expected a glob over module names such as '*.fc2'");
    TE_RETURN_IF_ERROR(
        ReadRuleRecipe(training_recipe, "training_recipe", recipe->context, &rule.training));
    TE_RETURN_IF_ERROR(
        ReadRuleRecipe(evaluation_recipe, "evaluation_recipe", recipe->context, &rule.evaluation));
    // A new recipe instead of the old one: that one is immutable, and scopes may be running with
    // it.
    std::vector<ModuleRule> rules = recipe->rules;
    rules.push_back(std::move(rule));
    const bool quantizes = recipe->otherwise != nullptr ||
                           std::any_of(rules.begin(), rules.end(), [](const ModuleRule& r) {
                             return r.training != nullptr || r.evaluation != nullptr;
                           });
    std::shared_ptr<const Recipe> core;
    if (quantizes) core = MakeModuleRecipes(rules, recipe->otherwise);
    recipe->rules = std::move(rules);
    recipe->core = std::move(core);
    return OkStatus();
  });
}

void te_fp8_recipe_destroy(te_fp8_recipe* recipe) {
  if (Check(recipe, "recipe").ok()) delete recipe;
}

te_status te_quantization_options_init(te_quantization_options* options) {
  return Guard([&] { return InitOptions(options, "options", DefaultQuantizationOptions()); });
}

te_status te_quantization_begin(te_context* context, te_fp8_recipe* recipe,
                                const te_quantization_options* options) {
  return Guard([&]() -> Status {
    TE_RETURN_IF_ERROR(Check(context, "context"));
    TE_RETURN_IF_ERROR(CheckRecipe(recipe, "recipe", context->core.get()));
    te_quantization_options read = DefaultQuantizationOptions();
    TE_RETURN_IF_ERROR(ReadOptions(options, "options", kQuantizationOptionsV1, &read));
    TE_RETURN_IF_ERROR(CheckBool(read.training, "options->training"));
    TE_RETURN_IF_ERROR(CheckBool(read.calibrating, "options->calibrating"));
    TE_RETURN_IF_ERROR(CheckBool(read.is_first_microbatch, "options->is_first_microbatch"));
    TE_RETURN_IF_ERROR(CheckReserved(read.reserved, "options->reserved"));
    if (read.calibrating != 0 && recipe->core == nullptr) {
      return Unsupported(
          "options->calibrating is 1; recipe kind TE_FP8_RECIPE_NONE has nothing to calibrate");
    }
    if (read.calibrating != 0 && read.training == 0) {
      return InvalidArgument(
          "options->calibrating is 1 and options->training is 0; evaluation leaves no trace in the "
          "histories: expected one of them to change");
    }
    context->scopes->push_back({recipe->core, read.training != 0});
    context->core->BeginQuantization(recipe->core.get(),
                                     {.training = read.training != 0,
                                      .calibrating = read.calibrating != 0,
                                      .is_first_microbatch = read.is_first_microbatch != 0});
    return OkStatus();
  });
}

te_status te_fp8_model_init_begin(te_context* context, te_fp8_recipe* recipe) {
  return Guard([&]() -> Status {
    TE_RETURN_IF_ERROR(Check(context, "context"));
    TE_RETURN_IF_ERROR(CheckRecipe(recipe, "recipe", context->core.get()));
    if (recipe->core == nullptr) {
      return Unsupported(
          "recipe is of kind TE_FP8_RECIPE_NONE, which quantizes no weight; expected "
          "TE_FP8_RECIPE_DELAYED or TE_FP8_RECIPE_CURRENT");
    }
    context->model_inits.push_back(
        {recipe->core, std::make_unique<QuantizedInit>(context->core.get(), recipe->core.get())});
    return OkStatus();
  });
}

te_status te_fp8_model_init_end(te_context* context) {
  return Guard([&]() -> Status {
    TE_RETURN_IF_ERROR(Check(context, "context"));
    if (context->model_inits.empty())
      return FailedPrecondition("te_fp8_model_init_end without a te_fp8_model_init_begin");
    context->model_inits.pop_back();
    return OkStatus();
  });
}

te_status te_quantization_end(te_context* context) {
  return Guard([&]() -> Status {
    TE_RETURN_IF_ERROR(Check(context, "context"));
    const Status status = context->core->EndQuantization();
    if (!context->scopes->empty()) context->scopes->pop_back();
    return status;
  });
}
