#include "models/checkpoint/safetensors.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <limits>
#include <random>

#include "models/checkpoint/testing_files.h"

namespace te {
namespace {

std::string OpenError(const std::string& path) {
  const auto file = OpenTensorFile(path);
  EXPECT_FALSE(file.ok());
  if (file.ok()) return "";
  EXPECT_NE(file.status().message().find(path), std::string::npos) << file.status().message();
  return file.status().message();
}

// One entry "a" of the given fields.
std::string Entry(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return R"({"a":{"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets +
         "}}";
}

TEST(Safetensors, WritesWhatItReads) {
  const std::string path = FreshFolder("") + "/x.safetensors";
  const std::vector<float> f = {1, -2.5, 3};
  const std::vector<int64_t> i = {-1, std::numeric_limits<int64_t>::max()};
  const std::vector<bfloat16> b = {bfloat16(1.0f), bfloat16(0.5f), bfloat16(-8.0f)};
  std::vector<SafetensorsItem> items;
  for (const auto& [name, view] :
       {std::pair<std::string, ConstTensorView>("b", {b.data(), DType::kBFloat16, {3, 1}}),
        {"f", {f.data(), DType::kFloat32, {3}}},
        {"i", {i.data(), DType::kInt64, {2}}},
        {"scalar", {f.data(), DType::kFloat32, Shape{}}},
        {"empty", {f.data(), DType::kFloat32, {0, 7}}}}) {
    auto item = HostItem(name, view);
    ASSERT_TRUE(item.ok());
    items.push_back(std::move(*item));
  }
  ASSERT_TRUE(WriteSafetensors(path, items, {{"format", "pt"}, {"k\"ey", "v\n"}}, false).ok());
  const auto file = SafetensorsFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status().message();
  EXPECT_EQ((*file)->metadata(),
            (std::vector<std::pair<std::string, std::string>>{{"format", "pt"}, {"k\"ey", "v\n"}}));
  ASSERT_EQ((*file)->entries().size(), 5u);
  EXPECT_EQ((*file)->entries()[0].name, "i");  // wide elements first: every tensor is aligned
  EXPECT_EQ((*file)->entries()[4].name, "b");
  std::vector<int64_t> i_back(2);
  ASSERT_TRUE((*file)->ReadTensor(0, TensorView(i_back.data(), DType::kInt64, {2})).ok());
  EXPECT_EQ(i_back, i);
  std::vector<int32_t> narrow(2);
  EXPECT_NE((*file)
                ->ReadTensor(0, TensorView(narrow.data(), DType::kInt32, {2}))
                .message()
                .find("does not fit int32"),
            std::string::npos);
  std::vector<float> b_back(3);
  ASSERT_TRUE((*file)->ReadTensor(4, TensorView(b_back.data(), DType::kFloat32, {3, 1})).ok());
  EXPECT_EQ(b_back, (std::vector<float>{1, 0.5, -8}));
  // A file that is there is not overwritten unless that is asked for.
  EXPECT_NE(WriteSafetensors(path, items, {}, false).message().find("File exists"),
            std::string::npos);
  EXPECT_TRUE(WriteSafetensors(path, items, {}, true).ok());
}

TEST(Safetensors, ConversionsRoundOnceToNearestEven) {
  const std::string path = FreshFolder("") + "/x.safetensors";
  // 1 + 2^-8 + 2^-40: to float first it would become the tie 1 + 2^-8, which rounds down to 1; in
  // one step it rounds up.
  const std::vector<double> d = {1 + 0x1p-8 + 0x1p-40, 1 + 0x1p-8, 1e300, -0x1p-200};
  auto item = HostItem("d", ConstTensorView(d.data(), DType::kFloat64, {4}));
  ASSERT_TRUE(item.ok());
  ASSERT_TRUE(WriteSafetensors(path, {*item}, {}, false).ok());
  const auto file = SafetensorsFile::Open(path);
  ASSERT_TRUE(file.ok());
  std::vector<bfloat16> b(4);
  ASSERT_TRUE((*file)->ReadTensor(0, TensorView(b.data(), DType::kBFloat16, {4})).ok());
  EXPECT_EQ(b[0].bits, 0x3f81);
  EXPECT_EQ(b[1].bits, 0x3f80);
  EXPECT_EQ(b[2].bits, 0x7f80);  // infinity
  EXPECT_EQ(b[3].bits, 0x8000);
  std::vector<float16> h(4);
  ASSERT_TRUE((*file)->ReadTensor(0, TensorView(h.data(), DType::kFloat16, {4})).ok());
  EXPECT_EQ(h[1].bits, 0x3c04);
}

TEST(Safetensors, EveryBrokenRuleIsNamed) {
  const std::string folder = FreshFolder("");
  struct Case {
    std::string header;
    size_t data_bytes;
    const char* expected;
  };
  const std::string ok = Entry("F32", "[2]", "[0,8]");
  const std::string two =
      R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":)";
  const Case cases[] = {
      {"", 8, "the header: "},
      {"[]", 0, "the header is an array"},
      {ok + std::string(1, '\0'), 8, "something follows its object (line 1, column "},
      {ok + "}", 8, "something follows its object"},
      {"{\"a\":", 0, "(line 1, column 6)"},
      {"{\"\xff\":1}", 0, "not valid UTF-8"},
      {"{\"\xed\xa0\x80\":1}", 0, "not valid UTF-8"},
      {R"({"\udc00":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 8, "not valid UTF-8"},
      {R"({"a":1,"a":2})", 0, "tensor a: its header entry is a number; expected an object"},
      {R"({"a":{"dtype":"F32","shape":[2],"shape":[2],"data_offsets":[0,8]}})", 8,
       "\"shape\" stands twice"},
      {R"({"a":{"x":)" + std::string(1000, '[') + std::string(1000, ']') + "}}", 0,
       "nested deeper"},
      {R"({"a":5})", 0, "tensor a: its header entry is a number"},
      {R"({"a":{"shape":[2],"data_offsets":[0,8]}})", 8, "no dtype"},
      {R"({"a":{"dtype":1,"shape":[2],"data_offsets":[0,8]}})", 8, "its dtype is a number"},
      {R"({"a":{"dtype":"F32","data_offsets":[0,8]}})", 8, "no shape"},
      {R"({"a":{"dtype":"F32","shape":2,"data_offsets":[0,8]}})", 8, "its shape is a number"},
      {R"({"a":{"dtype":"F32","shape":[2]}})", 8, "no data_offsets"},
      {Entry("F32", "[2]", "[0]"), 8, "less than two"},
      {Entry("F32", "[2]", "[0,8,8]"), 8, "more than two"},
      {Entry("F31", "[2]", "[0,8]"), 8, "unknown dtype"},
      {Entry("f32", "[2]", "[0,8]"), 8, "unknown dtype"},
      {Entry("F32", "[-2]", "[0,8]"), 8, "its shape has -2; expected integers from 0 on"},
      {Entry("F32", "[2.0]", "[0,8]"), 8, "integers from 0 on"},
      {Entry("F32", "[\"2\"]", "[0,8]"), 8, "integers from 0 on"},
      {Entry("F32", "[18446744073709551615]", "[0,8]"), 8, "overflows"},
      {Entry("F32", "[9223372036854775807,2]", "[0,8]"), 8, "overflows"},
      {Entry("F32", "[4294967296,4294967296]", "[0,0]"), 0, "overflows"},
      {Entry("F32", "[4294967296,4294967296,0]", "[0,0]"), 0, "overflows"},
      {Entry("F32", "[4611686018427387904]", "[0,0]"), 0, "overflows"},
      {Entry("F4", "[3]", "[0,2]"), 2, "does not fill whole bytes"},
      {Entry("F32", "[2]", "[8,0]"), 8, "0 <= begin <= end"},
      {Entry("F32", "[2]", "[-8,0]"), 8, "0 <= begin <= end"},
      {Entry("F32", "[2]", "[0.0,8]"), 8, "0 <= begin <= end"},
      {Entry("F32", "[2]", "[0,18446744073709551608]"), 8, "span 18446744073709551608 bytes"},
      {Entry("F32", "[2]", "[0,4]"), 4, "span 4 bytes, but F32 [2] has 8"},
      {Entry("F32", "[2]", "[0,16]"), 16, "span 16 bytes, but F32 [2] has 8"},
      {Entry("BF16", "[2]", "[0,8]"), 8, "span 8 bytes, but BF16 [2] has 4"},
      {Entry("F32", "[2]", "[4,12]"), 12, "leave a hole"},
      {two + "[0,8]}}", 8,
       "tensor b begins at data byte 0, but the data before it ends at 8: the tensors overlap"},
      {two + "[4,12]}}", 12, "overlap"},
      {two + "[12,20]}}", 20, "leave a hole"},
      {ok, 7, "truncated?"},
      {ok, 0, "truncated?"},
      {ok, 9, "something follows them"},
      {"{}", 1, "something follows them"},
      {R"({"__metadata__":[]})", 0, "__metadata__ is an array"},
      {R"({"__metadata__":{"a":1}})", 0, "__metadata__ \"a\" is a number"},
      {R"({"__metadata__":{},"__metadata__":{}})", 0, "\"__metadata__\" stands twice"},
  };
  const std::string path = folder + "/x.safetensors";
  for (const Case& c : cases) {
    WriteFile(path, SafetensorsBytes(c.header, std::string(c.data_bytes, 'x')));
    const std::string error = OpenError(path);
    EXPECT_NE(error.find(c.expected), std::string::npos) << c.header << "\n" << error;
  }
  // What the rules allow.
  const Case good[] = {{"{}", 0, ""},
                       {"{}      ", 0, ""},
                       {ok + "   ", 8, ""},
                       {R"({"__metadata__":{}})", 0, ""},
                       {two + "[8,16]}}", 16, ""},
                       {Entry("F32", "[0,4294967296]", "[0,0]"), 0, ""},
                       {Entry("F4", "[4]", "[0,2]"), 2, ""},
                       {Entry("F8_E4M3", "[2]", "[0,2]"), 2, ""},
                       {Entry("F32", "[]", "[0,4]"), 4, ""},
                       {Entry("F32", "[1,1,1,1,1,1,2]", "[0,8]"), 8, ""}};
  for (const Case& c : good) {
    WriteFile(path, SafetensorsBytes(c.header, std::string(c.data_bytes, 'x')));
    const auto file = OpenTensorFile(path);
    EXPECT_TRUE(file.ok()) << c.header << "\n" << file.status().message();
  }
}

TEST(Safetensors, TheHeadersLengthIsBounded) {
  const std::string path = FreshFolder("") + "/x.safetensors";
  const std::pair<std::string, const char*> cases[] = {
      {"", "8 bytes of header length"},
      {"1234567", "8 bytes of header length"},
      {std::string("\x01\xe1\xf5\x05\0\0\0\0", 8) + "{}",
       "header length 100000001; the format allows at most 100000000"},
      {std::string("\xff\xff\xff\xff\xff\xff\xff\xff", 8) + "{}",
       "header length 18446744073709551615"},
      {std::string("\x00\xe1\xf5\x05\0\0\0\0", 8) + "{}", "only 2 bytes after it: truncated?"},
      {std::string("\x03\0\0\0\0\0\0\0", 8) + "{}", "only 2 bytes after it: truncated?"},
      {"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"},
  };
  for (const auto& [bytes, expected] : cases) {
    WriteFile(path, bytes);
    EXPECT_NE(OpenError(path).find(expected), std::string::npos) << expected;
  }
  // A file whose name says safetensors never reaches the unpickler.
  std::filesystem::remove(path);
  std::filesystem::copy("tests/golden/llama2-bin-single/checkpoint/pytorch_model.bin", path);
  EXPECT_NE(OpenError(path), "");
}

TEST(Safetensors, OnlyRegularFilesAreRead) {
  const std::string folder = FreshFolder("");
  EXPECT_NE(OpenError(folder).find("not a regular file"), std::string::npos);
  EXPECT_NE(OpenError(folder + "/absent").find("no such file"), std::string::npos);
  EXPECT_NE(OpenError("/dev/zero").find("not a regular file"), std::string::npos);
}

// As another process may do it: an error, not a signal.
TEST(Safetensors, AFileThatShrinksWhileItIsReadIsAnError) {
  const std::string path = FreshFolder("") + "/x.safetensors";
  WriteFile(path,
            SafetensorsBytes(Entry("F32", "[300000]", "[0,1200000]"), std::string(1200000, 'x')));
  const auto file = OpenTensorFile(path);
  ASSERT_TRUE(file.ok());
  std::vector<float> out(300000);
  const TensorView view(out.data(), DType::kFloat32, {300000});
  ASSERT_TRUE((*file)->ReadTensor(0, view).ok());
  ASSERT_EQ(truncate(path.c_str(), 500000), 0);
  const Status status = (*file)->ReadTensor(0, view);
  EXPECT_EQ(status.code(), StatusCode::kIoError);
  EXPECT_NE(status.message().find("ends at byte 500000"), std::string::npos) << status.message();
}

TEST(Safetensors, DestinationsAreChecked) {
  const std::string path = FreshFolder("") + "/x.safetensors";
  WriteFile(path, SafetensorsBytes(Entry("F32", "[2,3]", "[0,24]"), std::string(24, '\0')));
  const auto file = OpenTensorFile(path);
  ASSERT_TRUE(file.ok());
  std::vector<float> out(12);
  const auto error = [&](const TensorView& view) { return (*file)->ReadTensor(0, view).message(); };
  EXPECT_NE(error(TensorView(out.data(), DType::kFloat32, {3, 2}))
                .find("has shape [2, 3]; expected [3, 2]"),
            std::string::npos);
  EXPECT_NE(error(TensorView(out.data(), DType::kFloat32, {6})).find("expected [6]"),
            std::string::npos);
  EXPECT_NE(
      error(TensorView(out.data(), DType::kFloat32, {3, 2}).Transpose(0, 1)).find("not dense"),
      std::string::npos);
  EXPECT_NE(
      error(TensorView(out.data(), DType::kInt32, {2, 3})).find("stored as F32, wanted as int32"),
      std::string::npos);
  EXPECT_EQ(error(TensorView(out.data(), DType::kFloat32, {2, 3})), "");
}

// Opens the file and reads all that it offers; only crashes count.
bool TryAll(const std::string& path) {
  const auto file = OpenTensorFile(path);
  if (!file.ok()) return false;
  for (size_t i = 0; i < (*file)->entries().size(); ++i) {
    const TensorEntry& entry = (*file)->entries()[i];
    if (entry.shape.size() > static_cast<size_t>(kMaxRank) || entry.elements > 100000) continue;
    std::vector<double> out(static_cast<size_t>(entry.elements));
    (*file)
        ->ReadTensor(i, TensorView(out.data(), DType::kFloat32, Shape(entry.shape)))
        .IgnoreError();
    (*file)->ReadTensor(i, TensorView(out.data(), DType::kInt64, Shape(entry.shape))).IgnoreError();
  }
  return true;
}

const std::string kSmall = SafetensorsBytes(
    R"({"__metadata__":{"format":"pt"},"b":{"dtype":"BF16","shape":[2,2],"data_offsets":[8,16]},)"
    R"("a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"c":{"dtype":"I64","shape":[1],"data_offsets":[16,24]}})",
    std::string(24, '\x3f'));

TEST(Safetensors, TruncationAtEveryByteIsAnError) {
  const std::string path = FreshFolder("") + "/x.safetensors";
  for (size_t n = 0; n < kSmall.size(); ++n) {
    WriteFile(path, kSmall.substr(0, n));
    EXPECT_FALSE(TryAll(path)) << n;
  }
  WriteFile(path, kSmall);
  EXPECT_TRUE(TryAll(path));
}

TEST(Safetensors, AFlippedByteNeverCrashes) {
  const std::string path = FreshFolder("") + "/x.safetensors";
  std::mt19937 random(3);
  const char kLikely[] = "{}[]\",:0123456789-.eE\\ ";
  for (int round = 0; round < 6000; ++round) {
    std::string bytes = kSmall;
    for (int i = 0; i <= round % 3; ++i) {
      bytes[random() % bytes.size()] =
          round % 2 == 0 ? static_cast<char>(random()) : kLikely[random() % (sizeof(kLikely) - 1)];
    }
    WriteFile(path, bytes);
    TryAll(path);
  }
}

}  // namespace
}  // namespace te
