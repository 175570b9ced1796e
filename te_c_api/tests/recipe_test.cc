// te_fp8_recipe_options: sizes old and new, and every parameter of every kind.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "te/te.h"
#include "te_c_api/tests/fp8_program.h"

namespace te_test {
namespace {

// ---- Option structs ----

TEST(RecipeOptions, TheOldInitWritesVersion1sFieldsAlone) {
  // What a program that was compiled against version 1 has: 16 bytes, and something of its own
  // behind them. (In parentheses: the function, not the macro.)
  unsigned char memory[24];
  std::memset(memory, 0xa5, sizeof(memory));
  auto* options = reinterpret_cast<te_fp8_recipe_options*>(memory);
  ASSERT_EQ((te_fp8_recipe_options_init)(options), TE_STATUS_OK);
  for (size_t i = 16; i < sizeof(memory); ++i) EXPECT_EQ(memory[i], 0xa5) << i;
  size_t size = 0;
  std::memcpy(&size, memory, sizeof(size));
  EXPECT_EQ(size, size_t{16});
  unsigned char llama[56];
  std::memset(llama, 0xa5, sizeof(llama));
  ASSERT_EQ((te_llama_options_init)(reinterpret_cast<te_llama_options*>(llama)), TE_STATUS_OK);
  for (size_t i = 48; i < sizeof(llama); ++i) EXPECT_EQ(llama[i], 0xa5) << i;
}

TEST(RecipeOptions, AStructOfAnOldVersionGetsTheKindsDefaults) {
  for (int32_t kind = TE_FP8_RECIPE_DELAYED; kind <= TE_FP8_RECIPE_NVFP4; ++kind) {
    for (const size_t size : {size_t{16}, size_t{64}}) {  // versions 1 and 2
      SCOPED_TRACE(kKindNames[kind]);
      te_fp8_recipe_options old = RecipeOptions(kind);
      // Must not be read.
      std::memset(reinterpret_cast<char*>(&old) + size, 0xa5, sizeof(old) - size);
      old.struct_size = size;
      EXPECT_TRUE(ThirdStep(old) == ThirdStep(RecipeOptions(kind)));
    }
  }
}

TEST(RecipeOptions, AStructSmallerThanVersion1IsRefused) {
  Program program;
  te_fp8_recipe_options options = RecipeOptions(TE_FP8_RECIPE_CURRENT);
  options.struct_size = 12;
  te_fp8_recipe* recipe = nullptr;
  ExpectError(te_fp8_recipe_create(program.context(), &options, &recipe),
              TE_STATUS_INVALID_ARGUMENT, "options->struct_size is 12; expected at least 16");
  ExpectError(te_fp8_recipe_options_init_sized(&options, 8), TE_STATUS_INVALID_ARGUMENT,
              "struct_size is 8");
  ExpectError(te_fp8_recipe_options_init_sized(nullptr, sizeof(options)),
              TE_STATUS_INVALID_ARGUMENT, "options is NULL");
  ExpectError((te_fp8_recipe_options_init)(nullptr), TE_STATUS_INVALID_ARGUMENT, "options is NULL");
  EXPECT_EQ(recipe, nullptr);
}

TEST(RecipeOptions, ALargerStructIsAcceptedOnlyWithAZeroTail) {
  Program program;
  struct {
    te_fp8_recipe_options known;
    uint64_t unknown;
  } newer;
  std::memset(&newer, 0xa5, sizeof(newer));
  ASSERT_EQ(te_fp8_recipe_options_init_sized(&newer.known, sizeof(newer)), TE_STATUS_OK);
  EXPECT_EQ(newer.known.struct_size, sizeof(newer));
  EXPECT_EQ(newer.unknown, 0u);
  newer.known.kind = TE_FP8_RECIPE_BLOCK;
  te_fp8_recipe* recipe = nullptr;
  ASSERT_EQ(te_fp8_recipe_create(program.context(), &newer.known, &recipe), TE_STATUS_OK)
      << te_last_error_message();
  te_fp8_recipe_destroy(recipe);
  recipe = nullptr;
  newer.unknown = uint64_t{1} << 40;
  ExpectError(te_fp8_recipe_create(program.context(), &newer.known, &recipe),
              TE_STATUS_INVALID_ARGUMENT, "newer");
  EXPECT_EQ(recipe, nullptr);
}

// ---- Parameters ----

struct Parameter {
  const char* name;
  std::function<void(te_fp8_recipe_options*)> set;
  std::vector<int32_t> kinds;
};

const std::vector<Parameter>& AllParameters() {
  using Options = te_fp8_recipe_options;
  static const auto* const parameters = new std::vector<Parameter>{
      {"margin", [](Options* o) { o->margin = 0; }, {TE_FP8_RECIPE_DELAYED, TE_FP8_RECIPE_MXFP8}},
      {"fp8_format",
       [](Options* o) { o->fp8_format = TE_FP8_FORMAT_HYBRID; },
       {TE_FP8_RECIPE_DELAYED, TE_FP8_RECIPE_CURRENT, TE_FP8_RECIPE_BLOCK, TE_FP8_RECIPE_MXFP8}},
      {"amax_history_len", [](Options* o) { o->amax_history_len = 16; }, {TE_FP8_RECIPE_DELAYED}},
      {"amax_compute_algo",
       [](Options* o) { o->amax_compute_algo = TE_AMAX_COMPUTE_ALGO_MAX; },
       {TE_FP8_RECIPE_DELAYED}},
      {"reduce_amax", [](Options* o) { o->reduce_amax = 1; }, {TE_FP8_RECIPE_DELAYED}},
      {"fp8_dpa", [](Options* o) { o->fp8_dpa = 0; }, {TE_FP8_RECIPE_DELAYED}},
      {"use_power_2_scales",
       [](Options* o) { o->use_power_2_scales = 0; },
       {TE_FP8_RECIPE_CURRENT, TE_FP8_RECIPE_BLOCK}},
      {"amax_epsilon",
       [](Options* o) { o->amax_epsilon = 0; },
       {TE_FP8_RECIPE_CURRENT, TE_FP8_RECIPE_BLOCK}},
      {"enable_2d_quantization",
       [](Options* o) { o->enable_2d_quantization = 0; },
       {TE_FP8_RECIPE_MXFP8}},
      {"disable_rht", [](Options* o) { o->disable_rht = 0; }, {TE_FP8_RECIPE_NVFP4}},
      {"disable_stochastic_rounding",
       [](Options* o) { o->disable_stochastic_rounding = 0; },
       {TE_FP8_RECIPE_NVFP4}},
      {"disable_2d_quantization",
       [](Options* o) { o->disable_2d_quantization = 0; },
       {TE_FP8_RECIPE_NVFP4}},
      {"backward_override",
       [](Options* o) { o->backward_override = TE_BACKWARD_OVERRIDE_NONE; },
       {TE_FP8_RECIPE_DELAYED, TE_FP8_RECIPE_CURRENT, TE_FP8_RECIPE_BLOCK, TE_FP8_RECIPE_MXFP8,
        TE_FP8_RECIPE_NVFP4}},
      {"fp8_gemm_fprop_use_split_accumulator",
       [](Options* o) { o->fp8_gemm_fprop_use_split_accumulator = 1; },
       {TE_FP8_RECIPE_CURRENT, TE_FP8_RECIPE_BLOCK}},
      {"fp8_gemm_dgrad_use_split_accumulator",
       [](Options* o) { o->fp8_gemm_dgrad_use_split_accumulator = 1; },
       {TE_FP8_RECIPE_CURRENT, TE_FP8_RECIPE_BLOCK}},
      {"fp8_gemm_wgrad_use_split_accumulator",
       [](Options* o) { o->fp8_gemm_wgrad_use_split_accumulator = 1; },
       {TE_FP8_RECIPE_CURRENT, TE_FP8_RECIPE_BLOCK}},
      {"x_block_scaling_dim",
       [](Options* o) { o->x_block_scaling_dim = 1; },
       {TE_FP8_RECIPE_BLOCK}},
      {"w_block_scaling_dim",
       [](Options* o) { o->w_block_scaling_dim = 2; },
       {TE_FP8_RECIPE_BLOCK}},
      {"grad_block_scaling_dim",
       [](Options* o) { o->grad_block_scaling_dim = 1; },
       {TE_FP8_RECIPE_BLOCK}},
      {"row_scaled_activation",
       [](Options* o) { o->row_scaled_activation = 0; },
       {TE_FP8_RECIPE_NVFP4}},
      {"nvfp4_4over6", [](Options* o) { o->nvfp4_4over6 = TE_NVFP4_NONE; }, {TE_FP8_RECIPE_NVFP4}},
      {"nvfp4_4over6_e4m3_use_256",
       [](Options* o) { o->nvfp4_4over6_e4m3_use_256 = TE_NVFP4_ALL; },
       {TE_FP8_RECIPE_NVFP4}},
      {"nvfp4_4over6_err_mode",
       [](Options* o) { o->nvfp4_4over6_err_mode = TE_NVFP4_4OVER6_ERR_MODE_MAE; },
       {TE_FP8_RECIPE_NVFP4}},
  };
  return *parameters;
}

TEST(RecipeOptions, AParameterThatTheKindDoesNotHaveIsRefusedByName) {
  Program program;
  for (int32_t kind = TE_FP8_RECIPE_NONE; kind <= TE_FP8_RECIPE_NVFP4; ++kind) {
    for (const Parameter& parameter : AllParameters()) {
      SCOPED_TRACE(std::string(kKindNames[kind]) + ", " + parameter.name);
      te_fp8_recipe_options options = RecipeOptions(kind);
      parameter.set(&options);
      te_fp8_recipe* recipe = nullptr;
      const te_status status = te_fp8_recipe_create(program.context(), &options, &recipe);
      if (std::find(parameter.kinds.begin(), parameter.kinds.end(), kind) !=
          parameter.kinds.end()) {
        EXPECT_EQ(status, TE_STATUS_OK) << te_last_error_message();
        te_fp8_recipe_destroy(recipe);
        continue;
      }
      ExpectError(status, TE_STATUS_INVALID_ARGUMENT, std::string(parameter.name) + " is ");
      ExpectError(status, TE_STATUS_INVALID_ARGUMENT,
                  std::string("TE_FP8_RECIPE_") + kKindNames[kind]);
      EXPECT_EQ(recipe, nullptr);
    }
  }
}

TEST(RecipeOptions, ValuesOutOfRangeAreRefusedByName) {
  using Options = te_fp8_recipe_options;
  const struct {
    int32_t kind;
    std::function<void(Options*)> set;
    te_status status;
    const char* part;
  } cases[] = {
      {6, [](Options*) {}, TE_STATUS_UNSUPPORTED, "options->kind is 6"},
      {-1, [](Options*) {}, TE_STATUS_UNSUPPORTED, "options->kind is -1"},
      {1, [](Options* o) { o->reserved = 1; }, TE_STATUS_INVALID_ARGUMENT, "options->reserved is"},
      {1, [](Options* o) { o->reserved2 = 1; }, TE_STATUS_INVALID_ARGUMENT, "options->reserved2"},
      {1, [](Options* o) { o->margin = 101; }, TE_STATUS_INVALID_ARGUMENT, "margin is 101"},
      {1, [](Options* o) { o->fp8_format = 2; }, TE_STATUS_INVALID_ARGUMENT, "fp8_format is 2"},
      {1, [](Options* o) { o->amax_history_len = 0; }, TE_STATUS_INVALID_ARGUMENT,
       "amax_history_len is 0"},
      {1, [](Options* o) { o->amax_compute_algo = 2; }, TE_STATUS_INVALID_ARGUMENT,
       "amax_compute_algo is 2"},
      {1, [](Options* o) { o->reduce_amax = 2; }, TE_STATUS_INVALID_ARGUMENT,
       "options->reduce_amax is 2; expected 0 or 1"},
      {2, [](Options* o) { o->amax_epsilon = -2; }, TE_STATUS_INVALID_ARGUMENT,
       "amax_epsilon is -2"},
      {2, [](Options* o) { o->amax_epsilon = NAN; }, TE_STATUS_INVALID_ARGUMENT, "amax_epsilon"},
      {3, [](Options* o) { o->use_power_2_scales = -1; }, TE_STATUS_INVALID_ARGUMENT,
       "options->use_power_2_scales is -1"},
      {4, [](Options* o) { o->margin = 1; }, TE_STATUS_INVALID_ARGUMENT, "margin is 1"},
      {4, [](Options* o) { o->enable_2d_quantization = 3; }, TE_STATUS_INVALID_ARGUMENT,
       "options->enable_2d_quantization is 3"},
      {5, [](Options* o) { o->disable_rht = 2; }, TE_STATUS_INVALID_ARGUMENT,
       "options->disable_rht is 2"},
      {5, [](Options* o) { o->disable_stochastic_rounding = 2; }, TE_STATUS_INVALID_ARGUMENT,
       "options->disable_stochastic_rounding is 2"},
      {5, [](Options* o) { o->disable_2d_quantization = 2; }, TE_STATUS_INVALID_ARGUMENT,
       "options->disable_2d_quantization is 2"},
      {1, [](Options* o) { o->fp8_dpa = 2; }, TE_STATUS_INVALID_ARGUMENT,
       "options->fp8_dpa is 2; expected 0 or 1"},
      {1, [](Options* o) { o->backward_override = TE_BACKWARD_OVERRIDE_DEQUANTIZED; },
       TE_STATUS_INVALID_ARGUMENT,
       "DelayedScaling: backward_override is dequantized; expected none"},
      {2, [](Options* o) { o->backward_override = 3; }, TE_STATUS_INVALID_ARGUMENT,
       "backward_override is 3"},
      {2, [](Options* o) { o->fp8_gemm_dgrad_use_split_accumulator = 2; },
       TE_STATUS_INVALID_ARGUMENT, "options->fp8_gemm_dgrad_use_split_accumulator is 2"},
      {3, [](Options* o) { o->fp8_gemm_wgrad_use_split_accumulator = 0; },
       TE_STATUS_INVALID_ARGUMENT, "fp8_gemm_wgrad.use_split_accumulator is false"},
      {3, [](Options* o) { o->x_block_scaling_dim = 2; }, TE_STATUS_INVALID_ARGUMENT,
       "x_block_scaling_dim is 2, w_block_scaling_dim 2"},
      {3, [](Options* o) { o->grad_block_scaling_dim = 3; }, TE_STATUS_INVALID_ARGUMENT,
       "grad_block_scaling_dim is 3"},
      {5, [](Options* o) { o->row_scaled_activation = 1; }, TE_STATUS_INVALID_ARGUMENT,
       "row_scaled_activation is true and nvfp4_4over6 none; expected disable_rht true"},
      {5, [](Options* o) { o->nvfp4_4over6 = TE_NVFP4_ALL; }, TE_STATUS_INVALID_ARGUMENT,
       "nvfp4_4over6 all; expected disable_rht true"},
      {5, [](Options* o) { o->nvfp4_4over6 = 4; }, TE_STATUS_INVALID_ARGUMENT, "nvfp4_4over6 is 4"},
      {5, [](Options* o) { o->nvfp4_4over6_e4m3_use_256 = -1; }, TE_STATUS_INVALID_ARGUMENT,
       "nvfp4_4over6_e4m3_use_256 is -1"},
      {5, [](Options* o) { o->nvfp4_4over6_err_mode = 0; }, TE_STATUS_INVALID_ARGUMENT,
       "nvfp4_4over6_err_mode is 0"},
      {5, [](Options* o) { o->nvfp4_4over6_err_mode = TE_NVFP4_4OVER6_ERR_MODE_MSE; },
       TE_STATUS_INVALID_ARGUMENT, "nvfp4_4over6_err_mode MSE with nvfp4_4over6 none"},
  };
  Program program;
  for (const auto& c : cases) {
    te_fp8_recipe_options options = RecipeOptions(c.kind);
    c.set(&options);
    te_fp8_recipe* recipe = nullptr;
    ExpectError(te_fp8_recipe_create(program.context(), &options, &recipe), c.status, c.part);
    EXPECT_EQ(recipe, nullptr);
  }
}

TEST(RecipeOptions, UnsetParametersAreTransformerEnginesDefaultsAndSetOnesWork) {
  using Options = te_fp8_recipe_options;
  const struct {
    const char* what;
    int32_t kind;
    std::function<void(Options*)> set;
    bool differs;
  } cases[] = {
      {"delayed, its defaults", TE_FP8_RECIPE_DELAYED,
       [](Options* o) {
         o->margin = 0;
         o->fp8_format = TE_FP8_FORMAT_HYBRID;
         o->amax_history_len = 1024;
         o->amax_compute_algo = TE_AMAX_COMPUTE_ALGO_MAX;
         o->reduce_amax = 1;
         o->fp8_dpa = 0;
       },
       false},
      {"delayed, fp8_dpa of a layer without attention", TE_FP8_RECIPE_DELAYED,
       [](Options* o) { o->fp8_dpa = 1; }, false},
      {"delayed, margin", TE_FP8_RECIPE_DELAYED, [](Options* o) { o->margin = 12; }, true},
      {"delayed, fp8_format", TE_FP8_RECIPE_DELAYED,
       [](Options* o) { o->fp8_format = TE_FP8_FORMAT_E4M3; }, true},
      {"delayed, amax_history_len", TE_FP8_RECIPE_DELAYED,
       [](Options* o) { o->amax_history_len = 1; }, true},
      {"delayed, amax_compute_algo", TE_FP8_RECIPE_DELAYED,
       [](Options* o) { o->amax_compute_algo = TE_AMAX_COMPUTE_ALGO_MOST_RECENT; }, true},
      {"delayed, reduce_amax in a group of one", TE_FP8_RECIPE_DELAYED,
       [](Options* o) { o->reduce_amax = 0; }, false},
      {"current, its defaults", TE_FP8_RECIPE_CURRENT,
       [](Options* o) {
         o->fp8_format = TE_FP8_FORMAT_HYBRID;
         o->use_power_2_scales = 0;
         o->amax_epsilon = 0;
       },
       false},
      {"current, fp8_format", TE_FP8_RECIPE_CURRENT,
       [](Options* o) { o->fp8_format = TE_FP8_FORMAT_E4M3; }, true},
      {"current, use_power_2_scales", TE_FP8_RECIPE_CURRENT,
       [](Options* o) { o->use_power_2_scales = 1; }, true},
      {"current, amax_epsilon", TE_FP8_RECIPE_CURRENT, [](Options* o) { o->amax_epsilon = 77; },
       true},
      {"block, its defaults", TE_FP8_RECIPE_BLOCK,
       [](Options* o) {
         o->fp8_format = TE_FP8_FORMAT_E4M3;
         o->use_power_2_scales = 1;
         o->amax_epsilon = 0;
       },
       false},
      {"block, fp8_format", TE_FP8_RECIPE_BLOCK,
       [](Options* o) { o->fp8_format = TE_FP8_FORMAT_HYBRID; }, true},
      {"block, use_power_2_scales", TE_FP8_RECIPE_BLOCK,
       [](Options* o) { o->use_power_2_scales = 0; }, true},
      {"mxfp8, its defaults", TE_FP8_RECIPE_MXFP8,
       [](Options* o) {
         o->margin = 0;
         o->fp8_format = TE_FP8_FORMAT_E4M3;
         o->enable_2d_quantization = 0;
       },
       false},
      {"mxfp8, fp8_format", TE_FP8_RECIPE_MXFP8,
       [](Options* o) { o->fp8_format = TE_FP8_FORMAT_HYBRID; }, true},
      {"mxfp8, enable_2d_quantization", TE_FP8_RECIPE_MXFP8,
       [](Options* o) { o->enable_2d_quantization = 1; }, true},
      {"nvfp4, its defaults", TE_FP8_RECIPE_NVFP4,
       [](Options* o) {
         o->disable_rht = 0;
         o->disable_stochastic_rounding = 0;
         o->disable_2d_quantization = 0;
       },
       false},
      {"nvfp4, disable_rht", TE_FP8_RECIPE_NVFP4, [](Options* o) { o->disable_rht = 1; }, true},
      {"nvfp4, disable_stochastic_rounding", TE_FP8_RECIPE_NVFP4,
       [](Options* o) { o->disable_stochastic_rounding = 1; }, true},
      {"nvfp4, disable_2d_quantization", TE_FP8_RECIPE_NVFP4,
       [](Options* o) { o->disable_2d_quantization = 1; }, true},
      {"current, defaults since version 3", TE_FP8_RECIPE_CURRENT,
       [](Options* o) {
         o->backward_override = TE_BACKWARD_OVERRIDE_NONE;
         o->fp8_gemm_fprop_use_split_accumulator = 0;
         o->fp8_gemm_dgrad_use_split_accumulator = 1;
         o->fp8_gemm_wgrad_use_split_accumulator = 1;
       },
       false},
      {"current, high_precision", TE_FP8_RECIPE_CURRENT,
       [](Options* o) { o->backward_override = TE_BACKWARD_OVERRIDE_HIGH_PRECISION; }, true},
      {"mxfp8, dequantized", TE_FP8_RECIPE_MXFP8,
       [](Options* o) { o->backward_override = TE_BACKWARD_OVERRIDE_DEQUANTIZED; }, true},
      {"block, defaults since version 3", TE_FP8_RECIPE_BLOCK,
       [](Options* o) {
         o->x_block_scaling_dim = o->grad_block_scaling_dim = 1;
         o->w_block_scaling_dim = 2;
         o->fp8_gemm_fprop_use_split_accumulator = 1;
       },
       false},
      {"block, w_block_scaling_dim", TE_FP8_RECIPE_BLOCK,
       [](Options* o) { o->w_block_scaling_dim = 1; }, true},
      {"block, x_block_scaling_dim", TE_FP8_RECIPE_BLOCK,
       [](Options* o) {
         o->w_block_scaling_dim = 1;
         o->x_block_scaling_dim = 2;
       },
       true},
      {"block, grad_block_scaling_dim", TE_FP8_RECIPE_BLOCK,
       [](Options* o) {
         o->w_block_scaling_dim = 1;
         o->grad_block_scaling_dim = 2;
       },
       true},
      {"nvfp4, defaults since version 3", TE_FP8_RECIPE_NVFP4,
       [](Options* o) {
         o->row_scaled_activation = 0;
         o->nvfp4_4over6 = TE_NVFP4_NONE;
         o->nvfp4_4over6_e4m3_use_256 = TE_NVFP4_ALL;
         o->nvfp4_4over6_err_mode = TE_NVFP4_4OVER6_ERR_MODE_MAE;
       },
       false},
      {"nvfp4, nvfp4_4over6", TE_FP8_RECIPE_NVFP4,
       [](Options* o) { o->nvfp4_4over6 = TE_NVFP4_WEIGHTS; }, true},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.what);
    te_fp8_recipe_options options = RecipeOptions(c.kind);
    const Results unset = ThirdStep(options);
    c.set(&options);
    EXPECT_EQ(!(ThirdStep(options) == unset), c.differs);
  }
}

TEST(RecipeOptions, Fp8DpaQuantizesALayersAttention) {
  const auto step = [](int32_t fp8_dpa) {
    Program program(TE_LAYER_TRANSFORMER_LAYER, "layer");
    te_fp8_recipe_options options = RecipeOptions(TE_FP8_RECIPE_DELAYED);
    options.fp8_dpa = fp8_dpa;
    te_fp8_recipe* recipe = program.Recipe(options);
    program.Step(recipe, Program::Scope(true));
    return program.Step(recipe);
  };
  const Results without = step(0), with = step(1);
  ExpectQuantized(with.y, without.y, 0.1);
  EXPECT_FALSE(with.dx == without.dx);
}

// What each changes beside disable_rht, which they need.
TEST(RecipeOptions, NVFP4sOptionsOfInputsAndOfTheChoiceWork) {
  te_fp8_recipe_options options = RecipeOptions(TE_FP8_RECIPE_NVFP4);
  options.disable_rht = 1;
  options.disable_stochastic_rounding = 1;
  const Results plain = ThirdStep(options);
  te_fp8_recipe_options rows = options;
  rows.row_scaled_activation = 1;
  EXPECT_FALSE(ThirdStep(rows) == plain);
  options.nvfp4_4over6 = TE_NVFP4_ALL;
  const Results all = ThirdStep(options);
  EXPECT_FALSE(all == plain);
  te_fp8_recipe_options other = options;
  other.nvfp4_4over6_err_mode = TE_NVFP4_4OVER6_ERR_MODE_MSE;
  EXPECT_FALSE(ThirdStep(other) == all);
  other = options;
  other.nvfp4_4over6_e4m3_use_256 = TE_NVFP4_NONE;
  EXPECT_FALSE(ThirdStep(other) == all);
  other = options;
  other.nvfp4_4over6 = TE_NVFP4_ACTIVATIONS;
  EXPECT_FALSE(ThirdStep(other) == all);
}

}  // namespace
}  // namespace te_test
