// te_fp8_recipe_* and the quantization scope.
#include "te_core/quantization/recipe.h"

#include "te_c_api/src/error.h"
#include "te_c_api/src/handles.h"
#include "te_c_api/src/options.h"

namespace te::c_api {
namespace {

constexpr size_t kRecipeOptionsV1 = offsetof(te_fp8_recipe_options, reserved) + sizeof(int32_t);
constexpr size_t kQuantizationOptionsV1 =
    offsetof(te_quantization_options, reserved) + sizeof(int32_t);

te_fp8_recipe_options DefaultRecipeOptions() {
  return {sizeof(te_fp8_recipe_options), TE_FP8_RECIPE_NONE, 0};
}

te_quantization_options DefaultQuantizationOptions() {
  return {sizeof(te_quantization_options), 1, 0, 1, 0};
}

}  // namespace
}  // namespace te::c_api

using namespace te;         // NOLINT: the whole file is one thin layer over te
using namespace te::c_api;  // NOLINT

te_status te_fp8_recipe_options_init(te_fp8_recipe_options* options) {
  return Guard([&] { return InitOptions(options, "options", DefaultRecipeOptions()); });
}

te_status te_fp8_recipe_create(te_context* context, const te_fp8_recipe_options* options,
                               te_fp8_recipe** out) {
  return Guard([&]() -> Status {
    TE_RETURN_IF_ERROR(Check(context, "context"));
    TE_RETURN_IF_ERROR(CheckNotNull(out, "out"));
    te_fp8_recipe_options read = DefaultRecipeOptions();
    TE_RETURN_IF_ERROR(ReadOptions(options, "options", kRecipeOptionsV1, &read));
    TE_RETURN_IF_ERROR(CheckReserved(read.reserved, "options->reserved"));
    if (read.kind != TE_FP8_RECIPE_NONE) {
      return Unsupported("options->kind is {}; this library has: TE_FP8_RECIPE_NONE (0)",
                         read.kind);
    }
    *out = new te_fp8_recipe(context->core.get(), MakePrecisionRecipe());
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
    TE_RETURN_IF_ERROR(Check(recipe, "recipe"));
    if (recipe->context != context->core.get())
      return InvalidArgument("recipe belongs to another context");
    te_quantization_options read = DefaultQuantizationOptions();
    TE_RETURN_IF_ERROR(ReadOptions(options, "options", kQuantizationOptionsV1, &read));
    TE_RETURN_IF_ERROR(CheckBool(read.training, "options->training"));
    TE_RETURN_IF_ERROR(CheckBool(read.calibrating, "options->calibrating"));
    TE_RETURN_IF_ERROR(CheckBool(read.is_first_microbatch, "options->is_first_microbatch"));
    TE_RETURN_IF_ERROR(CheckReserved(read.reserved, "options->reserved"));
    if (read.calibrating != 0) {
      return Unsupported(
          "options->calibrating is 1; recipe kind TE_FP8_RECIPE_NONE has nothing to calibrate");
    }
    context->core->BeginQuantization(
        recipe->core.get(),
        {.training = read.training != 0, .is_first_microbatch = read.is_first_microbatch != 0});
    return OkStatus();
  });
}

te_status te_quantization_end(te_context* context) {
  return Guard([&]() -> Status {
    TE_RETURN_IF_ERROR(Check(context, "context"));
    return context->core->EndQuantization();
  });
}
