#include "models/file_kind/file_kind.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <utility>
#include <vector>

namespace te {
namespace {

using namespace std::string_literals;

TEST(FileKind, FirstBytesTellWhatAFileIs) {
  const std::vector<std::pair<std::string, FileKind>> cases = {
      {"", FileKind::kEmpty},
      {std::string(100, '\0'), FileKind::kZeros},
      {"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n",
       FileKind::kGitLfsPointer},
      {"<!DOCTYPE html><html><body>401</body></html>", FileKind::kHtml},
      {"\xef\xbb\xbf \n<!doctype HTML>", FileKind::kHtml},
      {"<html lang=\"en\">", FileKind::kHtml},
      {"<?xml version=\"1.0\"?><!DOCTYPE html PUBLIC><html>", FileKind::kHtml},
      {"<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code></Error>", FileKind::kXml},
      {"{\"error\":\"Repository not found\"}", FileKind::kServerError},
      {"{ \"error\" : 1 }", FileKind::kServerError},
      {"Entry not found", FileKind::kServerError},
      {"Access to model acme/tiny is restricted.", FileKind::kServerError},
      {"Entry not found" + std::string(500, '.'), FileKind::kText},
      {"\x1f\x8b\x08\0"s, FileKind::kGzip},
      {"BZh91AY&SY", FileKind::kBzip2},
      {"\xfd"
       "7zXZ\0\0"s,
       FileKind::kXz},
      {"\x28\xb5\x2f\xfd\x04", FileKind::kZstd},
      {"\x04\x22\x4d\x18", FileKind::kLz4},
      {"PK\x03\x04" + std::string(22, '\0') + "\x05\0\0\0"s + "a.txt", FileKind::kZip},
      {"PK\x03\x04" + std::string(22, '\0') + "\x10\0\0\0"s + "archive/data.pkl",
       FileKind::kTorchZip},
      {"PK\x03\x04" + std::string(22, '\0') + "\x05\0\0\0"s + "a.npy", FileKind::kNumpyZip},
      {"PK\x05\x06" + std::string(18, '\0'), FileKind::kZip},
      {"7z\xbc\xaf\x27\x1c", FileKind::kSevenZip},
      {"Rar!\x1a\x07\x01", FileKind::kRar},
      {"config.json" + std::string(246, '\0') + "ustar\00000"s + std::string(200, '\0'),
       FileKind::kTar},
      {"GGUF\x03\0\0\0"s, FileKind::kGguf},
      {"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", FileKind::kTorchLegacy},
      {"\x80\x04\x95", FileKind::kPickle},
      {"\x93NUMPY\x01", FileKind::kNumpy},
      {"\x89HDF\r\n\x1a\n", FileKind::kHdf5},
      {"PAR1\x15\x04", FileKind::kParquet},
      {"ARROW1\0\0"s, FileKind::kArrow},
      {"SQLite format 3\0\x10"s, FileKind::kSqlite},
      {"%PDF-1.7", FileKind::kPdf},
      {"\x89PNG\r\n\x1a\n", FileKind::kImage},
      {"\x7f"
       "ELF\x02",
       FileKind::kExecutable},
      {"\xff\xfe{\0\"\0"s, FileKind::kUtf16},
      {"{\0\"\0a\0\"\0:\0001\0}\0"s, FileKind::kUtf16},
      {"\xff\xfe\0\0{\0\0\0"s, FileKind::kUtf32},
      {"\x02\0\0\0\0\0\0\0{}"s, FileKind::kSafetensors},
      // Lengths whose bytes are the first ones of other formats.
      {"\x80\x04\0\0\0\0\0\0{\"a\":"s, FileKind::kSafetensors},
      {"\x1f\x8b\0\0\0\0\0\0{\"a\":"s, FileKind::kSafetensors},
      {"\xff\xfe\0\0\0\0\0\0{\"a\":"s, FileKind::kSafetensors},
      {"BZh\0\0\0\0\0{\"a\":"s, FileKind::kSafetensors},
      {"{\"\0\0\0\0\0\0{\"a\":"s, FileKind::kSafetensors},
      {"{\"model_type\": \"llama\"}", FileKind::kJson},
      {"\xef\xbb\xbf[1, 2]", FileKind::kJson},
      {"Once upon a time\n", FileKind::kText},
      {"a,b\r\n1,\xe9\n", FileKind::kText},
      {"\x01\x02\x03", FileKind::kBinary},
      {"\xff\xff\xff\xff\xff\xff\xff\xff{}", FileKind::kBinary},
  };
  for (const auto& [bytes, kind] : cases) {
    const FileContent content = DescribeContent(bytes, bytes.size());
    EXPECT_EQ(static_cast<int>(content.kind), static_cast<int>(kind))
        << bytes.substr(0, 40) << ": " << content.what;
    EXPECT_FALSE(content.what.empty()) << bytes.substr(0, 40);
  }
}

TEST(FileKind, WhatIsForeignSaysWhatToDo) {
  const FileContent pointer = DescribeContent("version https://git-lfs.github.com/spec/v1\n", 43);
  EXPECT_EQ(pointer.ToString(),
            "a git-lfs pointer, which stands in the place of the file; fetch the file itself with: "
            "git lfs pull");
  EXPECT_TRUE(pointer.foreign());
  EXPECT_FALSE(pointer.text());
  const FileContent text = DescribeContent("Once", 4);
  EXPECT_EQ(text.ToString(), "text");
  EXPECT_FALSE(text.foreign());
  EXPECT_TRUE(text.text());
  EXPECT_FALSE(DescribeContent("\x01\x02", 2).foreign());
}

// Each prefix of a file is looked at without reading beyond it.
TEST(FileKind, EveryLengthIsFine) {
  std::string bytes = "PK\x03\x04" + std::string(22, '\xff') + "\xff\xff\0\0"s;
  bytes.resize(600, '\xff');
  for (size_t n = 0; n <= bytes.size(); ++n) {
    const std::string copy = bytes.substr(0, n);
    EXPECT_FALSE(DescribeContent(copy, n).what.empty());
  }
}

TEST(FileKind, FilesAndWhatIsNone) {
  const std::string folder = testing::TempDir() + "/file_kind";
  std::filesystem::create_directories(folder);
  std::ofstream(folder + "/page") << "<html>" << std::string(5000, 'x');
  const auto page = DescribeFile(folder + "/page");
  ASSERT_TRUE(page.ok()) << page.status().message();
  EXPECT_EQ(page->kind, FileKind::kHtml);
  EXPECT_EQ(DescribeFile(folder + "/absent").status().code(), StatusCode::kNotFound);
  EXPECT_NE(DescribeFile(folder).status().message().find("not a regular file"), std::string::npos);
}

}  // namespace
}  // namespace te
