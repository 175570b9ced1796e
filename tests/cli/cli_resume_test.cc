// te finetune --save-optimizer-state and --resume: a run that stops and goes on in another process
// leaves the same bits as one that never stopped.
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <filesystem>
#include <random>
#include <sstream>

#include "fmt/ranges.h"
#include "models/checkpoint/testing_safetensors.h"
#include "models/json/json.h"
#include "tests/cli/run_te.h"
#include "tests/cli/tensor_bytes.h"

namespace te {
namespace {

namespace fs = std::filesystem;
using Arguments = std::vector<std::string>;

constexpr char kFp8State[] = "/te_fp8_state.safetensors";
constexpr char kOptimizerState[] = "/te_optimizer_state.safetensors";

Arguments operator+(Arguments a, const Arguments& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

// The command line takes a flag once: of one that is given twice, the last one counts.
Arguments LastWins(const Arguments& arguments) {
  Arguments out;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string& flag = arguments[i];
    const bool again = flag.starts_with("--") && flag != "--freeze" &&
                       (std::find(arguments.begin() + static_cast<std::ptrdiff_t>(i) + 1,
                                  arguments.end(), flag) != arguments.end() ||
                        (flag == "--shuffle" && std::find(arguments.begin(), arguments.end(),
                                                          "--no-shuffle") != arguments.end()));
    if (!again) {
      out.push_back(flag);
    } else if (i + 1 < arguments.size() && !arguments[i + 1].starts_with("--")) {
      ++i;  // its value
    }
  }
  return out;
}

TeResult Succeed(const Arguments& arguments) {
  const TeResult result = RunTe(arguments);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  return result;
}

// Loss, gradient norm and learning rate of each step: what a log says but for the time.
std::vector<std::string> Steps(const std::string& path) {
  std::istringstream lines(ReadFile(path));
  std::vector<std::string> steps;
  for (std::string line; std::getline(lines, line);) {
    const auto json = ParseJson(line);
    EXPECT_TRUE(json.ok()) << line;
    if (!json.ok()) continue;
    steps.push_back(fmt::format("{} {} {} {} {}", json->Find("step")->integer(),
                                json->Find("loss")->ToString(), json->Find("grad_norm")->ToString(),
                                json->Find("learning_rate")->number(),
                                json->Find("tokens")->integer()));
  }
  return steps;
}

// A golden model whose attention drops out, and 7 samples of 16 tokens; those of `uncounted` have
// no label.
class Resume : public testing::Test {
 protected:
  void MakeModel(const std::string& name, const char* attention_dropout = "0.1") {
    fs::remove_all(Path("model"));
    fs::copy("tests/golden/" + name + "/checkpoint", Path("model"), fs::copy_options::recursive);
    std::string config = ReadFile(Path("model/config.json"));
    config.insert(config.find('{') + 1,
                  fmt::format("\"attention_dropout\": {},", attention_dropout));
    fs::remove(Path("model/config.json"));
    WriteFile(Path("model/config.json"), config);
  }
  void MakeData(const std::vector<int64_t>& uncounted) {
    constexpr int64_t kSamples = 7, kLength = 16;
    std::vector<int64_t> ids, labels;
    std::mt19937 random(5);
    for (int64_t i = 0; i < kSamples; ++i) {
      const bool counts = std::find(uncounted.begin(), uncounted.end(), i) == uncounted.end();
      for (int64_t s = 0; s < kLength; ++s) {
        ids.push_back(static_cast<int64_t>(random() % 300));
        labels.push_back(counts ? ids.back() : -100);
      }
    }
    const std::vector<SafetensorsItem> items = {
        HostItem("input_ids", ConstTensorView(ids.data(), DType::kInt64, {kSamples, kLength}))
            .value(),
        HostItem("labels", ConstTensorView(labels.data(), DType::kInt64, {kSamples, kLength}))
            .value()};
    fs::remove(Path("data.safetensors"));
    ASSERT_TRUE(WriteSafetensors(Path("data.safetensors"), items, {}, false).ok());
  }
  void SetUp() override {
    MakeModel("llama3-gqa");
    MakeData({});
  }

  std::string Path(const std::string& name) const { return folder_ / name; }
  // One micro-batch is 1 sample; an update has 2, so an epoch does not end with an update.
  Arguments Finetune(const std::string& model, const std::string& output,
                     const Arguments& more) const {
    return LastWins(Arguments{"finetune",
                              "--model",
                              Path(model),
                              "--data",
                              Path("data.safetensors"),
                              "--output",
                              Path(output),
                              "--log",
                              Path(output + ".jsonl"),
                              "--threads",
                              "1",
                              "--batch-size",
                              "1",
                              "--gradient-accumulation-steps",
                              "2",
                              "--shuffle",
                              "--seed",
                              "11",
                              "--lr",
                              "1e-3",
                              "--warmup-steps",
                              "2",
                              "--max-grad-norm",
                              "1",
                              "--save-optimizer-state"} +
                    more);
  }
  static Arguments Constant(int steps) {
    return {"--lr-scheduler", "constant", "--steps", std::to_string(steps)};
  }
  // A run of `steps`, whole; and one that stops after `stop` of them and goes on.
  void RunBoth(const Arguments& flags, int stop, int steps) {
    Succeed(Finetune("model", "whole", flags + Constant(steps)));
    Succeed(Finetune("model", "part", flags + Constant(stop)));
    fs::remove_all(Path("kept"));
    fs::copy(Path("part"), Path("kept"), fs::copy_options::recursive);
    // In place: the log goes on, too.
    const TeResult resumed =
        Succeed(Finetune("part", "part", flags + Constant(steps) + Arguments{"--resume"}));
    EXPECT_EQ(resumed.err, "");
    EXPECT_NE(resumed.out.find(fmt::format("{} steps are made", stop)), std::string::npos)
        << resumed.out;
  }
  void ExpectSameBits() const {
    EXPECT_EQ(Steps(Path("part.jsonl")), Steps(Path("whole.jsonl")));
    EXPECT_TRUE(ReadCheckpoint(Path("part")) == ReadCheckpoint(Path("whole")));
    EXPECT_TRUE(ReadFile(Path("part") + kOptimizerState) ==
                ReadFile(Path("whole") + kOptimizerState));
    ASSERT_EQ(fs::exists(Path("part") + kFp8State), fs::exists(Path("whole") + kFp8State));
    if (fs::exists(Path("part") + kFp8State)) {
      EXPECT_TRUE(ReadFile(Path("part") + kFp8State) == ReadFile(Path("whole") + kFp8State));
    }
  }
  // Whether "kept", resumed after `change`, still ends as the whole run.
  template <typename Change>
  bool EndsTheSame(const Arguments& flags, int steps, const char* file, const Change& change) {
    fs::remove_all(Path("changed"));
    fs::copy(Path("kept"), Path("changed"), fs::copy_options::recursive);
    auto editable = EditableSafetensors::Read(Path("changed") + file);
    change(editable);
    editable.Write(Path("changed") + file);
    Succeed(Finetune("changed", "changed", flags + Constant(steps) + Arguments{"--resume"}));
    return ReadCheckpoint(Path("changed")) == ReadCheckpoint(Path("whole"));
  }

  TemporaryFolder folder_;
};

TEST_F(Resume, GivesTheSameBitsInEveryPrecision) {
  const std::vector<Arguments> cases = {
      {"--precision", "fp32"},  // of a checkpoint in bfloat16: the weight files round
      {"--precision", "bf16"},
      {"--precision", "bf16", "--master-weights", "fp32", "--moments", "fp32", "--rounding",
       "nearest"},
      {"--precision", "bf16", "--path", "hf"},
      {"--precision", "bf16", "--freeze", "model.embed_tokens.weight", "--freeze",
       "model.layers.0.*"},
      {"--precision", "bf16", "--save-dtype", "fp16"}};
  for (const Arguments& flags : cases) {
    SCOPED_TRACE(fmt::format("{}", fmt::join(flags, " ")));
    RunBoth(flags, 3, 5);
    ExpectSameBits();
    // Twin: the same weights without the state.
    Succeed(Finetune("kept", "fresh", flags + Constant(2)));
    EXPECT_FALSE(ReadCheckpoint(Path("fresh")) == ReadCheckpoint(Path("whole")));
  }
}

TEST_F(Resume, GivesTheSameBitsWithEveryRecipe) {
  for (const char* recipe : {"delayed", "current", "block", "mxfp8", "nvfp4"}) {
    SCOPED_TRACE(recipe);
    RunBoth({"--precision", "fp8", "--recipe", recipe}, 3, 5);
    ExpectSameBits();
  }
  for (const char* recipe : {"delayed", "current"}) {
    SCOPED_TRACE(fmt::format("{}, weights in FP8 alone", recipe));
    RunBoth({"--precision", "fp8", "--recipe", recipe, "--fp8-weights-only"}, 3, 5);
    ExpectSameBits();
    EXPECT_FALSE(EndsTheSame({"--precision", "fp8", "--recipe", recipe, "--fp8-weights-only"}, 5,
                             kOptimizerState, [](EditableSafetensors& file) {
                               const std::string weight =
                                   "model.layers.1.self_attention.proj.weight";
                               file.Tensor(weight + ".fp8_data").bytes[0] ^= 0x40;
                             }));
  }
  // lm_head runs after the end of the scope.
  RunBoth({"--precision", "fp8", "--fp8-lm-head", "--fp8-amax-history-len", "3"}, 3, 5);
  ExpectSameBits();
}

TEST_F(Resume, GivesTheSameBitsWithFp8Attention) {
  MakeModel("llama3-gqa", "0");  // which knows no dropout
  RunBoth({"--precision", "fp8", "--fp8-dpa"}, 3, 5);
  ExpectSameBits();
}

// Each part of the state is needed: changed a little, the run ends elsewhere.
TEST_F(Resume, EveryPartOfTheStateCounts) {
  const Arguments flags = {"--precision", "fp8"};
  const std::string weight = "model.layers.1.self_attention.proj.weight";
  RunBoth(flags, 3, 5);
  EXPECT_TRUE(EndsTheSame(flags, 5, kOptimizerState, [](EditableSafetensors&) {}));
  for (const char* suffix : {".exp_avg", ".exp_avg_sq"}) {
    EXPECT_FALSE(EndsTheSame(flags, 5, kOptimizerState, [&](EditableSafetensors& file) {
      file.Tensor(weight + suffix).bytes.assign(file.Tensor(weight + suffix).bytes.size(), '\0');
    })) << suffix;
  }
  // (step: the FP8 state says which it must be.)
  for (const std::string& key :
       {std::string("position"), std::string("rng_offset"), "random_stream." + weight}) {
    EXPECT_FALSE(EndsTheSame(flags, 5, kOptimizerState, [&](EditableSafetensors& file) {
      file.Metadata(key) = std::to_string(std::stoll(file.Metadata(key)) + 1);
    })) << key;
  }
  EXPECT_FALSE(EndsTheSame(flags, 5, kFp8State, [](EditableSafetensors& file) {
    const std::string scale = "model.layers.1.layernorm_mlp.fc1.input.scale";
    file.Set(scale, 0, 0.7f * file.Get(scale, 0));
  }));
  EXPECT_FALSE(EndsTheSame(flags, 5, kFp8State, [](EditableSafetensors& file) {
    file.Set("model.layers.1.layernorm_mlp.fc1.grad_output.amax_history", 1023, 1e3f);
  }));
}

// Steps that no token counts in are steps of the data and of the learning rate, not of AdamW.
TEST_F(Resume, SkippedStepsAreCounted) {
  MakeData({0, 1});
  const Arguments flags = {"--no-shuffle", "--precision", "bf16"};
  RunBoth(flags, 2, 5);
  ExpectSameBits();
  const auto state = EditableSafetensors::Read(Path("kept") + kOptimizerState);
  EXPECT_NE(std::find(state.metadata.begin(), state.metadata.end(),
                      std::pair<std::string, std::string>("step", "1")),
            state.metadata.end());
  EXPECT_NE(std::find(state.metadata.begin(), state.metadata.end(),
                      std::pair<std::string, std::string>("position", "2")),
            state.metadata.end());
}

TEST_F(Resume, CalibrationThatWasCutShortGoesOn) {
  const Arguments flags = {"--precision", "fp8"}, four = {"--fp8-calibration-steps", "4"};
  Succeed(Finetune("model", "whole", flags + four + Constant(6)));
  Succeed(Finetune("model", "part", flags + four + Constant(2)));
  Succeed(Finetune("part", "part", flags + Constant(6) + Arguments{"--resume"}));
  ExpectSameBits();
}

TEST_F(Resume, AnInterruptedRunIsSavedAndGoesOn) {
  const Arguments flags = {"--precision", "bf16", "--lr-scheduler", "cosine", "--steps", "300"};
  Succeed(Finetune("model", "whole", flags));
  TeProcess process(Finetune("model", "part", flags));
  ASSERT_TRUE(process.WaitForOutput("step   3/300"));
  process.Signal(SIGTERM);
  const TeResult stopped = process.Wait();
  ASSERT_EQ(stopped.exit_code, 130) << stopped.err;
  EXPECT_NE(LastLine(stopped.out).find("--resume goes on"), std::string::npos) << stopped.out;
  Succeed(Finetune("part", "part", flags + Arguments{"--resume"}));
  ExpectSameBits();
}

TEST_F(Resume, ARunThatWasKilledGoesOnFromItsLastSave) {
  const Arguments flags = {"--precision", "fp8", "--lr-scheduler", "linear",  "--save-every", "4",
                           "--steps",     "120", "--recipe",       "delayed", "--fp8-lm-head"};
  Succeed(Finetune("model", "whole", flags));
  TeProcess process(Finetune("model", "part", flags));
  ASSERT_TRUE(process.WaitForOutput("part, step 8"));
  process.Signal(SIGKILL);
  ASSERT_EQ(process.Wait().exit_code, 128 + SIGKILL);
  // The log has the steps after the save, too: a new one for what follows.
  fs::remove(Path("part.jsonl"));
  Succeed(Finetune("part", "part", flags + Arguments{"--resume"}));
  const auto resumed = Steps(Path("part.jsonl")), whole = Steps(Path("whole.jsonl"));
  ASSERT_LT(resumed.size(), whole.size());
  EXPECT_EQ(resumed, std::vector<std::string>(
                         whole.end() - static_cast<std::ptrdiff_t>(resumed.size()), whole.end()));
  fs::remove(Path("part.jsonl"));
  fs::copy(Path("whole.jsonl"), Path("part.jsonl"));
  ExpectSameBits();
}

TEST_F(Resume, WhatDiffersFromTheRunIsNamed) {
  const Arguments flags = {"--precision", "fp8"};
  Succeed(Finetune("model", "part", flags + Constant(2)));
  const auto refused = [&](const Arguments& more, const std::string& message) {
    const auto before = ReadCheckpoint(Path("part"));
    const TeResult result =
        RunTe(Finetune("part", "part", flags + Constant(4) + Arguments{"--resume"} + more));
    EXPECT_EQ(result.exit_code, 2) << message;
    EXPECT_EQ(Lines(result.err), 1) << result.err;
    EXPECT_NE(result.err.find(message), std::string::npos) << result.err;
    EXPECT_TRUE(ReadCheckpoint(Path("part")) == before);
  };
  refused({"--batch-size", "2"}, "--batch-size is 2; expected 1, as in the run");
  refused({"--gradient-accumulation-steps", "1"}, "--gradient-accumulation-steps is 1; expected 2");
  refused({"--no-shuffle"}, "--shuffle is no; expected yes");
  refused({"--max-seq-length", "8"}, "--max-seq-length is 8; expected 256");
  refused({"--moments", "fp32"}, "--moments is float32; expected bfloat16");
  refused({"--master-weights", "fp32"}, "--master-weights is fp32; expected none");
  refused({"--fp8-weights-only"}, "--fp8-weights-only is yes; expected no");
  refused({"--seed", "12"}, "--seed is 12; expected 11, that of the run");
  refused({"--steps", "2"}, "--steps is 2, and the run in");
  refused({"--steps", "0"}, "--resume with --steps 0");
  refused({"--init-from-config"}, "--resume with --init-from-config");
  refused({"--variant", "fp16"}, "--resume with --variant");
  refused({"--fp8-calibration-steps", "1"}, "--fp8-calibration-steps has no effect with --resume");
  refused({"--freeze", "model.layers.0.*"}, "is none of the optimizer's");
  refused({"--fp8-amax-history-len", "5"}, "a history of 1024");
  {
    const auto state = EditableSafetensors::Read(Path("part") + kFp8State);
    auto other = state;
    other.Metadata("step") = "7";
    other.Write(Path("part") + kFp8State);
    refused({}, "of step 7; expected step 2, that of");
    other = state;
    other.Erase("model.layers.0.layernorm_mlp.fc1.input.scale");
    other.Erase("model.layers.0.layernorm_mlp.fc1.input.amax_history");
    other.EraseMetadata("format.model.layers.0.layernorm_mlp.fc1.input");
    other.Write(Path("part") + kFp8State);
    refused({}, "35 tensors have a scale; expected 36");
    fs::remove(Path("part") + kFp8State);
    refused({}, "no such file; expected the FP8 state of 36 tensors");
    state.Write(Path("part") + kFp8State);
  }
  // These may change; the user is told.
  const TeResult changed = Succeed(Finetune(
      "part", "changed",
      flags + Constant(4) +
          Arguments{"--resume", "--lr", "2e-3", "--precision", "fp8", "--weight-decay", "0.5"}));
  EXPECT_NE(changed.err.find("--learning-rate is 0.002, and was 0.001 so far"), std::string::npos)
      << changed.err;
  EXPECT_NE(changed.err.find("--weight-decay is 0.5, and was 0.01"), std::string::npos);
  EXPECT_EQ(Lines(changed.err), 2) << changed.err;
  // The next save without the flag takes the state away: it would be other weights'.
  Succeed({"finetune", "--model", Path("part"), "--output", Path("part"), "--steps", "0"});
  EXPECT_FALSE(fs::exists(Path("part") + kOptimizerState));
  refused({}, "expected the output of te finetune --save-optimizer-state");
  const TeResult none = RunTe(Finetune("model", "none", Constant(0)));
  EXPECT_EQ(none.exit_code, 2);
  EXPECT_NE(none.err.find("--save-optimizer-state with --steps 0"), std::string::npos) << none.err;
}

TEST_F(Resume, ADamagedStateIsNamedAndNothingIsWritten) {
  const Arguments flags = {"--precision", "bf16"};
  Succeed(Finetune("model", "part", flags + Constant(2)));
  const std::string path = Path("part") + kOptimizerState, bytes = ReadFile(path);
  const auto refused = [&](const std::string& message) {
    const TeResult result =
        RunTe(Finetune("part", "out", flags + Constant(4) + Arguments{"--resume"}));
    EXPECT_EQ(result.exit_code, 2) << message;
    EXPECT_EQ(Lines(result.err), 1) << result.err;
    EXPECT_NE(result.err.find(message), std::string::npos) << result.err;
    EXPECT_NE(result.err.find("te_optimizer_state.safetensors"), std::string::npos) << result.err;
    EXPECT_FALSE(fs::exists(Path("out")));
  };
  WriteFile(path, bytes.substr(0, bytes.size() / 2));
  refused("truncated");
  WriteFile(path, std::string(7, '\x7f') + bytes.substr(7));
  refused("header length");
  WriteFile(path, bytes);
  auto state = EditableSafetensors::Read(path);
  state.Tensor("model.norm.weight.exp_avg").shape = {2, 64};
  state.Write(path);
  refused("tensor model.norm.weight.exp_avg is BF16 [2, 64]; expected BF16 [128]");
  WriteFile(path, bytes);
  state = EditableSafetensors::Read(path);
  state.EraseMetadata("run.--batch-size");
  state.Write(path);
  refused("metadata run.--batch-size is missing");
}

}  // namespace
}  // namespace te
