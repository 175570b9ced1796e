#include "models/checkpoint/model_directory.h"

#include <gtest/gtest.h>

#include "models/checkpoint/checkpoint_reader.h"
#include "models/checkpoint/testing_files.h"

namespace te {
namespace {

namespace fs = std::filesystem;

constexpr char kPointer[] = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n";

void Put(const std::string& path, const std::string& bytes = "{}") {
  fs::create_directories(fs::path(path).parent_path());
  WriteFile(path, bytes);
}

std::string Error(const std::string& directory, const std::string& subfolder = "") {
  const auto found = FindModelDirectory(directory, subfolder);
  EXPECT_FALSE(found.ok()) << directory;
  if (found.ok()) return "";
  EXPECT_EQ(found.status().message().find('\n'), std::string::npos);
  return found.status().message();
}

#define EXPECT_HAS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

TEST(ModelDirectory, TheRightOneIsFound) {
  const std::string folder = FreshFolder("");
  Put(folder + "/config.json");
  Put(folder + "/deep/config.json");
  EXPECT_EQ(*FindModelDirectory(folder, ""), folder);
  EXPECT_EQ(*FindModelDirectory(folder, "deep"), folder + "/deep");
  EXPECT_HAS(Error(folder, "none"), "/none: no such directory (subfolder none)");
  EXPECT_HAS(Error(folder + "/none"), "no such directory; expected a checkpoint directory");
  EXPECT_HAS(Error("acme/tiny-1.1B"), "hf download acme/tiny-1.1B --local-dir");
  EXPECT_EQ(Error("./acme/tiny").find("hf download"), std::string::npos);
}

TEST(ModelDirectory, TheHubsCacheNamesItsSnapshot) {
  const std::string folder = FreshFolder("");
  const std::string model = folder + "/hub/models--acme--tiny";
  Put(model + "/snapshots/0123abcd/config.json");
  Put(model + "/snapshots/ffff0000/config.json");
  Put(model + "/blobs/1");
  Put(model + "/refs/main", "ffff0000");
  EXPECT_HAS(Error(model), "its snapshot is " + model + "/snapshots/ffff0000, ");
  EXPECT_HAS(Error(model + "/snapshots"), model + "/snapshots/ffff0000, ");
  EXPECT_HAS(Error(folder + "/hub"), "the Hugging Face hub's cache; a model is one of its");
  EXPECT_HAS(Error(folder), "snapshots/ffff0000");
  EXPECT_HAS(Error(model + "/blobs"), "expected a checkpoint directory");
  // Interrupted: nothing that could be loaded.
  fs::remove_all(model + "/snapshots");
  Put(model + "/snapshots/0123abcd/tokenizer.json");
  Put(model + "/blobs/1234.incomplete", "");
  EXPECT_HAS(Error(model), "nothing usable is there");
  EXPECT_HAS(Error(model), "a download was interrupted (blobs/1234.incomplete)");
  EXPECT_HAS(Error(model + "/snapshots/0123abcd"), "blobs/1234.incomplete");
  fs::create_symlink("../../blobs/none", model + "/snapshots/0123abcd/config.json");
  EXPECT_HAS(Error(model + "/snapshots/0123abcd"), "a symbolic link that leads nowhere");
}

TEST(ModelDirectory, ATrainersRunNamesItsLatestCheckpoint) {
  const std::string folder = FreshFolder("");
  for (const char* step : {"500", "1000", "90"})
    Put(folder + "/checkpoint-" + step + "/config.json");
  Put(folder + "/trainer_state.json");
  EXPECT_HAS(Error(folder), "its latest checkpoint is " + folder + "/checkpoint-1000, ");
  const std::string other = FreshFolder("other");
  Put(other + "/my/model/config.json");
  EXPECT_HAS(Error(other), "but below it there is " + other + "/my/model");
}

TEST(ModelDirectory, FoldersOfOtherKindsAreNamed) {
  const std::pair<std::vector<const char*>, const char*> cases[] = {
      {{}, "an empty folder"},
      {{"adapter_config.json", "adapter_model.safetensors"}, "its base is acme/tiny; merge it"},
      {{"params.json", "consolidated.00.pth", "tokenizer.model"}, "convert_llama_weights_to_hf.py"},
      {{"tiny.Q4_K_M.gguf"}, "GGUF files (tiny.Q4_K_M.gguf"},
      {{"model_index.json"}, "a diffusers pipeline"},
      {{"modules.json"}, "a sentence-transformers model"},
      {{"tokenizer.json", "tokenizer_config.json"}, "a tokenizer alone"},
      {{"model.safetensors"}, "weights without the config.json"},
      {{"latest_checkpointed_iteration.txt"}, "a Megatron checkpoint"},
      {{"zero_to_fp32.py", "latest"}, "a DeepSpeed checkpoint"},
      {{"__0_0.distcp", ".metadata"}, "a distributed checkpoint of PyTorch"},
      {{"model.onnx"}, "an ONNX model"},
      {{"trainer_state.json", "optimizer.pt"}, "a Trainer's state"},
      {{"dataset_info.json", "data-00000-of-00001.arrow"}, "a data set"},
      {{"model.safetensors.part"}, "a download was interrupted (model.safetensors.part)"},
      {{"config.json.txt"}, "there is config.json.txt; is that the one?"},
      {{"Config.json"}, "there is Config.json"},
      {{"README.md"}, "is it in a subfolder?"},
  };
  for (const auto& [names, expected] : cases) {
    const std::string folder = FreshFolder("");
    for (const char* name : names)
      Put(folder + "/" + name, R"({"base_model_name_or_path": "acme/tiny"})");
    EXPECT_HAS(Error(folder), expected);
  }
  // One folder too deep.
  const std::string folder = FreshFolder("");
  Put(folder + "/config.json");
  Put(folder + "/original/params.json");
  EXPECT_HAS(Error(folder + "/original"), "the folder above has one: ");
}

TEST(ModelDirectory, FilesInItsPlaceAreNamed) {
  const std::string folder = FreshFolder("");
  Put(folder + "/alone/x.gguf", "GGUF\x03");
  EXPECT_HAS(Error(folder + "/alone/x.gguf"), "a GGUF file (llama.cpp's format)");
  Put(folder + "/alone/model.tar.gz", "\x1f\x8b\x08");
  EXPECT_HAS(Error(folder + "/alone/model.tar.gz"), "compressed with gzip; unpack it first");
  Put(folder + "/m/config.json");
  Put(folder + "/m/model.safetensors", SafetensorsBytes("{}", ""));
  EXPECT_HAS(Error(folder + "/m/model.safetensors"),
             "a file (a safetensors file); give the directory that holds it: " + folder + "/m");
}

TEST(ModelDirectory, AConfigThatIsNoneSaysWhatItIs) {
  const std::string folder = FreshFolder("");
  const std::pair<std::string, const char*> cases[] = {
      {kPointer, "git lfs pull"},
      {"<!DOCTYPE html><html><body>401</body></html>", "an HTML page"},
      {R"({"error":"Repository not found"})", "an error message of a server"},
      {"Entry not found", "an error message of a server"},
      {"", "an empty file"},
      {std::string(64, '\0'), "nothing but zero bytes"},
      {"\x1f\x8b\x08", "compressed with gzip"},
      {std::string("\xff\xfe{\0}\0", 6), "text in UTF-16"},
  };
  for (const auto& [bytes, expected] : cases) {
    Put(folder + "/config.json", bytes);
    EXPECT_HAS(Error(folder), folder + "/config.json: ");
    EXPECT_HAS(Error(folder), expected);
  }
}

TEST(ModelDirectory, MissingWeightsSayWhatIsThere) {
  const std::pair<std::vector<const char*>, const char*> cases[] = {
      {{"model-00001-of-00002.safetensors"}, "(model.safetensors.index.json) is missing"},
      {{"model.fp16.safetensors"}, "--variant fp16"},
      {{"model.safetensors.index.bf16.json"}, "--variant bf16"},
      {{"tf_model.h5"}, "weights of TensorFlow and Flax are not read"},
      {{"x.gguf"}, "GGUF"},
      {{"consolidated.00.pth"}, "Meta's own format"},
      {{"weights.safetensors"}, "if that is the model, name it model.safetensors"},
      {{"adapter_config.json", "adapter_model.safetensors"}, "a PEFT adapter"},
      {{"model.safetensors.incomplete"}, "a download was interrupted"},
  };
  for (const auto& [names, expected] : cases) {
    const std::string folder = FreshFolder("");
    Put(folder + "/config.json");
    for (const char* name : names) Put(folder + "/" + name);
    const auto reader = CheckpointReader::Open(folder);
    ASSERT_FALSE(reader.ok()) << expected;
    EXPECT_HAS(reader.status().message(), expected);
  }
}

// Nobody's home directory is searched to its end, and links that go around in circles do no harm.
TEST(ModelDirectory, SearchingIsBounded) {
  const std::string folder = FreshFolder("");
  fs::create_directories(folder + "/a/b");
  fs::create_directory_symlink("../..", folder + "/a/b/up");
  for (int i = 0; i < 300; ++i) fs::create_directory(folder + "/d" + std::to_string(i));
  EXPECT_HAS(Error(folder), "no config.json there");
}

}  // namespace
}  // namespace te
