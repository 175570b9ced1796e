// Every header of testdata/safetensors_headers.json is taken or refused as the reference library
// does it (make_safetensors_headers.py).
#include <gtest/gtest.h>

#include "models/checkpoint/safetensors.h"
#include "models/checkpoint/testing_files.h"
#include "models/json/json.h"

namespace te {
namespace {

std::string FromHex(const std::string& hex) {
  std::string out;
  for (size_t i = 0; i + 1 < hex.size(); i += 2)
    out += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  return out;
}

TEST(SafetensorsReference, TakesWhatTheReferenceTakesAndNothingElse) {
  const auto table = ReadJsonFile("models/checkpoint/testdata/safetensors_headers.json");
  ASSERT_TRUE(table.ok()) << table.status().message();
  const std::string path = FreshFolder("") + "/x.safetensors";
  int taken = 0, refused = 0;
  for (const JsonValue& file : table->Find("files")->array()) {
    std::string bytes;
    for (const JsonValue& part : file.Find("parts")->array()) {
      const std::string text = FromHex(part.array()[0].string());
      bytes.reserve(bytes.size() + text.size() * static_cast<size_t>(part.array()[1].integer()));
      for (int64_t i = 0; i < part.array()[1].integer(); ++i) bytes += text;
    }
    WriteFile(path, bytes);
    const auto opened = OpenTensorFile(path);
    const std::string& name = file.Find("name")->string();
    EXPECT_EQ(opened.ok(), file.Find("accepted")->boolean())
        << name << ": " << bytes.substr(0, 300) << "\n"
        << opened.status().message();
    if (opened.ok()) {
      ++taken;
      continue;
    }
    ++refused;
    EXPECT_TRUE(opened.status().message().starts_with(path)) << opened.status().message();
    EXPECT_EQ(opened.status().message().find('\n'), std::string::npos) << name;
  }
  EXPECT_GT(taken, 90);
  EXPECT_GT(refused, 200);
}

// Of two entries of one name the last counts, with its own dtype and shape.
TEST(SafetensorsReference, OfTwoEntriesOfOneNameTheLastCounts) {
  const std::string path = FreshFolder("") + "/x.safetensors";
  WriteFile(path, SafetensorsBytes(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
                                   R"("a":{"dtype":"F16","shape":[2,2],"data_offsets":[0,8]}})",
                                   std::string(8, '\0')));
  const auto file = OpenTensorFile(path);
  ASSERT_TRUE(file.ok()) << file.status().message();
  ASSERT_EQ((*file)->entries().size(), 1u);
  EXPECT_EQ((*file)->entries()[0].ToString(), "F16 [2, 2]");
}

// A dtype that nothing here computes with is an error where the tensor is used, not before.
TEST(SafetensorsReference, UnknownArithmeticIsAnErrorOfTheTensorAlone) {
  const std::string path = FreshFolder("") + "/x.safetensors";
  WriteFile(path,
            SafetensorsBytes(R"({"a":{"dtype":"F8_E4M3FNUZ","shape":[4],"data_offsets":[0,4]},)"
                             R"("b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
                             std::string(8, '\0')));
  const auto file = OpenTensorFile(path);
  ASSERT_TRUE(file.ok()) << file.status().message();
  std::vector<float> out(4, 1);
  EXPECT_TRUE((*file)->ReadTensor(1, TensorView(out.data(), DType::kFloat32, {1})).ok());
  EXPECT_EQ(out[0], 0);
  const Status status = (*file)->ReadTensor(0, TensorView(out.data(), DType::kFloat32, {4}));
  EXPECT_NE(status.message().find("tensor a: stored as F8_E4M3FNUZ"), std::string::npos)
      << status.message();
}

}  // namespace
}  // namespace te
