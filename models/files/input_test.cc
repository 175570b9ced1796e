#include "models/files/input.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <thread>

namespace te {
namespace {

class InputTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "/input_XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  std::string Error(const std::string& path, InputUse use) {
    const auto input = OpenInput(path, use);
    EXPECT_FALSE(input.ok()) << path;
    return input.ok() ? "" : input.status().message();
  }

  std::string directory_;
};

constexpr InputUse kBoth[] = {InputUse::kByPosition, InputUse::kOnceInOrder};

TEST_F(InputTest, FilesOpenForBothUsesAlsoThroughLinks) {
  const std::string file = directory_ + "/file", link = directory_ + "/link";
  std::ofstream(file) << "seven b";
  std::filesystem::create_symlink("file", link);
  for (InputUse use : kBoth) {
    for (const std::string& path : {file, link}) {
      const auto input = OpenInput(path, use);
      ASSERT_TRUE(input.ok()) << input.status().message();
      EXPECT_TRUE(input->is_regular_file());
      EXPECT_EQ(input->info.st_size, 7);
    }
  }
}

TEST_F(InputTest, WhatCannotBeReadIsNamedByItsKind) {
  for (InputUse use : kBoth) {
    EXPECT_NE(Error(directory_, use).find("is a directory"), std::string::npos);
    EXPECT_NE(Error("/dev/zero", use).find("is a device"), std::string::npos);
    EXPECT_EQ(OpenInput(directory_ + "/none", use).status().code(), StatusCode::kNotFound);
    EXPECT_EQ(OpenInput(directory_ + "/none/file", use).status().code(), StatusCode::kNotFound);
  }
}

TEST_F(InputTest, APipeIsReadInOrderAndRefusedByPosition) {
  const std::string pipe = directory_ + "/pipe";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  // Nobody has it open: a file's reader must not hang here.
  EXPECT_NE(Error(pipe, InputUse::kByPosition)
                .find("is a pipe, not a regular file; what is read "
                      "by position needs a file"),
            std::string::npos);
  // A writer that comes later is waited for, and no read comes back empty before it has written.
  std::thread writer([&pipe] {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    const int out = open(pipe.c_str(), O_WRONLY | O_CLOEXEC);
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    EXPECT_EQ(write(out, "abc", 3), 3);
    close(out);
  });
  const auto input = OpenInput(pipe, InputUse::kOnceInOrder);
  ASSERT_TRUE(input.ok()) << input.status().message();
  char text[4] = {};
  EXPECT_EQ(read(input->descriptor.get(), text, 3), 3);
  EXPECT_STREQ(text, "abc");
  writer.join();
}

TEST_F(InputTest, ASocketUnderADescriptorsNameIsReadInOrder) {
  int pair[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
  const std::string path = "/dev/fd/" + std::to_string(pair[0]);
  ASSERT_EQ(write(pair[1], "abc", 3), 3);
  const auto input = OpenInput(path, InputUse::kOnceInOrder);
  ASSERT_TRUE(input.ok()) << input.status().message();
  char text[4] = {};
  EXPECT_EQ(read(input->descriptor.get(), text, 3), 3);
  EXPECT_NE(Error(path, InputUse::kByPosition).find("is a socket"), std::string::npos);
  close(pair[0]);
  close(pair[1]);
}

}  // namespace
}  // namespace te
