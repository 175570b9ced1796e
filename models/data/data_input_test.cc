#include "models/data/data_input.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <thread>
#include <vector>

namespace te {
namespace {

class DataInputTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "/input_XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
  }
  void TearDown() override {
    if (writer_.joinable()) writer_.join();
    std::filesystem::remove_all(directory_);
  }

  std::string Write(const std::string& bytes) {
    std::ofstream(directory_ + "/file", std::ios::binary) << bytes;
    return directory_ + "/file";
  }
  // A named pipe that gives the bytes in pieces.
  std::string Pipe(const std::string& bytes, size_t piece) {
    const std::string path = directory_ + "/pipe";
    EXPECT_EQ(mkfifo(path.c_str(), 0600), 0);
    writer_ = std::thread([=] {
      const int out = open(path.c_str(), O_WRONLY | O_CLOEXEC);
      for (size_t at = 0; at < bytes.size(); at += piece) {
        const size_t count = std::min(piece, bytes.size() - at);
        EXPECT_EQ(write(out, bytes.data() + at, count), static_cast<ssize_t>(count));
      }
      close(out);
    });
    return path;
  }
  static DataInput Open(const std::string& path) {
    StatusOr<DataInput> input = DataInput::Open(path);
    EXPECT_TRUE(input.ok()) << input.status().message();
    return std::move(input).value();
  }
  static std::vector<std::string> Lines(DataInput* input) {
    std::vector<std::string> lines;
    std::string line;
    while (input->ReadLine(&line).value()) lines.push_back(line);
    return lines;
  }

  std::string directory_;
  std::thread writer_;
};

TEST_F(DataInputTest, LinesOfAFile) {
  using Expected = std::vector<std::string>;
  const std::pair<std::string, Expected> cases[] = {
      {"", {}},
      {"\n", {""}},
      {"a", {"a"}},
      {"a\n", {"a"}},
      {"a\n\nb", {"a", "", "b"}},
      {std::string("a\0b\nc\r\n", 7), {std::string("a\0b", 3), "c\r"}},
  };
  for (const auto& [bytes, expected] : cases) {
    DataInput input = Open(Write(bytes));
    EXPECT_EQ(Lines(&input), expected);
    EXPECT_EQ(input.bytes_read(), bytes.size());
  }
}

TEST_F(DataInputTest, APipeGivesWhatAFileGives) {
  std::string bytes;
  for (int i = 0; i < 200'000; ++i)
    bytes += "line " + std::to_string(i) + std::string(i % 23, 'x') + "\n";
  bytes += std::string(3'000'000, 'y');  // longer than any buffer
  DataInput file = Open(Write(bytes));
  DataInput pipe = Open(Pipe(bytes, 997));
  EXPECT_TRUE(file.is_regular_file());
  EXPECT_FALSE(pipe.is_regular_file());
  // Looking at the beginning takes nothing away.
  EXPECT_EQ(pipe.Peek(7).value(), "line 0\n");
  EXPECT_EQ(pipe.Peek(100'000).value(), bytes.substr(0, 100'000));
  const auto lines = Lines(&file);
  EXPECT_EQ(lines.size(), 200'001u);
  EXPECT_EQ(Lines(&pipe), lines);
  EXPECT_EQ(pipe.bytes_read(), bytes.size());
  EXPECT_NE(pipe.IntoFile().status().message().find("is a pipe"), std::string::npos);
}

TEST_F(DataInputTest, AWholeAfterALine) {
  DataInput input = Open(Write("first\nsecond\nthird"));
  std::string line;
  ASSERT_TRUE(input.ReadLine(&line).value());
  EXPECT_EQ(input.Peek(6).value(), "second");
  EXPECT_EQ(input.Peek(100).value(), "second\nthird");
  EXPECT_EQ(input.ReadAll().value(), "second\nthird");
  EXPECT_EQ(input.bytes_read(), 18u);
  EXPECT_FALSE(input.ReadLine(&line).value());
}

TEST_F(DataInputTest, ByPositionFromTheFirstByteAfterAPeek) {
  DataInput input = Open(Write("0123456789"));
  EXPECT_EQ(input.Peek(4).value(), "0123");
  const InputFile file = input.IntoFile().value();
  EXPECT_EQ(file.size(), 10u);
  char bytes[3];
  ASSERT_TRUE(file.ReadAt(1, bytes, 3).ok());
  EXPECT_EQ(std::string(bytes, 3), "123");
}

TEST_F(DataInputTest, AFileThatGrowsOrShrinksMeanwhileIsRefused) {
  const std::string bytes(3 << 20, 'x');
  for (const bool grows : {true, false}) {
    const std::string path = Write(bytes);
    DataInput input = Open(path);
    ASSERT_TRUE(input.Peek(1).ok());
    std::filesystem::resize_file(path, grows ? bytes.size() + 5 : bytes.size() - 5);
    const auto all = input.ReadAll();
    ASSERT_FALSE(all.ok());
    EXPECT_NE(all.status().message().find("was written while it was read"), std::string::npos);
  }
}

TEST_F(DataInputTest, NamesWhatIsNoData) {
  EXPECT_EQ(DataInput::Open(directory_ + "/none").status().code(), StatusCode::kNotFound);
  EXPECT_EQ(DataInput::Open(directory_).status().code(), StatusCode::kInvalidArgument);
  EXPECT_NE(DataInput::Open("/dev/zero").status().message().find("is a device"), std::string::npos);
  EXPECT_NE(DataInput::Open("-").status().message().find("/dev/stdin"), std::string::npos);
}

}  // namespace
}  // namespace te
