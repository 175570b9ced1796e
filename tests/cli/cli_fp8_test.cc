// te --precision fp8 from the outside: losses fall, state comes back, wrong flags are named.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <sstream>

#include "models/checkpoint/testing_safetensors.h"
#include "models/json/json.h"
#include "tests/cli/run_te.h"

namespace te {
namespace {

using Arguments = std::vector<std::string>;

const std::string kModel = "tests/golden/llama3-gqa/checkpoint";
const std::string kBatch = "tests/golden/llama3-gqa/expected.safetensors";
constexpr char kState[] = "/te_fp8_state.safetensors";

TeResult Finetune(const std::string& model, const std::string& output, const Arguments& more) {
  Arguments arguments = {"finetune",
                         "--model",
                         model,
                         "--data",
                         "tests/golden/llama3-gqa/expected.safetensors",
                         "--output",
                         output,
                         "--warmup-steps",
                         "2",
                         "--lr",
                         "1e-3",
                         "--batch-size",
                         "3"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return RunTe(arguments);
}

TEST(Fp8Finetune, TheLossFallsWithEveryRecipe) {
  for (const char* recipe : {"delayed", "current", "block", "mxfp8", "nvfp4"}) {
    TemporaryFolder folder;
    const std::string log = folder / "log.jsonl";
    const TeResult result =
        Finetune(kModel, folder / "out",
                 {"--precision", "fp8", "--recipe", recipe, "--steps", "20", "--log", log});
    ASSERT_EQ(result.exit_code, 0) << result.err;
    std::istringstream lines(ReadFile(log));
    std::vector<double> losses;
    for (std::string line; std::getline(lines, line);)
      losses.push_back(ParseJson(line)->Find("loss")->number());
    ASSERT_EQ(losses.size(), 20u);
    EXPECT_LT(losses.back(), 0.5 * losses.front()) << recipe;
    EXPECT_EQ(std::filesystem::exists(folder / "out" + kState), std::string(recipe) == "delayed");
  }
}

TEST(Fp8Finetune, TheLossFallsWithFurtherParameters) {
  const struct {
    const char* recipe;
    const char* parameters;
  } cases[] = {
      {"current", R"({"backward_override": "high_precision"})"},
      {"mxfp8", R"({"backward_override": "dequantized"})"},
      {"block", R"({"w_block_scaling_dim": 1, "use_f32_scales": true})"},
      {"nvfp4", R"({"disable_rht": true, "row_scaled_activation": true, "nvfp4_4over6": "all"})"},
  };
  for (const auto& c : cases) {
    TemporaryFolder folder;
    const auto losses = [&](const Arguments& more) {
      const std::string log = folder / "log.jsonl";
      Arguments flags = {"--precision", "fp8", "--recipe", c.recipe, "--steps", "20", "--log", log};
      flags.insert(flags.end(), more.begin(), more.end());
      const TeResult result = Finetune(kModel, folder / "out", flags);
      EXPECT_EQ(result.exit_code, 0) << result.err;
      std::istringstream lines(ReadFile(log));
      std::vector<double> out;
      for (std::string line; std::getline(lines, line);)
        out.push_back(ParseJson(line)->Find("loss")->number());
      return out;
    };
    const std::vector<double> with = losses({"--fp8-recipe-parameters", c.parameters});
    ASSERT_EQ(with.size(), 20u);
    EXPECT_LT(with.back(), 0.5 * with.front()) << c.parameters;
    EXPECT_NE(with, losses({})) << c.parameters;
  }
}

TEST(Fp8Finetune, StateComesBackBitForBitAndGoesWithItsWeights) {
  TemporaryFolder folder;
  const std::string out = folder / "out", copy = folder / "copy";
  ASSERT_EQ(Finetune(kModel, out, {"--precision", "fp8", "--steps", "4"}).exit_code, 0);
  const TeResult again = Finetune(out, copy, {"--precision", "fp8", "--steps", "0"});
  ASSERT_EQ(again.exit_code, 0) << again.err;
  EXPECT_NE(again.out.find("no calibration"), std::string::npos) << again.out;
  EXPECT_EQ(ReadFile(out + kState), ReadFile(copy + kState));
  const TeResult other =
      Finetune(out, copy, {"--precision", "fp8", "--steps", "4", "--fp8-amax-history-len", "16"});
  EXPECT_EQ(other.exit_code, 2);
  EXPECT_NE(other.err.find("a history of 1024"), std::string::npos) << other.err;
  WriteFile(copy + kState, ReadFile(copy + kState).substr(0, 1000));
  const TeResult cut = Finetune(copy, folder / "third", {"--precision", "fp8", "--steps", "4"});
  EXPECT_NE(cut.exit_code, 0);
  EXPECT_NE(cut.err.find("te_fp8_state.safetensors"), std::string::npos) << cut.err;
  ASSERT_EQ(Finetune(out, out, {"--precision", "bf16", "--steps", "1"}).exit_code, 0);
  EXPECT_FALSE(std::filesystem::exists(out + kState));
}

TEST(Fp8Finetune, WeightsInFp8AloneLearnAndComeBack) {
  for (const std::string recipe : {"delayed", "current"}) {
    TemporaryFolder folder;
    const std::string log = folder / "log.jsonl", out = folder / "out";
    const auto train = [&](const std::string& model, const char* steps) {
      return Finetune(model, out,
                      {"--precision", "fp8", "--fp8-weights-only", "--recipe", recipe, "--steps",
                       steps, "--gradient-accumulation-steps", "2", "--max-grad-norm", "1",
                       "--fp8-last-layers-bf16", "1", "--log", log});
    };
    const auto losses = [&log] {
      std::istringstream lines(ReadFile(log));
      std::vector<double> out;
      for (std::string line; std::getline(lines, line);)
        out.push_back(ParseJson(line)->Find("loss")->number());
      return out;
    };
    const TeResult result = train(kModel, "20");
    ASSERT_EQ(result.exit_code, 0) << result.err;
    EXPECT_NE(result.out.find("weights in FP8 alone"), std::string::npos) << result.out;
    const std::vector<double> first = losses();
    ASSERT_EQ(first.size(), 20u);
    EXPECT_LT(first.back(), 0.6 * first.front()) << recipe;
    EXPECT_EQ(std::filesystem::exists(out + kState), recipe == "delayed");
    // It goes on where it was, from its own directory to its own directory.
    const TeResult again = train(out, "4");
    ASSERT_EQ(again.exit_code, 0) << again.err;
    EXPECT_LT(losses().front(), 1.2 * first.back()) << recipe;
    EXPECT_EQ(again.out.find("no calibration") != std::string::npos, recipe == "delayed");
  }
}

// The state of BF16 weights, whose scale may lag behind their last update, serves as well.
TEST(Fp8Finetune, WeightsInFp8AloneGoOnFromBf16Ones) {
  TemporaryFolder folder;
  const std::string from = folder / "from", out = folder / "out";
  ASSERT_EQ(Finetune(kModel, from, {"--precision", "fp8", "--steps", "3"}).exit_code, 0);
  const TeResult result =
      Finetune(from, out, {"--precision", "fp8", "--fp8-weights-only", "--steps", "2"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_NE(result.out.find("no calibration"), std::string::npos) << result.out;
}

TEST(Fp8Finetune, WithFp8AttentionTheLossFallsAndTheStateComesBackBitForBit) {
  TemporaryFolder folder;
  const std::string out = folder / "out", copy = folder / "copy", log = folder / "log.jsonl";
  const TeResult first =
      Finetune(kModel, out, {"--precision", "fp8", "--fp8-dpa", "--steps", "20", "--log", log});
  ASSERT_EQ(first.exit_code, 0) << first.err;
  std::istringstream lines(ReadFile(log));
  std::vector<double> losses;
  for (std::string line; std::getline(lines, line);)
    losses.push_back(ParseJson(line)->Find("loss")->number());
  ASSERT_EQ(losses.size(), 20u);
  EXPECT_LT(losses.back(), 0.5 * losses.front());
  const std::string state = ReadFile(out + kState);
  for (const char* tensor : {"qkv", "s", "o", "do", "dp", "dqkv"}) {
    EXPECT_NE(
        state.find(std::string("layers.0.self_attention.core_attention.") + tensor + ".scale"),
        std::string::npos)
        << tensor;
  }
  const TeResult again = Finetune(out, copy, {"--precision", "fp8", "--fp8-dpa", "--steps", "0"});
  ASSERT_EQ(again.exit_code, 0) << again.err;
  EXPECT_NE(again.out.find("no calibration"), std::string::npos) << again.out;
  EXPECT_EQ(state, ReadFile(copy + kState));
  // Without the option its tensors' state is left.
  EXPECT_EQ(Finetune(out, copy, {"--precision", "fp8", "--steps", "1"}).exit_code, 0);
  EXPECT_EQ(ReadFile(copy + kState).find("core_attention"), std::string::npos);
}

TEST(Fp8Flags, AreNeverIgnored) {
  TemporaryFolder folder;
  const std::string rules = folder / "rules.json";
  const auto refused = [&](const Arguments& flags, const std::string& message) {
    const TeResult result = Finetune(kModel, folder / "out", flags);
    EXPECT_EQ(result.exit_code, 2) << message;
    EXPECT_NE(result.err.find(message), std::string::npos) << result.err;
  };
  refused({"--fp8-margin", "3"}, "--fp8-margin 3 has no effect with --precision bf16");
  refused({"--precision", "fp8", "--recipe", "x"}, "--recipe is \"x\"; expected delayed");
  refused({"--precision", "fp8", "--recipe", "current", "--fp8-margin", "3"},
          "--fp8-margin is 3, which --recipe current does not have");
  refused({"--precision", "fp8", "--recipe", "block", "--fp8-calibration-steps", "1"},
          "--fp8-calibration-steps is 1");
  refused({"--precision", "fp8", "--recipe", "nvfp4", "--fp8-format", "e4m3"},
          "--fp8-format is e4m3");
  refused({"--fp8-recipe-parameters", "{}"}, "--fp8-recipe-parameters {} has no effect");
  refused({"--fp8-dpa"}, "--fp8-dpa has no effect with --precision bf16");
  refused({"--precision", "fp8", "--recipe", "current", "--fp8-dpa"},
          "--fp8-dpa with --recipe current; expected it with --recipe delayed");
  refused({"--precision", "fp8", "--fp8-dpa", "--fp8-recipe-parameters", R"({"fp8_dpa": true})"},
          "--fp8-dpa and --fp8-recipe-parameters's fp8_dpa are both given");
  const auto parameters = [&](const char* recipe, const char* json, const std::string& message) {
    refused({"--precision", "fp8", "--recipe", recipe, "--fp8-recipe-parameters", json}, message);
  };
  parameters("current", "{", "--fp8-recipe-parameters");
  parameters("current", R"({"margin": 1})",
             "--fp8-recipe-parameters: unknown key \"margin\"; expected fp8_format");
  parameters("delayed", R"({"backward_override": "dequantized"})",
             "--fp8-recipe-parameters: DelayedScaling: backward_override is dequantized");
  parameters("nvfp4", R"({"row_scaled_activation": true})", "expected disable_rht true");
  refused(
      {"--precision", "fp8", "--fp8-margin", "1", "--fp8-recipe-parameters", R"({"margin": 2})"},
      "--fp8-margin is 1 and --fp8-recipe-parameters's margin is 2");
  refused({"--precision", "fp8", "--path", "hf"}, "--path is hf");
  refused({"--fp8-weights-only"}, "--fp8-weights-only has no effect with --precision bf16");
  for (const char* recipe : {"block", "mxfp8", "nvfp4"})
    refused({"--precision", "fp8", "--recipe", recipe, "--fp8-weights-only"},
            "--fp8-weights-only with --recipe");
  refused({"--precision", "fp8", "--fp8-weights-only", "--master-weights", "fp32"},
          "--master-weights is fp32 with --fp8-weights-only");
  refused({"--precision", "fp8", "--fp8-weights-only", "--rounding", "nearest"},
          "--rounding is nearest with --fp8-weights-only");
  refused({"--precision", "fp8", "--fp8-first-layers-bf16", "9"}, "at most the model's 3 layers");
  refused({"--precision", "fp8", "--fp8-first-layers-bf16", "3"}, "no module is left");
  const auto rule = [&](const std::string& text, const std::string& message) {
    WriteFile(rules, text);
    refused({"--precision", "fp8", "--fp8-recipe-file", rules}, message);
  };
  WriteFile(rules, R"({"configs":{"b":{"training_recipe":{"recipe":"block"}}},)"
                   R"("matchers":[{"pattern":"*.fc2","config":"b"}]})");
  refused({"--precision", "fp8", "--fp8-recipe-file", rules, "--fp8-weights-only"},
          "pattern \"*.fc2\"");
  const std::string good = R"("configs":{"w":{"training_recipe":null}})";
  rule("{" + good + R"(,"matchers":[{"pattern":"*.fc3","config":"w"}]})", "matches no module");
  rule("{" + good + R"(,"matchers":[{"pattern":"*","config":"v"}]})", "matchers[0].config is");
  rule("{" + good + R"(,"matchers":[],"x":1})", "unknown key \"x\"");
  rule(R"({"configs":{"w":{"training_recipe":{"recipe":"current","margin":1}}},"matchers":[]})",
       "unknown key \"margin\"");
}

// Of a tensor of a file that te trace wrote.
std::vector<float> Floats(const std::string& path, const std::string& name) {
  auto file = EditableSafetensors::Read(path);
  const std::string& bytes = file.Tensor(name).bytes;
  std::vector<float> out(bytes.size() / sizeof(float));
  std::memcpy(out.data(), bytes.data(), bytes.size());
  return out;
}

// |a - b| / |b| in the 2-norm, over the rows of `columns` elements that are tokens.
double Difference(const std::vector<float>& a, const std::vector<float>& b, size_t columns) {
  auto file = EditableSafetensors::Read(kBatch);
  const EditableTensor& mask = file.Tensor("attention_mask");
  const size_t width = static_cast<size_t>(BitsOf(mask.type)) / 8;
  EXPECT_EQ(a.size(), mask.bytes.size() / width * columns);
  EXPECT_EQ(a.size(), b.size());
  double error = 0, norm = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    if (mask.bytes[i / columns * width] == 0) continue;  // little endian
    error += std::pow(static_cast<double>(a[i]) - b[i], 2);
    norm += std::pow(static_cast<double>(b[i]), 2);
  }
  return std::sqrt(error / norm);
}

// Of three layers' seven quantized maps (q, k, v, o, gate, up, down), each of two operands whose
// casts err by `cast` (root mean square, relative): independent errors add in squares. E4M3 rounds
// by up to 2^-4 of a value, 0.026 in the mean; E2M1, whose steps are up to a half of a value, by
// 0.1.
double Bound(double cast) { return cast * std::sqrt(2.0 * 3 * 7); }

constexpr size_t kVocabulary = 512;

TEST(Fp8Trace, IsNearBf16AndNotTheSameWithEveryRecipe) {
  TemporaryFolder folder;
  const std::string trained = folder / "trained";
  ASSERT_EQ(Finetune(kModel, trained, {"--precision", "fp8", "--steps", "6"}).exit_code, 0);
  const std::string state = ReadFile(trained + kState);
  const auto trace = [&](const std::string& output, const Arguments& more) {
    Arguments arguments = {"trace", "--model",  trained,         "--input",
                           kBatch,  "--output", folder / output, "--hidden-states"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return RunTe(arguments);
  };
  ASSERT_EQ(trace("bf16", {"--precision", "bf16"}).exit_code, 0);
  const auto plain = Floats(folder / "bf16", "logits");
  for (const char* recipe : {"delayed", "current", "block", "mxfp8", "nvfp4"}) {
    SCOPED_TRACE(recipe);
    const Arguments flags = {"--precision", "fp8", "--recipe", recipe};
    const TeResult result = trace("fp8", flags);
    ASSERT_EQ(result.exit_code, 0) << result.err;
    const auto logits = Floats(folder / "fp8", "logits");
    const double bound = Bound(std::string(recipe) == "nvfp4" ? 0.1 : 0.026);
    const double error = Difference(logits, plain, kVocabulary);
    EXPECT_LT(error, bound);
    EXPECT_GT(error, 1e-3) << "nothing was quantized";
    // Twin: one logit in eight wrong by its row's size.
    auto wrong = logits;
    for (size_t i = 0; i < wrong.size(); i += 8) wrong[i] += 2 * std::abs(wrong[i]) + 1;
    EXPECT_GT(Difference(wrong, plain, kVocabulary), bound);
    // Evaluation leaves no trace: neither in the file nor in the next call.
    EXPECT_EQ(ReadFile(trained + kState), state);
    const std::string first = ReadFile(folder / "fp8");
    ASSERT_EQ(trace("fp8", flags).exit_code, 0);
    EXPECT_TRUE(ReadFile(folder / "fp8") == first);
  }
  // The scales of delayed scaling are those of the file.
  const auto before = Floats(folder / "fp8", "logits");
  ASSERT_EQ(trace("delayed", {"--precision", "fp8"}).exit_code, 0);
  auto file = EditableSafetensors::Read(trained + kState);
  const std::string scale = "model.layers.1.layernorm_mlp.fc2.weight.scale";
  file.Set(scale, 0, 2.0f / 3 * file.Get(scale, 0));
  file.Write(trained + kState);
  ASSERT_EQ(trace("scaled", {"--precision", "fp8"}).exit_code, 0);
  EXPECT_FALSE(Floats(folder / "scaled", "logits") == Floats(folder / "delayed", "logits"));

  const auto refused = [&](const Arguments& flags, const std::string& message) {
    const TeResult result = trace("none", flags);
    EXPECT_EQ(result.exit_code, 2) << message;
    EXPECT_NE(result.err.find(message), std::string::npos) << result.err;
    EXPECT_FALSE(std::filesystem::exists(folder / "none"));
  };
  refused({"--precision", "fp8", "--gradients"}, "--gradients with --precision fp8");
  file.Set(scale, 0, -1);
  file.Write(trained + kState);
  refused({"--precision", "fp8"}, scale + " is -1; expected a finite number above 0");
  std::filesystem::remove(trained + kState);
  refused({"--precision", "fp8"},
          "expected the FP8 state that te finetune --recipe delayed writes");
}

TEST(Fp8Generate, ContinuesWhatItHasLearnedByTheScalesOfTheFile) {
  TemporaryFolder folder;
  const std::string trained = folder / "trained";
  // Long enough that the next token of the texts is far ahead of the others.
  ASSERT_EQ(Finetune(kModel, trained, {"--precision", "fp8", "--steps", "60"}).exit_code, 0);
  auto batch = EditableSafetensors::Read(kBatch);
  const EditableTensor& ids = batch.Tensor("input_ids");
  const size_t width = static_cast<size_t>(BitsOf(ids.type)) / 8;
  const auto text = [&](size_t begin, size_t end) {  // of the first sample
    std::string out;
    for (size_t i = begin; i < end; ++i) {
      int32_t id = 0;
      std::memcpy(&id, ids.bytes.data() + i * width, sizeof(id));
      if (!out.empty()) out += ',';
      out += std::to_string(id);
    }
    return out;
  };
  const std::string prompt = text(0, 12), learned = text(12, 24) + "\n";
  const auto generate = [&](const Arguments& more) {
    Arguments arguments = {"generate", "--model",      trained,        "--prompt-ids",
                           prompt,     "--ignore-eos", "--output-ids", "--max-new-tokens",
                           "12"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return RunTe(arguments);
  };
  EXPECT_EQ(generate({"--precision", "bf16"}).out, learned);
  for (const char* recipe : {"delayed", "current", "block", "mxfp8", "nvfp4"}) {
    const TeResult result = generate({"--precision", "fp8", "--recipe", recipe});
    EXPECT_EQ(result.exit_code, 0) << result.err;
    EXPECT_EQ(result.out, learned) << recipe;
  }
  // Scales that push everything below E4M3's smallest step: other tokens.
  auto file = EditableSafetensors::Read(trained + kState);
  for (const EditableTensor& tensor : std::vector<EditableTensor>(file.tensors)) {
    if (tensor.name.ends_with(".weight.scale")) file.Set(tensor.name, 0, 1e-6f);
  }
  file.Write(trained + kState);
  EXPECT_NE(generate({"--precision", "fp8"}).out, learned);
  std::filesystem::remove(trained + kState);
  const TeResult without = generate({"--precision", "fp8"});
  EXPECT_EQ(without.exit_code, 2);
  EXPECT_NE(without.err.find("expected the FP8 state"), std::string::npos) << without.err;
}

TEST(Inspect, ShowsTheStateBesideTheWeights) {
  TemporaryFolder folder;
  const std::string out = folder / "out";
  ASSERT_EQ(Finetune(kModel, out, {"--precision", "fp8", "--steps", "3", "--save-optimizer-state"})
                .exit_code,
            0);
  const auto inspect = [&] { return RunTe({"inspect", "--model", out}); };
  TeResult shown = inspect();
  EXPECT_EQ(shown.exit_code, 0) << shown.err;
  EXPECT_NE(shown.out.find("fp8 state: 36 tensors of 12 modules, written by DelayedScaling"),
            std::string::npos)
      << shown.out;
  EXPECT_NE(shown.out.find("after 3 updates in " + out + kState), std::string::npos) << shown.out;
  EXPECT_NE(shown.out.find("optimizer state: AdamW after 3 updates (3 steps of the run), 21 "
                           "parameters in "),
            std::string::npos)
      << shown.out;
  WriteFile(out + kState, "x");
  WriteFile(out + "/te_optimizer_state.safetensors", "x");
  shown = inspect();
  EXPECT_EQ(shown.exit_code, 2);
  EXPECT_NE(shown.err.find("error: fp8 state: "), std::string::npos) << shown.err;
  EXPECT_NE(shown.err.find("error: optimizer state: "), std::string::npos) << shown.err;
  const TeResult bare = RunTe({"inspect", "--model", kModel});
  EXPECT_EQ(bare.out.find(" state: "), std::string::npos) << bare.out;
}

}  // namespace
}  // namespace te
