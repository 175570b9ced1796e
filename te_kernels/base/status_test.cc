#include "te_kernels/base/status.h"

#include <gtest/gtest.h>

#include <string>

namespace te {
namespace {

TEST(Status, MessagesAreOneLineWhateverAFileSays) {
  EXPECT_EQ(CorruptData("tensor {}", "a\nb\t\x1b[2J\x7f").message(),
            "tensor a\\nb\\t\\x1b[2J\\x7f");
  EXPECT_EQ(CorruptData("{}", "\xff\xc3(\xed\xa0\x80").message(), "\\xff\\xc3(\\xed\\xa0\\x80");
  EXPECT_EQ(CorruptData("{}", "\xc2\x9b").message(), "\\xc2\\x9b");  // a terminal's CSI
  EXPECT_EQ(CorruptData("{}", "cut \xe6\x97").message(), "cut \\xe6\\x97");
  const std::string fine = "\xc3\xa4 \xe6\x97\xa5 \xf0\x9f\x98\x80 \\n";
  EXPECT_EQ(CorruptData("{}", fine).message(), fine);
  EXPECT_EQ(CorruptData("b").WithContext("a\n").message(), "a\\n: b");
}

TEST(Status, MessagesAreOfBoundedLength) {
  const std::string longest(kMaxStatusMessage, 'a');
  EXPECT_EQ(CorruptData("{}", longest).message(), longest);
  const std::string more = CorruptData("{}a", longest).message();
  EXPECT_EQ(more.size(), kMaxStatusMessage);
  EXPECT_TRUE(more.ends_with("aaa..."));
  // No character is cut in two, no escape either.
  for (const char* unit : {"\xf0\x9f\x98\x80", "\n", "\x01"}) {
    std::string text;
    for (size_t i = 0; i < kMaxStatusMessage; ++i) text += unit;
    const std::string cut = CorruptData("{}", text).message();
    EXPECT_LE(cut.size(), kMaxStatusMessage);
    EXPECT_EQ(CorruptData("{}", cut).message(), cut);
  }
}

}  // namespace
}  // namespace te
