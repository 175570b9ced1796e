// Expected ids and texts: transformers 5.23
// LlamaTokenizer.from_pretrained("models/demo/checkpoint").
#include "models/tokenizer/tokenizer.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>

#include "models/tokenizer/model_traits.h"
#include "models/tokenizer/text_parts.h"
#include "sentencepiece_processor.h"

namespace te {
namespace {

constexpr char kModel[] = "models/demo/checkpoint/tokenizer.model";
using Ids = std::vector<int32_t>;

// A checkpoint directory that holds the demo's tokenizer.model, unless told otherwise.
class TokenizerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "/tokenizer_XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }
  void Write(const std::string& name, const std::string& text) {
    std::ofstream(directory_ + "/" + name, std::ios::binary) << text;
  }
  std::unique_ptr<Tokenizer> LoadWith(const std::string& config) {
    std::filesystem::copy_file(kModel, directory_ + "/tokenizer.model",
                               std::filesystem::copy_options::overwrite_existing);
    if (!config.empty()) Write("tokenizer_config.json", config);
    StatusOr<std::unique_ptr<Tokenizer>> tokenizer = LoadTokenizer(directory_);
    EXPECT_TRUE(tokenizer.ok()) << tokenizer.status().message();
    return tokenizer.ok() ? std::move(tokenizer).value() : nullptr;
  }
  Status Failure() {
    StatusOr<std::unique_ptr<Tokenizer>> tokenizer = LoadTokenizer(directory_);
    EXPECT_FALSE(tokenizer.ok());
    return tokenizer.status();
  }
  std::string directory_;
};

TEST_F(TokenizerTest, IdsAreThoseOfHuggingFace) {
  const auto tokenizer = LoadWith(R"({"add_eos_token": true, "pad_token": "<unk>"})");
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_EQ(tokenizer->Encode("Once there was a fox.").value(),
            (Ids{1, 324, 294, 274, 261, 529, 605, 2}));
  // SentencePiece's own, and transformers 4's: a space before the text even when it begins with
  // some.
  EXPECT_EQ(tokenizer->Encode("  two  spaces").value(),
            (Ids{1, 592, 592, 259, 604, 597, 592, 272, 620, 594, 612, 310, 2}));
  EXPECT_EQ(tokenizer->Encode("").value(), (Ids{1, 2}));
  // Bytes without a piece of their own fall back to <0xXX>.
  EXPECT_EQ(
      tokenizer->Encode("Z\u00fcrich 42 \u20ac\n\tx").value(),
      (Ids{1, 592, 93, 198, 191, 297, 612, 600, 592, 55, 53, 592, 229, 133, 175, 13, 12, 625, 2}));
  EXPECT_EQ(tokenizer->EncodePrompt("Once").value(), (Ids{1, 324}));
  EXPECT_EQ(tokenizer->vocab_size(), 640);
  EXPECT_EQ(tokenizer->special_tokens().bos, 1);
  EXPECT_EQ(tokenizer->special_tokens().eos, 2);
  EXPECT_EQ(tokenizer->special_tokens().pad, 0);
}

TEST_F(TokenizerTest, BosIsTheDefaultAndTheConfigurationDecides) {
  EXPECT_EQ(LoadWith("")->Encode("Once").value(), (Ids{1, 324}));
  EXPECT_EQ(LoadWith(R"({"add_bos_token": false})")->Encode("Once").value(), (Ids{324}));
  EXPECT_EQ(LoadWith(R"({"add_bos_token": null, "add_eos_token": true})")->Encode("Once").value(),
            (Ids{1, 324, 2}));
}

TEST_F(TokenizerTest, SpecialTokensComeFromEitherSpelling) {
  const auto tokenizer = LoadWith(
      R"({"bos_token": {"content": "</s>"}, "eos_token": "<s>", "pad_token": "<pad>",
          "added_tokens_decoder": {"640": {"content": "<pad>"}}})");
  EXPECT_EQ(tokenizer->special_tokens().bos, 2);
  EXPECT_EQ(tokenizer->special_tokens().eos, 1);
  EXPECT_EQ(tokenizer->special_tokens().pad, 640);
  EXPECT_FALSE(LoadWith(R"({"pad_token": "<nowhere>"})")->special_tokens().pad.has_value());
  EXPECT_FALSE(LoadWith("{}")->special_tokens().pad.has_value());
}

TEST_F(TokenizerTest, TextCannotInjectAControlToken) {
  const Ids ids = LoadWith("")->Encode("a</s>b").value();
  EXPECT_EQ(ids, (Ids{1, 261, 63, 50, 603, 65, 611}));
}

TEST_F(TokenizerTest, SpecialTextsAreTheNamesOfSpecialTokens) {
  EXPECT_EQ(LoadWith("")->special_texts(), (std::vector<std::string>{"<unk>", "<s>", "</s>"}));
  EXPECT_EQ(LoadWith(R"({"pad_token": {"content": "<pad>"}, "eos_token": "</s>",
                         "added_tokens_decoder": {"640": {"content": "<|im_end|>", "special": true},
                                                  "641": {"content": "plain", "special": false}}})")
                ->special_texts(),
            (std::vector<std::string>{"<unk>", "<s>", "</s>", "<pad>", "<|im_end|>"}));
}

// A long text is encoded in parts: the ids are those of SentencePiece's one call.
TEST_F(TokenizerTest, PartsOfALongTextChangeNoToken) {
  const auto tokenizer = LoadWith(R"({"add_bos_token": false})");
  sentencepiece::SentencePieceProcessor whole;
  ASSERT_TRUE(whole.Load(kModel).ok());
  std::mt19937 random(5);
  const std::vector<std::string> words = {"the",         "fox",    "Once",     " ",  "  ",
                                          "Z\u00fcrich", "\u2581", "\n",       "42", "\u20ac",
                                          "\t",          "</s>",   "\xff\xfe", "."};
  for (int trial = 0; trial < 20; ++trial) {
    std::string text;
    const size_t size = 8192 * (1 + trial % 4) + random() % 300 - 150;
    // Some texts have few spaces, some many beside each other.
    while (text.size() < size) {
      text += words[random() % words.size()];
      if (random() % (trial % 5 + 1) == 0) text += ' ';
    }
    if (trial % 3 == 0) text += "   ";
    if (trial % 4 == 0) text = "  " + text;
    std::vector<int> expected;
    ASSERT_TRUE(whole.Encode(text, &expected).ok());
    EXPECT_EQ(tokenizer->Encode(text).value(), Ids(expected.begin(), expected.end())) << trial;
    const Ids some = tokenizer->Encode(text, 100).value();
    ASSERT_GE(some.size(), 100u);
    EXPECT_LE(some.size(), expected.size());
    EXPECT_TRUE(std::equal(some.begin(), some.end(), expected.begin()));
  }
  // Only a part is worked on: the whole would take minutes.
  std::string vast;
  for (int i = 0; i < 40'000'000; ++i) vast += "fox ";
  EXPECT_LT(tokenizer->Encode(vast, 256).value().size(), 20000u);
}

TEST(TextPartsTest, CutsOnlyWhereNoTokenReaches) {
  const SentencePieceTraits llama = {.is_bpe = true, .remove_extra_whitespaces = false};
  const std::string text = std::string(9000, 'x') + " b c" + std::string(9000, 'y');
  std::string_view rest;
  EXPECT_EQ(TextParts(llama, {"x", "\u2581b"}).First(text, &rest).size(), 9000u);
  EXPECT_EQ(rest.substr(0, 4), "b cy");
  // A piece with x before a space: the next space it is.
  EXPECT_EQ(TextParts(llama, {"x\u2581b"}).First(text, &rest).size(), 9002u);
  EXPECT_EQ(TextParts(llama, {"x\u2581b", "b\u2581"}).First(text, &rest), text);
  EXPECT_EQ(rest, "");
  // Not at the end, where the dummy prefix would stand before nothing.
  const std::string last = std::string(9000, 'x') + " ";
  EXPECT_EQ(TextParts(llama, {}).First(last, &rest), last);
  // Not within a run of spaces.
  const std::string run = std::string(8000, 'x') + std::string(1000, ' ') + "y z";
  EXPECT_EQ(TextParts(llama, {}).First(run, &rest), run.substr(0, run.size() - 2));
  // A model of another kind is encoded whole.
  for (const auto change :
       {&SentencePieceTraits::whitespace_as_suffix, &SentencePieceTraits::has_character_map,
        &SentencePieceTraits::remove_extra_whitespaces}) {
    SentencePieceTraits other = llama;
    other.*change = true;
    EXPECT_EQ(TextParts(other, {}).First(text, &rest), text);
  }
  for (const auto change : {&SentencePieceTraits::is_bpe, &SentencePieceTraits::add_dummy_prefix,
                            &SentencePieceTraits::escape_whitespaces}) {
    SentencePieceTraits other = llama;
    other.*change = false;
    EXPECT_EQ(TextParts(other, {}).First(text, &rest), text);
  }
}

TEST(SentencePieceTraitsTest, OfTheDemoAndOfNonsense) {
  std::ifstream file(kModel, std::ios::binary);
  const std::string model((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  const SentencePieceTraits traits = ReadSentencePieceTraits(model).value();
  EXPECT_TRUE(traits.is_bpe);
  EXPECT_TRUE(traits.add_dummy_prefix);
  EXPECT_TRUE(traits.escape_whitespaces);
  EXPECT_FALSE(traits.remove_extra_whitespaces);
  EXPECT_FALSE(traits.has_character_map);
  EXPECT_FALSE(traits.whitespace_as_suffix);
  std::mt19937 random(9);
  for (int i = 0; i < 2000; ++i) {
    std::string bytes = model.substr(random() % model.size(), random() % 64);
    for (char& c : bytes) {
      if (random() % 4 == 0) c = static_cast<char>(random());
    }
    ReadSentencePieceTraits(bytes).status().IgnoreError();
  }
}

TEST_F(TokenizerTest, DecodesWhatItEncoded) {
  const auto tokenizer = LoadWith(R"({"add_eos_token": true})");
  for (const std::string text : {"Once there was a fox.", "Z\u00fcrich 42 \u20ac\n\tx", ""}) {
    EXPECT_EQ(tokenizer->Decode(tokenizer->Encode(text).value()).value(), text);
  }
  EXPECT_EQ(tokenizer->Decode(Ids{1, 324, 999, 294, -1}).value(), "Once<999>there<-1>");
}

TEST_F(TokenizerTest, TruncationKeepsAnAppendedEos) {
  const auto with_eos = LoadWith(R"({"add_eos_token": true})");
  Ids ids = with_eos->Encode("Once there was a fox.").value();
  EXPECT_FALSE(with_eos->Truncate(&ids, 8));
  EXPECT_TRUE(with_eos->Truncate(&ids, 4));
  EXPECT_EQ(ids, (Ids{1, 324, 294, 2}));
  const auto without = LoadWith("{}");
  ids = without->Encode("Once there was a fox.").value();
  EXPECT_TRUE(without->Truncate(&ids, 4));
  EXPECT_EQ(ids, (Ids{1, 324, 294, 274}));
}

TEST_F(TokenizerTest, ADirectoryWithoutTokenizerSaysWhatToDo) {
  Status status = Failure();
  EXPECT_EQ(status.code(), StatusCode::kNotFound);
  EXPECT_NE(status.message().find(directory_ + ": no tokenizer"), std::string::npos);
  Write("tokenizer.json", "{}");
  status = Failure();
  EXPECT_EQ(status.code(), StatusCode::kUnsupported);
  EXPECT_NE(
      status.message().find("tokenizer.json, which is not read yet (nor is tiktoken's format"),
      std::string::npos);
}

TEST_F(TokenizerTest, BrokenFilesAreNamed) {
  for (const std::string bytes :
       {"", "not a model", "version https://git-lfs.github.com/spec/v1\n", "<html></html>"}) {
    Write("tokenizer.model", bytes);
    const Status status = Failure();
    EXPECT_EQ(status.code(), StatusCode::kCorruptData) << bytes;
    EXPECT_NE(status.message().find("tokenizer.model"), std::string::npos);
  }
  Write("tokenizer.model", "IQ== 0\nIg== 1\nIw== 2\n");
  EXPECT_EQ(Failure().code(), StatusCode::kUnsupported);
  EXPECT_NE(Failure().message().find("a vocabulary of tiktoken"), std::string::npos);
  std::filesystem::copy_file(kModel, directory_ + "/tokenizer.model",
                             std::filesystem::copy_options::overwrite_existing);
  Write("tokenizer_config.json", "[1]");
  EXPECT_NE(Failure().message().find("expected an object"), std::string::npos);
  Write("tokenizer_config.json", R"({"add_bos_token": "yes"})");
  EXPECT_NE(Failure().message().find("add_bos_token is \"yes\""), std::string::npos);
  Write("tokenizer_config.json", "{");
  EXPECT_NE(Failure().message().find("tokenizer_config.json"), std::string::npos);
}

}  // namespace
}  // namespace te
