// Layers through the C ABI: parameters, forward, backward, optimizer, and what happens on misuse.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <thread>
#include <vector>

#include "te/te.h"

namespace {

class LayerTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(te_context_create(nullptr, &context_), TE_STATUS_OK) << te_last_error_message();
  }
  void TearDown() override {
    for (te_tensor* tensor : tensors_) te_tensor_destroy(tensor);
    te_layer_destroy(layer_);
    te_context_destroy(context_);
  }

  te_layer_options Options(int32_t kind) {
    te_layer_options options;
    EXPECT_EQ(te_layer_options_init(&options), TE_STATUS_OK);
    options.kind = kind;
    return options;
  }
  void Create(const te_layer_options& options) {
    ASSERT_EQ(te_layer_create(context_, &options, &layer_), TE_STATUS_OK)
        << te_last_error_message();
  }
  // y = x W^T + b with W = [[1, 2], [3, 4], [5, 6]], b = [10, 20, 30].
  void CreateLinear() {
    te_layer_options options = Options(TE_LAYER_LINEAR);
    options.in_features = 2;
    options.out_features = 3;
    Create(options);
    float weight[6] = {1, 2, 3, 4, 5, 6}, bias[3] = {10, 20, 30};
    ASSERT_EQ(te_layer_set_parameter(layer_, Index("weight"), Borrow(weight, {3, 2})), TE_STATUS_OK)
        << te_last_error_message();
    ASSERT_EQ(te_layer_set_parameter(layer_, Index("bias"), Borrow(bias, {3})), TE_STATUS_OK)
        << te_last_error_message();
  }
  int64_t Index(const char* name) {
    int64_t index = -1;
    EXPECT_EQ(te_layer_parameter_index(layer_, name, &index), TE_STATUS_OK)
        << te_last_error_message();
    return index;
  }
  te_tensor* Borrow(void* data, std::vector<int64_t> shape, te_dtype dtype = TE_DTYPE_FLOAT32) {
    te_tensor* tensor = nullptr;
    EXPECT_EQ(te_tensor_borrow(context_, dtype, static_cast<int32_t>(shape.size()), shape.data(),
                               nullptr, data, &tensor),
              TE_STATUS_OK);
    tensors_.push_back(tensor);
    return tensor;
  }
  te_saved* Forward(te_tensor* x, te_tensor* y) {
    te_forward_args args;
    EXPECT_EQ(te_forward_args_init(&args), TE_STATUS_OK);
    args.input = x;
    args.output = y;
    te_saved* saved = nullptr;
    EXPECT_EQ(te_forward(layer_, &args, &saved), TE_STATUS_OK) << te_last_error_message();
    return saved;
  }
  te_backward_args Backward(te_tensor* dy, te_tensor* dx = nullptr) {
    te_backward_args args;
    EXPECT_EQ(te_backward_args_init(&args), TE_STATUS_OK);
    args.doutput = dy;
    args.dinput = dx;
    return args;
  }
  std::vector<float> Gradient(const char* name) {
    te_tensor* view = nullptr;
    EXPECT_EQ(te_layer_gradient(layer_, Index(name), &view), TE_STATUS_OK)
        << te_last_error_message();
    tensors_.push_back(view);
    int64_t dims[TE_MAX_RANK];
    int32_t rank = 0;
    EXPECT_EQ(te_tensor_rank(view, &rank), TE_STATUS_OK);
    EXPECT_EQ(te_tensor_shape(view, TE_MAX_RANK, dims), TE_STATUS_OK);
    size_t count = 1;
    for (int32_t i = 0; i < rank; ++i) count *= static_cast<size_t>(dims[i]);
    std::vector<float> values(count);
    EXPECT_EQ(te_tensor_read(view, values.data(), count * sizeof(float)), TE_STATUS_OK)
        << te_last_error_message();
    return values;
  }
  static void ExpectError(te_status got, te_status expected, const std::string& part) {
    EXPECT_EQ(got, expected) << te_last_error_message();
    EXPECT_NE(std::string(te_last_error_message()).find(part), std::string::npos)
        << te_last_error_message();
  }

  te_context* context_ = nullptr;
  te_layer* layer_ = nullptr;
  std::vector<te_tensor*> tensors_;
};

TEST_F(LayerTest, LinearForwardAndBackwardByHand) {
  CreateLinear();
  float x[4] = {1, 1, 2, -1}, y[6] = {}, dy[6] = {1, 0, 0, 0, 1, 2}, dx[4] = {};
  te_saved* saved = Forward(Borrow(x, {2, 2}), Borrow(y, {2, 3}));
  const float want_y[6] = {13, 27, 41, 10, 22, 34};
  for (int i = 0; i < 6; ++i) EXPECT_EQ(y[i], want_y[i]) << i;
  te_backward_args args = Backward(Borrow(dy, {2, 3}), Borrow(dx, {2, 2}));
  ASSERT_EQ(te_backward(layer_, saved, &args), TE_STATUS_OK) << te_last_error_message();
  const float want_dx[4] = {1, 2, 13, 16};
  for (int i = 0; i < 4; ++i) EXPECT_EQ(dx[i], want_dx[i]) << i;
  EXPECT_EQ(Gradient("weight"), (std::vector<float>{1, 1, 2, -1, 4, -2}));
  EXPECT_EQ(Gradient("bias"), (std::vector<float>{1, 1, 2}));
  te_saved_destroy(saved);
}

TEST_F(LayerTest, SeveralMicroBatchesInFlightAndDelayedWeightGradients) {
  CreateLinear();
  float x1[2] = {1, 0}, x2[2] = {0, 1}, y[3], dy1[3] = {1, 2, 3}, dy2[3] = {10, 20, 30};
  te_tensor* out = Borrow(y, {1, 3});
  te_saved* first = Forward(Borrow(x1, {1, 2}), out);
  te_saved* second = Forward(Borrow(x2, {1, 2}), out);
  te_backward_args args1 = Backward(Borrow(dy1, {1, 3}));
  args1.delay_weight_gradients = 1;
  ASSERT_EQ(te_backward(layer_, first, &args1), TE_STATUS_OK) << te_last_error_message();
  ExpectError(te_backward(layer_, first, &args1), TE_STATUS_FAILED_PRECONDITION,
              "te_backward_weight comes next");
  ASSERT_EQ(te_backward_weight(layer_, first, &args1), TE_STATUS_OK) << te_last_error_message();
  te_backward_args args2 = Backward(Borrow(dy2, {1, 3}));
  ExpectError(te_backward_weight(layer_, second, &args2), TE_STATUS_FAILED_PRECONDITION,
              "comes before te_backward_weight");
  args2.accumulate_gradients = 1;
  ASSERT_EQ(te_backward(layer_, second, &args2), TE_STATUS_OK) << te_last_error_message();
  EXPECT_EQ(Gradient("weight"), (std::vector<float>{1, 10, 2, 20, 3, 30}));
  EXPECT_EQ(Gradient("bias"), (std::vector<float>{11, 22, 33}));
  ExpectError(te_backward(layer_, second, &args2), TE_STATUS_FAILED_PRECONDITION,
              "can only be destroyed");
  te_saved_destroy(first);
  te_saved_destroy(second);
}

TEST_F(LayerTest, ARepeatedShapeAllocatesNothing) {
  CreateLinear();
  float x[4] = {1, 1, 2, -1}, y[6], dy[6] = {1, 0, 0, 0, 1, 2};
  te_tensor *in = Borrow(x, {2, 2}), *out = Borrow(y, {2, 3}), *dout = Borrow(dy, {2, 3});
  int64_t before = 0, after = 0;
  for (int step = 0; step < 4; ++step) {
    if (step == 2) {
      ASSERT_EQ(te_context_memory(context_, nullptr, nullptr, &before), TE_STATUS_OK);
    }
    te_saved* saved = Forward(in, out);
    te_backward_args args = Backward(dout);
    ASSERT_EQ(te_backward(layer_, saved, &args), TE_STATUS_OK);
    te_saved_destroy(saved);
  }
  ASSERT_EQ(te_context_memory(context_, nullptr, nullptr, &after), TE_STATUS_OK);
  EXPECT_EQ(after, before);
}

TEST_F(LayerTest, ParametersHaveTransformerEnginesNames) {
  te_layer_options options = Options(TE_LAYER_TRANSFORMER_LAYER);
  options.hidden_size = 16;
  options.ffn_hidden_size = 24;
  options.num_attention_heads = 4;
  options.num_gqa_groups = 2;
  options.normalization = TE_NORMALIZATION_RMSNORM;
  options.activation = TE_ACTIVATION_SWIGLU;
  options.bias = 0;
  Create(options);
  int64_t count = 0;
  ASSERT_EQ(te_layer_parameter_count(layer_, &count), TE_STATUS_OK);
  std::vector<std::string> names;
  for (int64_t i = 0; i < count; ++i) {
    const char* name = nullptr;
    ASSERT_EQ(te_layer_parameter_name(layer_, i, &name), TE_STATUS_OK);
    names.push_back(name);
  }
  EXPECT_EQ(names, (std::vector<std::string>{
                       "self_attention.layernorm_qkv.layer_norm_weight",
                       "self_attention.layernorm_qkv.query_weight",
                       "self_attention.layernorm_qkv.key_weight",
                       "self_attention.layernorm_qkv.value_weight", "self_attention.proj.weight",
                       "layernorm_mlp.layer_norm_weight", "layernorm_mlp.fc1_weight",
                       "layernorm_mlp.fc2_weight"}));
  const char* text = nullptr;
  ASSERT_EQ(te_layer_describe(layer_, &text), TE_STATUS_OK);
  EXPECT_NE(std::string(text).find("(layernorm_qkv): LayerNormLinear("), std::string::npos) << text;
  int64_t index = -5;
  ExpectError(te_layer_parameter_index(layer_, "fc3", &index), TE_STATUS_NOT_FOUND,
              "layernorm_mlp.fc2_weight");
  EXPECT_EQ(index, -5);
  te_tensor* view = nullptr;
  ExpectError(te_layer_parameter(layer_, count, &view), TE_STATUS_INVALID_ARGUMENT,
              "expected 0 to 7");
  ExpectError(te_layer_gradient(layer_, 0, &view), TE_STATUS_FAILED_PRECONDITION,
              "has no gradient");
}

TEST_F(LayerTest, ParameterViewsAreReadOnlyAndOutliveTheLayer) {
  CreateLinear();
  te_tensor* view = nullptr;
  ASSERT_EQ(te_layer_parameter(layer_, Index("weight"), &view), TE_STATUS_OK);
  float values[6];
  ExpectError(te_tensor_write(view, values, sizeof(values)), TE_STATUS_INVALID_ARGUMENT,
              "te_layer_set_parameter");
  te_layer_destroy(layer_);
  layer_ = nullptr;
  ASSERT_EQ(te_tensor_read(view, values, sizeof(values)), TE_STATUS_OK);
  EXPECT_EQ(values[5], 6);
  te_tensor_destroy(view);
}

TEST_F(LayerTest, ShapesAndDtypesOfParametersAreChecked) {
  CreateLinear();
  float wrong[4] = {};
  ExpectError(te_layer_set_parameter(layer_, Index("weight"), Borrow(wrong, {2, 2})),
              TE_STATUS_INVALID_ARGUMENT, "[3, 2]");
  int32_t integers[6] = {};
  ExpectError(
      te_layer_set_parameter(layer_, Index("weight"), Borrow(integers, {3, 2}, TE_DTYPE_INT32)),
      TE_STATUS_INVALID_ARGUMENT, "int32");
  double doubles[6] = {0.5, 0, 0, 0, 0, 0};
  EXPECT_EQ(
      te_layer_set_parameter(layer_, Index("weight"), Borrow(doubles, {3, 2}, TE_DTYPE_FLOAT64)),
      TE_STATUS_OK);
}

TEST_F(LayerTest, AFrozenParameterGetsNoGradient) {
  CreateLinear();
  ASSERT_EQ(te_layer_set_requires_grad(layer_, Index("weight"), 0), TE_STATUS_OK);
  float x[2] = {1, 2}, y[3], dy[3] = {1, 1, 1};
  te_saved* saved = Forward(Borrow(x, {1, 2}), Borrow(y, {1, 3}));
  te_backward_args args = Backward(Borrow(dy, {1, 3}));
  ASSERT_EQ(te_backward(layer_, saved, &args), TE_STATUS_OK) << te_last_error_message();
  te_tensor* view = nullptr;
  ExpectError(te_layer_gradient(layer_, Index("weight"), &view), TE_STATUS_FAILED_PRECONDITION,
              "weight has no gradient");
  EXPECT_EQ(Gradient("bias"), (std::vector<float>{1, 1, 1}));
  te_saved_destroy(saved);
}

void CountReady(void* user_data, int64_t index) {
  static_cast<std::vector<int64_t>*>(user_data)->push_back(index);
}

TEST_F(LayerTest, GradientReadyIsCalledOnceAParameter) {
  CreateLinear();
  float x[2] = {1, 2}, y[3], dy[3] = {1, 1, 1};
  te_saved* saved = Forward(Borrow(x, {1, 2}), Borrow(y, {1, 3}));
  te_backward_args args = Backward(Borrow(dy, {1, 3}));
  std::vector<int64_t> ready;
  args.gradient_ready = CountReady;
  args.user_data = &ready;
  ASSERT_EQ(te_backward(layer_, saved, &args), TE_STATUS_OK);
  std::sort(ready.begin(), ready.end());
  EXPECT_EQ(ready, (std::vector<int64_t>{0, 1}));
  te_saved_destroy(saved);
}

TEST_F(LayerTest, OptimizerStepIsAdamWByHand) {
  CreateLinear();
  te_optimizer* optimizer = nullptr;
  ASSERT_EQ(te_optimizer_create(layer_, nullptr, &optimizer), TE_STATUS_OK)
      << te_last_error_message();
  float x[2] = {1, 0}, y[3], dy[3] = {2, 0, 0};
  te_saved* saved = Forward(Borrow(x, {1, 2}), Borrow(y, {1, 3}));
  te_backward_args args = Backward(Borrow(dy, {1, 3}));
  ASSERT_EQ(te_backward(layer_, saved, &args), TE_STATUS_OK);
  te_saved_destroy(saved);
  te_optimizer_step_args step;
  ASSERT_EQ(te_optimizer_step_args_init(&step), TE_STATUS_OK);
  step.learning_rate = 0.1;
  step.gradient_divisor = 4;  // the gradient becomes 0.5 for weight[0, 0] and bias[0]
  double norm = 0;
  ASSERT_EQ(te_optimizer_step(optimizer, &step, &norm), TE_STATUS_OK) << te_last_error_message();
  EXPECT_NEAR(norm, std::sqrt(0.5), 1e-6);
  te_tensor* view = nullptr;
  ASSERT_EQ(te_layer_parameter(layer_, Index("weight"), &view), TE_STATUS_OK);
  float weight[6];
  ASSERT_EQ(te_tensor_read(view, weight, sizeof(weight)), TE_STATUS_OK);
  // First step: the update is lr * g / (|g| + eps), after the decay of lr * 0.01.
  EXPECT_NEAR(weight[0], 1 * (1 - 0.001) - 0.1, 1e-6);
  EXPECT_NEAR(weight[1], 2 * (1 - 0.001), 1e-6);
  te_tensor_destroy(view);
  step.learning_rate = std::nan("");
  ExpectError(te_optimizer_step(optimizer, &step, nullptr), TE_STATUS_INVALID_ARGUMENT,
              "learning_rate");
  te_optimizer_destroy(optimizer);
}

TEST_F(LayerTest, AnEmbeddingsPaddingRowBeginsAtZeroAndGetsNoGradient) {
  te_layer_options options = Options(TE_LAYER_EMBEDDING);
  EXPECT_EQ(options.padding_idx, -1);
  options.vocab_size = 5;
  options.hidden_size = 2;
  options.padding_idx = 3;
  Create(options);
  std::vector<int32_t> ids = {3, 1, 3, 0};
  std::vector<float> y(8, -1), dy(8, 1), grad(10, -7);
  te_forward_args args;
  ASSERT_EQ(te_forward_args_init(&args), TE_STATUS_OK);
  args.input = Borrow(ids.data(), {4}, TE_DTYPE_INT32);
  args.output = Borrow(y.data(), {4, 2});
  te_saved* saved = nullptr;
  ASSERT_EQ(te_forward(layer_, &args, &saved), TE_STATUS_OK) << te_last_error_message();
  for (size_t i = 0; i < 8; ++i) EXPECT_EQ(y[i] == 0, ids[i / 2] == 3) << i;
  const te_backward_args backward = Backward(Borrow(dy.data(), {4, 2}), nullptr);
  ASSERT_EQ(te_backward(layer_, saved, &backward), TE_STATUS_OK) << te_last_error_message();
  te_saved_destroy(saved);
  te_tensor* view = nullptr;
  ASSERT_EQ(te_layer_gradient(layer_, 0, &view), TE_STATUS_OK) << te_last_error_message();
  ASSERT_EQ(te_tensor_read(view, grad.data(), grad.size() * sizeof(float)), TE_STATUS_OK);
  te_tensor_destroy(view);
  EXPECT_EQ(grad, (std::vector<float>{1, 1, 1, 1, 0, 0, 0, 0, 0, 0}));

  te_layer* other = nullptr;
  options.padding_idx = 5;
  ExpectError(te_layer_create(context_, &options, &other), TE_STATUS_INVALID_ARGUMENT,
              "padding_idx is 5; expected -1 (none) or a row from 0 to 4");
  te_layer_options linear = Options(TE_LAYER_LINEAR);
  linear.in_features = linear.out_features = 4;
  linear.padding_idx = 0;
  ExpectError(te_layer_create(context_, &linear, &other), TE_STATUS_INVALID_ARGUMENT,
              "padding_idx");
  EXPECT_EQ(other, nullptr);
}

TEST_F(LayerTest, EveryKindRuns) {
  const int64_t b = 2, s = 3, h = 8;
  for (int32_t kind = TE_LAYER_TRANSFORMER_LAYER; kind <= TE_LAYER_CROSS_ENTROPY; ++kind) {
    te_layer_options options = Options(kind);
    const bool heads = kind <= TE_LAYER_DOT_PRODUCT_ATTENTION;
    const bool hidden = kind <= TE_LAYER_LAYERNORM_MLP && kind != TE_LAYER_DOT_PRODUCT_ATTENTION;
    if (hidden || kind == TE_LAYER_RMSNORM || kind == TE_LAYER_LAYERNORM ||
        kind == TE_LAYER_EMBEDDING)
      options.hidden_size = h;
    if (kind == TE_LAYER_TRANSFORMER_LAYER || kind == TE_LAYER_LAYERNORM_MLP)
      options.ffn_hidden_size = 12;
    if (heads) options.num_attention_heads = 2;
    if (kind == TE_LAYER_DOT_PRODUCT_ATTENTION) options.kv_channels = 4;
    if (kind == TE_LAYER_LAYERNORM_LINEAR || kind == TE_LAYER_LINEAR)
      options.in_features = options.out_features = h;
    if (kind == TE_LAYER_EMBEDDING) options.vocab_size = 5;
    Create(options);
    const char* text = nullptr;
    ASSERT_EQ(te_layer_describe(layer_, &text), TE_STATUS_OK);
    SCOPED_TRACE(text);
    std::vector<float> x(b * s * h, 0.25f), y(b * s * h, -1), dy(b * s * h, 1), dx(b * s * h, -7);
    for (size_t i = 0; i < x.size(); ++i) x[i] += 0.1f * static_cast<float>(i % 7);
    std::vector<int32_t> ids(b * s, 2);
    te_forward_args args;
    ASSERT_EQ(te_forward_args_init(&args), TE_STATUS_OK);
    std::vector<int64_t> shape = {s, b, h};
    if (kind == TE_LAYER_DOT_PRODUCT_ATTENTION) shape = {s, b, 2, 4};
    if (kind == TE_LAYER_CROSS_ENTROPY) shape = {b * s, h};
    te_tensor* input = kind == TE_LAYER_EMBEDDING ? Borrow(ids.data(), {s, b}, TE_DTYPE_INT32)
                                                  : Borrow(x.data(), shape);
    args.input = input;
    args.output =
        kind == TE_LAYER_CROSS_ENTROPY ? Borrow(y.data(), {b * s}) : Borrow(y.data(), shape);
    if (kind == TE_LAYER_DOT_PRODUCT_ATTENTION) args.key = args.value = input;
    if (kind == TE_LAYER_CROSS_ENTROPY) args.labels = Borrow(ids.data(), {b * s}, TE_DTYPE_INT32);
    te_saved* saved = nullptr;
    ASSERT_EQ(te_forward(layer_, &args, &saved), TE_STATUS_OK) << te_last_error_message();
    for (int64_t i = 0; i < b * s; ++i) EXPECT_TRUE(std::isfinite(y[i]));
    te_backward_args backward =
        Backward(kind == TE_LAYER_CROSS_ENTROPY ? nullptr : Borrow(dy.data(), shape),
                 kind == TE_LAYER_EMBEDDING ? nullptr : Borrow(dx.data(), shape));
    std::vector<float> dk(x.size()), dv(x.size());
    if (kind == TE_LAYER_DOT_PRODUCT_ATTENTION) {
      backward.dkey = Borrow(dk.data(), shape);
      backward.dvalue = Borrow(dv.data(), shape);
    }
    ASSERT_EQ(te_backward(layer_, saved, &backward), TE_STATUS_OK) << te_last_error_message();
    if (kind != TE_LAYER_EMBEDDING) {
      for (float v : dx) EXPECT_TRUE(std::isfinite(v) && v != -7);
    }
    te_saved_destroy(saved);
    // Inference: no saved, no dropout.
    ASSERT_EQ(te_forward(layer_, &args, nullptr), TE_STATUS_OK) << te_last_error_message();
    te_layer_destroy(layer_);
    layer_ = nullptr;
  }
}

TEST_F(LayerTest, MisuseIsAnErrorAndTheLayerStaysUsable) {
  CreateLinear();
  float x[6] = {}, y[6];
  te_forward_args args;
  ASSERT_EQ(te_forward_args_init(&args), TE_STATUS_OK);
  args.input = Borrow(x, {2, 3});  // 3 features instead of 2
  args.output = Borrow(y, {2, 3});
  te_saved* saved = nullptr;
  ExpectError(te_forward(layer_, &args, &saved), TE_STATUS_INVALID_ARGUMENT, "input");
  EXPECT_EQ(saved, nullptr);
  args.input = nullptr;
  ExpectError(te_forward(layer_, &args, &saved), TE_STATUS_INVALID_ARGUMENT, "args->input is NULL");
  saved = Forward(Borrow(x, {2, 2}), Borrow(y, {2, 3}));
  te_layer_options other_options = Options(TE_LAYER_LINEAR);
  other_options.in_features = other_options.out_features = 2;
  te_layer* other = nullptr;
  ASSERT_EQ(te_layer_create(context_, &other_options, &other), TE_STATUS_OK);
  te_backward_args backward = Backward(Borrow(y, {2, 3}));
  ExpectError(te_backward(other, saved, &backward), TE_STATUS_INVALID_ARGUMENT, "another layer");
  EXPECT_EQ(te_backward(layer_, saved, &backward), TE_STATUS_OK) << te_last_error_message();
  te_saved_destroy(saved);
  te_layer_destroy(other);
  te_layer_options zero = Options(TE_LAYER_LINEAR);
  ExpectError(te_layer_create(context_, &zero, &other), TE_STATUS_INVALID_ARGUMENT, "in_features");
  te_layer_options kind = Options(99);
  ExpectError(te_layer_create(context_, &kind, &other), TE_STATUS_INVALID_ARGUMENT,
              "options->kind is 99");
}

// Two contexts share nothing: two threads may work at the same time.
TEST(Layers, TwoContextsInTwoThreads) {
  std::vector<float> results[2];
  std::vector<std::thread> threads;
  for (int t = 0; t < 2; ++t) {
    threads.emplace_back([&result = results[t]] {
      te_context_options context_options;
      ASSERT_EQ(te_context_options_init(&context_options), TE_STATUS_OK);
      context_options.num_threads = 1;
      context_options.seed = 5;
      te_context* context = nullptr;
      ASSERT_EQ(te_context_create(&context_options, &context), TE_STATUS_OK);
      te_layer_options options;
      ASSERT_EQ(te_layer_options_init(&options), TE_STATUS_OK);
      options.hidden_size = 32;
      options.ffn_hidden_size = 48;
      options.num_attention_heads = 4;
      te_layer* layer = nullptr;
      ASSERT_EQ(te_layer_create(context, &options, &layer), TE_STATUS_OK)
          << te_last_error_message();
      const int64_t shape[3] = {7, 2, 32};
      std::vector<float> x(7 * 2 * 32, 0.5f), y(x.size());
      te_tensor *in = nullptr, *out = nullptr;
      ASSERT_EQ(te_tensor_borrow(context, TE_DTYPE_FLOAT32, 3, shape, nullptr, x.data(), &in),
                TE_STATUS_OK);
      ASSERT_EQ(te_tensor_borrow(context, TE_DTYPE_FLOAT32, 3, shape, nullptr, y.data(), &out),
                TE_STATUS_OK);
      te_forward_args args;
      ASSERT_EQ(te_forward_args_init(&args), TE_STATUS_OK);
      args.input = in;
      args.output = out;
      for (int i = 0; i < 20; ++i)
        ASSERT_EQ(te_forward(layer, &args, nullptr), TE_STATUS_OK) << te_last_error_message();
      result = y;
      te_tensor_destroy(in);
      te_tensor_destroy(out);
      te_layer_destroy(layer);
      te_context_destroy(context);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_FALSE(results[0].empty());
  EXPECT_EQ(results[0], results[1]) << "one seed, one program: one result";
}

}  // namespace
