#include "models/llama/choices_text.h"

#include <gtest/gtest.h>

#include <string>

#include "models/llama/shipped_choices/shipped_choices.h"

namespace te {
namespace {

const std::string kProducts =
    "te cublasLt choices 2 | NVIDIA H200 | driver 13000 | cublasLt 130100\n";
const std::string kAttention =
    "te cudnn attention choices 2 | NVIDIA H200 | driver 13000 | cudnn 91900\n";

ChoicesText Parsed(const std::string& text) {
  ChoicesText parsed;
  EXPECT_TRUE(parsed.Parse(text)) << text;
  return parsed;
}

TEST(ChoicesText, ComesBackSorted) {
  const std::string text =
      kProducts + "b batch 1:0,0,0 : 2 1\na : 1 1\n" + kAttention + "f : 6 7:2\n";
  EXPECT_EQ(Parsed(text).ToString(),
            kProducts + "a : 1 1\nb batch 1:0,0,0 : 2 1\n" + kAttention + "f : 6 7:2\n");
  EXPECT_EQ(Parsed(text).count(), 3u);
  EXPECT_EQ(Parsed(kProducts).ToString(), kProducts);  // of a run that has found nothing
}

TEST(ChoicesText, TheFirstChoiceOfAProblemStays) {
  ChoicesText all = Parsed(kProducts + "a : 1\nb : 2\n");
  all.Add(Parsed(kProducts + "b : 3\nc : 4\n" + kAttention + "f : 6 7:2\n"));
  EXPECT_EQ(all.ToString(), kProducts + "a : 1\nb : 2\nc : 4\n" + kAttention + "f : 6 7:2\n");
}

TEST(ChoicesText, WhatIsNoSuchTextChangesNothing) {
  ChoicesText text = Parsed(kProducts + "a : 1\n");
  for (const std::string& hostile :
       {std::string(), std::string("years of work\n"), std::string("a : 1\n"),
        kProducts + "a : 1",  // cut off
        kProducts + "no shape\n", kProducts + std::string("a\0b : 1\n", 8),
        kProducts + std::string(3000, 'x') + " : 1\n", std::string(100000, 'x')}) {
    EXPECT_FALSE(text.Parse(hostile)) << hostile.substr(0, 100);
    EXPECT_EQ(text.ToString(), kProducts + "a : 1\n");
  }
}

// What ships is read at each load: it must be what a device reads.
TEST(ChoicesText, ShippedOnesAreSuchTexts) {
  for (const std::string_view text : ShippedChoices()) {
    ChoicesText parsed;
    EXPECT_TRUE(parsed.Parse(text)) << text.substr(0, 100);
    EXPECT_TRUE(text.starts_with("te cublasLt choices 2 | NVIDIA H200 | driver "))
        << text.substr(0, 100);
    EXPECT_GT(parsed.count(), 10u);
  }
}

}  // namespace
}  // namespace te
