// Helpers of this folder's tests: temporary folders, whole files as strings, hand-made safetensors
// files.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

namespace te {

// An empty folder of this test's own.
inline std::string FreshFolder(const std::string& name) {
  const auto* info = testing::UnitTest::GetInstance()->current_test_info();
  std::filesystem::path path = testing::TempDir();
  path /= std::string("ckpt_") + info->test_suite_name() + "_" + info->name() + "_" + name;
  std::error_code ignored;
  std::filesystem::remove_all(path, ignored);
  std::filesystem::create_directories(path);
  return path.string();
}

inline void WriteFile(const std::string& path, const std::string& bytes) {
  // Truncating a file in place makes ext4 write it to the disk at once: slow in a loop.
  std::filesystem::remove(path);
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out << bytes;
  ASSERT_TRUE(out.flush().good()) << path;
}

inline std::string ReadFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in.good()) << path;
  return std::string(std::istreambuf_iterator<char>(in), {});
}

// Header length, header, data.
inline std::string SafetensorsBytes(const std::string& header, const std::string& data) {
  std::string out(8, '\0');
  for (size_t i = 0; i < 8; ++i) out[i] = static_cast<char>(header.size() >> (8 * i));
  return out + header + data;
}

}  // namespace te
