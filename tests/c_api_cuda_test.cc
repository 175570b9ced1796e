// The C ABI on a CUDA device: tensors that live there, a layer forward and backward, the caller's
// stream, and errors that leave the context usable. (te_c_api/tests covers the rest on the CPU;
// llama_test.cc of it runs on both.)
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "te/te.h"
#include "te_c_api/src/handles.h"

namespace {

class CApiCudaTest : public testing::Test {
 protected:
  void SetUp() override { Create("cuda", nullptr); }
  void TearDown() override { Destroy(); }

  void Create(const char* device, void* stream) {
    te_context_options options;
    ASSERT_EQ(te_context_options_init(&options), TE_STATUS_OK);
    options.device = device;
    options.stream = stream;
    ASSERT_EQ(te_context_create(&options, &context_), TE_STATUS_OK) << te_last_error_message();
  }
  void Destroy() {
    for (te_tensor* tensor : tensors_) te_tensor_destroy(tensor);
    tensors_.clear();
    te_context_destroy(context_);
    context_ = nullptr;
  }
  te_tensor* New(std::vector<int64_t> shape, const std::vector<float>& values) {
    te_tensor* tensor = nullptr;
    EXPECT_EQ(te_tensor_create(context_, TE_DTYPE_FLOAT32, static_cast<int32_t>(shape.size()),
                               shape.data(), &tensor),
              TE_STATUS_OK)
        << te_last_error_message();
    tensors_.push_back(tensor);
    EXPECT_EQ(te_tensor_write(tensor, values.data(), values.size() * sizeof(float)), TE_STATUS_OK)
        << te_last_error_message();
    return tensor;
  }
  static std::vector<float> Read(const te_tensor* tensor, size_t count) {
    std::vector<float> values(count);
    EXPECT_EQ(te_tensor_read(tensor, values.data(), count * sizeof(float)), TE_STATUS_OK)
        << te_last_error_message();
    return values;
  }
  // y = x W^T + b with W = [[1, 2], [3, 4], [5, 6]], b = [10, 20, 30], and its gradients: all
  // numbers are small integers, exact in any order.
  void CheckLinear() {
    te_layer_options options;
    ASSERT_EQ(te_layer_options_init(&options), TE_STATUS_OK);
    options.kind = TE_LAYER_LINEAR;
    options.in_features = 2;
    options.out_features = 3;
    te_layer* layer = nullptr;
    ASSERT_EQ(te_layer_create(context_, &options, &layer), TE_STATUS_OK) << te_last_error_message();
    const auto index = [&](const char* name) {
      int64_t out = -1;
      EXPECT_EQ(te_layer_parameter_index(layer, name, &out), TE_STATUS_OK);
      return out;
    };
    ASSERT_EQ(te_layer_set_parameter(layer, index("weight"), New({3, 2}, {1, 2, 3, 4, 5, 6})),
              TE_STATUS_OK)
        << te_last_error_message();
    ASSERT_EQ(te_layer_set_parameter(layer, index("bias"), New({3}, {10, 20, 30})), TE_STATUS_OK)
        << te_last_error_message();
    te_forward_args forward;
    ASSERT_EQ(te_forward_args_init(&forward), TE_STATUS_OK);
    forward.input = New({2, 2}, {1, 1, 2, -1});
    forward.output = New({2, 3}, std::vector<float>(6, -7));
    te_saved* saved = nullptr;
    ASSERT_EQ(te_forward(layer, &forward, &saved), TE_STATUS_OK) << te_last_error_message();
    EXPECT_EQ(Read(forward.output, 6), (std::vector<float>{13, 27, 41, 10, 22, 34}));
    te_backward_args backward;
    ASSERT_EQ(te_backward_args_init(&backward), TE_STATUS_OK);
    backward.doutput = New({2, 3}, {1, 0, 0, 0, 1, 2});
    backward.dinput = New({2, 2}, std::vector<float>(4, -7));
    ASSERT_EQ(te_backward(layer, saved, &backward), TE_STATUS_OK) << te_last_error_message();
    EXPECT_EQ(Read(backward.dinput, 4), (std::vector<float>{1, 2, 13, 16}));
    const auto gradient = [&](const char* name, size_t count) {
      te_tensor* view = nullptr;
      EXPECT_EQ(te_layer_gradient(layer, index(name), &view), TE_STATUS_OK);
      tensors_.push_back(view);
      return Read(view, count);
    };
    EXPECT_EQ(gradient("weight", 6), (std::vector<float>{1, 1, 2, -1, 4, -2}));
    EXPECT_EQ(gradient("bias", 3), (std::vector<float>{1, 1, 2}));
    te_saved_destroy(saved);
    for (te_tensor* tensor : tensors_) te_tensor_destroy(tensor);
    tensors_.clear();
    te_layer_destroy(layer);
  }

  te_context* context_ = nullptr;
  std::vector<te_tensor*> tensors_;
};

TEST_F(CApiCudaTest, TensorsLiveOnTheDevice) {
  const std::vector<float> values = {1, 2, 3, 4, 5, 6};
  te_tensor* tensor = New({2, 3}, values);
  void* data = nullptr;
  ASSERT_EQ(te_tensor_data(tensor, &data), TE_STATUS_OK);
  cudaPointerAttributes attributes;
  ASSERT_EQ(cudaPointerGetAttributes(&attributes, data), cudaSuccess);
  EXPECT_EQ(attributes.type, cudaMemoryTypeDevice);
  std::vector<float> copied(6);
  ASSERT_EQ(cudaMemcpy(copied.data(), data, 24, cudaMemcpyDeviceToHost), cudaSuccess);
  EXPECT_EQ(copied, values);
  EXPECT_EQ(Read(tensor, 6), values);
}

TEST_F(CApiCudaTest, LinearForwardAndBackwardByHand) { CheckLinear(); }

TEST_F(CApiCudaTest, TheCallersStreamIsUsed) {
  Destroy();
  cudaStream_t stream = nullptr;
  ASSERT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
  Create("cuda", stream);
  CheckLinear();
  // Written through the stream alone, read by te behind it.
  te_tensor* tensor = New({4}, {1, 1, 1, 1});
  void* data = nullptr;
  ASSERT_EQ(te_tensor_data(tensor, &data), TE_STATUS_OK);
  ASSERT_EQ(cudaMemsetAsync(data, 0, 16, stream), cudaSuccess);
  EXPECT_EQ(Read(tensor, 4), (std::vector<float>(4, 0)));
  Destroy();
  EXPECT_EQ(cudaStreamDestroy(stream), cudaSuccess);
}

// Losses and norms of steps with one, two and one micro-batches, in turns; with `allocate` a tensor
// comes and goes between them. `launches`: how many micro-batches were launched as recorded work.
struct LlamaRun {
  std::vector<double> results;
  int64_t launches = 0;
};
LlamaRun RunLlama(te_context* context, bool fp8, bool in_scope, bool allocate) {
  LlamaRun out;
  const auto recipe_of = [&](int32_t kind) {
    te_fp8_recipe_options recipe_options;
    EXPECT_EQ(te_fp8_recipe_options_init(&recipe_options), TE_STATUS_OK);
    recipe_options.kind = kind;
    te_fp8_recipe* recipe = nullptr;
    EXPECT_EQ(te_fp8_recipe_create(context, &recipe_options, &recipe), TE_STATUS_OK);
    return recipe;
  };
  te_fp8_recipe* none = recipe_of(TE_FP8_RECIPE_NONE);
  te_llama_options options;
  EXPECT_EQ(te_llama_options_init(&options), TE_STATUS_OK);
  if (fp8) {
    options.recipe = recipe_of(TE_FP8_RECIPE_DELAYED);
    EXPECT_EQ(te_fp8_recipe_add_rule(options.recipe, "lm_head", nullptr, nullptr), TE_STATUS_OK);
  }
  te_llama* llama = nullptr;
  EXPECT_EQ(te_llama_load(context, "tests/golden/llama2-mha/checkpoint", &options, &llama),
            TE_STATUS_OK)
      << te_last_error_message();
  te_llama_batch batches[2];
  const std::vector<int32_t> ids = {1, 5, 9, 14, 3, 5, 7, 2, 8, 6, 4, 11, 12, 13, 10, 2};
  for (te_llama_batch& batch : batches) {
    EXPECT_EQ(te_llama_batch_init(&batch), TE_STATUS_OK);
    batch.batch_size = 1;
    batch.sequence_length = static_cast<int64_t>(ids.size());
    batch.input_ids = ids.data();
  }
  for (int k = 0; k < 12; ++k) {
    te_llama_step_result result;
    EXPECT_EQ(te_llama_step_result_init(&result), TE_STATUS_OK);
    if (in_scope) {
      EXPECT_EQ(te_quantization_begin(context, none, nullptr), TE_STATUS_OK);
    }
    EXPECT_EQ(te_llama_step(llama, batches, 1 + k / 4 % 2, 1e-3, k % 3 == 2 ? 0.5 : 0, &result),
              TE_STATUS_OK)
        << te_last_error_message();
    if (in_scope) {
      EXPECT_EQ(te_quantization_end(context), TE_STATUS_OK);
    }
    out.results.insert(out.results.end(), {result.loss, result.grad_norm});
    if (allocate) {
      const int64_t shape[1] = {1000};
      te_tensor* tensor = nullptr;
      EXPECT_EQ(te_tensor_create(context, TE_DTYPE_FLOAT32, 1, shape, &tensor), TE_STATUS_OK);
      te_tensor_destroy(tensor);
    }
  }
  if (llama != nullptr) out.launches = llama->step->launches();
  te_llama_destroy(llama);
  te_fp8_recipe_destroy(options.recipe);
  te_fp8_recipe_destroy(none);
  return out;
}

// Steps are recorded and launched where nothing speaks against it, and have the same bits where
// they run as they are: within a caller's scope, after an allocation, on a stream that cannot
// record.
TEST_F(CApiCudaTest, LlamaStepsAreRecordedAndChangeNoBit) {
  for (const bool fp8 : {false, true}) {
    SCOPED_TRACE(fp8);
    const auto run = [&](void* stream, bool in_scope, bool allocate) {
      Destroy();
      Create("cuda", stream);
      return RunLlama(context_, fp8, in_scope, allocate);
    };
    const LlamaRun recorded = run(nullptr, false, false);
    EXPECT_GT(recorded.launches, 0);
    const LlamaRun in_scope = run(nullptr, true, false);
    EXPECT_EQ(in_scope.launches, 0);
    if (!fp8) {  // forward scales move at the end of the outermost scope, if it has a recipe
      EXPECT_EQ(in_scope.results, recorded.results);
    }
    const LlamaRun allocating = run(nullptr, false, true);
    EXPECT_EQ(allocating.launches, 0);
    EXPECT_EQ(allocating.results, recorded.results);
    const LlamaRun legacy = run(cudaStreamLegacy, false, false);
    EXPECT_EQ(legacy.launches, 0);
    EXPECT_EQ(legacy.results, recorded.results);
  }
}

TEST_F(CApiCudaTest, OutOfMemoryAndForeignDevicesAreStatuses) {
  const int64_t huge[1] = {int64_t{1} << 45};
  te_tensor* tensor = nullptr;
  EXPECT_EQ(te_tensor_create(context_, TE_DTYPE_FLOAT32, 1, huge, &tensor),
            TE_STATUS_OUT_OF_MEMORY);
  EXPECT_EQ(tensor, nullptr);
  const std::string message = te_last_error_message();
  EXPECT_NE(message.find(std::to_string(int64_t{1} << 47)), std::string::npos) << message;
  te_context_options options;
  ASSERT_EQ(te_context_options_init(&options), TE_STATUS_OK);
  options.device = "cuda:4711";
  te_context* other = nullptr;
  EXPECT_EQ(te_context_create(&options, &other), TE_STATUS_UNSUPPORTED);
  EXPECT_EQ(other, nullptr);
  CheckLinear();
}

}  // namespace
