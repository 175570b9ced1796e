// te_optimizer_state.safetensors, put into an optimizer of two parameters: on success the file
// written from it is the one that was read, on refusal nothing has changed.
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "models/train/optimizer_state_file.h"
#include "te_kernels/cast/cast.h"
#include "tests/fuzz/fuzzing.h"

namespace te {
namespace {

// The host's memory and one operation: loading a state computes nothing but a cast.
class PlainDevice : public Device {
 public:
  const char* name() const override { return "plain"; }
  const KernelTable& kernels() const override { return kernels_; }
  bool host_accessible() const override { return true; }
  int default_threads() const override { return 1; }
  StatusOr<void*> NewStream() override { return static_cast<void*>(nullptr); }
  void FreeStream(void*) override {}
  StatusOr<std::unique_ptr<LibraryState>> NewLibraryState() override {
    return std::make_unique<LibraryState>();
  }
  Status CopyToHost(const Exec&, const void* from, void* to, size_t bytes) override {
    std::memcpy(to, from, bytes);
    return OkStatus();
  }
  Status CopyFromHost(const Exec&, const void* from, void* to, size_t bytes) override {
    std::memcpy(to, from, bytes);
    return OkStatus();
  }
  Status Zero(const Exec&, void* at, size_t bytes) override {
    std::memset(at, 0, bytes);
    return OkStatus();
  }
  Status Synchronize(const Exec&) override { return OkStatus(); }
  StatusOr<std::unique_ptr<HostMirror>> NewHostMirror(size_t) override {
    return Unsupported("no mirror here");
  }
  StatusOr<void*> Allocate(size_t bytes) override {
    return std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  }
  void Free(void* at, size_t) override { std::free(at); }

 private:
  const KernelTable kernels_ = {.cast = CastCpu};
};

template <typename T>
T Value(StatusOr<T> value) {
  TE_FUZZ_CHECK(value.ok(), "{}", value.status().message());
  return std::move(value).value();
}

class Trained {
 public:
  Trained()
      : context_(Value(
            Context::Create({.num_threads = 1, .seed = 9}, std::make_unique<PlainDevice>()))) {
    const struct {
      const char* name;
      DType dtype;
      Shape shape;
    } forms[] = {{"weight", DType::kBFloat16, {3, 4}}, {"bias", DType::kFloat32, {5}}};
    for (int i = 0; i < 2; ++i) {
      parameters_[i].name = forms[i].name;
      parameters_[i].value = Value(context_->NewZeroTensor(forms[i].dtype, forms[i].shape));
      names_[&parameters_[i]] = std::string("model.layer.") + forms[i].name;
    }
    optimizer_ = Value(AdamWOptimizer::Create(context_.get(), {&parameters_[0], &parameters_[1]},
                                              {.master_weights = MasterWeights::kFloat32}));
  }
  Status Load(const OptimizerStateFile& file) { return file.Load(optimizer_.get(), names_); }
  Status Write(const std::string& path, const OptimizerStateInfo& info) {
    return WriteOptimizerState(path, optimizer_.get(), names_, info,
                               [](const Parameter&) { return true; });
  }
  // All that loading may change.
  std::string Bytes() {
    std::string out;
    for (const Parameter& parameter : parameters_) {
      out.append(parameter.value.view().as<char>(), parameter.value.view().bytes());
    }
    for (const auto& tensor : optimizer_->StateTensors())
      out.append(static_cast<const char*>(tensor.value.data()), tensor.value.bytes());
    const auto progress = Value(optimizer_->ReadProgress());
    out += fmt::format("{} {}", progress.step, progress.rng_offset);
    for (const uint32_t stream : progress.random_streams) out += fmt::format(" {}", stream);
    return out;
  }

 private:
  std::unique_ptr<Context> context_;
  Parameter parameters_[2];
  ParameterNames names_;
  std::unique_ptr<AdamWOptimizer> optimizer_;
};

TE_FUZZ_TARGET(input) {
  static const fuzz::MemoryFolder folder;
  static fuzz::MemoryFile source;
  source.Set(input);
  const fuzz::MemoryBound bound(input.size(), {.base = size_t{4} << 20, .factor = 256});
  const auto file = OptimizerStateFile::Open(source.path());
  if (!file.ok()) return fuzz::CheckRefusal(file.status());
  Trained trained;
  const std::string before = trained.Bytes();
  const Status loaded = trained.Load(**file);
  if (!loaded.ok()) {
    TE_FUZZ_CHECK(trained.Bytes() == before, "changed by a file that is refused: {}",
                  loaded.message());
    return fuzz::CheckRefusal(loaded);
  }
  const std::string path = folder.path() + "/written";
  std::filesystem::remove(path);
  const Status written = trained.Write(path, (*file)->info());
  TE_FUZZ_CHECK(written.ok(), "{}", written.message());
  Trained again;
  const auto second = Value(OptimizerStateFile::Open(path));
  const Status status = again.Load(*second);
  TE_FUZZ_CHECK(status.ok(), "{}", status.message());
  TE_FUZZ_CHECK(again.Bytes() == trained.Bytes(), "it was written otherwise");
  TE_FUZZ_CHECK(second->info().run == (*file)->info().run, "another run");
  TE_FUZZ_CHECK(second->info().position == (*file)->info().position, "another position");
}

}  // namespace
}  // namespace te
