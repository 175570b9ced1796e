// te trace, te generate and te inspect against what Hugging Face computed (tests/golden).
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "models/checkpoint/safetensors.h"
#include "models/json/json.h"
#include "tests/cli/run_te.h"
#include "tests/cli/tensor_bytes.h"

namespace te {
namespace {

using Arguments = std::vector<std::string>;
const char* const kCases[] = {"llama2-mha", "llama3-gqa", "llama31-tied", "llama-bias-bin",
                              "llama2-bin-single"};

std::string Golden(const std::string& name, const std::string& file) {
  return "tests/golden/" + name + "/" + file;
}

std::unique_ptr<SafetensorsFile> Open(const std::string& path) {
  auto file = SafetensorsFile::Open(path);
  EXPECT_TRUE(file.ok()) << file.status().message();
  return file.ok() ? std::move(file).value() : nullptr;
}

// |actual - expected| / |expected| in the 2-norm, over rows of `columns` elements that `keep` marks
// (empty: all).
double Difference(const std::vector<float>& actual, const std::vector<float>& expected,
                  size_t columns, const std::vector<float>& keep) {
  EXPECT_EQ(actual.size(), expected.size());
  if (actual.size() != expected.size()) return 1e9;
  double error = 0, norm = 0;
  for (size_t i = 0; i < actual.size(); ++i) {
    if (!keep.empty() && keep[i / columns] == 0) continue;
    error += (static_cast<double>(actual[i]) - expected[i]) *
             (static_cast<double>(actual[i]) - expected[i]);
    norm += static_cast<double>(expected[i]) * expected[i];
  }
  return std::sqrt(error / norm);
}

// 2e-5 of a tensor's norm: float32's 6e-8, times the square root of the longest sum (352 terms:
// 19), times the number of operations in a row that add up their errors (about 16 at three layers,
// forward and backward).
constexpr double kTolerance = 2e-5;

std::vector<float> Mask(const std::string& name) {
  const auto file = Open(Golden(name, "expected.safetensors"));
  std::vector<int32_t> mask;
  for (size_t i = 0; i < file->entries().size(); ++i) {
    if (file->entries()[i].name != "attention_mask") continue;
    mask.resize(static_cast<size_t>(file->entries()[i].elements));
    const Shape shape{std::span<const int64_t>(file->entries()[i].shape)};
    EXPECT_TRUE(file->ReadTensor(i, TensorView(mask.data(), DType::kInt32, shape)).ok());
  }
  return {mask.begin(), mask.end()};
}

void ExpectTrace(const std::string& name, const std::string& path, const std::string& precision,
                 double tolerance) {
  TemporaryFolder folder;
  const TeResult result =
      RunTe({"trace", "--model", Golden(name, "checkpoint"), "--input",
             Golden(name, "expected.safetensors"), "--output", folder / "out.safetensors",
             "--gradients", "--hidden-states", "--path", path, "--precision", precision});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const auto expected = Open(Golden(name, "expected.safetensors"));
  const auto actual = Open(folder / "out.safetensors");
  const std::vector<float> mask = Mask(name);
  int compared = 0;
  for (const TensorEntry& entry : expected->entries()) {
    const bool by_position = entry.name == "logits" || entry.name.starts_with("hidden.");
    if (!by_position && !entry.name.starts_with("grad.")) continue;
    const std::vector<float> values = ReadFloats(*actual, entry.name);
    const size_t columns = static_cast<size_t>(entry.shape.back());
    // What stands at padding positions is arbitrary.
    EXPECT_LT(Difference(values, ReadFloats(*expected, entry.name), columns,
                         by_position ? mask : std::vector<float>()),
              tolerance)
        << name << " " << path << " " << entry.name;
    ++compared;
  }
  EXPECT_GT(compared, 10);
  const auto json = ReadJsonFile(Golden(name, "expected.json"));
  EXPECT_NEAR(ReadFloats(*actual, "loss").at(0) / json->Find("loss")->number(), 1, tolerance);
}

TEST(Trace, EverythingIsAsInHuggingFaceOnBothPaths) {
  for (const char* name : kCases) {
    for (const char* path : {"te", "hf"}) ExpectTrace(name, path, "fp32", kTolerance);
  }
}

TEST(Trace, Bf16IsNear) {
  // 2^-9 a rounding, some dozens of them in a row.
  for (const char* path : {"te", "hf"}) ExpectTrace("llama3-gqa", path, "bf16", 0.05);
}

TEST(Trace, ADisturbedWeightShows) {
  TemporaryFolder folder;
  const std::string name = "llama31-tied";
  std::filesystem::copy(Golden(name, "checkpoint"), folder / "model",
                        std::filesystem::copy_options::recursive);
  std::string weights = ReadFile(folder / "model/model.safetensors");
  weights[weights.size() - 1] ^= 0x01;  // an exponent of the last tensor's last element
  std::filesystem::remove(folder / "model/model.safetensors");
  WriteFile(folder / "model/model.safetensors", weights);
  ASSERT_EQ(RunTe({"trace", "--model", folder / "model", "--input",
                   Golden(name, "expected.safetensors"), "--output", folder / "out.safetensors"})
                .exit_code,
            0);
  const auto expected = Open(Golden(name, "expected.safetensors"));
  const auto actual = Open(folder / "out.safetensors");
  EXPECT_GT(
      Difference(ReadFloats(*actual, "logits"), ReadFloats(*expected, "logits"), 400, Mask(name)),
      kTolerance);
}

TEST(Trace, WithoutLabelsThereIsNoLossAndNoGradient) {
  TemporaryFolder folder;
  const std::vector<int64_t> ids = {5, 6, 7, 8};
  const std::vector<SafetensorsItem> items = {
      HostItem("input_ids", ConstTensorView(ids.data(), DType::kInt64, {1, 4})).value()};
  ASSERT_TRUE(WriteSafetensors(folder / "in.safetensors", items, {}, false).ok());
  const Arguments trace = {"trace",
                           "--model",
                           Golden("llama2-mha", "checkpoint"),
                           "--input",
                           folder / "in.safetensors",
                           "--output",
                           folder / "out.safetensors"};
  ASSERT_EQ(RunTe(trace).exit_code, 0);
  const auto out = Open(folder / "out.safetensors");
  ASSERT_EQ(out->entries().size(), 1u);
  EXPECT_EQ(out->entries()[0].name, "logits");
  EXPECT_EQ(out->entries()[0].shape, (std::vector<int64_t>{1, 4, 320}));
  Arguments gradients = trace;
  gradients.push_back("--gradients");
  const TeResult result = RunTe(gradients);
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_NE(result.err.find("labels"), std::string::npos);
}

std::string Join(const std::vector<JsonValue>& ids) {
  std::string text;
  for (const JsonValue& id : ids) text += (text.empty() ? "" : ",") + std::to_string(id.integer());
  return text;
}

TEST(Generate, TokensAreThoseOfHuggingFaceOnBothPaths) {
  for (const char* name : kCases) {
    const auto json = ReadJsonFile(Golden(name, "expected.json"));
    for (const char* path : {"te", "hf"}) {
      const TeResult result =
          RunTe({"generate", "--model", Golden(name, "checkpoint"), "--prompt-ids",
                 Join(json->Find("prompt")->array()), "--max-new-tokens", "24", "--ignore-eos",
                 "--output-ids", "--path", path, "--precision", "fp32"});
      EXPECT_EQ(result.exit_code, 0) << result.err;
      EXPECT_EQ(result.out, Join(json->Find("generated")->array()) + "\n") << name << " " << path;
    }
  }
}

TEST(Generate, StopsAtEosUnlessToldOtherwise) {
  TemporaryFolder folder;
  const auto json = ReadJsonFile(Golden("llama3-gqa", "expected.json"));
  const auto& generated = json->Find("generated")->array();
  std::filesystem::copy(Golden("llama3-gqa", "checkpoint"), folder / "model");
  std::string config = ReadFile(folder / "model/config.json");
  const std::string key = "\"eos_token_id\": 2";
  ASSERT_NE(config.find(key), std::string::npos);
  config.replace(config.find(key), key.size(),
                 "\"eos_token_id\": " + std::to_string(generated[3].integer()));
  std::filesystem::remove(folder / "model/config.json");
  WriteFile(folder / "model/config.json", config);
  Arguments generate = {"generate",
                        "--model",
                        folder / "model",
                        "--prompt-ids",
                        Join(json->Find("prompt")->array()),
                        "--max-new-tokens",
                        "6",
                        "--output-ids"};
  EXPECT_EQ(RunTe(generate).out, Join({generated.begin(), generated.begin() + 4}) + "\n");
  generate.push_back("--ignore-eos");
  EXPECT_EQ(RunTe(generate).out, Join({generated.begin(), generated.begin() + 6}) + "\n");
}

TEST(Generate, TheDemosModelTellsAStory) {
  const TeResult result = RunTe({"generate", "--model", "models/demo/checkpoint", "--prompt",
                                 "Once there was", "--max-new-tokens", "30"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_TRUE(result.out.starts_with("Once there was a")) << result.out;
  EXPECT_NE(result.out.find(" named "), std::string::npos) << result.out;
  EXPECT_EQ(Lines(result.out), 1);
  EXPECT_EQ(result.err, "");
}

TEST(Inspect, ShowsTreeAndNames) {
  const TeResult result = RunTe({"inspect", "--model", Golden("llama3-gqa", "checkpoint")});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  for (const char* text : {"TransformerLayer(", "(self_attention): MultiheadAttention(",
                           "(layernorm_qkv): LayerNormLinear", "model.layers.2.mlp.up_proj.weight",
                           "fc1_weight", "weights: "}) {
    EXPECT_NE(result.out.find(text), std::string::npos) << text;
  }
}

}  // namespace
}  // namespace te
