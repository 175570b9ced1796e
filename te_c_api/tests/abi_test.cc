// The rules at the head of te/te.h, each with its test. Links the shared library and knows nothing
// else of te.
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "te/te.h"

namespace {

struct ContextDeleter {
  void operator()(te_context* context) const { te_context_destroy(context); }
};
using ContextPtr = std::unique_ptr<te_context, ContextDeleter>;

ContextPtr NewContext() {
  te_context* context = nullptr;
  EXPECT_EQ(te_context_create(nullptr, &context), TE_STATUS_OK) << te_last_error_message();
  return ContextPtr(context);
}

te_tensor* NewTensor(te_context* context, te_dtype dtype, std::vector<int64_t> shape) {
  te_tensor* tensor = nullptr;
  EXPECT_EQ(
      te_tensor_create(context, dtype, static_cast<int32_t>(shape.size()), shape.data(), &tensor),
      TE_STATUS_OK)
      << te_last_error_message();
  return tensor;
}

bool LastErrorHas(const std::string& text) {
  const bool found = std::string(te_last_error_message()).find(text) != std::string::npos;
  if (!found) ADD_FAILURE() << "'" << text << "' is not in: " << te_last_error_message();
  return found;
}

TEST(Abi, VersionAndStatusNames) {
  EXPECT_EQ(te_abi_version(), uint32_t{TE_ABI_VERSION});
  EXPECT_STREQ(te_status_name(TE_STATUS_OK), "OK");
  EXPECT_STREQ(te_status_name(TE_STATUS_CORRUPT_DATA), "CORRUPT_DATA");
  EXPECT_STREQ(te_status_name(12345), "UNKNOWN");
}

TEST(Abi, DestroyOfNullIsFine) {
  te_context_destroy(nullptr);
  te_tensor_destroy(nullptr);
  te_fp8_recipe_destroy(nullptr);
  te_layer_destroy(nullptr);
  te_saved_destroy(nullptr);
  te_optimizer_destroy(nullptr);
  te_llama_destroy(nullptr);
}

TEST(Abi, NullAndForeignHandlesAreErrorsThatNameTheArgument) {
  ContextPtr context = NewContext();
  int32_t rank = -7;
  EXPECT_EQ(te_tensor_rank(nullptr, &rank), TE_STATUS_INVALID_ARGUMENT);
  LastErrorHas("tensor is NULL");
  // A context where a tensor belongs: noticed by the type tag.
  EXPECT_EQ(te_tensor_rank(reinterpret_cast<te_tensor*>(context.get()), &rank),
            TE_STATUS_INVALID_ARGUMENT);
  LastErrorHas("tensor is no te_tensor");
  EXPECT_EQ(rank, -7) << "outputs stay untouched on failure";
  te_tensor_destroy(reinterpret_cast<te_tensor*>(context.get()));  // refused: the context lives on
  EXPECT_EQ(te_context_synchronize(context.get()), TE_STATUS_OK);
  te_tensor* tensor = NewTensor(context.get(), TE_DTYPE_FLOAT32, {2});
  EXPECT_EQ(te_tensor_rank(tensor, nullptr), TE_STATUS_INVALID_ARGUMENT);
  LastErrorHas("out is NULL");
  te_tensor_destroy(tensor);
}

TEST(Abi, OutputsStayUntouchedOnFailure) {
  ContextPtr context = NewContext();
  te_tensor* const sentinel = reinterpret_cast<te_tensor*>(uintptr_t{0x1234});
  te_tensor* out = sentinel;
  const int64_t negative[1] = {-1};
  EXPECT_EQ(te_tensor_create(context.get(), TE_DTYPE_FLOAT32, 1, negative, &out),
            TE_STATUS_INVALID_ARGUMENT);
  LastErrorHas("shape[0] is -1");
  const int64_t huge[2] = {INT64_MAX / 4, 16};
  EXPECT_EQ(te_tensor_create(context.get(), TE_DTYPE_FLOAT32, 2, huge, &out),
            TE_STATUS_INVALID_ARGUMENT);
  LastErrorHas("overflows");
  EXPECT_EQ(te_tensor_create(context.get(), 99, 1, huge, &out), TE_STATUS_INVALID_ARGUMENT);
  LastErrorHas("dtype is 99");
  EXPECT_EQ(te_tensor_create(context.get(), TE_DTYPE_FLOAT32, TE_MAX_RANK + 1, huge, &out),
            TE_STATUS_INVALID_ARGUMENT);
  LastErrorHas("rank is 6");
  const int64_t exabyte[1] = {int64_t{1} << 58};
  EXPECT_EQ(te_tensor_create(context.get(), TE_DTYPE_FLOAT32, 1, exabyte, &out),
            TE_STATUS_OUT_OF_MEMORY);
  LastErrorHas("1152921504606846976 bytes");
  EXPECT_EQ(out, sentinel);
  // ... and the context stays usable.
  te_tensor_destroy(NewTensor(context.get(), TE_DTYPE_FLOAT32, {4}));
}

TEST(Abi, ErrorMessagesAreThreadLocal) {
  EXPECT_EQ(te_context_synchronize(nullptr), TE_STATUS_INVALID_ARGUMENT);
  const std::string mine = te_last_error_message();
  std::string other = "unset";
  std::thread([&] { other = te_last_error_message(); }).join();
  EXPECT_EQ(other, "");
  std::thread([] { EXPECT_NE(te_tensor_rank(nullptr, nullptr), TE_STATUS_OK); }).join();
  EXPECT_EQ(mine, te_last_error_message());
}

TEST(Abi, StructsSmallerThanVersion1AreRefused) {
  te_context_options options;
  ASSERT_EQ(te_context_options_init(&options), TE_STATUS_OK);
  te_context* context = nullptr;
  options.struct_size = 8;
  EXPECT_EQ(te_context_create(&options, &context), TE_STATUS_INVALID_ARGUMENT);
  LastErrorHas("options->struct_size is 8; expected at least 80");
  options.struct_size = 0;  // a forgotten _init
  EXPECT_EQ(te_context_create(&options, &context), TE_STATUS_INVALID_ARGUMENT);
  EXPECT_EQ(context, nullptr);
}

TEST(Abi, LargerStructsAreAcceptedOnlyWithAZeroTail) {
  struct {
    te_context_options known;
    uint64_t unknown;
  } newer;
  ASSERT_EQ(te_context_options_init(&newer.known), TE_STATUS_OK);
  newer.known.struct_size = sizeof(newer);
  newer.unknown = 0;
  te_context* context = nullptr;
  ASSERT_EQ(te_context_create(&newer.known, &context), TE_STATUS_OK) << te_last_error_message();
  te_context_destroy(context);
  newer.unknown = 1;
  context = nullptr;
  EXPECT_EQ(te_context_create(&newer.known, &context), TE_STATUS_INVALID_ARGUMENT);
  LastErrorHas("newer");
  EXPECT_EQ(context, nullptr);
}

// A client compiled against a smaller version of a struct: what it does not know keeps its default.
// te_layer_options has the most to lose: read only up to version 1's size from memory that ends
// there (address sanitizer would tell).
TEST(Abi, AnOldClientRunsOnANewLibrary) {
  ContextPtr context = NewContext();
  std::vector<char> exact(192);
  auto* old = reinterpret_cast<te_layer_options*>(exact.data());
  ASSERT_EQ((te_layer_options_init)(old), TE_STATUS_OK);
  EXPECT_EQ(old->struct_size, size_t{192});
  old->kind = TE_LAYER_LINEAR;
  old->in_features = 4;
  old->out_features = 3;
  te_layer* layer = nullptr;
  ASSERT_EQ(te_layer_create(context.get(), old, &layer), TE_STATUS_OK) << te_last_error_message();
  te_layer_destroy(layer);
  // What it does not know is at its default: an Embedding without padding_idx.
  old->kind = TE_LAYER_EMBEDDING;
  old->in_features = old->out_features = 0;
  old->vocab_size = 5;
  old->hidden_size = 4;
  ASSERT_EQ(te_layer_create(context.get(), old, &layer), TE_STATUS_OK) << te_last_error_message();
  const char* text = nullptr;
  ASSERT_EQ(te_layer_describe(layer, &text), TE_STATUS_OK);
  EXPECT_STREQ(text, "Embedding(5, 4, 20 parameters)");
  te_layer_destroy(layer);
  EXPECT_EQ(te_layer_options_init_sized(old, 184), TE_STATUS_INVALID_ARGUMENT);
  LastErrorHas("struct_size is 184; expected the size of *options: at least 192");
}

// te_context_options as version 1 had it: its *_init writes no further, and te_context_create reads
// no further.
TEST(Abi, AnOldClientsContextIsDeterministic) {
  std::vector<char> exact(80);
  auto* old = reinterpret_cast<te_context_options*>(exact.data());
  ASSERT_EQ((te_context_options_init)(old), TE_STATUS_OK);
  EXPECT_EQ(old->struct_size, size_t{80});
  te_context* context = nullptr;
  ASSERT_EQ(te_context_create(old, &context), TE_STATUS_OK) << te_last_error_message();
  te_context_destroy(context);
  EXPECT_EQ(te_context_options_init_sized(old, 72), TE_STATUS_INVALID_ARGUMENT);
  LastErrorHas("struct_size is 72; expected the size of *options: at least 80");
}

TEST(Abi, ReservedFieldsBooleansAndGroupsAreChecked) {
  te_context_options options;
  ASSERT_EQ(te_context_options_init(&options), TE_STATUS_OK);
  EXPECT_EQ(options.allow_nondeterministic, 0);
  te_context* context = nullptr;
  options.reserved = 1;
  EXPECT_EQ(te_context_create(&options, &context), TE_STATUS_INVALID_ARGUMENT);
  LastErrorHas("options->reserved is 1");
  options.reserved = 0;
  options.reserved2 = 1;
  EXPECT_EQ(te_context_create(&options, &context), TE_STATUS_INVALID_ARGUMENT);
  LastErrorHas("options->reserved2 is 1");
  options.reserved2 = 0;
  options.allow_nondeterministic = 2;
  EXPECT_EQ(te_context_create(&options, &context), TE_STATUS_INVALID_ARGUMENT);
  LastErrorHas("options->allow_nondeterministic is 2");
  EXPECT_EQ(context, nullptr);
  options.allow_nondeterministic = 1;
  ASSERT_EQ(te_context_create(&options, &context), TE_STATUS_OK) << te_last_error_message();
  te_context_destroy(context);
  context = nullptr;
  options.allow_nondeterministic = 0;
  options.tensor_group = reinterpret_cast<te_process_group*>(&options);
  EXPECT_EQ(te_context_create(&options, &context), TE_STATUS_UNSUPPORTED);
  LastErrorHas("options->tensor_group");
  options.tensor_group = nullptr;
  options.device = "tpu";
  EXPECT_EQ(te_context_create(&options, &context), TE_STATUS_UNSUPPORTED);
  LastErrorHas("'tpu'");
  options.device = "cpu";
  options.num_threads = -1;
  EXPECT_EQ(te_context_create(&options, &context), TE_STATUS_INVALID_ARGUMENT);
  LastErrorHas("num_threads is -1");
  ContextPtr good = NewContext();
  te_layer_options layer_options;
  ASSERT_EQ(te_layer_options_init(&layer_options), TE_STATUS_OK);
  layer_options.kind = TE_LAYER_LINEAR;
  layer_options.in_features = 4;
  layer_options.out_features = 3;
  layer_options.bias = 2;
  te_layer* layer = nullptr;
  EXPECT_EQ(te_layer_create(good.get(), &layer_options, &layer), TE_STATUS_INVALID_ARGUMENT);
  LastErrorHas("options->bias is 2; expected 0 or 1");
  layer_options.bias = 1;
  layer_options.hidden_dropout = 0.5;  // an option of another kind of layer is not ignored
  EXPECT_EQ(te_layer_create(good.get(), &layer_options, &layer), TE_STATUS_INVALID_ARGUMENT);
  LastErrorHas("hidden_dropout");
  EXPECT_EQ(layer, nullptr);
}

TEST(Abi, TensorsAreReadAndWrittenThroughStrides) {
  ContextPtr context = NewContext();
  float memory[12];
  for (int i = 0; i < 12; ++i) memory[i] = static_cast<float>(i);
  const int64_t shape[2] = {3, 2};
  const int64_t strides[2] = {1, 3};  // a transposed corner
  te_tensor* view = nullptr;
  ASSERT_EQ(te_tensor_borrow(context.get(), TE_DTYPE_FLOAT32, 2, shape, strides, memory, &view),
            TE_STATUS_OK);
  float read[6];
  ASSERT_EQ(te_tensor_read(view, read, sizeof(read)), TE_STATUS_OK) << te_last_error_message();
  const float expected[6] = {0, 3, 1, 4, 2, 5};
  EXPECT_EQ(std::memcmp(read, expected, sizeof(read)), 0);
  EXPECT_EQ(te_tensor_read(view, read, 5), TE_STATUS_INVALID_ARGUMENT);
  LastErrorHas("bytes is 5; expected 24");
  const float written[6] = {10, 13, 11, 14, 12, 15};
  ASSERT_EQ(te_tensor_write(view, written, sizeof(written)), TE_STATUS_OK)
      << te_last_error_message();
  for (int i = 0; i < 6; ++i) EXPECT_EQ(memory[i], static_cast<float>(10 + i));
  EXPECT_EQ(memory[6], 6.0f);
  int64_t dims[2];
  EXPECT_EQ(te_tensor_shape(view, 1, dims), TE_STATUS_INVALID_ARGUMENT);
  LastErrorHas("capacity is 1");
  ASSERT_EQ(te_tensor_strides(view, 2, dims), TE_STATUS_OK);
  EXPECT_EQ(dims[1], 3);
  te_tensor_destroy(view);
}

TEST(Abi, TensorsOfAnotherContextAreRefused) {
  ContextPtr a = NewContext();
  ContextPtr b = NewContext();
  te_layer_options options;
  ASSERT_EQ(te_layer_options_init(&options), TE_STATUS_OK);
  options.kind = TE_LAYER_RMSNORM;
  options.hidden_size = 4;
  te_layer* layer = nullptr;
  ASSERT_EQ(te_layer_create(a.get(), &options, &layer), TE_STATUS_OK) << te_last_error_message();
  te_tensor* x = NewTensor(b.get(), TE_DTYPE_FLOAT32, {2, 4});
  te_tensor* y = NewTensor(a.get(), TE_DTYPE_FLOAT32, {2, 4});
  te_forward_args args;
  ASSERT_EQ(te_forward_args_init(&args), TE_STATUS_OK);
  args.input = x;
  args.output = y;
  EXPECT_EQ(te_forward(layer, &args, nullptr), TE_STATUS_INVALID_ARGUMENT);
  LastErrorHas("args->input belongs to another context");
  te_tensor_destroy(x);
  te_tensor_destroy(y);
  te_layer_destroy(layer);
}

TEST(Abi, QuantizationScopesNestAndMatch) {
  ContextPtr context = NewContext();
  te_fp8_recipe_options options;
  ASSERT_EQ(te_fp8_recipe_options_init(&options), TE_STATUS_OK);
  te_fp8_recipe* recipe = nullptr;
  options.kind = 7;
  EXPECT_EQ(te_fp8_recipe_create(context.get(), &options, &recipe), TE_STATUS_UNSUPPORTED);
  LastErrorHas("options->kind is 7");
  options.kind = TE_FP8_RECIPE_NONE;
  ASSERT_EQ(te_fp8_recipe_create(context.get(), &options, &recipe), TE_STATUS_OK);
  EXPECT_EQ(te_quantization_end(context.get()), TE_STATUS_FAILED_PRECONDITION);
  te_quantization_options scope;
  ASSERT_EQ(te_quantization_options_init(&scope), TE_STATUS_OK);
  scope.calibrating = 1;
  EXPECT_EQ(te_quantization_begin(context.get(), recipe, &scope), TE_STATUS_UNSUPPORTED);
  ASSERT_EQ(te_quantization_begin(context.get(), recipe, nullptr), TE_STATUS_OK);
  ASSERT_EQ(te_quantization_begin(context.get(), recipe, nullptr), TE_STATUS_OK);
  EXPECT_EQ(te_quantization_end(context.get()), TE_STATUS_OK);
  EXPECT_EQ(te_quantization_end(context.get()), TE_STATUS_OK);
  EXPECT_EQ(te_quantization_end(context.get()), TE_STATUS_FAILED_PRECONDITION);
  te_fp8_recipe_destroy(recipe);
}

}  // namespace
