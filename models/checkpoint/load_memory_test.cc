// Peak resident memory of loading: the model, plus one tensor's scratch at most. Measured (VmHWM)
// in a child process of its own, over generated checkpoints of both formats.
#include <gtest/gtest.h>
#include <malloc.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zip.h>

#include <cstdio>
#include <cstdlib>
#include <functional>

#include "models/checkpoint/input_file.h"
#include "models/checkpoint/load.h"
#include "models/checkpoint/safetensors.h"
#include "models/checkpoint/testing_files.h"

namespace te {
namespace {

constexpr int64_t kRows = 2048;
constexpr int64_t kColumns = 1024;
constexpr int kTensors = 8;
constexpr size_t kElements = kRows * kColumns;
constexpr size_t kTensorBytes = kElements * 4;  // 8 MiB
constexpr size_t kModelBytes = kTensorBytes * kTensors;
// Stacks, heap pages, staging of 1 MiB.
constexpr size_t kSlack = size_t{4} << 20;

std::string NameOf(int i) { return fmt::format("model.layers.{}.weight", i); }

// Two shards of four tensors, of float32 or float64 elements.
void WriteSafetensorsCheckpoint(const std::string& folder, StoredType type) {
  std::string map;
  for (int shard = 0; shard < 2; ++shard) {
    const std::string file = fmt::format("model-{:05}-of-00002.safetensors", shard + 1);
    std::vector<SafetensorsItem> items;
    for (int i = shard * kTensors / 2; i < (shard + 1) * kTensors / 2; ++i) {
      SafetensorsItem item;
      item.name = NameOf(i);
      item.type = type;
      item.shape = {kRows, kColumns};
      item.write = [type](const SafetensorsItem::Sink& sink) {
        const std::string piece(kElements * static_cast<size_t>(BitsOf(type)) / 8 / 64, '\x3f');
        for (int k = 0; k < 64; ++k) TE_RETURN_IF_ERROR(sink(piece.data(), piece.size()));
        return OkStatus();
      };
      items.push_back(std::move(item));
      map += fmt::format("{}\"{}\": \"{}\"", map.empty() ? "" : ", ", NameOf(i), file);
    }
    ASSERT_TRUE(WriteSafetensors(folder + "/" + file, items, {}, false).ok());
  }
  WriteFile(folder + "/model.safetensors.index.json", "{\"weight_map\": {" + map + "}}");
}

std::string PickleInt(int64_t value) {
  std::string out = "J";
  for (int i = 0; i < 4; ++i) out += static_cast<char>(value >> (8 * i));
  return out;
}

std::string PickleText(const std::string& text) {
  std::string out = "U";
  out += static_cast<char>(text.size());
  return out += text;
}

// As torch.save writes it; with `transposed`, every tensor is a transposed view of its storage.
void WriteBinCheckpoint(const std::string& folder, bool transposed) {
  int error = 0;
  zip_t* archive = zip_open((folder + "/pytorch_model.bin").c_str(), ZIP_CREATE | ZIP_EXCL, &error);
  ASSERT_NE(archive, nullptr);
  std::string pickle("\x80\x02}(", 4);
  const std::string data(kTensorBytes, '\x3f');
  const auto add = [&](const std::string& name, const std::string& bytes) {
    zip_source_t* source = zip_source_buffer(archive, bytes.data(), bytes.size(), 0);
    const zip_int64_t index = zip_file_add(archive, ("model/" + name).c_str(), source, 0);
    ASSERT_GE(index, 0);
    ASSERT_EQ(zip_set_file_compression(archive, static_cast<zip_uint64_t>(index), ZIP_CM_STORE, 0),
              0);
  };
  for (int i = 0; i < kTensors; ++i) {
    const std::string key = std::to_string(i);
    pickle += PickleText(NameOf(i)) + "ctorch._utils\n_rebuild_tensor_v2\n((";
    pickle += PickleText("storage") + "ctorch\nFloatStorage\n" + PickleText(key);
    pickle += PickleText("cpu") + PickleInt(kElements) + "tQK";
    pickle += '\0';
    pickle += '(';
    pickle += PickleInt(kRows) + PickleInt(kColumns) + "t(";
    pickle += PickleInt(transposed ? 1 : kColumns) + PickleInt(transposed ? kRows : 1) + "t\x89}tR";
  }
  pickle += "u.";
  add("data.pkl", pickle);
  for (int i = 0; i < kTensors; ++i) add("data/" + std::to_string(i), data);
  ASSERT_EQ(zip_close(archive), 0);
}

// "VmRSS" or "VmHWM" of this process, in bytes.
size_t Memory(const char* field) {
  std::FILE* file = std::fopen("/proc/self/status", "r");
  char line[256];
  size_t kilobytes = 0;
  while (file != nullptr && std::fgets(line, sizeof(line), file) != nullptr) {
    if (std::strncmp(line, field, 5) == 0) kilobytes = std::strtoull(line + 6, nullptr, 10);
  }
  if (file != nullptr) std::fclose(file);
  return kilobytes * 1024;
}

Status LoadAll(const std::string& folder, float* model) {
  TE_ASSIGN_OR_RETURN(const auto reader, CheckpointReader::Open(folder));
  std::vector<WantedTensor> wanted;
  for (int i = 0; i < kTensors; ++i) {
    wanted.push_back({NameOf(i), TensorView(model + static_cast<size_t>(i) * kElements,
                                            DType::kFloat32, {kRows, kColumns})});
  }
  return LoadParameters(*reader, wanted, {}).status();
}

// The growth of the peak over what the child started with, while `load` fills a model.
size_t PeakGrowth(const std::function<Status(float*)>& load) {
  int pipe_ends[2];
  EXPECT_EQ(pipe(pipe_ends), 0);
  const pid_t child = fork();
  if (child == 0) {
    malloc_trim(0);  // what the parent has freed must not serve as scratch that nobody sees
    const size_t before = Memory("VmRSS");
    float* model =
        static_cast<float*>(std::malloc(kModelBytes));  // fresh pages: resident once written
    const bool ok = load(model).ok() && model[0] != 0 && model[kModelBytes / 4 - 1] != 0;
    const size_t growth = ok ? Memory("VmHWM") - before : 0;
    _exit(write(pipe_ends[1], &growth, sizeof(growth)) == sizeof(growth) ? 0 : 1);
  }
  size_t growth = 0;
  EXPECT_EQ(read(pipe_ends[0], &growth, sizeof(growth)), static_cast<ssize_t>(sizeof(growth)));
  waitpid(child, nullptr, 0);
  close(pipe_ends[0]);
  close(pipe_ends[1]);
  return growth;
}

void ExpectPeak(const std::string& what, const std::string& folder, size_t scratch) {
  const size_t growth = PeakGrowth([&](float* model) { return LoadAll(folder, model); });
  std::printf("%-34s model %zu KiB, peak %zu KiB, allowed %zu KiB\n", what.c_str(),
              kModelBytes >> 10, growth >> 10, (kModelBytes + scratch + kSlack) >> 10);
  EXPECT_GE(growth, kModelBytes) << what;
  EXPECT_LE(growth, kModelBytes + scratch + kSlack) << what;
  std::filesystem::remove_all(folder);
}

TEST(LoadMemory, SafetensorsNeedNoScratch) {
  const std::string same = FreshFolder("same");
  WriteSafetensorsCheckpoint(same, StoredType::kF32);
  ExpectPeak("safetensors, float32", same, 0);
  const std::string wider = FreshFolder("wider");
  WriteSafetensorsCheckpoint(wider, StoredType::kF64);
  ExpectPeak("safetensors, float64 to float32", wider, 0);
}

TEST(LoadMemory, BinFilesNeedOneTensorAtMost) {
  const std::string in_order = FreshFolder("in_order");
  WriteBinCheckpoint(in_order, false);
  ExpectPeak("torch.save, float32", in_order, 0);
  const std::string transposed = FreshFolder("transposed");
  WriteBinCheckpoint(transposed, true);
  ExpectPeak("torch.save, transposed storages", transposed, kTensorBytes);
}

// The twin: a loader that holds one shard in memory is caught.
TEST(LoadMemory, ALoaderThatHoldsAShardIsCaught) {
  const std::string folder = FreshFolder("");
  WriteSafetensorsCheckpoint(folder, StoredType::kF32);
  const size_t growth = PeakGrowth([&](float* model) -> Status {
    TE_ASSIGN_OR_RETURN(const InputFile file,
                        InputFile::Open(folder + "/model-00002-of-00002.safetensors"));
    std::vector<char> shard(file.size());
    TE_RETURN_IF_ERROR(file.ReadAt(0, shard.data(), shard.size()));
    return LoadAll(folder, model);
  });
  EXPECT_GT(growth, kModelBytes + kTensorBytes + kSlack);
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace te
