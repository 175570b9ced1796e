// te_fp8_state_*, te_optimizer_state_*: a stack of layers that stops and goes on elsewhere.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "te/te.h"
#include "te_c_api/tests/fp8_program.h"

namespace te_test {
namespace {

using Bytes = std::vector<char>;

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream out;
  out << file.rdbuf();
  return out.str();
}
void WriteFile(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}

// A TransformerLayer with dropout, then a Linear, in bfloat16; AdamW with bfloat16 moments for the
// one and master weights for the other, both rounding stochastically.
class Stack {
 public:
  explicit Stack(int32_t kind, uint64_t seed = 3, const char* first = "first") {
    te_context_options context_options;
    Must(te_context_options_init(&context_options));
    context_options.num_threads = 1;
    context_options.seed = seed;
    Must(te_context_create(&context_options, &context_));
    for (int i = 0; i < 2; ++i) {
      te_layer_options options;
      Must(te_layer_options_init(&options));
      options.kind = i == 0 ? TE_LAYER_TRANSFORMER_LAYER : TE_LAYER_LINEAR;
      options.name = i == 0 ? first : "second";
      options.params_dtype = TE_DTYPE_BFLOAT16;
      if (i == 0) {
        options.hidden_size = kHidden;
        options.ffn_hidden_size = 64;
        options.num_attention_heads = 4;
      } else {
        options.in_features = options.out_features = kHidden;
      }
      Must(te_layer_create(context_, &options, &layers_[i]));
      te_optimizer_options optimizer;
      Must(te_optimizer_options_init(&optimizer));
      optimizer.rounding = TE_ROUNDING_STOCHASTIC;
      optimizer.master_weights = i;
      if (i == 0) optimizer.moments_dtype = TE_DTYPE_BFLOAT16;
      Must(te_optimizer_create(layers_[i], &optimizer, &optimizers_[i]));
    }
    const te_fp8_recipe_options recipe_options = RecipeOptions(kind);
    Must(te_fp8_recipe_create(context_, &recipe_options, &recipe_));
    const int64_t shape[3] = {kTokens, 1, kHidden};
    for (te_tensor*& tensor : tensors_)
      Must(te_tensor_create(context_, TE_DTYPE_BFLOAT16, 3, shape, &tensor));
  }
  ~Stack() {
    for (te_tensor* tensor : tensors_) te_tensor_destroy(tensor);
    te_fp8_recipe_destroy(recipe_);
    for (te_optimizer* optimizer : optimizers_) te_optimizer_destroy(optimizer);
    for (te_layer* layer : layers_) te_layer_destroy(layer);
    te_context_destroy(context_);
  }
  Stack(const Stack&) = delete;
  Stack& operator=(const Stack&) = delete;

  te_context* context() { return context_; }
  te_optimizer* optimizer(int i) { return optimizers_[i]; }
  te_fp8_recipe* recipe() { return recipe_; }

  // Step `k` on data of its own, in two micro-batches; `calibrating` as in a scope. Returns the
  // outputs' bytes.
  Bytes Step(int k, bool calibrating) {
    Bytes out;
    for (int micro_batch = 0; micro_batch < 2; ++micro_batch) {
      Fill(kInput, 100u * static_cast<uint32_t>(k) + static_cast<uint32_t>(micro_batch), 1);
      Fill(kGradient, 7u + static_cast<uint32_t>(k), 1e-2f);
      te_quantization_options scope;
      Must(te_quantization_options_init(&scope));
      scope.calibrating = calibrating;
      scope.is_first_microbatch = micro_batch == 0;
      te_saved* saved[2] = {};
      Must(te_quantization_begin(context_, recipe_, &scope));
      for (int i = 0; i < 2; ++i) {
        te_forward_args forward;
        Must(te_forward_args_init(&forward));
        forward.input = tensors_[i == 0 ? kInput : kHiddenState];
        forward.output = tensors_[i == 0 ? kHiddenState : kOutput];
        Must(te_forward(layers_[i], &forward, &saved[i]));
      }
      Must(te_quantization_end(context_));
      for (int i = 1; i >= 0; --i) {
        te_backward_args backward;
        Must(te_backward_args_init(&backward));
        backward.doutput = tensors_[i == 1 ? kGradient : kHiddenGradient];
        backward.dinput = tensors_[i == 1 ? kHiddenGradient : kInputGradient];
        backward.accumulate_gradients = micro_batch;
        Must(te_backward(layers_[i], saved[i], &backward));
        te_saved_destroy(saved[i]);
      }
      const Bytes output = Read(tensors_[kOutput]);
      out.insert(out.end(), output.begin(), output.end());
    }
    for (te_optimizer* optimizer : optimizers_) {
      te_optimizer_step_args args;
      Must(te_optimizer_step_args_init(&args));
      args.learning_rate = 1e-2;
      args.gradient_divisor = kTokens;
      Must(te_optimizer_step(optimizer, &args, nullptr));
    }
    return out;
  }
  std::vector<Bytes> Parameters() {
    std::vector<Bytes> out;
    for (te_layer* layer : layers_) {
      int64_t count = 0;
      Must(te_layer_parameter_count(layer, &count));
      for (int64_t i = 0; i < count; ++i) {
        te_tensor* view = nullptr;
        Must(te_layer_parameter(layer, i, &view));
        out.push_back(Read(view));
        te_tensor_destroy(view);
      }
    }
    return out;
  }
  void SetParameters(const std::vector<Bytes>& values) {
    size_t next = 0;
    for (te_layer* layer : layers_) {
      int64_t count = 0;
      Must(te_layer_parameter_count(layer, &count));
      for (int64_t i = 0; i < count; ++i) {
        te_tensor *view = nullptr, *copy = nullptr;
        Must(te_layer_parameter(layer, i, &view));
        int32_t rank = 0;
        int64_t shape[TE_MAX_RANK];
        Must(te_tensor_rank(view, &rank));
        Must(te_tensor_shape(view, TE_MAX_RANK, shape));
        Must(te_tensor_create(context_, TE_DTYPE_BFLOAT16, rank, shape, &copy));
        Must(te_tensor_write(copy, values[next].data(), values[next].size()));
        Must(te_layer_set_parameter(layer, i, copy));
        ++next;
        te_tensor_destroy(view);
        te_tensor_destroy(copy);
      }
    }
  }

 private:
  static constexpr int64_t kTokens = 16, kHidden = 32;
  enum { kInput, kHiddenState, kOutput, kGradient, kHiddenGradient, kInputGradient, kTensors };

  void Fill(int tensor, uint32_t seed, float scale) {
    std::vector<uint16_t> bits;
    for (float value : Uniform(size_t{kTokens * kHidden}, seed, scale))
      bits.push_back(ToBFloat16(value));
    Must(te_tensor_write(tensors_[tensor], bits.data(), bits.size() * sizeof(uint16_t)));
  }
  static Bytes Read(const te_tensor* tensor) {
    int32_t rank = 0;
    int64_t shape[TE_MAX_RANK], elements = 1;
    Must(te_tensor_rank(tensor, &rank));
    Must(te_tensor_shape(tensor, TE_MAX_RANK, shape));
    for (int32_t i = 0; i < rank; ++i) elements *= shape[i];
    Bytes out(static_cast<size_t>(elements) * sizeof(uint16_t));
    Must(te_tensor_read(tensor, out.data(), out.size()));
    return out;
  }

  te_context* context_ = nullptr;
  te_layer* layers_[2] = {};
  te_optimizer* optimizers_[2] = {};
  te_fp8_recipe* recipe_ = nullptr;
  te_tensor* tensors_[kTensors] = {};
};

class TrainingState : public testing::Test {
 protected:
  static std::string Path(const std::string& name) { return testing::TempDir() + "/" + name; }
};

constexpr int kStop = 3, kSteps = 5;

TEST_F(TrainingState, AStackOfLayersGoesOnBitForBit) {
  const std::string scales = Path("scales"), first = Path("first"), second = Path("second");
  for (const int32_t kind : {TE_FP8_RECIPE_NONE, TE_FP8_RECIPE_DELAYED, TE_FP8_RECIPE_CURRENT,
                             TE_FP8_RECIPE_BLOCK, TE_FP8_RECIPE_MXFP8, TE_FP8_RECIPE_NVFP4}) {
    SCOPED_TRACE(kKindNames[kind]);
    const bool delayed = kind == TE_FP8_RECIPE_DELAYED;
    std::vector<Bytes> outputs, end, middle;
    {
      Stack whole(kind);
      for (int k = 0; k < kSteps; ++k) {
        outputs.push_back(whole.Step(k, delayed && k == 0));
        if (k + 1 != kStop) continue;
        middle = whole.Parameters();
        Must(te_optimizer_state_save(whole.optimizer(0), first.c_str()));
        Must(te_optimizer_state_save(whole.optimizer(1), second.c_str()));
        if (delayed) {
          Must(te_fp8_state_save(whole.context(), scales.c_str()));
        } else {
          ExpectError(te_fp8_state_save(whole.context(), scales.c_str()),
                      TE_STATUS_FAILED_PRECONDITION, "there is no state to save");
        }
      }
      end = whole.Parameters();
    }
    // All of it; without the scales; without an optimizer's state.
    for (const char* without : {"", "scales", "first", "second"}) {
      if (!delayed && std::string(without) == "scales") continue;
      SCOPED_TRACE(without);
      Stack resumed(kind);
      resumed.SetParameters(middle);
      if (std::string(without) != "first")
        Must(te_optimizer_state_load(resumed.optimizer(0), first.c_str()));
      if (std::string(without) != "second")
        Must(te_optimizer_state_load(resumed.optimizer(1), second.c_str()));
      if (delayed && std::string(without) != "scales")
        Must(te_fp8_state_load(resumed.context(), scales.c_str()));
      bool same = true;
      for (int k = kStop; k < kSteps; ++k)
        same = resumed.Step(k, false) == outputs[static_cast<size_t>(k)] && same;
      same = resumed.Parameters() == end && same;
      EXPECT_EQ(same, std::string(without).empty());
    }
  }
}

TEST_F(TrainingState, TheStateOfSomethingElseIsRefusedByName) {
  const std::string path = Path("state");
  Stack stack(TE_FP8_RECIPE_DELAYED);
  stack.Step(0, true);
  Must(te_fp8_state_save(stack.context(), path.c_str()));
  const std::string scales = ReadFile(path);
  Stack renamed(TE_FP8_RECIPE_DELAYED, 3, "other");
  ExpectError(te_fp8_state_load(renamed.context(), path.c_str()), TE_STATUS_INVALID_ARGUMENT,
              "first.layernorm_mlp.fc1.grad_output is no quantized tensor of the context's layers");
  Must(te_optimizer_state_save(stack.optimizer(0), path.c_str()));
  const std::string moments = ReadFile(path);
  ExpectError(te_optimizer_state_load(stack.optimizer(1), path.c_str()), TE_STATUS_INVALID_ARGUMENT,
              "tensor weight.exp_avg is missing");
  Stack seeded(TE_FP8_RECIPE_DELAYED, 4);
  ExpectError(te_optimizer_state_load(seeded.optimizer(0), path.c_str()),
              TE_STATUS_INVALID_ARGUMENT, "written with seed 3, the context's is 4");
  // The one's file is not the other's.
  ExpectError(te_fp8_state_load(stack.context(), path.c_str()), TE_STATUS_CORRUPT_DATA,
              "unknown metadata key");
  WriteFile(path, scales);
  ExpectError(te_optimizer_state_load(stack.optimizer(0), path.c_str()), TE_STATUS_CORRUPT_DATA,
              "is unknown");
  // Another length of history than the recipe's: known when the layers have run.
  te_fp8_recipe_options options = RecipeOptions(TE_FP8_RECIPE_DELAYED);
  options.amax_history_len = 7;
  Program program(TE_LAYER_LINEAR, "second");
  program.Step(program.Recipe(options), Program::Scope(true));
  Must(te_fp8_state_save(program.context(), path.c_str()));
  ExpectError(te_fp8_state_load(stack.context(), path.c_str()), TE_STATUS_FAILED_PRECONDITION,
              "a history of 7; the recipe asks for e4m3 and 1024");
}

TEST_F(TrainingState, WhatIsRefusedChangesNothing) {
  const std::string scales = Path("scales2"), moments = Path("moments2");
  Stack stack(TE_FP8_RECIPE_DELAYED), twin(TE_FP8_RECIPE_DELAYED);
  for (Stack* each : {&stack, &twin}) each->Step(0, true);
  Must(te_fp8_state_save(stack.context(), scales.c_str()));
  Must(te_optimizer_state_save(stack.optimizer(0), moments.c_str()));
  const std::string good_scales = ReadFile(scales), good_moments = ReadFile(moments);
  for (const size_t part : {0, 1, 3, 8}) {  // eighths of the file; the last one but for a byte
    const auto cut = [part](const std::string& bytes) {
      return bytes.substr(0, std::min(bytes.size() * part / 8, bytes.size() - 1));
    };
    WriteFile(scales, cut(good_scales));
    EXPECT_EQ(te_fp8_state_load(stack.context(), scales.c_str()), TE_STATUS_CORRUPT_DATA) << part;
    WriteFile(moments, cut(good_moments));
    EXPECT_EQ(te_optimizer_state_load(stack.optimizer(0), moments.c_str()), TE_STATUS_CORRUPT_DATA)
        << part;
  }
  std::string nan = good_moments;
  std::memset(nan.data() + nan.size() - 8, 0xff, 8);
  WriteFile(moments, nan);
  ExpectError(te_optimizer_state_load(stack.optimizer(0), moments.c_str()), TE_STATUS_CORRUPT_DATA,
              "nan; expected");
  ExpectError(te_fp8_state_load(stack.context(), Path("none").c_str()), TE_STATUS_NOT_FOUND,
              "none");
  ExpectError(te_fp8_state_load(stack.context(), nullptr), TE_STATUS_INVALID_ARGUMENT, "path");
  ExpectError(te_fp8_state_load(nullptr, scales.c_str()), TE_STATUS_INVALID_ARGUMENT, "context");
  ExpectError(te_optimizer_state_load(nullptr, scales.c_str()), TE_STATUS_INVALID_ARGUMENT,
              "optimizer");
  // In a scope the histories are being written.
  te_quantization_options scope;
  Must(te_quantization_options_init(&scope));
  Must(te_quantization_begin(stack.context(), stack.recipe(), &scope));
  WriteFile(scales, good_scales);
  ExpectError(te_fp8_state_load(stack.context(), scales.c_str()), TE_STATUS_FAILED_PRECONDITION,
              "expected none");
  ExpectError(te_fp8_state_save(stack.context(), scales.c_str()), TE_STATUS_FAILED_PRECONDITION,
              "expected none");
  Must(te_quantization_end(stack.context()));
  Must(te_fp8_state_load(stack.context(), scales.c_str()));  // what that end has moved
  EXPECT_TRUE(stack.Step(1, false) == twin.Step(1, false));
  EXPECT_TRUE(stack.Parameters() == twin.Parameters());
}

TEST_F(TrainingState, AFileIsReplacedAsAWholeOrStays) {
  const std::string path = Path("replaced");
  Stack stack(TE_FP8_RECIPE_NONE);
  stack.Step(0, false);
  WriteFile(path, "old");
  WriteFile(path + ".te-new", "left by a killed process");
  Must(te_optimizer_state_save(stack.optimizer(0), path.c_str()));
  EXPECT_NE(ReadFile(path), "old");
  EXPECT_EQ(ReadFile(path + ".te-new"), "");
  Must(te_optimizer_state_load(stack.optimizer(0), path.c_str()));
  ExpectError(te_optimizer_state_save(stack.optimizer(0), (path + "/x").c_str()),
              TE_STATUS_IO_ERROR, "replaced/x");
}

}  // namespace
}  // namespace te_test
