// The user's cache of choices, and those that ship, with a device that chooses (testing_choices.h).
#include "models/llama/known_choices.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <vector>

#include "models/checkpoint/testing_files.h"
#include "models/llama/choices_text.h"
#include "models/llama/testing_choices.h"
#include "models/llama/tuned_choices.h"
#include "te_core/context.h"
#include "te_kernels/testing/checked.h"

namespace te {
namespace {

using test::Choosing;
using test::NewChoosingContext;
using test::Ok;
using test::Value;
using Map = std::map<std::string, std::string>;

constexpr std::string_view kShipped[] = {"te choices of any\n8x8 : shipped\n9x9 : shipped\n"};

std::string PathIn(const std::string& folder) { return folder + "/tuned_choices_card.txt"; }

// One run: pins what is known, finds a choice for each of `problems` that has none, keeps it.
Choosing OneRun(const std::string& folder, const std::vector<std::string>& problems,
                const std::string& choice = "found") {
  Choosing choosing;
  const auto context = NewChoosingContext(&choosing);
  KnownChoices known(folder, {});
  Ok(known.Pin(context.get()));
  for (const std::string& problem : problems)
    if (!choosing.known.contains(problem)) choosing.Find(problem, choice);
  known.Keep(context.get());
  return choosing;
}

TEST(ChoicesCacheFolder, FollowsTheEnvironment) {
  EXPECT_EQ(ChoicesCacheFolder(nullptr, "/x", "/h"), "/x/te");
  EXPECT_EQ(ChoicesCacheFolder(nullptr, nullptr, "/h"), "/h/.cache/te");
  EXPECT_EQ(ChoicesCacheFolder("/own", "/x", "/h"), "/own");
  EXPECT_EQ(ChoicesCacheFolder("0", "/x", "/h"), "");
  EXPECT_EQ(ChoicesCacheFolder("", "/x", "/h"), "");
  EXPECT_EQ(ChoicesCacheFolder(nullptr, nullptr, nullptr), "");
  // The XDG specification: what is not absolute is ignored.
  EXPECT_EQ(ChoicesCacheFolder(nullptr, "x", "/h"), "/h/.cache/te");
  EXPECT_EQ(ChoicesCacheFolder(nullptr, "", "h"), "");
}

TEST(KnownChoices, WhatOneRunFindsTheNextDoesNotSearch) {
  const std::string folder = FreshFolder("home") + "/.cache/te";
  EXPECT_EQ(OneRun(folder, {"8x8", "9x9"}).searches, 2);
  EXPECT_EQ(ReadFile(PathIn(folder)), "te choices of card\n8x8 : found\n9x9 : found\n");
  const Choosing second = OneRun(folder, {"8x8", "9x9", "10x10"}, "later");
  EXPECT_EQ(second.searches, 1);
  EXPECT_EQ(second.known, (Map{{"8x8", "found"}, {"9x9", "found"}}));
  EXPECT_EQ(ReadFile(PathIn(folder)),
            "te choices of card\n10x10 : later\n8x8 : found\n9x9 : found\n");
  // For this user alone, as the XDG specification asks for.
  struct stat info;
  ASSERT_EQ(stat(folder.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0700u);
}

TEST(KnownChoices, EachKeyHasAFileOfItsOwn) {
  const std::string folder = FreshFolder("cache");
  Choosing choosing{.card = "NVIDIA H200 | driver 13000 | cublasLt 130100 | ../cudnn 9"};
  const auto context = NewChoosingContext(&choosing);
  KnownChoices known(folder, {});
  Ok(known.Pin(context.get()));
  EXPECT_EQ(known.path(),
            folder + "/tuned_choices_NVIDIA_H200_driver_13000_cublasLt_130100_.._cudnn_9.txt");
  choosing.Find("8x8", "3");
  EXPECT_TRUE(known.Keep(context.get()));
  EXPECT_EQ(OneRun(folder, {"8x8"}).searches, 1);  // of another card
  EXPECT_TRUE(std::filesystem::exists(known.path()));
}

TEST(KnownChoices, TheRunsOwnComeBeforeTheCacheAndTheCacheBeforeWhatShips) {
  const std::string folder = FreshFolder("cache");
  WriteFile(PathIn(folder), "te choices of card\n7x7 : cached\n8x8 : cached\n");
  WriteFile(folder + "/own.txt", "te choices of card\n7x7 : own\n");
  Choosing choosing;
  const auto context = NewChoosingContext(&choosing);
  EXPECT_EQ(Value(PinChoicesOf(folder + "/own.txt", context.get())), ChoicesFile::kPinned);
  KnownChoices known(folder, kShipped);
  Ok(known.Pin(context.get()));
  EXPECT_TRUE(known.cached());
  EXPECT_TRUE(known.shipped());
  EXPECT_EQ(choosing.own, (Map{{"7x7", "own"}}));
  EXPECT_EQ(choosing.known, (Map{{"8x8", "cached"}, {"9x9", "shipped"}}));
  // Nothing was found: nothing is written.
  const auto before = std::filesystem::last_write_time(PathIn(folder));
  EXPECT_FALSE(known.Keep(context.get()));
  EXPECT_EQ(std::filesystem::last_write_time(PathIn(folder)), before);
  // What the run found goes to the cache alone, without what others know.
  choosing.Find("5x5", "found");
  EXPECT_TRUE(known.Keep(context.get()));
  EXPECT_EQ(ReadFile(PathIn(folder)),
            "te choices of card\n5x5 : found\n7x7 : cached\n8x8 : cached\n");
}

TEST(KnownChoices, WithoutACacheShippedOnesArePinnedAndNothingIsWritten) {
  Choosing choosing;
  const auto context = NewChoosingContext(&choosing);
  KnownChoices known("", kShipped);
  Ok(known.Pin(context.get()));
  EXPECT_TRUE(known.shipped());
  EXPECT_EQ(choosing.known.size(), 2u);
  choosing.Find("5x5", "found");
  EXPECT_FALSE(known.Keep(context.get()));
  EXPECT_EQ(known.path(), "");
}

TEST(KnownChoices, ADeviceThatChoosesNothingLeavesNoFolder) {
  const std::string folder = FreshFolder("home") + "/.cache";
  Choosing choosing{.card = ""};
  const auto context = NewChoosingContext(&choosing);
  KnownChoices known(folder, kShipped);
  Ok(known.Pin(context.get()));
  EXPECT_FALSE(known.shipped());
  EXPECT_FALSE(known.Keep(context.get()));
  EXPECT_FALSE(std::filesystem::exists(folder));
}

TEST(KnownChoices, FoldersThatCannotBeWrittenAreAsGoodAsNone) {
  const std::string folder = FreshFolder("cache");
  WriteFile(folder + "/file", "");
  std::filesystem::create_directory(folder + "/locked");
  std::filesystem::create_directory(folder + "/nothing");
  std::filesystem::create_directory(folder + "/nothing/lock");  // that cannot be opened for writing
  for (const std::string& unwritable :
       {folder + "/file", folder + "/file/te", std::string("/proc/te"), folder + "/nothing"}) {
    const Choosing choosing = OneRun(unwritable, {"8x8"});
    EXPECT_EQ(choosing.searches, 1) << unwritable;
  }
  ASSERT_EQ(chmod((folder + "/locked").c_str(), 0500), 0);
  Choosing choosing;
  const auto context = NewChoosingContext(&choosing);
  KnownChoices known(folder + "/locked/te", {});
  Ok(known.Pin(context.get()));
  EXPECT_EQ(known.warning(), "");
  choosing.Find("8x8", "3");
  const bool kept = known.Keep(context.get());
  EXPECT_TRUE(!kept || geteuid() == 0);  // root writes everywhere
  chmod((folder + "/locked").c_str(), 0700);
}

TEST(KnownChoices, BrokenFilesAreAWarningAndReplacedByWhatIsFound) {
  for (const std::string& broken :
       {std::string("years of work"), std::string("te choices of card\n8x8 : cut"),
        std::string("te choices of card\n8x8 : nonsense\n"), std::string(),
        std::string("te choices of card\n\0\0\0 : 1\n", 28),
        "te choices of card\n" + std::string(5000, 'x') + " : 1\n", std::string(5 << 20, 'x')}) {
    const std::string folder = FreshFolder("cache");
    WriteFile(PathIn(folder), broken);
    Choosing choosing;
    const auto context = NewChoosingContext(&choosing);
    KnownChoices known(folder, kShipped);
    Ok(known.Pin(context.get()));
    EXPECT_FALSE(known.cached());
    EXPECT_EQ(choosing.known.size(), 2u);  // those that ship
    EXPECT_TRUE(known.warning().starts_with(PathIn(folder) + ": ")) << known.warning();
    EXPECT_EQ(known.warning().find('\n'), std::string::npos);
    choosing.Find("5x5", "found");
    EXPECT_TRUE(known.Keep(context.get()));
    EXPECT_EQ(ReadFile(PathIn(folder)), "te choices of card\n5x5 : found\n");
    // From then on it is added to.
    EXPECT_EQ(OneRun(folder, {"5x5", "6x6"}).searches, 1);
    choosing.Find("7x7", "found");
    EXPECT_TRUE(known.Keep(context.get()));
    EXPECT_EQ(ReadFile(PathIn(folder)),
              "te choices of card\n5x5 : found\n6x6 : found\n7x7 : found\n");
  }
}

TEST(KnownChoices, WhatIsNoFileIsLeftAlone) {
  const std::string folder = FreshFolder("cache");
  std::filesystem::create_directory(PathIn(folder));
  EXPECT_EQ(OneRun(folder, {"8x8"}).searches, 1);
  EXPECT_TRUE(std::filesystem::is_directory(PathIn(folder)));
  std::filesystem::remove(PathIn(folder));
  ASSERT_EQ(mkfifo(PathIn(folder).c_str(), 0600), 0);  // must not be waited for
  EXPECT_EQ(OneRun(folder, {"8x8"}).searches, 1);
}

// It does not grow without end: a file that has outgrown its bound begins anew.
TEST(KnownChoices, TheFileIsBounded) {
  const std::string folder = FreshFolder("cache");
  std::string large = "te choices of card\n";
  for (int i = 0; large.size() < (size_t{4} << 20) - 1000; ++i)
    large += std::to_string(i) + std::string(900, 'x') + " : 1\n";
  WriteFile(PathIn(folder), large);
  EXPECT_EQ(OneRun(folder, {"8x8", std::string(1500, 'y')}).searches, 2);
  EXPECT_LT(std::filesystem::file_size(PathIn(folder)), 3000u);
  EXPECT_EQ(OneRun(folder, {"8x8"}).searches, 0);
}

// Four processes find five choices each at the same time, a file a choice; nothing is lost.
TEST(KnownChoices, ProcessesAddToTheFileAtTheSameTime) {
  const std::string folder = FreshFolder("cache") + "/te";
  constexpr int kProcesses = 4, kChoices = 5;
  std::vector<pid_t> children;
  for (int p = 0; p < kProcesses; ++p) {
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      for (int i = 0; i < kChoices; ++i)
        OneRun(folder, {"common", std::to_string(p) + "/" + std::to_string(i)});
      _exit(0);
    }
    children.push_back(child);
  }
  for (const pid_t child : children) {
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
  }
  ChoicesText text;
  ASSERT_TRUE(text.Parse(ReadFile(PathIn(folder))));
  EXPECT_EQ(text.count(), kProcesses * kChoices + 1u);
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    EXPECT_FALSE(entry.path().string().ends_with(".te-new")) << entry.path();
}

}  // namespace
}  // namespace te
