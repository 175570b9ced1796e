// Expected ids and texts: transformers 5.23
// LlamaTokenizer.from_pretrained("models/demo/checkpoint").
#include "models/tokenizer/tokenizer.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>

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
  EXPECT_NE(status.message().find("tokenizer.json, which is not read yet"), std::string::npos);
}

TEST_F(TokenizerTest, BrokenFilesAreNamed) {
  for (const std::string bytes :
       {"", "not a model", "version https://git-lfs.github.com/spec/v1\n"}) {
    Write("tokenizer.model", bytes);
    const Status status = Failure();
    EXPECT_EQ(status.code(), StatusCode::kCorruptData) << bytes;
    EXPECT_NE(status.message().find("tokenizer.model"), std::string::npos);
  }
  std::filesystem::copy_file(kModel, directory_ + "/tokenizer.model",
                             std::filesystem::copy_options::overwrite_existing);
  Write("tokenizer_config.json", R"({"add_bos_token": "yes"})");
  EXPECT_NE(Failure().message().find("add_bos_token is \"yes\""), std::string::npos);
  Write("tokenizer_config.json", "{");
  EXPECT_NE(Failure().message().find("tokenizer_config.json"), std::string::npos);
}

}  // namespace
}  // namespace te
