#include "models/files/input_set.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "models/files/output_path.h"

namespace te {
namespace {

namespace fs = std::filesystem;

class InputSetTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "/set_XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    root_ = fs::canonical(pattern).string();
    fs::create_directories(root_ + "/blobs");
    fs::create_directories(root_ + "/model/deep");
    Write("blobs/weights");
    Write("model/config.json");
    Write("model/deep/shard");
    Write("data.jsonl");
    fs::create_symlink("../blobs/weights", root_ + "/model/model.safetensors");
    inputs_.AddFolder("--model", root_ + "/model");
    inputs_.AddFile("--data", root_ + "/data.jsonl");
    inputs_.AddFile("--none", root_ + "/none");
  }
  void TearDown() override { fs::remove_all(root_); }
  void Write(const std::string& name) { std::ofstream(root_ + "/" + name) << name; }
  std::string File(const std::string& name) {
    return inputs_.CheckFile("--output", root_ + "/" + name).message();
  }
  std::string Outside(const std::string& name) {
    return inputs_.CheckOutside("--output", root_ + "/" + name).message();
  }

  std::string root_;
  InputSet inputs_;
};

TEST_F(InputSetTest, TheFileItselfHoweverItIsSpelled) {
  EXPECT_EQ(File("data.jsonl"), "--output: " + root_ +
                                    "/data.jsonl is the file of --data; choose "
                                    "another name");
  EXPECT_NE(File("model/../data.jsonl"), "");
  EXPECT_NE(File("model/config.json").find("is a file of --model"), std::string::npos);
  EXPECT_EQ(File("other"), "");
  EXPECT_EQ(File("none"), "");
}

TEST_F(InputSetTest, LinksOfBothKinds) {
  fs::create_symlink("data.jsonl", root_ + "/soft");
  fs::create_hard_link(root_ + "/model/deep/shard", root_ + "/hard");
  EXPECT_NE(File("soft").find("(" + root_ + "/data.jsonl)"), std::string::npos);
  EXPECT_NE(File("hard").find("(" + root_ + "/model/deep/shard)"), std::string::npos);
  // The model's folder holds a link to it.
  EXPECT_NE(File("blobs/weights").find("of --model"), std::string::npos);
}

TEST_F(InputSetTest, ANewFileInAFolder) {
  EXPECT_EQ(File("model/new"), "");
  for (const char* name : {"model/new", "model/deep/new", "model/none/new", "model/./deep/../new"})
    EXPECT_NE(Outside(name).find("is in the folder of --model"), std::string::npos) << name;
  fs::create_directory_symlink("model", root_ + "/alias");
  fs::create_symlink("model/new", root_ + "/dangling");
  EXPECT_NE(Outside("alias/new"), "");
  EXPECT_NE(Outside("dangling"), "");
  EXPECT_EQ(Outside("new"), "");
  EXPECT_EQ(Outside("model2"), "");
  EXPECT_NE(Outside("model/config.json").find("is a file of --model"), std::string::npos);
}

TEST_F(InputSetTest, AnOpenDescriptor) {
  const int data = open((root_ + "/data.jsonl").c_str(), O_WRONLY | O_APPEND | O_CLOEXEC);
  EXPECT_NE(inputs_.CheckDescriptor("standard output", data).message().find("of --data"),
            std::string::npos);
  close(data);
  const int none = open("/dev/null", O_WRONLY | O_CLOEXEC);
  EXPECT_TRUE(inputs_.CheckDescriptor("standard output", none).ok());
  close(none);
}

TEST_F(InputSetTest, ReplacingAFolder) {
  const auto all = [](const std::string&) { return true; };
  const auto replace = [&](const std::string& folder,
                           const std::function<bool(std::string)>& goes) {
    return inputs_.CheckReplacement("--output", root_ + "/" + folder, goes).message();
  };
  EXPECT_EQ(replace("model", all), "");
  EXPECT_EQ(replace("model/deep", all), "");
  EXPECT_EQ(replace("none", all), "");
  // The weights that the model's folder links to, and the data.
  EXPECT_NE(replace("blobs", all).find("/blobs/weights, which --model reads"), std::string::npos);
  EXPECT_NE(replace("", all).find("/data.jsonl, which --data reads"), std::string::npos);
  EXPECT_EQ(replace("", [](const std::string& name) { return name != "data.jsonl"; }), "");
}

TEST_F(InputSetTest, Resolves) {
  fs::create_symlink("loop", root_ + "/loop");
  EXPECT_FALSE(ResolveOutput(root_ + "/loop").ok());
  EXPECT_EQ(ResolveOutput(root_ + "/model/").value(), root_ + "/model");
  EXPECT_EQ(ResolveOutput(root_ + "/x/../y/z").value(), root_ + "/y/z");
  EXPECT_TRUE(IsInside("/a/b", "/a"));
  EXPECT_TRUE(IsInside("/a", "/a"));
  EXPECT_TRUE(IsInside("/a", "/"));
  EXPECT_FALSE(IsInside("/ab", "/a"));
}

}  // namespace
}  // namespace te
