// Which tokens end a text: transformers 5.24's generate over the demo's checkpoint, with these
// files in its folder.
#include "models/llama/generation_config.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>

namespace te {
namespace {

using Ids = std::vector<int64_t>;

class GenerationConfigTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "/generation_config_XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
    config_.eos_token_ids = {274};
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }
  StatusOr<GenerationConfig> Read(const std::string& text) {
    std::ofstream(directory_ + "/generation_config.json", std::ios::binary) << text;
    return ReadGenerationConfig(directory_, config_);
  }
  std::string directory_;
  LlamaConfig config_;
};

TEST_F(GenerationConfigTest, TheFileAloneCountsWhereThereIsOne) {
  const auto absent = ReadGenerationConfig(directory_, config_);
  ASSERT_TRUE(absent.ok());
  EXPECT_FALSE(absent->present);
  EXPECT_EQ(absent->eos_token_ids, Ids{274});
  EXPECT_EQ(Read(R"({"eos_token_id": [2, 274]})")->eos_token_ids, (Ids{2, 274}));
  EXPECT_EQ(Read(R"({"eos_token_id": 2})")->eos_token_ids, Ids{2});
  EXPECT_EQ(Read(R"({"eos_token_id": 99999})")->eos_token_ids, Ids{99999});
  for (const char* none : {"{}", R"({"bos_token_id": 1})", R"({"eos_token_id": null})",
                           R"({"eos_token_id": -1})", R"({"eos_token_id": []})"}) {
    const auto read = Read(none);
    ASSERT_TRUE(read.ok()) << read.status().message();
    EXPECT_TRUE(read->present);
    EXPECT_TRUE(read->eos_token_ids.empty()) << none;
  }
  EXPECT_EQ(Read(R"({"eos_token_id": [-1, 274], "temperature": NaN})")->eos_token_ids, Ids{274});
}

TEST_F(GenerationConfigTest, SaysWhatItDoesNotApply) {
  EXPECT_TRUE(
      Read(R"({"do_sample": true, "temperature": 0.6, "top_p": 0.9, "top_k": 50, "max_length": 20,
               "max_new_tokens": 7, "repetition_penalty": 1.0, "num_beams": 1, "min_length": 0,
               "suppress_tokens": [], "forced_eos_token_id": null, "use_cache": true,
               "pad_token_id": 0, "transformers_version": "4.31.0"})")
          ->not_applied.empty());
  EXPECT_EQ(
      Read(R"({"repetition_penalty": 1.5, "min_length": 8, "suppress_tokens": [294],
                     "forced_eos_token_id": 2, "num_beams": 4})")
          ->not_applied,
      (std::vector<std::string>{"repetition_penalty 1.5", "min_length 8", "suppress_tokens [294]",
                                "forced_eos_token_id 2", "num_beams 4"}));
}

TEST_F(GenerationConfigTest, DamagedFilesAreNamed) {
  for (const auto& [text, part] : std::vector<std::pair<std::string, std::string>>{
           {"{\"eos_token_id\": ",
            "line 1, column 18: expected a value, found the end of the text"},
           {"[1]", "[1]; expected an object"},
           {"", "this is an empty file"},
           {R"({"eos_token_id": "2"})", "eos_token_id has \"2\"; expected a token id"},
           {R"({"eos_token_id": true})", "eos_token_id has true"},
           {R"({"eos_token_id": [2, null]})", "eos_token_id has null"},
           {R"({"eos_token_id": 2.5})", "eos_token_id has 2.5"},
           {R"({"eos_token_id": {"a": 1}})", "eos_token_id has {\"a\":1}"}}) {
    const Status status = Read(text).status();
    EXPECT_EQ(status.code(), StatusCode::kCorruptData) << text;
    EXPECT_NE(status.message().find(directory_ + "/generation_config.json: "), std::string::npos);
    EXPECT_NE(status.message().find(part), std::string::npos) << status.message();
  }
}

}  // namespace
}  // namespace te
