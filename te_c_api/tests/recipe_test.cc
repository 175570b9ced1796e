// FP8 recipes and quantization scopes through the C ABI.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "te/te.h"

namespace {

using Values = std::vector<float>;

constexpr const char* kKindNames[] = {"NONE", "DELAYED", "CURRENT", "BLOCK", "MXFP8", "NVFP4"};

void ExpectError(te_status got, te_status expected, const std::string& part) {
  EXPECT_EQ(got, expected) << te_last_error_message();
  EXPECT_NE(std::string(te_last_error_message()).find(part), std::string::npos)
      << "'" << part << "' is not in: " << te_last_error_message();
}
void Must(te_status status) { ASSERT_EQ(status, TE_STATUS_OK) << te_last_error_message(); }

uint16_t ToBFloat16(float value) {  // truncated: the values of tests need not be round
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return static_cast<uint16_t>(bits >> 16);
}
float FromBFloat16(uint16_t value) {
  const uint32_t bits = uint32_t{value} << 16;
  float out;
  std::memcpy(&out, &bits, sizeof(out));
  return out;
}

// Uniform in [-scale, scale).
Values Uniform(size_t count, uint32_t seed, float scale) {
  Values out(count);
  for (float& value : out) {
    seed = seed * 1664525u + 1013904223u;
    value = scale * (static_cast<float>(seed >> 8) / 8388608.0f - 1);
  }
  return out;
}

// 2-norm of the difference over the 2-norm.
double Error(const Values& got, const Values& want) {
  double sum = 0, norm = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    sum += std::pow(got[i] - want[i], 2);
    norm += std::pow(want[i], 2);
  }
  return std::sqrt(sum / norm);
}

// Near, but not the same; and a result with one wrong value would not be near.
void ExpectQuantized(const Values& got, const Values& want, double bound) {
  ASSERT_EQ(got.size(), want.size());
  const double error = Error(got, want);
  EXPECT_LT(error, bound);
  EXPECT_GT(error, 1e-3) << "nothing was quantized";
  double norm = 0;
  for (float value : want) norm += double{value} * value;
  Values wrong = got;
  wrong[wrong.size() / 2] += static_cast<float>(2 * bound * std::sqrt(norm));
  EXPECT_GT(Error(wrong, want), bound);
}

struct Results {
  Values y, dx, dweight;
  friend bool operator==(const Results& a, const Results& b) {
    return a.y == b.y && a.dx == b.dx && a.dweight == b.dweight;
  }
};

te_fp8_recipe_options RecipeOptions(int32_t kind) {
  te_fp8_recipe_options options;
  Must(te_fp8_recipe_options_init(&options));
  options.kind = kind;
  return options;
}

// A context with one bfloat16 layer: a Linear, or a TransformerLayer of the same width.
class Program {
 public:
  static constexpr int64_t kTokens = 32, kHidden = 64;

  explicit Program(int32_t kind = TE_LAYER_LINEAR, const char* name = "model.fc1") {
    te_context_options context_options;
    Must(te_context_options_init(&context_options));
    context_options.num_threads = 1;
    context_options.seed = 11;
    Must(te_context_create(&context_options, &context_));
    te_layer_options options;
    Must(te_layer_options_init(&options));
    options.kind = kind;
    options.name = name;
    options.params_dtype = TE_DTYPE_BFLOAT16;
    options.bias = 0;
    if (kind == TE_LAYER_LINEAR) {
      options.in_features = options.out_features = kHidden;
    } else {
      options.hidden_size = kHidden;
      options.ffn_hidden_size = 96;
      options.num_attention_heads = 4;
      options.normalization = TE_NORMALIZATION_RMSNORM;
      options.activation = TE_ACTIVATION_SWIGLU;
      options.hidden_dropout = options.attention_dropout = 0;
      options.init_method_std = 0.1;  // attention scores of some 0.6: the softmax adds little
    }
    Must(te_layer_create(context_, &options, &layer_));
    const bool linear = kind == TE_LAYER_LINEAR;
    weight_name_ = linear ? "weight" : "layernorm_mlp.fc2_weight";
    const std::vector<int64_t> shape =
        linear ? std::vector<int64_t>{kTokens, kHidden} : std::vector<int64_t>{kTokens, 1, kHidden};
    for (te_tensor** tensor : {&x_, &y_, &dy_, &dx_}) {
      Must(te_tensor_create(context_, TE_DTYPE_BFLOAT16, static_cast<int32_t>(shape.size()),
                            shape.data(), tensor));
    }
    Write(dy_, Uniform(kElements, 3, 1e-3f));
    SetInput(1);
  }
  ~Program() {
    for (te_fp8_recipe* recipe : recipes_) te_fp8_recipe_destroy(recipe);
    for (te_tensor* tensor : {x_, y_, dy_, dx_}) te_tensor_destroy(tensor);
    te_layer_destroy(layer_);
    te_context_destroy(context_);
  }
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  te_context* context() { return context_; }

  te_fp8_recipe* Recipe(const te_fp8_recipe_options& options) {
    te_fp8_recipe* recipe = NewRecipe(options);
    recipes_.push_back(recipe);
    return recipe;
  }
  te_fp8_recipe* Recipe(int32_t kind) { return Recipe(RecipeOptions(kind)); }
  // The caller's to destroy.
  te_fp8_recipe* NewRecipe(const te_fp8_recipe_options& options) {
    te_fp8_recipe* recipe = nullptr;
    EXPECT_EQ(te_fp8_recipe_create(context_, &options, &recipe), TE_STATUS_OK)
        << te_last_error_message();
    return recipe;
  }

  void SetInput(float scale) { Write(x_, Uniform(kElements, 2, scale)); }
  // Row r of a Linear's weight is of size 2^-(r mod 16): no two rows share a scale without loss.
  void SpreadWeights() {
    Values values = Uniform(size_t{kHidden * kHidden}, 4, 1);
    for (size_t i = 0; i < values.size(); ++i)
      values[i] = std::ldexp(values[i], -static_cast<int>(i / kHidden % 16));
    const int64_t shape[2] = {kHidden, kHidden};
    te_tensor* tensor = nullptr;
    Must(te_tensor_create(context_, TE_DTYPE_BFLOAT16, 2, shape, &tensor));
    Write(tensor, values);
    Must(te_layer_set_parameter(layer_, 0, tensor));
    te_tensor_destroy(tensor);
  }
  static te_quantization_options Scope(bool calibrating = false, bool first = true,
                                       bool training = true) {
    te_quantization_options scope;
    Must(te_quantization_options_init(&scope));
    scope.calibrating = calibrating;
    scope.is_first_microbatch = first;
    scope.training = training;
    return scope;
  }
  void Begin(te_fp8_recipe* recipe, const te_quantization_options& scope) {
    Must(te_quantization_begin(context_, recipe, &scope));
  }
  void End() { Must(te_quantization_end(context_)); }

  te_status TryForward(te_saved** saved) {
    te_forward_args args;
    Must(te_forward_args_init(&args));
    args.input = x_;
    args.output = y_;
    return te_forward(layer_, &args, saved);
  }
  Values Forward(te_saved** saved) {
    Must(TryForward(saved));
    return Read(y_, kElements);
  }
  void Backward(te_saved* saved, Results* out) {
    te_backward_args args;
    Must(te_backward_args_init(&args));
    args.doutput = dy_;
    args.dinput = dx_;
    Must(te_backward(layer_, saved, &args));
    out->dx = Read(dx_, kElements);
    int64_t index = -1;
    Must(te_layer_parameter_index(layer_, weight_name_, &index));
    te_tensor* view = nullptr;
    Must(te_layer_gradient(layer_, index, &view));
    int64_t shape[2];
    Must(te_tensor_shape(view, 2, shape));
    out->dweight = Read(view, static_cast<size_t>(shape[0] * shape[1]));
    te_tensor_destroy(view);
    te_saved_destroy(saved);
  }
  // Forward in a scope (recipe NULL: none), backward behind it.
  Results Step(te_fp8_recipe* recipe, const te_quantization_options& scope = Scope()) {
    Results out;
    te_saved* saved = nullptr;
    if (recipe != nullptr) Begin(recipe, scope);
    out.y = Forward(&saved);
    if (recipe != nullptr) End();
    Backward(saved, &out);
    return out;
  }
  Values Evaluate(te_fp8_recipe* recipe) {
    if (recipe != nullptr) Begin(recipe, Scope(false, true, false));
    Values out = Forward(nullptr);
    if (recipe != nullptr) End();
    return out;
  }

 private:
  static constexpr size_t kElements = size_t{kTokens * kHidden};

  static void Write(te_tensor* tensor, const Values& values) {
    std::vector<uint16_t> bits;
    for (float value : values) bits.push_back(ToBFloat16(value));
    Must(te_tensor_write(tensor, bits.data(), bits.size() * sizeof(uint16_t)));
  }
  static Values Read(const te_tensor* tensor, size_t count) {
    std::vector<uint16_t> bits(count);
    Must(te_tensor_read(tensor, bits.data(), count * sizeof(uint16_t)));
    Values out;
    for (uint16_t value : bits) out.push_back(FromBFloat16(value));
    return out;
  }

  te_context* context_ = nullptr;
  te_layer* layer_ = nullptr;
  te_tensor *x_ = nullptr, *y_ = nullptr, *dy_ = nullptr, *dx_ = nullptr;
  const char* weight_name_ = nullptr;
  std::vector<te_fp8_recipe*> recipes_;
};

// The third step, with weights of many sizes, of a program whose first one, calibrating, saw five
// times the input.
Results ThirdStep(const te_fp8_recipe_options& options) {
  Program program;
  program.SpreadWeights();
  te_fp8_recipe* recipe = program.Recipe(options);
  program.SetInput(5);
  program.Step(recipe, Program::Scope(true));
  program.SetInput(1);
  program.Step(recipe);
  return program.Step(recipe);
}

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

TEST(RecipeOptions, AStructOfVersion1GetsTheKindsDefaults) {
  for (int32_t kind = TE_FP8_RECIPE_DELAYED; kind <= TE_FP8_RECIPE_NVFP4; ++kind) {
    SCOPED_TRACE(kKindNames[kind]);
    te_fp8_recipe_options old = RecipeOptions(kind);
    std::memset(reinterpret_cast<char*>(&old) + 16, 0xa5, sizeof(old) - 16);  // must not be read
    old.struct_size = 16;
    EXPECT_TRUE(ThirdStep(old) == ThirdStep(RecipeOptions(kind)));
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
       },
       false},
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
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.what);
    te_fp8_recipe_options options = RecipeOptions(c.kind);
    const Results unset = ThirdStep(options);
    c.set(&options);
    EXPECT_EQ(!(ThirdStep(options) == unset), c.differs);
  }
}

// ---- Scopes ----

// A cast to E4M3 errs by up to 2^-4 of a value, with a root mean square of some 0.026; products of
// two such values by 0.037, and sums of independent ones as well; E5M2 doubles one of the two.
// E2M1 has steps of up to 1/3 of a value.
double LinearBound(int32_t kind) { return kind == TE_FP8_RECIPE_NVFP4 ? 0.25 : 0.08; }

TEST(Quantization, ACalibratedLinearIsNearTheOneInItsOwnDtype) {
  for (int32_t kind = TE_FP8_RECIPE_DELAYED; kind <= TE_FP8_RECIPE_NVFP4; ++kind) {
    SCOPED_TRACE(kKindNames[kind]);
    Program program;
    const Results plain = program.Step(nullptr);
    te_fp8_recipe* recipe = program.Recipe(kind);
    EXPECT_TRUE(program.Step(recipe, Program::Scope(true)) == plain) << "calibrating quantizes";
    const Results quantized = program.Step(recipe);
    ExpectQuantized(quantized.y, plain.y, LinearBound(kind));
    ExpectQuantized(quantized.dx, plain.dx, LinearBound(kind));
    ExpectQuantized(quantized.dweight, plain.dweight, LinearBound(kind));
    EXPECT_TRUE(program.Step(nullptr) == plain) << "outside the scope";
  }
}

TEST(Quantization, ACalibratedTransformerLayerIsNearTheOneInItsOwnDtype) {
  for (int32_t kind = TE_FP8_RECIPE_DELAYED; kind <= TE_FP8_RECIPE_MXFP8; ++kind) {
    SCOPED_TRACE(kKindNames[kind]);
    Program program(TE_LAYER_TRANSFORMER_LAYER, "layer");
    const Results plain = program.Step(nullptr);
    te_fp8_recipe* recipe = program.Recipe(kind);
    EXPECT_TRUE(program.Step(recipe, Program::Scope(true)) == plain) << "calibrating quantizes";
    const Results quantized = program.Step(recipe);
    // Four quantized products behind each other forward (0.037 each), as many backward (with E5M2
    // 0.059), which go by activations that are products of two forward ones: independent errors
    // add in squares, 4 * 0.059^2 + 2 * 4 * 0.037^2 = 0.157^2.
    ExpectQuantized(quantized.y, plain.y, 0.157);
    ExpectQuantized(quantized.dx, plain.dx, 0.157);
    ExpectQuantized(quantized.dweight, plain.dweight, 0.157);
  }
}

// Scale 1 casts inputs of 1e-3 to E4M3's smallest steps (2^-9): calibration is what makes the
// first quantized step good.
TEST(Quantization, CalibrationIsWhatMakesTheFirstScales) {
  Program calibrated, raw;
  for (Program* program : {&calibrated, &raw}) program->SetInput(1e-3f);
  te_fp8_recipe* recipe = calibrated.Recipe(TE_FP8_RECIPE_DELAYED);
  const Results plain = calibrated.Step(recipe, Program::Scope(true));
  EXPECT_LT(Error(calibrated.Step(recipe).y, plain.y), LinearBound(TE_FP8_RECIPE_DELAYED));
  EXPECT_GT(Error(raw.Step(raw.Recipe(TE_FP8_RECIPE_DELAYED)).y, plain.y),
            2 * LinearBound(TE_FP8_RECIPE_DELAYED));
}

TEST(Quantization, ContradictoryScopesAreRefused) {
  Program program;
  te_fp8_recipe* recipe = program.Recipe(TE_FP8_RECIPE_DELAYED);
  const te_quantization_options evaluation = Program::Scope(true, true, false);
  ExpectError(te_quantization_begin(program.context(), recipe, &evaluation),
              TE_STATUS_INVALID_ARGUMENT, "options->calibrating is 1 and options->training is 0");
  te_saved* saved = nullptr;
  program.Begin(recipe, Program::Scope(false, true, false));
  ExpectError(program.TryForward(&saved), TE_STATUS_FAILED_PRECONDITION, "saved is not NULL");
  EXPECT_EQ(saved, nullptr);
  program.Begin(program.Recipe(TE_FP8_RECIPE_NONE), Program::Scope(false, true, false));
  EXPECT_EQ(program.TryForward(&saved), TE_STATUS_OK) << te_last_error_message();
  te_saved_destroy(saved);
  program.End();
  program.End();
  te_quantization_options scope = Program::Scope();
  scope.is_first_microbatch = 2;
  ExpectError(te_quantization_begin(program.context(), recipe, &scope), TE_STATUS_INVALID_ARGUMENT,
              "is_first_microbatch is 2");
  EXPECT_EQ(te_quantization_end(program.context()), TE_STATUS_FAILED_PRECONDITION)
      << "a refused scope has not begun";
}

TEST(Quantization, TheInnermostScopeCountsAndScalesMoveAtTheOutermostEnd) {
  Program nested, flat, separate;
  const auto forward = [](Program* program) {
    te_saved* saved = nullptr;
    Values y = program->Forward(&saved);
    te_saved_destroy(saved);
    return y;
  };
  const auto begin = [](Program* program, int32_t kind) {
    program->Begin(program->Recipe(kind), Program::Scope());
  };
  for (Program* program : {&nested, &flat, &separate}) program->SetInput(1e-3f);
  const Values plain = forward(&nested);
  begin(&nested, TE_FP8_RECIPE_DELAYED);
  begin(&nested, TE_FP8_RECIPE_DELAYED);
  const Values first = forward(&nested);
  nested.End();
  begin(&nested, TE_FP8_RECIPE_NONE);
  EXPECT_EQ(forward(&nested), plain);
  nested.End();
  EXPECT_NE(first, plain);
  EXPECT_EQ(forward(&nested), first) << "an inner scope's end has moved a scale";
  nested.End();
  EXPECT_EQ(forward(&nested), plain);

  begin(&flat, TE_FP8_RECIPE_DELAYED);
  EXPECT_EQ(forward(&flat), first);
  EXPECT_EQ(forward(&flat), first);
  flat.End();
  begin(&flat, TE_FP8_RECIPE_DELAYED);
  const Values second = forward(&flat);
  EXPECT_NE(second, first) << "the outermost scope's end has moved no scale";
  flat.End();
  begin(&nested, TE_FP8_RECIPE_DELAYED);
  EXPECT_EQ(forward(&nested), second);
  nested.End();
}

TEST(Quantization, LaterMicroBatchesReuseTheWeightsOfTheFirst) {
  Values y[2];
  for (const bool first : {false, true}) {
    Program program;
    te_fp8_recipe* recipe = program.Recipe(TE_FP8_RECIPE_DELAYED);
    program.Step(recipe);  // the weight is cast with scale 1; then its scale moves
    y[first] = program.Step(recipe, Program::Scope(false, first)).y;
  }
  EXPECT_NE(y[0], y[1]);
}

TEST(Quantization, EvaluationLeavesNoTrace) {
  enum { kNothing, kEvaluation, kTraining };
  const auto run = [](int between) {
    Program program;
    te_fp8_recipe* recipe = program.Recipe(TE_FP8_RECIPE_DELAYED);
    program.Step(recipe, Program::Scope(true));
    program.SetInput(7);
    if (between == kEvaluation) {
      program.Evaluate(recipe);
      program.Begin(recipe, Program::Scope());
      program.Forward(nullptr);  // inference in a training scope: no trace of its input, either
      program.End();
    }
    if (between == kTraining) program.Step(recipe);
    program.SetInput(1);
    program.Step(recipe);
    return program.Step(recipe);
  };
  const Results alone = run(kNothing);
  EXPECT_TRUE(run(kEvaluation) == alone);
  EXPECT_FALSE(run(kTraining) == alone);
}

TEST(Quantization, TwoContextsShareNothing) {
  const Results alone = ThirdStep(RecipeOptions(TE_FP8_RECIPE_DELAYED));
  Program a, b;
  a.SpreadWeights();
  te_fp8_recipe* recipe = a.Recipe(TE_FP8_RECIPE_DELAYED);
  const te_quantization_options scope = Program::Scope();
  ExpectError(te_quantization_begin(b.context(), recipe, &scope), TE_STATUS_INVALID_ARGUMENT,
              "recipe belongs to another context");
  te_fp8_recipe* other = b.Recipe(TE_FP8_RECIPE_DELAYED);
  b.Begin(other, scope);
  b.SetInput(300);
  a.SetInput(5);
  a.Step(recipe, Program::Scope(true));
  b.Forward(nullptr);
  b.End();
  a.SetInput(1);
  a.Step(recipe);
  b.Step(other);
  EXPECT_TRUE(a.Step(recipe) == alone);

  Results results[2];
  std::vector<std::thread> threads;
  for (Results& result : results) {
    threads.emplace_back([&result] { result = ThirdStep(RecipeOptions(TE_FP8_RECIPE_DELAYED)); });
  }
  for (std::thread& thread : threads) thread.join();
  for (const Results& result : results) EXPECT_TRUE(result == alone);
}

TEST(Quantization, ARepeatedStepAllocatesNothing) {
  Program program;
  te_fp8_recipe* recipe = program.Recipe(TE_FP8_RECIPE_DELAYED);
  int64_t before = 0, after = 0;
  for (int step = 0; step < 5; ++step) {
    if (step == 3) Must(te_context_memory(program.context(), nullptr, nullptr, &before));
    program.Step(recipe, Program::Scope(step == 0));
  }
  Must(te_context_memory(program.context(), nullptr, nullptr, &after));
  EXPECT_EQ(after, before);
}

// ---- Rules ----

TEST(Rules, ChooseByNameSeparatelyForTrainingAndEvaluationAndTheFirstMatchWins) {
  Program program;
  const Results plain = program.Step(nullptr);
  const Values plain_evaluation = program.Evaluate(nullptr);
  const Results current = program.Step(program.Recipe(TE_FP8_RECIPE_CURRENT));
  const Values block_evaluation = program.Evaluate(program.Recipe(TE_FP8_RECIPE_BLOCK));
  ASSERT_FALSE(current == plain);
  ASSERT_NE(block_evaluation, plain_evaluation);

  te_fp8_recipe* recipe = program.Recipe(TE_FP8_RECIPE_NONE);
  EXPECT_TRUE(program.Step(recipe) == plain);
  te_fp8_recipe* rules[2] = {program.NewRecipe(RecipeOptions(TE_FP8_RECIPE_CURRENT)),
                             program.NewRecipe(RecipeOptions(TE_FP8_RECIPE_BLOCK))};
  Must(te_fp8_recipe_add_rule(recipe, "*.fc2", rules[1], rules[1]));  // another module's
  EXPECT_TRUE(program.Step(recipe) == plain);
  Must(te_fp8_recipe_add_rule(recipe, "*.fc1", rules[0], nullptr));
  Must(te_fp8_recipe_add_rule(recipe, "model.*", nullptr, rules[1]));  // too late for fc1
  for (te_fp8_recipe* rule : rules) te_fp8_recipe_destroy(rule);
  EXPECT_TRUE(program.Step(recipe) == current);
  EXPECT_EQ(program.Evaluate(recipe), plain_evaluation);

  te_fp8_recipe* excluded = program.Recipe(TE_FP8_RECIPE_CURRENT);
  te_fp8_recipe* block = program.Recipe(TE_FP8_RECIPE_BLOCK);
  Must(te_fp8_recipe_add_rule(excluded, "model.fc?", nullptr, block));
  EXPECT_TRUE(program.Step(excluded) == plain);
  EXPECT_EQ(program.Evaluate(excluded), block_evaluation);
}

TEST(Rules, OfALayersModules) {
  const auto run = [](const char* pattern) {
    Program program(TE_LAYER_TRANSFORMER_LAYER, "layer");
    te_fp8_recipe* recipe = program.Recipe(TE_FP8_RECIPE_CURRENT);
    if (pattern != nullptr) Must(te_fp8_recipe_add_rule(recipe, pattern, nullptr, nullptr));
    return program.Step(recipe);
  };
  Program program(TE_LAYER_TRANSFORMER_LAYER, "layer");
  const Results plain = program.Step(nullptr), all = run(nullptr);
  EXPECT_TRUE(run("layer.*") == plain);
  EXPECT_TRUE(run("fc2") == all) << "the whole name has to match";
  for (const char* pattern : {"layer.layernorm_mlp.fc2", "layer.layernorm_mlp.fc1",
                              "layer.self_attention.proj", "*.layernorm_qkv"}) {
    const Results without = run(pattern);
    EXPECT_FALSE(without == all) << pattern;
    EXPECT_FALSE(without == plain) << pattern;
  }
}

TEST(Rules, AScopeThatHasBegunDoesNotSeeANewOne) {
  Program program;
  const Results plain = program.Step(nullptr);
  te_fp8_recipe* recipe = program.Recipe(TE_FP8_RECIPE_CURRENT);
  const Results current = program.Step(recipe);
  Results inside;
  te_saved* saved = nullptr;
  program.Begin(recipe, Program::Scope());
  Must(te_fp8_recipe_add_rule(recipe, "*", nullptr, nullptr));
  inside.y = program.Forward(&saved);
  program.End();
  program.Backward(saved, &inside);
  EXPECT_TRUE(inside == current);
  EXPECT_TRUE(program.Step(recipe) == plain);
}

TEST(Rules, AreCheckedByName) {
  Program program, other;
  te_fp8_recipe* recipe = program.Recipe(TE_FP8_RECIPE_CURRENT);
  te_fp8_recipe* foreign = other.Recipe(TE_FP8_RECIPE_CURRENT);
  const Results before = program.Step(recipe);
  ExpectError(te_fp8_recipe_add_rule(nullptr, "*", nullptr, nullptr), TE_STATUS_INVALID_ARGUMENT,
              "recipe is NULL");
  ExpectError(te_fp8_recipe_add_rule(recipe, nullptr, nullptr, nullptr), TE_STATUS_INVALID_ARGUMENT,
              "pattern is NULL");
  ExpectError(te_fp8_recipe_add_rule(recipe, "", nullptr, nullptr), TE_STATUS_INVALID_ARGUMENT,
              "pattern is ''");
  ExpectError(te_fp8_recipe_add_rule(recipe, "*", foreign, nullptr), TE_STATUS_INVALID_ARGUMENT,
              "training_recipe belongs to another context");
  ExpectError(te_fp8_recipe_add_rule(recipe, "*", nullptr, foreign), TE_STATUS_INVALID_ARGUMENT,
              "evaluation_recipe belongs to another context");
  ExpectError(te_fp8_recipe_add_rule(recipe, "*",
                                     reinterpret_cast<te_fp8_recipe*>(program.context()), nullptr),
              TE_STATUS_INVALID_ARGUMENT, "training_recipe is no te_fp8_recipe");
  EXPECT_TRUE(program.Step(recipe) == before) << "a refused rule has been added";
}

// ---- Lifetime ----

TEST(Quantization, ARecipeMayBeDestroyedBeforeTheScopeEndsAndTheBackwardPassRuns) {
  Program kept_program;
  te_fp8_recipe* kept = kept_program.Recipe(TE_FP8_RECIPE_NONE);
  Must(
      te_fp8_recipe_add_rule(kept, "model.*", kept_program.Recipe(TE_FP8_RECIPE_CURRENT), nullptr));
  const Results want = kept_program.Step(kept);

  Program program;
  te_fp8_recipe* recipe = program.NewRecipe(RecipeOptions(TE_FP8_RECIPE_NONE));
  te_fp8_recipe* rule = program.NewRecipe(RecipeOptions(TE_FP8_RECIPE_CURRENT));
  Must(te_fp8_recipe_add_rule(recipe, "model.*", rule, nullptr));
  te_fp8_recipe_destroy(rule);
  Results got;
  te_saved* saved = nullptr;
  program.Begin(recipe, Program::Scope());
  te_fp8_recipe_destroy(recipe);
  got.y = program.Forward(&saved);
  program.End();
  // Memory of the recipe's size is taken again: a backward pass that reads a freed one reads this.
  std::vector<std::unique_ptr<unsigned char[]>> others;
  for (size_t size = 16; size <= 512; size += 8) {
    others.push_back(std::make_unique<unsigned char[]>(size));
    std::memset(others.back().get(), 0, size);
  }
  program.Backward(saved, &got);
  EXPECT_TRUE(got == want);
}

}  // namespace
