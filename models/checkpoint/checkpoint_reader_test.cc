// Directories: which files are taken, what an index may say, and loading into parameters.
#include "models/checkpoint/checkpoint_reader.h"

#include <gtest/gtest.h>

#include <numeric>

#include "models/checkpoint/load.h"
#include "models/checkpoint/safetensors.h"
#include "models/checkpoint/testing_files.h"

namespace te {
namespace {

namespace fs = std::filesystem;

// A safetensors file of float32 tensors that count up from `first`.
void WriteTensors(const std::string& path,
                  const std::vector<std::pair<std::string, std::vector<int64_t>>>& tensors,
                  float first = 0) {
  std::vector<SafetensorsItem> items;
  for (const auto& [name, shape] : tensors) {
    SafetensorsItem item;
    item.name = name;
    item.shape = shape;
    item.write = [n = item.bytes() / 4, first](const SafetensorsItem::Sink& sink) {
      std::vector<float> values(n);
      std::iota(values.begin(), values.end(), first);
      return sink(values.data(), n * 4);
    };
    items.push_back(std::move(item));
  }
  ASSERT_TRUE(WriteSafetensors(path, items, {}, true).ok());
}

float FirstValue(const CheckpointReader& reader, const std::string& name) {
  const auto* tensor = reader.Find(name);
  if (tensor == nullptr) return -1;
  std::vector<float> out(static_cast<size_t>(tensor->entry->elements));
  EXPECT_TRUE(
      reader.Read(name, TensorView(out.data(), DType::kFloat32, Shape(tensor->entry->shape))).ok());
  return out[0];
}

std::string OpenError(const std::string& folder, const CheckpointOptions& options = {}) {
  const auto reader = CheckpointReader::Open(folder, options);
  EXPECT_FALSE(reader.ok());
  return reader.ok() ? "" : reader.status().message();
}

#define EXPECT_HAS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

TEST(CheckpointReader, HuggingFacesOrderOfPreference) {
  const std::string folder = FreshFolder("");
  const auto first = [&](const CheckpointOptions& options = {}) {
    const auto reader = CheckpointReader::Open(folder, options);
    EXPECT_TRUE(reader.ok()) << reader.status().message();
    return reader.ok() ? FirstValue(**reader, "a") : -1;
  };
  WriteFile(folder + "/pytorch_model.bin.index.json",
            R"({"weight_map": {"a": "part.safetensors"}})");
  WriteTensors(folder + "/part.safetensors", {{"a", {2}}}, 4);
  EXPECT_EQ(first(), 4);
  fs::copy("models/checkpoint/testdata/no_crc.bin", folder + "/pytorch_model.bin");
  EXPECT_EQ(first(), -3);
  WriteFile(folder + "/model.safetensors.index.json",
            R"({"weight_map": {"a": "model-00001-of-00001.safetensors"}})");
  WriteTensors(folder + "/model-00001-of-00001.safetensors", {{"a", {2}}}, 2);
  EXPECT_EQ(first(), 2);
  WriteTensors(folder + "/model.safetensors", {{"a", {2}}}, 1);
  EXPECT_EQ(first(), 1);
  // Variants: _add_variant of transformers' modeling_utils.
  WriteFile(folder + "/model.safetensors.index.fp16.json",
            R"({"weight_map": {"a": "model.fp16-00001-of-00001.safetensors"}})");
  WriteTensors(folder + "/model.fp16-00001-of-00001.safetensors", {{"a", {2}}}, 12);
  EXPECT_EQ(first({.variant = "fp16"}), 12);
  WriteTensors(folder + "/model.fp16.safetensors", {{"a", {2}}}, 11);
  EXPECT_EQ(first({.variant = "fp16"}), 11);
  EXPECT_EQ(first(), 1);
  EXPECT_HAS(OpenError(folder, {.variant = "bf16"}),
             "model.bf16.safetensors, model.safetensors.index.bf16.json, pytorch_model.bf16.bin");
  EXPECT_HAS(OpenError(folder, {.variant = "a/b"}), "variant is \"a/b\"");
  // Subfolders.
  fs::create_directories(folder + "/deep/er");
  WriteTensors(folder + "/deep/er/model.safetensors", {{"a", {2}}}, 21);
  EXPECT_EQ(first({.subfolder = "deep/er"}), 21);
  EXPECT_HAS(OpenError(folder, {.subfolder = "../x"}), "subfolder is \"../x\"");
  EXPECT_HAS(OpenError(folder, {.subfolder = "/tmp"}), "subfolder is \"/tmp\"");
  EXPECT_HAS(OpenError(folder, {.subfolder = "absent"}), "no such directory");
}

TEST(CheckpointReader, DirectoriesWithoutWeightsSayWhatTheyHave) {
  const std::string folder = FreshFolder("");
  EXPECT_HAS(OpenError(folder + "/absent"), "/absent: no such directory");
  WriteFile(folder + "/consolidated.00.pth", "x");
  EXPECT_HAS(OpenError(folder),
             "no weights found: looked for model.safetensors, model.safetensors.index.json, "
             "pytorch_model.bin");
  EXPECT_HAS(OpenError(folder), "it has consolidated.00.pth");
  EXPECT_HAS(OpenError(folder + "/consolidated.00.pth"), "not a directory");
}

TEST(CheckpointReader, HubSnapshotsAreFollowedThroughTheirLinks) {
  const std::string folder = FreshFolder("");
  fs::create_directories(folder + "/blobs");
  fs::create_directories(folder + "/snapshots/abc");
  WriteTensors(folder + "/blobs/1234", {{"a", {2}}}, 5);
  fs::create_symlink("../../blobs/1234", folder + "/snapshots/abc/model.safetensors");
  const auto reader = CheckpointReader::Open(folder + "/snapshots/abc");
  ASSERT_TRUE(reader.ok()) << reader.status().message();
  EXPECT_EQ(FirstValue(**reader, "a"), 5);
  fs::remove(folder + "/blobs/1234");
  EXPECT_EQ(FirstValue(**reader, "a"), 5);  // held open
  EXPECT_HAS(OpenError(folder + "/snapshots/abc"), "model.safetensors: no such file");
}

TEST(CheckpointReader, HostileIndexesAreRefused) {
  const std::string folder = FreshFolder("");
  WriteTensors(folder + "/one.safetensors", {{"a", {2}}, {"b", {2}}});
  WriteTensors(folder + "/two.safetensors", {{"b", {2}}, {"c", {2}}});
  fs::create_directory(folder + "/directory.safetensors");
  fs::create_symlink("nowhere", folder + "/dangling.safetensors");
  const std::pair<const char*, const char*> cases[] = {
      {"", "an empty file"},
      {"[]", "no \"weight_map\" object"},
      {R"({"weight_map": []})", "no \"weight_map\" object"},
      {R"({"weight_map": {}})", "names no tensor"},
      {R"({"weight_map": {"a": 1}})", "the file of tensor a is 1; expected a string"},
      {R"({"weight_map": {"a": "one.safetensors", "a": "two.safetensors"}})", "\"a\" stands twice"},
      {R"({"weight_map": {"a": "../one.safetensors"}})", "leads out of the directory"},
      {R"({"weight_map": {"a": "x/../../one.safetensors"}})", "leads out of the directory"},
      {R"({"weight_map": {"a": "/etc/passwd"}})", "leads out of the directory"},
      {R"({"weight_map": {"a": ""}})", "leads out of the directory"},
      {R"({"weight_map": {"a": "."}})", "leads out of the directory"},
      {R"({"weight_map": {"a": ".."}})", "leads out of the directory"},
      {R"({"weight_map": {"a": "one.safetensors\u0000"}})", "leads out of the directory"},
      {R"({"weight_map": {"a": "three.safetensors"}})", "three.safetensors: no such file"},
      {R"({"weight_map": {"a": "three.safetensors"}})", "says that it holds tensor a"},
      {R"({"weight_map": {"a": "dangling.safetensors"}})",
       "leads nowhere: an interrupted download?"},
      {R"({"weight_map": {"a": "directory.safetensors"}})", "not a regular file"},
  };
  for (const auto& [text, expected] : cases) {
    WriteFile(folder + "/model.safetensors.index.json", text);
    EXPECT_HAS(OpenError(folder), expected);
  }
}

// As transformers reads it: the names of the files count, and of a tensor in two the last file's.
TEST(CheckpointReader, AnIndexSaysWhichFilesThereAre) {
  const std::string folder = FreshFolder("");
  WriteTensors(folder + "/one.safetensors", {{"a", {2}}, {"b", {2}}}, 0);
  WriteTensors(folder + "/two.safetensors", {{"b", {2}}, {"c", {2}}}, 7);
  const auto open = [&](const std::string& map) {
    WriteFile(folder + "/model.safetensors.index.json", R"({"weight_map": )" + map + "}");
    auto reader = CheckpointReader::Open(folder);
    EXPECT_TRUE(reader.ok()) << reader.status().message();
    return reader.ok() ? std::move(*reader) : nullptr;
  };
  // An entry that nobody wants; one that names the other file; one that is missing; two spellings.
  for (const char* map :
       {R"({"a": "one.safetensors", "z": "two.safetensors"})",
        R"({"c": "one.safetensors", "b": "two.safetensors"})",
        R"({"a": "one.safetensors", "b": "./two.safetensors", "c": "two.safetensors"})"}) {
    const auto reader = open(map);
    ASSERT_NE(reader, nullptr);
    EXPECT_EQ(reader->tensors().size(), 3u) << map;
    EXPECT_EQ(reader->files().size(), 2u) << map;
  }
  // "b" has other values in each: fine where the index names the last file, which is Hugging
  // Face's.
  const auto last = open(R"({"a": "one.safetensors", "b": "two.safetensors"})");
  EXPECT_EQ(FirstValue(*last, "b"), 7);
  EXPECT_TRUE(last->CheckCopies("b").ok());
  const auto first =
      open(R"({"a": "one.safetensors", "b": "one.safetensors", "c": "two.safetensors"})");
  const std::string error = first->CheckCopies("b").message();
  EXPECT_HAS(error, "tensor b is in two files with different values: ");
  EXPECT_HAS(error, "the index names one.safetensors, Hugging Face takes the last file's");
  EXPECT_EQ(first->Copied(), std::vector<std::string>{"b"});
  EXPECT_TRUE(first->CheckCopies("a").ok());
  // Equal values are no contradiction.
  WriteTensors(folder + "/two.safetensors", {{"a", {2}}, {"c", {2}}}, 0);
  const auto equal =
      open(R"({"a": "one.safetensors", "b": "one.safetensors", "c": "two.safetensors"})");
  EXPECT_EQ(equal->Copied(), std::vector<std::string>{"a"});
  EXPECT_TRUE(equal->CheckCopies("a").ok()) << equal->CheckCopies("a").message();
}

TEST(CheckpointReader, FaultsAreCollectedWhereThatIsAsked) {
  const std::string folder = FreshFolder("");
  WriteTensors(folder + "/one.safetensors", {{"a", {2}}});
  WriteFile(folder + "/three.safetensors", "x");
  WriteFile(folder + "/model.safetensors.index.json",
            R"({"weight_map": {"a": "one.safetensors", "b": "two.safetensors", "c":
                "three.safetensors", "d": 4, "e": "../one.safetensors"}})");
  std::vector<Status> faults;
  const auto reader = CheckpointReader::Open(folder, {.faults = &faults});
  ASSERT_TRUE(reader.ok()) << reader.status().message();
  EXPECT_EQ((*reader)->tensors().size(), 1u);
  ASSERT_EQ(faults.size(), 4u);
  EXPECT_HAS(faults[0].message(), "the file of tensor d is 4");
  EXPECT_HAS(faults[1].message(), "leads out of the directory");
  EXPECT_HAS(faults[2].message(), "three.safetensors: 1 bytes");
  EXPECT_HAS(faults[3].message(), "two.safetensors: no such file");
}

TEST(CheckpointReader, TensorsGoByOtherNamesOnRequest) {
  const std::string folder = FreshFolder("");
  WriteTensors(folder + "/model.safetensors", {{"norm", {3}}, {"model.norm", {2}}, {"head", {2}}});
  const auto reader = CheckpointReader::Open(folder);
  ASSERT_TRUE(reader.ok());
  (*reader)->Rename([](const std::string& name) { return name == "norm" ? "model.norm" : name; });
  EXPECT_EQ((*reader)->tensors().size(), 2u);
  EXPECT_EQ((*reader)->Find("model.norm")->entry->name, "model.norm");
  EXPECT_HAS((*reader)->CheckCopies("model.norm").message(),
             "is there under two names with different values: model.norm in ");
  (*reader)->FindAlso("embedding", "head");
  (*reader)->FindAlso("model.norm", "head");
  (*reader)->FindAlso("nothing", "absent");
  EXPECT_EQ((*reader)->Find("embedding")->entry->name, "head");
  EXPECT_EQ((*reader)->Find("model.norm")->entry->name, "model.norm");
  EXPECT_EQ((*reader)->Find("nothing"), nullptr);
}

struct Loading {
  std::vector<std::vector<float>> memory;
  std::vector<WantedTensor> wanted;
  LoadOptions options;

  Loading() {
    options.classify = [](const std::string& name) {
      if (name.ends_with(".rotary_emb.inv_freq")) return ExtraTensor::kIgnored;
      if (name.starts_with("model.layers.7.")) return ExtraTensor::kExtraLayer;
      return ExtraTensor::kUnexpected;
    };
    options.tied = {{"lm_head.weight", "model.embed_tokens.weight"}};
  }
  void Want(const std::string& name, const Shape& shape) {
    memory.emplace_back(static_cast<size_t>(shape.elements()), -1.0f);
    wanted.push_back({name, TensorView(memory.back().data(), DType::kFloat32, shape)});
  }
  StatusOr<LoadReport> Run(const std::string& folder) {
    TE_ASSIGN_OR_RETURN(const auto reader, CheckpointReader::Open(folder));
    return LoadParameters(*reader, wanted, options);
  }
};

TEST(LoadParameters, ReadsWhatIsWantedAndReportsTheRest) {
  const std::string folder = FreshFolder("");
  WriteTensors(folder + "/model.safetensors",
               {{"model.embed_tokens.weight", {4, 3}},
                {"model.norm.weight", {3}},
                {"model.layers.0.self_attn.rotary_emb.inv_freq", {8}},
                {"model.layers.7.mlp.up_proj.weight", {2}},
                {"model.layers.7.mlp.down_proj.weight", {2}},
                {"vision.tower", {2}}},
               1);
  Loading loading;
  loading.Want("model.norm.weight", {3});
  loading.Want("model.embed_tokens.weight", {4, 3});
  std::vector<uint64_t> progress;
  loading.options.progress = [&](uint64_t done, uint64_t total) {
    progress.push_back(done);
    EXPECT_EQ(total, 60u);
  };
  const auto report = loading.Run(folder);
  ASSERT_TRUE(report.ok()) << report.status().message();
  EXPECT_EQ(loading.memory[0], (std::vector<float>{1, 2, 3}));
  EXPECT_EQ(loading.memory[1][11], 12);
  EXPECT_EQ(progress.back(), 60u);
  EXPECT_EQ(report->unexpected, std::vector<std::string>{"vision.tower"});
  EXPECT_EQ(report->extra_layers.size(), 2u);
  EXPECT_EQ(report->ignored,
            std::vector<std::string>{"model.layers.0.self_attn.rotary_emb.inv_freq"});
  const auto warnings = report->Warnings();
  ASSERT_EQ(warnings.size(), 2u);
  EXPECT_HAS(warnings[0], "fewer layers than the checkpoint; skipped: model.layers.7 (2 tensors)");
  EXPECT_HAS(warnings[1], "does not use: vision.tower");
}

TEST(LoadParameters, APlaceIsAskedForWhenItsTensorsTurnComes) {
  const std::string folder = FreshFolder("");
  WriteTensors(folder + "/model.safetensors", {{"a", {3}}, {"b", {2}}}, 1);
  std::vector<float> place(3);
  std::vector<std::vector<float>> read;
  std::vector<std::string> calls;
  Loading loading;
  for (const char* name : {"b", "a"}) {
    const Shape shape = {*name == 'a' ? 3 : 2};
    loading.wanted.push_back({.name = name,
                              .to = TensorView(nullptr, DType::kFloat32, shape),
                              .place = [&, name, shape]() -> StatusOr<TensorView> {
                                calls.push_back(std::string("place ") + name);
                                return TensorView(place.data(), DType::kFloat32, shape);
                              },
                              .done =
                                  [&, name] {
                                    calls.push_back(std::string("done ") + name);
                                    read.push_back(place);
                                    place = {-1, -1, -1};
                                    return OkStatus();
                                  }});
  }
  const auto report = loading.Run(folder);
  ASSERT_TRUE(report.ok()) << report.status().message();
  EXPECT_EQ(calls, (std::vector<std::string>{"place a", "done a", "place b", "done b"}));
  EXPECT_EQ(read[0], (std::vector<float>{1, 2, 3}));
  EXPECT_EQ(read[1], (std::vector<float>{1, 2, -1}));
  loading.wanted[1].done = [] { return CorruptData("of others"); };
  EXPECT_HAS(loading.Run(folder).status().message(), "a: of others");
}

TEST(LoadParameters, MissingTensorsAndWrongShapesNameEverything) {
  const std::string folder = FreshFolder("");
  WriteTensors(folder + "/model.safetensors", {{"model.embed_tokens.weight", {4, 3}}});
  Loading missing;
  missing.Want("model.embed_tokens.weight", {4, 3});
  missing.Want("model.norm.weight", {3});
  const std::string error = missing.Run(folder).status().message();
  for (const char* part : {"model.norm.weight", "[3]", "model.safetensors", folder.c_str()})
    EXPECT_HAS(error, part);
  EXPECT_EQ(missing.memory[0][1], -1) << "nothing is read before all names are checked";
  missing.options.allow_missing = true;
  const auto report = missing.Run(folder);
  ASSERT_TRUE(report.ok());
  EXPECT_EQ(report->missing, std::vector<std::string>{"model.norm.weight"});
  EXPECT_EQ(missing.memory[1], (std::vector<float>{-1, -1, -1}));
  EXPECT_HAS(report->Warnings()[0], "initialized instead: model.norm.weight");

  Loading wrong;
  wrong.options.allow_missing = true;
  wrong.Want("model.embed_tokens.weight", {3, 4});
  const std::string shape = wrong.Run(folder).status().message();
  for (const char* part : {"model.embed_tokens.weight", "[4, 3]", "[3, 4]", "/model.safetensors"})
    EXPECT_HAS(shape, part);
}

TEST(LoadParameters, TiedTensorsMustBeEqual) {
  const std::string folder = FreshFolder("");
  const auto put = [&](float head, int64_t rows) {
    WriteTensors(folder + "/one.safetensors", {{"model.embed_tokens.weight", {50000, 3}}}, 1);
    WriteTensors(folder + "/two.safetensors", {{"lm_head.weight", {rows, 3}}}, head);
    WriteFile(
        folder + "/model.safetensors.index.json",
        R"({"weight_map": {"model.embed_tokens.weight": "one.safetensors", "lm_head.weight": "two.safetensors"}})");
  };
  Loading loading;
  loading.Want("model.embed_tokens.weight", {50000, 3});
  put(1, 50000);
  const auto report = loading.Run(folder);
  ASSERT_TRUE(report.ok()) << report.status().message();
  EXPECT_TRUE(report->unexpected.empty());
  put(2, 50000);
  EXPECT_HAS(loading.Run(folder).status().message(), "they differ: element 0 is 2 and 1");
  EXPECT_HAS(loading.Run(folder).status().message(),
             "lm_head.weight is tied to model.embed_tokens.weight");
  put(1, 49999);
  EXPECT_HAS(loading.Run(folder).status().message(), "shapes [49999, 3] and [50000, 3]");
  // One element in the last piece.
  put(1, 50000);
  std::string bytes = ReadFile(folder + "/two.safetensors");
  bytes[bytes.size() - 1] ^= 1;
  WriteFile(folder + "/two.safetensors", bytes);
  EXPECT_HAS(loading.Run(folder).status().message(), "they differ: element 149999");
  // Under the other name alone it is still there.
  put(7, 50000);
  WriteTensors(folder + "/one.safetensors", {{"other", {2}}}, 1);
  WriteFile(folder + "/model.safetensors.index.json",
            R"({"weight_map": {"other": "one.safetensors", "lm_head.weight": "two.safetensors"}})");
  ASSERT_TRUE(loading.Run(folder).ok());
  EXPECT_EQ(loading.memory[0][0], 7);
}

}  // namespace
}  // namespace te
