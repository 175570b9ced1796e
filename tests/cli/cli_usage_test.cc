// Help, versions, and what `te` says when something is wrong: one line on stderr, exit code 2.
#include <gtest/gtest.h>

#include <filesystem>

#include "tests/cli/run_te.h"

namespace te {
namespace {

constexpr char kGolden[] = "tests/golden/llama2-mha/checkpoint";
constexpr char kBatch[] = "tests/golden/llama2-mha/expected.safetensors";
constexpr char kDemo[] = "models/demo/checkpoint";
using Arguments = std::vector<std::string>;

// What a user reads is one clear line: no dump, no trace, nothing on stdout that could be taken for
// a result.
std::string Refusal(const Arguments& arguments) {
  const TeResult result = RunTe(arguments);
  EXPECT_EQ(result.exit_code, 2) << result.err;
  EXPECT_EQ(Lines(result.err), 1) << result.err;
  EXPECT_NE(result.err.find(": error: "), std::string::npos) << result.err;
  return result.err;
}
#define EXPECT_REFUSED(expected, ...)                                                            \
  EXPECT_PRED2(                                                                                  \
      [](const std::string& a, const std::string& b) { return a.find(b) != std::string::npos; }, \
      Refusal(__VA_ARGS__), expected)

TEST(Help, ListsTheCommands) {
  const TeResult help = RunTe({"--help"});
  EXPECT_EQ(help.exit_code, 0);
  EXPECT_EQ(help.err, "");
  for (const char* command :
       {"finetune", "trace", "inspect", "generate", "te [OPTIONS] SUBCOMMAND", "--version"}) {
    EXPECT_NE(help.out.find(command), std::string::npos) << command;
  }
  EXPECT_EQ(RunTe({"--version"}).out, "te 0.1.0\n");
}

TEST(Help, OfFinetuneHasEveryFlagWithItsDefault) {
  const TeResult help = RunTe({"finetune", "--help"});
  EXPECT_EQ(help.exit_code, 0);
  for (const char* flag : {"--model",
                           "--data",
                           "--output",
                           "--variant",
                           "--subfolder",
                           "--allow-missing",
                           "--init-from-config",
                           "--text-field",
                           "--max-seq-length",
                           "--batch-size",
                           "--lr-scheduler",
                           "--gradient-accumulation-steps",
                           "--max-grad-norm",
                           "--weight-decay",
                           "--beta1",
                           "--beta2",
                           "--eps",
                           "--recompute",
                           "--recompute-num-layers",
                           "--seed",
                           "--shuffle",
                           "--no-shuffle",
                           "--path",
                           "--precision",
                           "--log",
                           "--master-weights",
                           "--moments",
                           "--rounding",
                           "--warmup-steps",
                           "--steps",
                           "--untimed-steps",
                           "--learning-rate",
                           "--max-shard-size",
                           "--save-dtype",
                           "--freeze",
                           "--device",
                           "--threads",
                           "--allow-nondeterministic",
                           "Examples",
                           "1.41e-05"}) {
    EXPECT_NE(help.out.find(flag), std::string::npos) << flag;
  }
  // CLI11 writes N=256, its newer releases N [256].
  for (const std::string value : {"cpu", "256", "8", "15", "100", "0.999", "5GB", "linear"}) {
    EXPECT_TRUE(help.out.find("=" + value + " ") != std::string::npos ||
                help.out.find("[" + value + "]") != std::string::npos)
        << value;
  }
}

TEST(Help, OfTheOthers) {
  for (const auto& [command, flags] : std::vector<std::pair<std::string, Arguments>>{
           {"trace",
            {"--input", "--output", "--gradients", "--hidden-states", "--path", "--precision",
             "--device"}},
           {"inspect", {"--model", "--subfolder", "--variant"}},
           {"generate",
            {"--prompt", "--prompt-ids", "--max-new-tokens", "--precision", "--output-ids",
             "--ignore-eos", "--device"}}}) {
    const TeResult help = RunTe({command, "--help"});
    EXPECT_EQ(help.exit_code, 0);
    for (const std::string& flag : flags)
      EXPECT_NE(help.out.find(flag), std::string::npos) << command << " " << flag;
  }
}

TEST(Refusals, OfFlags) {
  EXPECT_REFUSED("a command is required", {});
  EXPECT_REFUSED("unknown command: tune", {"tune"});
  EXPECT_REFUSED("did you mean --batch-size?",
                 {"finetune", "--model", "m", "--output", "o", "--bach-size", "8"});
  EXPECT_REFUSED("--model is required", {"finetune", "--data", "d", "--output", "o"});
  // The unknown flag, not the flags that the rest lacks.
  EXPECT_REFUSED("unknown argument: --bogus", {"finetune", "--bogus"});
  EXPECT_REFUSED("unknown argument: --bogus", {"finetune", "--steps", "many", "--bogus", "7"});
  EXPECT_REFUSED("did you mean --model?", {"inspect", "--modle", "m"});
  EXPECT_REFUSED("--steps", {"finetune", "--model", "m", "--output", "o", "--steps", "many"});
  const auto with = [](const std::string& flag, const std::string& value,
                       const Arguments& more = {}) {
    TemporaryFolder folder;
    Arguments arguments = {"finetune", "--model",      kGolden, "--data", kBatch,
                           "--output", folder / "out", flag,    value};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  };
  EXPECT_REFUSED("--steps is -1; expected 0 or more", with("--steps", "-1"));
  EXPECT_REFUSED("expected 2147483647 or less", with("--steps", "99999999999"));
  EXPECT_REFUSED("--batch-size is 0; expected 1 or more", with("--batch-size", "0"));
  EXPECT_REFUSED("\"step\"; expected linear, cosine or constant", with("--lr-scheduler", "step"));
  EXPECT_REFUSED("--precision is \"fp64\"; expected fp32, bf16 or fp8",
                 with("--precision", "fp64"));
  EXPECT_REFUSED("expected none or fp32", with("--master-weights", "bf16"));
  EXPECT_REFUSED("expected bf16 or fp32", with("--moments", "fp8"));
  EXPECT_REFUSED("expected nearest or stochastic", with("--rounding", "up"));
  EXPECT_REFUSED("--seed: -1; expected 0 or more", with("--seed", "-1"));
  EXPECT_REFUSED("--shuffle takes no value; given --shuffle=7",
                 with("--seed", "1", {"--shuffle=7"}));
  EXPECT_REFUSED("--allow-missing takes no value",
                 {"generate", "--model", kGolden, "--allow-missing=no"});
  EXPECT_REFUSED("--beta1 is 1;", with("--beta1", "1"));
  EXPECT_REFUSED("--eps is 0;", with("--eps", "0"));
  EXPECT_REFUSED("--learning-rate is nan;", with("--learning-rate", "nan"));
  EXPECT_REFUSED("--max-shard-size", with("--max-shard-size", "big"));
  EXPECT_REFUSED("--save-dtype is \"fp8\"", with("--save-dtype", "fp8"));
  EXPECT_REFUSED("expected", with("--path", "fast"));
  EXPECT_REFUSED("--text-field has no effect", with("--text-field", "body"));
  EXPECT_REFUSED("no tensor of that name", with("--freeze", "model.nothing"));
  EXPECT_REFUSED("is trained in one piece with", with("--freeze", "*.q_proj.weight"));
  EXPECT_REFUSED("nothing is left to train", with("--freeze", "*"));
  EXPECT_REFUSED("--data is required", {"finetune", "--model", kGolden, "--output", "o"});
  // An option that would do nothing is refused, not ignored.
  Arguments fp32 = with("--precision", "fp32");
  fp32.insert(fp32.end(), {"--master-weights", "fp32"});
  EXPECT_REFUSED("needs --precision bf16", fp32);
  fp32 = with("--precision", "fp32");
  fp32.insert(fp32.end(), {"--rounding", "stochastic"});
  EXPECT_REFUSED("needs something in bf16", fp32);
  EXPECT_REFUSED("--recompute is \"selective\"; expected none or full",
                 with("--recompute", "selective"));
  EXPECT_REFUSED("--recompute-num-layers has no effect with --recompute none",
                 with("--recompute-num-layers", "2"));
  for (const char* layers : {"0", "-1"}) {
    EXPECT_REFUSED(std::string("--recompute-num-layers is ") + layers,
                   with("--recompute", "full", {"--recompute-num-layers", layers}));
  }
  EXPECT_REFUSED("recompute_num_layers is 99; expected 2 (num_hidden_layers) or less",
                 with("--recompute", "full", {"--recompute-num-layers", "99"}));
}

TEST(Refusals, OfDirectoriesAndFiles) {
  TemporaryFolder folder;
  const std::string out = folder / "out";
  EXPECT_REFUSED("no such directory", {"inspect", "--model", folder / "nowhere"});
  EXPECT_REFUSED("no config.json", {"inspect", "--model", folder.path()});
  EXPECT_REFUSED("subfolder none", {"inspect", "--model", kGolden, "--subfolder", "none"});
  EXPECT_REFUSED("a file (JSON); give the directory that holds it",
                 {"inspect", "--model", std::string(kGolden) + "/config.json"});
  EXPECT_REFUSED("no such file", {"finetune", "--model", kGolden, "--data", folder / "none.jsonl",
                                  "--output", out});
  EXPECT_REFUSED("fp16", {"inspect", "--model", kGolden, "--variant", "fp16"});
  WriteFile(folder / "data.txt", "Once there was a fox.\n");
  EXPECT_REFUSED("no tokenizer",
                 {"finetune", "--model", kGolden, "--data", folder / "data.txt", "--output", out});
  EXPECT_REFUSED("fewer than a batch of 8",
                 {"finetune", "--model", kDemo, "--data", folder / "data.txt", "--output", out,
                  "--init-from-config"});
  WriteFile(folder / "data.jsonl", "{\"text\": \"a\"}\n{\"txt\": 1}\n");
  EXPECT_REFUSED("data.jsonl:2: no field \"text\"",
                 {"finetune", "--model", kDemo, "--data", folder / "data.jsonl", "--output", out,
                  "--init-from-config"});
  // Before the model is read: this one could not be.
  std::filesystem::copy(kGolden, folder / "broken", std::filesystem::copy_options::recursive);
  std::filesystem::permissions(folder / "broken", std::filesystem::perms::owner_all);
  std::filesystem::remove(folder / "broken/model-00002-of-00003.safetensors");
  const Arguments broken = {"finetune", "--model", folder / "broken", "--data", kBatch,
                            "--output", out};
  EXPECT_REFUSED("model-00002-of-00003.safetensors", broken);
  Arguments logged = broken;
  logged.insert(logged.end(), {"--log", folder / "none/run.jsonl"});
  EXPECT_REFUSED("--log: ", logged);
  EXPECT_FALSE(std::filesystem::exists(out));
  // Something that is no checkpoint is never replaced.
  std::filesystem::create_directory(folder / "home");
  WriteFile(folder / "home/letter.txt", "dear");
  EXPECT_REFUSED("--output",
                 {"finetune", "--model", kGolden, "--data", kBatch, "--output", folder / "home"});
  EXPECT_EQ(ReadFile(folder / "home/letter.txt"), "dear");
}

TEST(Refusals, OfDevices) {
  for (const std::string device : {"tpu", "cuda:x", "cuda:", "cuda:-1", ""}) {
    EXPECT_REFUSED(
        "device '" + device + "': this build has: cpu",
        {"generate", "--model", kGolden, "--prompt-ids", "1", "--output-ids", "--device", device});
  }
}

TEST(Refusals, OfMalformedCheckpoints) {
  TemporaryFolder folder;
  const std::string model = folder / "model";
  std::filesystem::copy("tests/golden/llama31-tied/checkpoint", model,
                        std::filesystem::copy_options::recursive);
  const auto inspect = [&] { return Arguments{"inspect", "--model", model}; };
  const std::string config = ReadFile(model + "/config.json");
  const std::string weights = ReadFile(model + "/model.safetensors");
  std::filesystem::permissions(model, std::filesystem::perms::owner_all);
  const auto replace = [&](const std::string& name, const std::string& bytes) {
    std::filesystem::remove(model + "/" + name);
    WriteFile(model + "/" + name, bytes);
  };
  EXPECT_EQ(RunTe(inspect()).exit_code, 0);
  replace("config.json", "{\"hidden_size\": ");
  EXPECT_REFUSED("config.json", inspect());
  std::string other = config;
  other.replace(other.find("silu"), 4, "tanh");
  replace("config.json", other);
  EXPECT_REFUSED("hidden_act", inspect());
  replace("config.json", config);
  replace("model.safetensors", weights.substr(0, weights.size() / 2));
  EXPECT_REFUSED("model.safetensors", inspect());
  replace("model.safetensors",
          "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n");
  EXPECT_REFUSED("git-lfs", inspect());
  std::filesystem::remove(model + "/model.safetensors");
  EXPECT_REFUSED(model, {"generate", "--model", model, "--prompt-ids", "1", "--output-ids"});
  EXPECT_NE(RunTe(inspect()).out.find("weights: none"), std::string::npos);
}

TEST(Refusals, OfPrompts) {
  const auto generate = [](const Arguments& more) {
    Arguments arguments = {"generate", "--model", kGolden, "--output-ids"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  };
  EXPECT_REFUSED("give one of --prompt", generate({}));
  EXPECT_REFUSED("give one of --prompt", generate({"--prompt", "a", "--prompt-ids", "1"}));
  EXPECT_REFUSED("separated by commas", generate({"--prompt-ids", "1,,2"}));
  EXPECT_REFUSED("separated by commas", generate({"--prompt-ids", ""}));
  EXPECT_REFUSED("320; the model has ids 0 to 319", generate({"--prompt-ids", "1,320"}));
  EXPECT_REFUSED("no tokenizer", generate({"--prompt", "Once"}));
  EXPECT_REFUSED("--output-ids does without",
                 {"generate", "--model", kGolden, "--prompt-ids", "1"});
  EXPECT_REFUSED("--max-new-tokens is 0", generate({"--prompt-ids", "1", "--max-new-tokens", "0"}));
}

TEST(Refusals, OfTraceInputs) {
  EXPECT_REFUSED("is the file of --input",
                 {"trace", "--model", kGolden, "--input", kBatch, "--output", kBatch});
  TemporaryFolder folder;
  EXPECT_REFUSED("none.safetensors",
                 {"trace", "--model", kGolden, "--input", folder / "none.safetensors", "--output",
                  folder / "out.safetensors"});
  WriteFile(folder / "bad.safetensors", "not at all");
  EXPECT_REFUSED("bad.safetensors",
                 {"trace", "--model", kGolden, "--input", folder / "bad.safetensors", "--output",
                  folder / "out.safetensors"});
  EXPECT_REFUSED("/nowhere/", {"trace", "--model", kGolden, "--input", kBatch, "--output",
                               "/nowhere/out.safetensors"});
  EXPECT_FALSE(std::filesystem::exists(folder / "out.safetensors"));
}

}  // namespace
}  // namespace te
