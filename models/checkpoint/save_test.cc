#include "models/checkpoint/save.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "models/checkpoint/safetensors.h"
#include "models/checkpoint/testing_files.h"

namespace te {
namespace {

namespace fs = std::filesystem;

const std::string kGolden = "tests/golden/";

// A checkpoint in memory: float32 values, saved as any type.
struct Model {
  std::map<std::string, std::vector<float>> values;
  std::vector<SaveTensor> tensors;

  void Add(const std::string& name, const Shape& shape, StoredType type, float first = 0) {
    std::vector<float>& v = values[name];
    v.resize(static_cast<size_t>(shape.elements()));
    std::iota(v.begin(), v.end(), first);
    tensors.push_back({name, type, ConstTensorView(v.data(), DType::kFloat32, shape)});
  }
};

SaveOptions WithConfig(const std::string& text = R"({"model_type": "llama"})") {
  SaveOptions options;
  options.config = *ParseJson(text);
  return options;
}

std::vector<std::string> Names(const std::string& directory) {
  std::vector<std::string> out;
  for (const auto& item : fs::directory_iterator(directory))
    out.push_back(item.path().filename().string());
  std::sort(out.begin(), out.end());
  return out;
}

std::vector<float> ReadBack(const std::string& directory, const std::string& name) {
  const auto reader = CheckpointReader::Open(directory);
  EXPECT_TRUE(reader.ok()) << reader.status().message();
  if (!reader.ok()) return {};
  const auto* tensor = (*reader)->Find(name);
  if (tensor == nullptr) return {};
  std::vector<float> out(static_cast<size_t>(tensor->entry->elements));
  const Status status =
      (*reader)->Read(name, TensorView(out.data(), DType::kFloat32, Shape(tensor->entry->shape)));
  EXPECT_TRUE(status.ok()) << status.message();
  return out;
}

TEST(SaveCheckpoint, WritesWhatTheReaderReads) {
  const std::string out = FreshFolder("") + "/new/out";
  Model model;
  model.Add("a", {2, 3}, StoredType::kF32, -2);
  model.Add("b", {5}, StoredType::kBF16, 7);
  model.Add("c", {}, StoredType::kF16, 3);
  model.Add("empty", {0, 4}, StoredType::kF32);
  const Status status = SaveCheckpoint(out, model.tensors, WithConfig());
  ASSERT_TRUE(status.ok()) << status.message();
  EXPECT_EQ(Names(out), (std::vector<std::string>{"config.json", "model.safetensors"}));
  EXPECT_EQ(Names(fs::path(out).parent_path()), std::vector<std::string>{"out"});
  for (const auto& [name, values] : model.values) EXPECT_EQ(ReadBack(out, name), values) << name;
  const auto file = SafetensorsFile::Open(out + "/model.safetensors");
  ASSERT_TRUE(file.ok());
  EXPECT_EQ((*file)->metadata(),
            (std::vector<std::pair<std::string, std::string>>{{"format", "pt"}}));
  EXPECT_EQ((*file)->Find("b")->type, StoredType::kBF16);
  // The data begins at a multiple of 8.
  EXPECT_EQ(static_cast<unsigned char>(ReadFile(out + "/model.safetensors")[0]) % 8, 0);
}

// Values that are made one by one, in memory that the next one takes over.
TEST(SaveCheckpoint, MakesValuesWhenTheirTurnComes) {
  const std::string out = FreshFolder("") + "/out";
  std::vector<float> memory(6);
  std::vector<std::string> made;
  std::vector<SaveTensor> tensors;
  for (const char* name : {"a", "b"}) {
    SaveTensor tensor;
    tensor.name = name;
    tensor.type = StoredType::kBF16;
    tensor.value = ConstTensorView(nullptr, DType::kFloat32, {2, 3});
    tensor.make_value = [&memory, &made, name]() -> StatusOr<ConstTensorView> {
      made.emplace_back(name);
      std::iota(memory.begin(), memory.end(), *name == 'a' ? 1.0f : 10.0f);
      return ConstTensorView(memory.data(), DType::kFloat32, {2, 3});
    };
    tensors.push_back(std::move(tensor));
  }
  const Status status = SaveCheckpoint(out, tensors, WithConfig());
  ASSERT_TRUE(status.ok()) << status.message();
  EXPECT_EQ(made, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(ReadBack(out, "a"), (std::vector<float>{1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(ReadBack(out, "b"), (std::vector<float>{10, 11, 12, 13, 14, 15}));
  // A failure, and a value of another shape: the old directory stays.
  tensors[1].make_value = []() -> StatusOr<ConstTensorView> { return OutOfMemory("no place"); };
  EXPECT_EQ(SaveCheckpoint(out, tensors, WithConfig()).code(), StatusCode::kOutOfMemory);
  tensors[1].make_value = [&memory]() -> StatusOr<ConstTensorView> {
    return ConstTensorView(memory.data(), DType::kFloat32, {3});
  };
  EXPECT_EQ(SaveCheckpoint(out, tensors, WithConfig()).code(), StatusCode::kInternal);
  EXPECT_EQ(ReadBack(out, "b"), (std::vector<float>{10, 11, 12, 13, 14, 15}));
}

// huggingface_hub: a tensor above the limit has its own shard at once, the others fill up in order.
TEST(SaveCheckpoint, ShardsAsHuggingFaceDoes) {
  const std::string out = FreshFolder("") + "/out";
  Model model;
  model.Add("a", {10}, StoredType::kF32);   // 40 bytes
  model.Add("b", {10}, StoredType::kBF16);  // 20
  model.Add("huge", {30}, StoredType::kF32);
  model.Add("c", {10}, StoredType::kF32);
  model.Add("d", {5}, StoredType::kF32);
  SaveOptions options = WithConfig();
  options.max_shard_bytes = 60;
  ASSERT_TRUE(SaveCheckpoint(out, model.tensors, options).ok());
  EXPECT_EQ(Names(out), (std::vector<std::string>{"config.json", "model-00001-of-00003.safetensors",
                                                  "model-00002-of-00003.safetensors",
                                                  "model-00003-of-00003.safetensors",
                                                  "model.safetensors.index.json"}));
  const auto index = ReadJsonFile(out + "/model.safetensors.index.json");
  ASSERT_TRUE(index.ok());
  EXPECT_EQ(index->Find("metadata")->Find("total_size")->integer(), 40 + 20 + 120 + 40 + 20);
  const JsonValue& map = *index->Find("weight_map");
  EXPECT_EQ(map.Find("huge")->string(), "model-00001-of-00003.safetensors");
  EXPECT_EQ(map.Find("a")->string(), "model-00002-of-00003.safetensors");
  EXPECT_EQ(map.Find("b")->string(), "model-00002-of-00003.safetensors");
  EXPECT_EQ(map.Find("c")->string(), "model-00003-of-00003.safetensors");
  EXPECT_EQ(map.Find("d")->string(), "model-00003-of-00003.safetensors");
  for (const auto& [name, values] : model.values) EXPECT_EQ(ReadBack(out, name), values) << name;
}

// All tensors of a checkpoint, loaded as `dtype` and saved unchanged in their own type.
Status Resave(const std::string& from, const std::string& to, DType dtype, bool unchanged,
              int64_t max_shard_bytes) {
  TE_ASSIGN_OR_RETURN(const auto reader, CheckpointReader::Open(from));
  std::map<std::string, std::vector<char>> memory;
  std::vector<SaveTensor> tensors;
  for (const auto& [name, tensor] : reader->tensors()) {
    std::vector<char>& bytes = memory[name];
    bytes.resize(static_cast<size_t>(tensor.entry->elements) * SizeOf(dtype));
    const TensorView view(bytes.data(), dtype, Shape(tensor.entry->shape));
    TE_RETURN_IF_ERROR(reader->Read(name, view));
    tensors.push_back({name, tensor.entry->type, view, unchanged ? reader.get() : nullptr});
  }
  SaveOptions options;
  options.source_directory = from;
  options.max_shard_bytes = max_shard_bytes;
  return SaveCheckpoint(to, tensors, options);
}

// The stored bytes of every tensor.
std::map<std::string, std::string> StoredBytes(const std::string& directory) {
  std::map<std::string, std::string> out;
  const auto reader = CheckpointReader::Open(directory);
  EXPECT_TRUE(reader.ok()) << reader.status().message();
  if (!reader.ok()) return out;
  for (const auto& [name, tensor] : (*reader)->tensors()) {
    std::string bytes(tensor.entry->bytes(), '\0');
    const auto stream = (*reader)->OpenStream(tensor);
    EXPECT_TRUE(stream.ok() && (*stream)->Read(bytes.data(), bytes.size()).ok());
    out[name] = tensor.entry->ToString() + bytes;
  }
  return out;
}

TEST(SaveCheckpoint, UnchangedTensorsComeBackByteForByte) {
  for (const char* name :
       {"llama2-mha", "llama3-gqa", "llama31-tied", "llama-bias-bin", "llama2-bin-single"}) {
    SCOPED_TRACE(name);
    const std::string from = kGolden + name + "/checkpoint";
    const auto wanted = StoredBytes(from);
    // In float32 every type survives the round trip; in bfloat16 only what is taken over does.
    for (const auto& [dtype, unchanged] :
         {std::pair(DType::kFloat32, false), {DType::kFloat32, true}, {DType::kBFloat16, true}}) {
      const std::string to = FreshFolder(name) + "/out";
      const Status status = Resave(from, to, dtype, unchanged, 200000);
      ASSERT_TRUE(status.ok()) << status.message();
      EXPECT_EQ(StoredBytes(to), wanted);
      EXPECT_EQ(ReadFile(to + "/config.json"), ReadFile(from + "/config.json"));
    }
    // The twin: through bfloat16 and not taken over, float32 and float16 weights cannot come back.
    const bool lossless = std::string(name).find("llama3") == 0;
    const std::string to = FreshFolder(name) + "/out";
    ASSERT_TRUE(Resave(from, to, DType::kBFloat16, false, 200000).ok());
    EXPECT_EQ(StoredBytes(to) == wanted, lossless);
  }
}

TEST(SaveCheckpoint, NaNPayloadsOfUnchangedTensorsSurvive) {
  const std::string folder = FreshFolder("");
  std::string data("\x01\x7f\x81\xff\xc0\x7f\x80\x7f",
                   8);  // signalling NaNs, a quiet one, infinity
  WriteFile(folder + "/model.safetensors",
            SafetensorsBytes(R"({"a":{"dtype":"BF16","shape":[4],"data_offsets":[0,8]}})", data));
  WriteFile(folder + "/config.json", "{}");
  ASSERT_TRUE(Resave(folder, folder, DType::kFloat32, true, 1 << 20).ok());
  EXPECT_EQ(StoredBytes(folder).at("a"), "BF16 [4]" + data);
}

// A checkpoint directory with everything around the weights, and a user's own files.
std::string FullDirectory(const std::string& name) {
  const std::string folder = FreshFolder(name) + "/model";
  fs::create_directories(folder + "/runs/deep");
  fs::copy(kGolden + "llama2-bin-single/checkpoint/config.json", folder + "/config.json");
  fs::copy(kGolden + "llama2-bin-single/checkpoint/pytorch_model.bin",
           folder + "/pytorch_model.bin");
  for (const char* file :
       {"tokenizer.model", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
        "generation_config.json", "chat_template.jinja", "LICENSE.txt"}) {
    WriteFile(folder + "/" + file, std::string("content of ") + file);
  }
  WriteFile(folder + "/README.md", "a model card");
  WriteFile(folder + "/training_args.bin", "mine");
  WriteFile(folder + "/runs/deep/events", "mine too");
  fs::create_symlink("runs/deep/events", folder + "/latest");
  return folder;
}

TEST(SaveCheckpoint, OntoTheModelItself) {
  const std::string folder = FullDirectory("a");
  const auto wanted = StoredBytes(folder);
  fs::permissions(folder, fs::perms(0750));
  const Status status = Resave(folder, folder, DType::kFloat32, true, 100000);
  ASSERT_TRUE(status.ok()) << status.message();
  EXPECT_EQ(StoredBytes(folder), wanted);
  const auto names = Names(folder);
  EXPECT_FALSE(fs::exists(folder + "/pytorch_model.bin"));
  EXPECT_TRUE(fs::exists(folder + "/model.safetensors.index.json"));
  EXPECT_EQ(ReadFile(folder + "/tokenizer.json"), "content of tokenizer.json");
  EXPECT_EQ(ReadFile(folder + "/README.md"), "a model card");
  EXPECT_EQ(ReadFile(folder + "/training_args.bin"), "mine");
  EXPECT_EQ(ReadFile(folder + "/runs/deep/events"), "mine too");
  EXPECT_EQ(fs::read_symlink(folder + "/latest"), "runs/deep/events");
  EXPECT_EQ(fs::status(folder).permissions(), fs::perms(0750));
  EXPECT_EQ(Names(fs::path(folder).parent_path()), std::vector<std::string>{"model"});
  // Again, now from shards to one file: no shard may stay.
  ASSERT_TRUE(Resave(folder, folder, DType::kFloat32, true, 1 << 30).ok());
  EXPECT_EQ(StoredBytes(folder), wanted);
  EXPECT_FALSE(fs::exists(folder + "/model.safetensors.index.json"));
  EXPECT_TRUE(fs::exists(folder + "/model.safetensors"));
}

TEST(SaveCheckpoint, ThroughASymbolicLinkAndWithASlash) {
  const std::string folder = FullDirectory("a");
  const auto wanted = StoredBytes(folder);
  const std::string link = fs::path(folder).parent_path().string() + "/link";
  fs::create_directory_symlink("model", link);
  ASSERT_TRUE(Resave(link, link + "/", DType::kFloat32, true, 1 << 30).ok());
  EXPECT_TRUE(fs::is_symlink(link));
  EXPECT_FALSE(fs::exists(folder + "/pytorch_model.bin"));
  EXPECT_EQ(StoredBytes(link), wanted);
}

// A hub snapshot is a folder of links to blobs: read through them, written as files, the blobs
// untouched.
TEST(SaveCheckpoint, OntoAHubSnapshot) {
  const std::string folder = FreshFolder("");
  fs::create_directories(folder + "/blobs");
  fs::create_directories(folder + "/snapshots/main");
  for (const char* file : {"config.json", "model.safetensors"}) {
    fs::copy(kGolden + "llama31-tied/checkpoint/" + file, folder + "/blobs/" + file);
    fs::create_symlink(std::string("../../blobs/") + file, folder + "/snapshots/main/" + file);
  }
  const std::string blob = ReadFile(folder + "/blobs/model.safetensors");
  const auto wanted = StoredBytes(folder + "/blobs");
  ASSERT_TRUE(
      Resave(folder + "/snapshots/main", folder + "/snapshots/main", DType::kFloat32, true, 1 << 30)
          .ok());
  EXPECT_FALSE(fs::is_symlink(folder + "/snapshots/main/model.safetensors"));
  EXPECT_FALSE(fs::is_symlink(folder + "/snapshots/main/config.json"));
  EXPECT_EQ(StoredBytes(folder + "/snapshots/main"), wanted);
  EXPECT_EQ(ReadFile(folder + "/blobs/model.safetensors"), blob);
}

TEST(SaveCheckpoint, ToAnotherDirectoryCarriesOnlyWhatBelongsToTheModel) {
  const std::string folder = FullDirectory("a");
  const std::string out = fs::path(folder).parent_path().string() + "/out";
  ASSERT_TRUE(Resave(folder, out, DType::kFloat32, true, 1 << 30).ok());
  EXPECT_EQ(Names(out),
            (std::vector<std::string>{"LICENSE.txt", "chat_template.jinja", "config.json",
                                      "generation_config.json", "model.safetensors",
                                      "special_tokens_map.json", "tokenizer.json",
                                      "tokenizer.model", "tokenizer_config.json"}));
  EXPECT_EQ(ReadFile(out + "/tokenizer.model"), "content of tokenizer.model");
}

TEST(SaveCheckpoint, WhatIsNoCheckpointIsNotReplaced) {
  const std::string folder = FreshFolder("");
  Model model;
  model.Add("a", {2}, StoredType::kF32);
  fs::create_directories(folder + "/papers");
  WriteFile(folder + "/papers/thesis.tex", "years of work");
  const auto refused = [&](const std::string& target, const char* expected) {
    for (const Status& status :
         {SaveCheckpoint(target, model.tensors, WithConfig()), CheckSaveDirectory(target)}) {
      EXPECT_NE(status.message().find(expected), std::string::npos) << status.message();
    }
  };
  refused(folder + "/papers", "no config.json");
  EXPECT_EQ(ReadFile(folder + "/papers/thesis.tex"), "years of work");
  refused(folder + "/papers/thesis.tex", "not a directory");
  refused(folder + "/papers/thesis.tex/out", "Not a directory");
  refused("", "expected a path");
  refused("/", "cannot be replaced");
  fs::create_symlink("nowhere", folder + "/dangling");
  refused(folder + "/dangling", "leads nowhere");
  EXPECT_EQ(Names(folder), (std::vector<std::string>{"dangling", "papers"}));
  // An empty directory is fine.
  fs::create_directory(folder + "/empty");
  EXPECT_TRUE(CheckSaveDirectory(folder + "/empty").ok());
  EXPECT_TRUE(SaveCheckpoint(folder + "/empty", model.tensors, WithConfig()).ok());
  EXPECT_TRUE(fs::exists(folder + "/empty/model.safetensors"));
}

TEST(SaveCheckpoint, FailuresOnTheWayLeaveTheTargetUntouched) {
  const std::string folder = FullDirectory("a");
  const auto wanted = StoredBytes(folder);
  const auto names = Names(folder);
  Model model;
  model.Add("a", {3000}, StoredType::kBF16);
  // Device memory that cannot be read.
  SaveOptions options = WithConfig();
  options.copy_to_host = [](ConstTensorView, void*) { return Internal("the device is gone"); };
  Status status = SaveCheckpoint(folder, model.tensors, options);
  EXPECT_NE(status.message().find("the device is gone"), std::string::npos) << status.message();
  EXPECT_NE(status.message().find("tensor a"), std::string::npos) << status.message();
  // No room: the file's size limit stands in for a full disk (SIGXFSZ ignored, write says EFBIG).
  struct rlimit old_limit, limit;
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &old_limit), 0);
  limit = old_limit;
  limit.rlim_cur = 4096;
  signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
  status = SaveCheckpoint(folder, model.tensors, WithConfig());
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &old_limit), 0);
  EXPECT_EQ(status.code(), StatusCode::kIoError);
  EXPECT_NE(status.message().find("File too large"), std::string::npos) << status.message();
  EXPECT_NE(status.message().find("model.safetensors"), std::string::npos) << status.message();
  EXPECT_EQ(StoredBytes(folder), wanted);
  EXPECT_EQ(Names(folder), names);
  EXPECT_EQ(Names(fs::path(folder).parent_path()), std::vector<std::string>{"model"});
}

TEST(SaveCheckpoint, LeftoversOfKilledRunsAreRemovedAndLiveOnesAreNot) {
  const std::string parent = FreshFolder("");
  fs::create_directories(parent + "/.out.te-save-abcdefgh/deep");
  WriteFile(parent + "/.out.te-save-abcdefgh/deep/model.safetensors", "half");
  fs::create_directories(parent + "/.out.te-save-livelive");
  fs::create_directories(parent + "/.out.te-save-notours1");
  fs::create_directories(parent + "/.other.te-save-abcdefgh");
  WriteFile(parent + "/.out.te-save-aaaaaaaa", "a file");
  const int lock = open((parent + "/.out.te-save-livelive").c_str(), O_RDONLY | O_DIRECTORY);
  ASSERT_EQ(flock(lock, LOCK_EX), 0);
  Model model;
  model.Add("a", {2}, StoredType::kF32);
  ASSERT_TRUE(SaveCheckpoint(parent + "/out", model.tensors, WithConfig()).ok());
  EXPECT_EQ(Names(parent),
            (std::vector<std::string>{".other.te-save-abcdefgh", ".out.te-save-aaaaaaaa",
                                      ".out.te-save-livelive", ".out.te-save-notours1", "out"}));
  close(lock);
  ASSERT_TRUE(SaveCheckpoint(parent + "/out", model.tensors, WithConfig()).ok());
  EXPECT_FALSE(fs::exists(parent + "/.out.te-save-livelive"));
}

TEST(SaveCheckpoint, ArgumentsAreChecked) {
  const std::string out = FreshFolder("") + "/out";
  Model model;
  model.Add("a", {2}, StoredType::kF32);
  SaveOptions options = WithConfig();
  options.max_shard_bytes = 0;
  EXPECT_NE(SaveCheckpoint(out, model.tensors, options).message().find("max_shard_bytes is 0"),
            std::string::npos);
  model.tensors.push_back(model.tensors[0]);
  EXPECT_NE(SaveCheckpoint(out, model.tensors, WithConfig()).message().find("saved twice"),
            std::string::npos);
  model.tensors.pop_back();
  model.tensors[0].type = StoredType::kI64;
  EXPECT_NE(SaveCheckpoint(out, model.tensors, WithConfig()).message().find("not I64"),
            std::string::npos);
  model.tensors[0].type = StoredType::kF32;
  EXPECT_NE(SaveCheckpoint(out, model.tensors, {}).message().find("neither a config"),
            std::string::npos);
  EXPECT_FALSE(fs::exists(out));
}

TEST(ConfigWithDType, SetsTheKeysThatAreThere) {
  EXPECT_EQ(ConfigWithDType(*ParseJson(R"({"torch_dtype":"float32","x":1})"), StoredType::kBF16)
                ->ToString(),
            R"({"torch_dtype":"bfloat16","x":1})");
  EXPECT_EQ(ConfigWithDType(*ParseJson(R"({"dtype":"float32"})"), StoredType::kF16)->ToString(),
            R"({"dtype":"float16"})");
  EXPECT_EQ(ConfigWithDType(*ParseJson("{}"), StoredType::kF32)->ToString(),
            R"({"torch_dtype":"float32"})");
  EXPECT_FALSE(ConfigWithDType(*ParseJson("{}"), StoredType::kI8).ok());
}

TEST(ParseByteSize, ReadsHuggingFacesSpellings) {
  EXPECT_EQ(*ParseByteSize("5GB"), 5'000'000'000);
  EXPECT_EQ(*ParseByteSize("300mb"), 300'000'000);
  EXPECT_EQ(*ParseByteSize("2KB"), 2000);
  EXPECT_EQ(*ParseByteSize("1GiB"), int64_t{1} << 30);
  EXPECT_EQ(*ParseByteSize("1MiB"), 1 << 20);
  EXPECT_EQ(*ParseByteSize("3KiB"), 3072);
  EXPECT_EQ(*ParseByteSize("4096"), 4096);
  for (const char* bad : {"", "GB", "-1GB", "0", "5TB", "5 GB", "1.5GB", "99999999999GB", "x"}) {
    EXPECT_FALSE(ParseByteSize(bad).ok()) << bad;
  }
}

}  // namespace
}  // namespace te
