// A small program under FP8 recipes, for the tests of recipes and scopes.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "te/te.h"

namespace te_test {

using Values = std::vector<float>;

inline constexpr const char* kKindNames[] = {"NONE",  "DELAYED", "CURRENT",
                                             "BLOCK", "MXFP8",   "NVFP4"};

inline void ExpectError(te_status got, te_status expected, const std::string& part) {
  EXPECT_EQ(got, expected) << te_last_error_message();
  EXPECT_NE(std::string(te_last_error_message()).find(part), std::string::npos)
      << "'" << part << "' is not in: " << te_last_error_message();
}
inline void Must(te_status status) { ASSERT_EQ(status, TE_STATUS_OK) << te_last_error_message(); }

inline uint16_t ToBFloat16(float value) {  // truncated: the values of tests need not be round
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return static_cast<uint16_t>(bits >> 16);
}
inline float FromBFloat16(uint16_t value) {
  const uint32_t bits = uint32_t{value} << 16;
  float out;
  std::memcpy(&out, &bits, sizeof(out));
  return out;
}

// Uniform in [-scale, scale).
inline Values Uniform(size_t count, uint32_t seed, float scale) {
  Values out(count);
  for (float& value : out) {
    seed = seed * 1664525u + 1013904223u;
    value = scale * (static_cast<float>(seed >> 8) / 8388608.0f - 1);
  }
  return out;
}

// 2-norm of the difference over the 2-norm.
inline double Error(const Values& got, const Values& want) {
  double sum = 0, norm = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    sum += std::pow(got[i] - want[i], 2);
    norm += std::pow(want[i], 2);
  }
  return std::sqrt(sum / norm);
}

// Near, but not the same; and a result with one wrong value would not be near.
inline void ExpectQuantized(const Values& got, const Values& want, double bound) {
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

inline te_fp8_recipe_options RecipeOptions(int32_t kind) {
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
inline Results ThirdStep(const te_fp8_recipe_options& options) {
  Program program;
  program.SpreadWeights();
  te_fp8_recipe* recipe = program.Recipe(options);
  program.SetInput(5);
  program.Step(recipe, Program::Scope(true));
  program.SetInput(1);
  program.Step(recipe);
  return program.Step(recipe);
}

}  // namespace te_test
