// Models with normalization rules, whole and broken (testdata/make_rules_model.py).
#include "models/tokenizer/sentencepiece_check.h"

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>

#include "models/tokenizer/tokenizer.h"

namespace te {
namespace {

std::string RulesModel() {
  std::ifstream file("models/tokenizer/testdata/rules.model", std::ios::binary);
  EXPECT_TRUE(file.good());
  return std::string(std::istreambuf_iterator<char>(file), {});
}

StatusOr<std::unique_ptr<Tokenizer>> Load(const std::string& model) {
  const std::filesystem::path folder =
      std::filesystem::path(testing::TempDir()) / "sentencepiece_check";
  std::filesystem::create_directories(folder);
  std::ofstream(folder / "tokenizer.model", std::ios::binary) << model;
  return LoadTokenizer(folder.string());
}

// Where the trie's units stand in rules.model: behind the field's tag, its length in two bytes, and
// the trie's size.
size_t TrieAt(const std::string& model) {
  constexpr size_t kUnits = 256;
  const uint32_t size = kUnits * sizeof(uint32_t);
  const std::string bytes(reinterpret_cast<const char*>(&size), sizeof(size));
  const size_t at = model.find(bytes);
  EXPECT_NE(at, std::string::npos);
  return at + sizeof(size);
}

std::string WithUnit(std::string model, size_t index, uint32_t unit) {
  std::memcpy(model.data() + TrieAt(model) + index * sizeof(unit), &unit, sizeof(unit));
  return model;
}

TEST(SentencePieceCheck, RulesAreFollowed) {
  const std::string model = RulesModel();
  EXPECT_TRUE(CheckSentencePieceModel(model).ok()) << CheckSentencePieceModel(model).message();
  const auto tokenizer = Load(model);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status().message();
  const auto ids = (*tokenizer)->Encode("A\xc3\xa9");
  ASSERT_TRUE(ids.ok());
  EXPECT_EQ((*tokenizer)->Decode(*ids).value(), "ae");
}

TEST(SentencePieceCheck, TriesThatLeadOutOfThemselvesAreRefused) {
  const auto refused = [](const std::string& model, const std::string& reason) {
    const auto tokenizer = Load(model);
    ASSERT_FALSE(tokenizer.ok()) << reason;
    EXPECT_EQ(tokenizer.status().code(), StatusCode::kCorruptData);
    EXPECT_NE(tokenizer.status().message().find(reason), std::string::npos)
        << tokenizer.status().message();
    EXPECT_NE(tokenizer.status().message().find("tokenizer.model: not a SentencePiece model"),
              std::string::npos);
  };
  const std::string model = RulesModel();
  // The first step alone reads far beyond 256 units: a segmentation fault in SentencePiece.
  refused(WithUnit(model, 0, 0xffffffffu), "a step of its trie leads to unit");
  refused(WithUnit(model, 0, 256u << 10), "a step of its trie leads to unit 511 of 256");
  std::string size = model;
  size.replace(TrieAt(model) - 4, 4, std::string(4, '\xff'));
  refused(size, "a trie of 4294967295 bytes");
  size.replace(TrieAt(model) - 4, 4, std::string(4, '\0'));
  refused(size, "precompiled_charsmap: ");
  refused(model.substr(0, TrieAt(model) + 10), "truncated?");
}

TEST(SentencePieceCheck, AFlippedBitIsRefusedOrHarmless) {
  const std::string model = RulesModel();
  const size_t begin = TrieAt(model) - 8;
  int loaded = 0, refused = 0;
  for (size_t at = begin; at < begin + 1100 && at < model.size(); ++at) {
    for (int bit = 0; bit < 8; bit += 3) {
      std::string broken = model;
      broken[at] = static_cast<char>(broken[at] ^ (1 << bit));
      const auto tokenizer = Load(broken);
      ++(tokenizer.ok() ? loaded : refused);
      if (!tokenizer.ok()) continue;
      for (const char* text : {"AB\xc3\xa9", "Hello \xe6\x97\xa5 world", "\x01\xff\xfe"})
        EXPECT_TRUE((*tokenizer)->Encode(text).ok());
    }
  }
  EXPECT_GT(loaded, 0);
  EXPECT_GT(refused, 0);
}

TEST(SentencePieceCheck, OtherFilesEndInAnError) {
  for (const std::string& text :
       {std::string("\xff"), std::string("\x1a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11),
        std::string("\x1b"), std::string("\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80", 11),
        std::string("\x09\x01", 2), std::string("\x1a\x02\x12\x05", 4)}) {
    EXPECT_EQ(CheckSentencePieceModel(text).code(), StatusCode::kCorruptData);
  }
  EXPECT_TRUE(CheckSentencePieceModel("").ok());
}

}  // namespace
}  // namespace te
