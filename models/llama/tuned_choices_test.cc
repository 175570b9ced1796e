// Files of choices, with a device that chooses: the CPU's, which a test gives a text to hand out.
#include "models/llama/tuned_choices.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>

#include "models/checkpoint/testing_files.h"
#include "te_core/context.h"
#include "te_kernels/testing/checked.h"

namespace te {
namespace {

using test::Ok;
using test::Value;

class ChoosingDevice : public Device {
 public:
  explicit ChoosingDevice(std::string* choices) : choices_(choices) {}

  StatusOr<std::string> TunedChoices(const Exec&) override { return *choices_; }
  StatusOr<bool> PinChoices(const Exec&, const std::string& text) override {
    if (!text.starts_with("choices")) return CorruptData("line 1: '{}'", text);
    if (!text.starts_with("choices of this card\n")) return false;
    *choices_ = text;
    return true;
  }

  const char* name() const override { return cpu_->name(); }
  const KernelTable& kernels() const override { return cpu_->kernels(); }
  int default_threads() const override { return 1; }
  StatusOr<void*> NewStream() override { return cpu_->NewStream(); }
  void FreeStream(void* stream) override { cpu_->FreeStream(stream); }
  StatusOr<std::unique_ptr<LibraryState>> NewLibraryState() override {
    return cpu_->NewLibraryState();
  }
  Status CopyToHost(const Exec& exec, const void* from, void* to, size_t bytes) override {
    return cpu_->CopyToHost(exec, from, to, bytes);
  }
  Status CopyFromHost(const Exec& exec, const void* from, void* to, size_t bytes) override {
    return cpu_->CopyFromHost(exec, from, to, bytes);
  }
  Status Zero(const Exec& exec, void* at, size_t bytes) override {
    return cpu_->Zero(exec, at, bytes);
  }
  Status Synchronize(const Exec& exec) override { return cpu_->Synchronize(exec); }
  StatusOr<std::unique_ptr<HostMirror>> NewHostMirror(size_t bytes) override {
    return cpu_->NewHostMirror(bytes);
  }
  StatusOr<void*> Allocate(size_t bytes) override { return cpu_->Allocate(bytes); }
  void Free(void* at, size_t bytes) override { cpu_->Free(at, bytes); }

 private:
  std::unique_ptr<Device> cpu_ = Value(MakeDevice("cpu"));
  std::string* choices_;
};

std::unique_ptr<Context> NewContext(std::string* choices) {
  return Value(Context::Create({}, std::make_unique<ChoosingDevice>(choices)));
}

TEST(TunedChoices, AreTheSameAfterTheFile) {
  const std::string path = FreshFolder("file") + "/choices.txt";
  std::string made = "choices of this card\n8x8 : 3\n", pinned;
  Ok(WriteChoices(path, NewContext(&made).get()));
  EXPECT_EQ(ReadFile(path), made);
  EXPECT_EQ(Value(PinChoicesOf(path, NewContext(&pinned).get())), ChoicesFile::kPinned);
  EXPECT_EQ(pinned, made);
  // What was there is replaced.
  made += "16x16 : 4\n";
  Ok(WriteChoices(path, NewContext(&made).get()));
  EXPECT_EQ(ReadFile(path), made);
  EXPECT_FALSE(std::filesystem::exists(path + ".te-new"));
}

TEST(TunedChoices, NoFileAndOneOfAnotherCardChangeNothing) {
  const std::string path = FreshFolder("file") + "/choices.txt";
  std::string choices = "mine";
  const auto context = NewContext(&choices);
  EXPECT_EQ(Value(PinChoicesOf(path, context.get())), ChoicesFile::kAbsent);
  WriteFile(path, "choices of another card\n8x8 : 3\n");
  EXPECT_EQ(Value(PinChoicesOf(path, context.get())), ChoicesFile::kOfAnother);
  EXPECT_EQ(choices, "mine");
}

TEST(TunedChoices, HostileFilesAreErrorsThatNameThem) {
  const std::string folder = FreshFolder("file");
  std::string choices = "mine";
  const auto context = NewContext(&choices);
  const auto refuse = [&](const std::string& path, StatusCode code) {
    const auto result = PinChoicesOf(path, context.get());
    EXPECT_EQ(result.status().code(), code) << path;
    EXPECT_NE(result.status().message().find(path), std::string::npos) << result.status().message();
    EXPECT_EQ(choices, "mine");
  };
  WriteFile(folder + "/thesis.tex", "years of work");
  refuse(folder + "/thesis.tex", StatusCode::kCorruptData);
  refuse(folder, StatusCode::kIoError);
  WriteFile(folder + "/large", "");
  std::filesystem::resize_file(folder + "/large", uint64_t{1} << 40);
  refuse(folder + "/large", StatusCode::kCorruptData);
}

TEST(TunedChoices, AFileThatCannotBeWrittenIsAnErrorAndNoneIsLeftWithoutChoices) {
  const std::string folder = FreshFolder("file");
  std::string made = "choices of this card\n", none;
  const Status status = WriteChoices(folder + "/no/choices.txt", NewContext(&made).get());
  EXPECT_EQ(status.code(), StatusCode::kIoError);
  EXPECT_NE(status.message().find(folder + "/no/choices.txt"), std::string::npos)
      << status.message();
  Ok(WriteChoices(folder + "/choices.txt", NewContext(&none).get()));
  EXPECT_FALSE(std::filesystem::exists(folder + "/choices.txt"));
}

}  // namespace
}  // namespace te
