#include "models/llama/generate.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "models/llama/testing_model.h"

namespace te {
namespace {

TEST(GenerateTest, ACacheGivesTheTokensOfTheWholeSequence) {
  for (const LlamaRopeType type : {LlamaRopeType::kDefault, LlamaRopeType::kLlama3,
                                   LlamaRopeType::kYarn, LlamaRopeType::kDynamic}) {
    LlamaConfig config = SmallConfig();
    // Dynamic scaling rotates keys anew with every token beyond the maximum; a cache keeps them.
    if (type == LlamaRopeType::kDynamic) config.max_position_embeddings = 8;
    config.rope.type = type;
    config.rope.factor = 4;
    config.rope.original_max_position_embeddings = 8;
    const auto context = NewContext();
    const auto te = NewModel(context.get(), config, LlamaPath::kTe);
    const auto hf = NewModel(context.get(), config, LlamaPath::kHf);
    const std::vector<int32_t> prompt = {3, 1, 4, 1, 5};
    const LlamaGenerateOptions options = {.max_new_tokens = 20, .ignore_eos = true};
    const auto cached = Value(GenerateGreedy(te.get(), prompt, options));
    EXPECT_EQ(cached.size(), 20u);
    EXPECT_EQ(cached, Value(GenerateGreedy(hf.get(), prompt, options)));
    // Twin: other weights give other tokens.
    Randomize(te.get(), 99);
    EXPECT_NE(cached, Value(GenerateGreedy(te.get(), prompt, options)));
  }
}

TEST(GenerateTest, StopsAfterAnyEosUnlessIgnored) {
  LlamaConfig config = SmallConfig();
  const auto context = NewContext();
  const std::vector<int32_t> prompt = {3, 1, 4};
  const auto free = NewModel(context.get(), config, LlamaPath::kTe);
  const auto tokens =
      Value(GenerateGreedy(free.get(), prompt, {.max_new_tokens = 12, .ignore_eos = true}));
  const int32_t stop = tokens[4];
  const auto first = std::find(tokens.begin(), tokens.end(), stop);
  config.eos_token_ids = {36, stop};
  if (stop == 36) config.eos_token_ids = {stop};
  const auto model = NewModel(context.get(), config, LlamaPath::kTe);
  const auto stopped = Value(GenerateGreedy(model.get(), prompt, {.max_new_tokens = 12}));
  ASSERT_LE(stopped.size(), static_cast<size_t>(first - tokens.begin()) + 1);
  EXPECT_TRUE(stopped.back() == stop || stopped.back() == 36);
  EXPECT_TRUE(std::equal(stopped.begin(), stopped.end(), tokens.begin()));
  EXPECT_EQ(Value(GenerateGreedy(model.get(), prompt, {.max_new_tokens = 12, .ignore_eos = true})),
            tokens);
  // Given ones count instead of the config's.
  const auto given = [&](std::vector<int64_t> eos) {
    return Value(GenerateGreedy(model.get(), prompt,
                                {.max_new_tokens = 12, .eos_token_ids = std::move(eos)}));
  };
  EXPECT_EQ(given({}), tokens);
  EXPECT_EQ(given({99, tokens[0]}).size(), 1u);
  int seen = 0;
  const auto two =
      Value(GenerateGreedy(model.get(), prompt, {.max_new_tokens = 12, .ignore_eos = true},
                           [&](int32_t) { return ++seen < 2; }));
  EXPECT_EQ(two.size(), 2u);
}

TEST(GenerateTest, WrongRequestsAreNamed) {
  const LlamaConfig config = SmallConfig();
  const auto context = NewContext();
  const auto model = NewModel(context.get(), config, LlamaPath::kTe);
  ExpectError(GenerateGreedy(model.get(), {}, {}).status(), StatusCode::kInvalidArgument,
              {"prompt"});
  const std::vector<int32_t> prompt = {1, 2}, outside = {1, 99};
  ExpectError(GenerateGreedy(model.get(), prompt, {.max_new_tokens = -1}).status(),
              StatusCode::kInvalidArgument, {"max_new_tokens", "-1"});
  ExpectError(GenerateGreedy(model.get(), outside, {}).status(), StatusCode::kInvalidArgument,
              {"99"});
  const auto allocated = context->memory_statistics().bytes;
  ExpectError(GenerateGreedy(model.get(), prompt, {.max_new_tokens = 1000000000}).status(),
              StatusCode::kInvalidArgument, {"max_new_tokens is 1000000000", "16777214"});
  EXPECT_EQ(context->memory_statistics().bytes, allocated);
  EXPECT_TRUE(Value(GenerateGreedy(model.get(), prompt, {.max_new_tokens = 0})).empty());
  auto caches = Value(model->NewCaches(1, 3));
  const Tensor logits = Value(context->NewTensor(DType::kFloat32, {1, config.vocab_size}));
  Ok(model->Infer(1, 2, prompt, caches, logits.view()));
  ExpectError(model->Infer(1, 2, prompt, caches, logits.view()), StatusCode::kInvalidArgument,
              {"3", "2"});
  const auto hf = NewModel(context.get(), config, LlamaPath::kHf);
  auto none = Value(hf->NewCaches(1, 3));
  ExpectError(hf->Infer(1, 2, prompt, none, logits.view()), StatusCode::kUnsupported,
              {"hf", "cache"});
  model->FindTensor("model.norm.weight")->value().as<float>()[0] =
      std::numeric_limits<float>::quiet_NaN();
  ExpectError(GenerateGreedy(model.get(), prompt, {}).status(), StatusCode::kInvalidArgument,
              {"not a number"});
}

}  // namespace
}  // namespace te
