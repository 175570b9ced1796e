// Files of choices, with a device that chooses (testing_choices.h).
#include "models/llama/tuned_choices.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>

#include "models/checkpoint/testing_files.h"
#include "models/llama/testing_choices.h"
#include "te_core/context.h"
#include "te_kernels/testing/checked.h"

namespace te {
namespace {

using test::Choosing;
using test::NewChoosingContext;
using test::Ok;
using test::Value;

TEST(TunedChoices, AreTheSameAfterTheFile) {
  const std::string path = FreshFolder("file") + "/choices.txt";
  Choosing made, pinned;
  made.Find("8x8", "3");
  Ok(WriteChoices(path, NewChoosingContext(&made).get()));
  EXPECT_EQ(ReadFile(path), "te choices of card\n8x8 : 3\n");
  EXPECT_EQ(Value(PinChoicesOf(path, NewChoosingContext(&pinned).get())), ChoicesFile::kPinned);
  EXPECT_EQ(pinned.own, made.found);
  // What was there is replaced.
  made.Find("16x16", "4");
  Ok(WriteChoices(path, NewChoosingContext(&made).get()));
  EXPECT_EQ(ReadFile(path), "te choices of card\n16x16 : 4\n8x8 : 3\n");
  EXPECT_FALSE(std::filesystem::exists(path + ".te-new"));
}

TEST(TunedChoices, NoFileAndOneOfAnotherCardChangeNothing) {
  const std::string path = FreshFolder("file") + "/choices.txt";
  Choosing choosing;
  const auto context = NewChoosingContext(&choosing);
  EXPECT_EQ(Value(PinChoicesOf(path, context.get())), ChoicesFile::kAbsent);
  WriteFile(path, "te choices of another\n8x8 : 3\n");
  EXPECT_EQ(Value(PinChoicesOf(path, context.get())), ChoicesFile::kOfAnother);
  EXPECT_TRUE(choosing.own.empty());
}

TEST(TunedChoices, HostileFilesAreErrorsThatNameThem) {
  const std::string folder = FreshFolder("file");
  Choosing choosing;
  const auto context = NewChoosingContext(&choosing);
  const auto refuse = [&](const std::string& path, StatusCode code) {
    const auto result = PinChoicesOf(path, context.get());
    EXPECT_EQ(result.status().code(), code) << path;
    EXPECT_NE(result.status().message().find(path), std::string::npos) << result.status().message();
    EXPECT_TRUE(choosing.own.empty());
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
  Choosing made, none{.card = ""};
  const Status status = WriteChoices(folder + "/no/choices.txt", NewChoosingContext(&made).get());
  EXPECT_EQ(status.code(), StatusCode::kIoError);
  EXPECT_NE(status.message().find(folder + "/no/choices.txt"), std::string::npos)
      << status.message();
  Ok(WriteChoices(folder + "/choices.txt", NewChoosingContext(&none).get()));
  EXPECT_FALSE(std::filesystem::exists(folder + "/choices.txt"));
}

}  // namespace
}  // namespace te
