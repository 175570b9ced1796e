#include "models/quantization/fp8_state_file.h"

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <limits>

#include "models/checkpoint/testing_files.h"
#include "models/checkpoint/testing_safetensors.h"
#include "models/quantization/fp8_options.h"
#include "te_kernels/testing/checked.h"

namespace te {
namespace {

constexpr int64_t kLayers = 1;
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();
const char kSlot[] = "model.layers.0.layernorm_mlp.fc2.weight";

using test::Value;

void ExpectError(const Status& status, StatusCode code, const std::string& part) {
  EXPECT_EQ(status.code(), code) << part << ": " << status.message();
  EXPECT_NE(status.message().find(part), std::string::npos) << status.message();
}

// What a model of one layer leaves, with a history of 4.
Fp8State State() {
  Fp8State state;
  state.recipe = "DelayedScaling";
  state.step = 17;
  for (const std::string& module : QuantizedModules(kLayers)) {
    for (const char* tensor : {"grad_output", "input", "weight"}) {
      const float n = static_cast<float>(state.slots.size());
      state.slots.push_back({.name = module + "." + tensor,
                             .format = std::string(tensor) == "grad_output"
                                           ? QuantFormat::kFloat8E5M2
                                           : QuantFormat::kFloat8E4M3,
                             .scale = 0.1f + n,
                             .amax_history = {0, n / 3, 1e-40f, kInfinity}});
    }
  }
  std::sort(state.slots.begin(), state.slots.end(),
            [](const auto& a, const auto& b) { return a.name < b.name; });
  return state;
}

std::unique_ptr<Recipe> Delayed(int64_t length) {
  return Value(MakeRecipe(DelayedScalingRecipe{.amax_history_len = length}));
}

bool SameBits(const Fp8State& a, const Fp8State& b) {
  if (a.recipe != b.recipe || a.step != b.step || a.slots.size() != b.slots.size()) return false;
  for (size_t i = 0; i < a.slots.size(); ++i) {
    const auto &x = a.slots[i], &y = b.slots[i];
    if (x.name != y.name || x.format != y.format || std::memcmp(&x.scale, &y.scale, 4) != 0 ||
        x.amax_history.size() != y.amax_history.size() ||
        std::memcmp(x.amax_history.data(), y.amax_history.data(), 4 * x.amax_history.size()) != 0)
      return false;
  }
  return true;
}

class Fp8StateFileTest : public testing::Test {
 protected:
  Fp8StateFileTest() : path_(FreshFolder("fp8") + "/te_fp8_state.safetensors") {
    const Status status = WriteFp8State(path_, State());
    EXPECT_TRUE(status.ok()) << status.message();
    good_ = EditableSafetensors::Read(path_);
  }
  void ExpectUnreadable(const EditableSafetensors& file, const std::string& part) {
    file.Write(path_);
    const Status status = ReadFp8State(path_).status();
    ExpectError(status, StatusCode::kCorruptData, part);
    EXPECT_NE(status.message().find(path_), std::string::npos) << status.message();
  }

  std::string path_;
  EditableSafetensors good_;
};

TEST_F(Fp8StateFileTest, ComesBackBitForBit) {
  const Fp8State read = Value(ReadFp8State(path_));
  EXPECT_TRUE(SameBits(read, State()));
  EXPECT_EQ(CountModules(read), 5);
  Fp8State twin = State();
  twin.slots[3].amax_history[2] = 2e-40f;
  EXPECT_FALSE(SameBits(read, twin));
  good_.EraseMetadata("step");  // files of before
  good_.Write(path_);
  EXPECT_FALSE(Value(ReadFp8State(path_)).step.has_value());
}

TEST_F(Fp8StateFileTest, TensorsOfAnotherKindAreNamed) {
  const std::string scale = std::string(kSlot) + ".scale",
                    history = kSlot + std::string(".amax_history");
  auto file = good_;
  file.Tensor(scale).type = StoredType::kI32;
  ExpectUnreadable(file, scale + " is I32 [1]; expected F32 [1]");
  file = good_;
  file.Tensor(history).shape = {2, 2};
  ExpectUnreadable(file, history + " is F32 [2, 2]; expected F32 [1] to F32 [1048576]");
  file = good_;
  file.Tensor(history).shape = {0};
  file.Tensor(history).bytes.clear();
  ExpectUnreadable(file, history + " is F32 [0]");
  file = good_;
  file.Tensor(scale).shape = {2};
  file.Tensor(scale).bytes += std::string(4, '\1');
  ExpectUnreadable(file, scale + " has 2 elements; expected 1");
  file = good_;
  file.Erase(scale);
  ExpectUnreadable(file, scale + " is missing");
  file = good_;
  file.Erase(history);
  ExpectUnreadable(file, history + " is missing");
  file = good_;
  file.EraseMetadata(std::string("format.") + kSlot);
  ExpectUnreadable(file, std::string("metadata format.") + kSlot + " is missing");
  file = good_;
  file.tensors.push_back({"surplus", StoredType::kF32, {1}, std::string(4, '\0')});
  ExpectUnreadable(file, "tensor surplus; expected names that end in .scale or .amax_history");
}

TEST_F(Fp8StateFileTest, ValuesThatNoRecipeLeavesAreNamed) {
  const std::string scale = std::string(kSlot) + ".scale",
                    history = kSlot + std::string(".amax_history");
  for (const float bad : {kNaN, -1.0f, 0.0f, kInfinity}) {
    auto file = good_;
    file.Set(scale, 0, bad);
    ExpectUnreadable(file, fmt::format("{} is {}; expected a finite number above 0", scale, bad));
  }
  for (const float bad : {kNaN, -1e-30f, -kInfinity}) {
    auto file = good_;
    file.Set(history, 2, bad);
    ExpectUnreadable(file, fmt::format("{}[2] is {}; expected 0 or more", history, bad));
  }
}

TEST_F(Fp8StateFileTest, MetadataIsChecked) {
  auto file = good_;
  file.Metadata("te_fp8_state") = "2";
  ExpectUnreadable(file, "this build reads version 1");
  file.EraseMetadata("te_fp8_state");
  ExpectUnreadable(file, "no FP8 state file of te");
  for (const char* bad : {"-1", "", "3x", "99999999999999999999"}) {
    file = good_;
    file.Metadata("step") = bad;
    ExpectUnreadable(file, fmt::format("metadata step: is \"{}\"; expected a whole number", bad));
  }
  file = good_;
  file.Metadata(std::string("format.") + kSlot) = "e3m4";
  ExpectUnreadable(file, "format is \"e3m4\"; expected e4m3 or e5m2");
  file = good_;
  file.Metadata("surplus") = "";
  ExpectUnreadable(file, "unknown metadata key surplus");
}

TEST_F(Fp8StateFileTest, BytesThatAreNoSafetensorsAreRefused) {
  const std::string bytes = ReadFile(path_);
  for (size_t size = 0; size < bytes.size(); size += 13) {
    WriteFile(path_, bytes.substr(0, size));
    EXPECT_EQ(ReadFp8State(path_).status().code(), StatusCode::kCorruptData) << size;
  }
  std::string huge = bytes;
  std::memset(huge.data(), 0x7f, 7);  // a header of 2^55 bytes
  WriteFile(path_, huge);
  ExpectError(ReadFp8State(path_).status(), StatusCode::kCorruptData, "header length");
  std::filesystem::remove(path_);
  ExpectError(ReadFp8State(path_).status(), StatusCode::kNotFound, path_);
}

TEST_F(Fp8StateFileTest, FitsOnlyTheModelAndTheRecipe) {
  Fp8State state = State();
  Fp8StateFit fit = Value(FitFp8State("f", *Delayed(4), kLayers, false, &state));
  EXPECT_EQ(fit.used, 15);
  EXPECT_EQ(fit.missing, 0);
  state.slots.pop_back();
  fit = Value(FitFp8State("f", *Delayed(4), kLayers, false, &state));
  EXPECT_EQ(fit.used, 14);
  EXPECT_EQ(fit.missing, 1);
  state = State();
  state.slots[0].name = "model.layers.1.layernorm_mlp.fc2.weight";  // a deeper model's
  ExpectError(FitFp8State("f", *Delayed(4), kLayers, false, &state).status(),
              StatusCode::kInvalidArgument,
              "f: model.layers.1.layernorm_mlp.fc2.weight is no quantized tensor of the model's 1");
  state = State();
  ExpectError(FitFp8State("f", *Delayed(8), kLayers, false, &state).status(),
              StatusCode::kInvalidArgument, "a history of 4, but the recipe");
  state = State();
  std::swap(state.slots[0].format, state.slots[1].format);  // grad_output's and input's
  ExpectError(FitFp8State("f", *Delayed(4), kLayers, false, &state).status(),
              StatusCode::kInvalidArgument, "has format e4m3");
}

// Slots that exist keep what they have when one of them refuses.
TEST_F(Fp8StateFileTest, ARefusedImportChangesNothing) {
  const auto context = Value(Context::Create({.num_threads = 1}));
  DelayedScalingState& scaling = context->delayed_scaling();
  const auto recipe = Delayed(4);
  for (const char* name : {"a.input", "b.input"}) {
    Value(scaling.NewSlot(context->exec(), name, recipe->For({{}, "input", "a"}),
                          ScalingDirection::kForward));
  }
  const auto saved = [](const char* name, float scale, size_t length) {
    return DelayedScalingState::Saved{.name = name,
                                      .format = QuantFormat::kFloat8E4M3,
                                      .scale = scale,
                                      .amax_history = std::vector<float>(length, 2.0f)};
  };
  const auto scales = [&] {
    std::vector<float> out;
    for (const auto& slot : Value(scaling.Export(context->exec()))) out.push_back(slot.scale);
    return out;
  };
  ExpectError(scaling.Import(context->exec(), {saved("a.input", 3, 4), saved("b.input", 3, 8)}),
              StatusCode::kFailedPrecondition, "b.input has format e4m3 and a history of 8");
  EXPECT_EQ(scales(), (std::vector<float>{1, 1}));
  auto nan = saved("b.input", 3, 4);
  nan.amax_history[1] = kNaN;
  ExpectError(scaling.Import(context->exec(), {saved("a.input", 3, 4), nan}),
              StatusCode::kInvalidArgument, "FP8 state of b.input: an amax is nan");
  EXPECT_EQ(scales(), (std::vector<float>{1, 1}));
  const Status good =
      scaling.Import(context->exec(), {saved("a.input", 3, 4), saved("b.input", 5, 4)});
  EXPECT_TRUE(good.ok()) << good.message();
  EXPECT_EQ(scales(), (std::vector<float>{3, 5}));
}

}  // namespace
}  // namespace te
