#include "models/train/json_lines_log.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <vector>

#include "models/json/json.h"

namespace te {
namespace {

StepReport Example(int64_t step) {
  return {.step = step,
          .steps = 15,
          .loss = 2.5,
          .learning_rate = 1e-5,
          .grad_norm = 0.75,
          .tokens = 100,
          .counted_tokens = 90,
          .seconds = 0.5,
          .timed = true};
}

class JsonLinesLogTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "/log_XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
    path_ = directory_ + "/log.jsonl";
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  std::unique_ptr<JsonLinesLog> Begin(bool append = false) {
    auto log = JsonLinesLog::Open(path_);
    EXPECT_TRUE(log.ok()) << log.status().message();
    EXPECT_TRUE((*log)->Begin(append, [this](const Status&) { ++told_; }).ok());
    return std::move(log).value();
  }
  // The steps that the file has; -1 for a line that is no JSON.
  std::vector<int64_t> Steps(const std::string& path) {
    std::vector<int64_t> steps;
    std::ifstream file(path);
    for (std::string line; std::getline(file, line);) {
      const auto value = ParseJsonLine(line, path, 1);
      const JsonValue* step = value.ok() ? value->Find("step") : nullptr;
      steps.push_back(step == nullptr ? -1 : step->integer());
    }
    return steps;
  }
  using Expected = std::vector<int64_t>;

  std::string directory_, path_;
  int told_ = 0;
};

TEST_F(JsonLinesLogTest, AJsonObjectALine) {
  {
    const auto log = Begin();
    ASSERT_TRUE(log->OnStep(Example(3)).ok());
    StepReport bad = Example(4);
    bad.loss = std::nan("");
    ASSERT_TRUE(log->OnStep(bad).ok());
    log->Finish();
    EXPECT_TRUE(log->lost().ok());
  }
  std::ifstream file(path_);
  std::string line;
  std::getline(file, line);
  const auto first = ParseJsonLine(line, path_, 1);
  ASSERT_TRUE(first.ok()) << first.status().message();
  EXPECT_EQ(first->Find("step")->integer(), 3);
  EXPECT_EQ(first->Find("loss")->number(), 2.5);
  EXPECT_EQ(first->Find("learning_rate")->number(), 1e-5);
  EXPECT_EQ(first->Find("grad_norm")->number(), 0.75);
  EXPECT_EQ(first->Find("tokens_per_second")->number(), 200);
  EXPECT_EQ(first->Find("milliseconds")->number(), 500);
  std::getline(file, line);
  EXPECT_TRUE(ParseJsonLine(line, path_, 2)->Find("loss")->is_null());
  EXPECT_EQ(told_, 0);
}

TEST_F(JsonLinesLogTest, OpeningLeavesThingsAsTheyAre) {
  EXPECT_TRUE(JsonLinesLog::Open(path_).ok());
  EXPECT_FALSE(std::filesystem::exists(path_));
  std::ofstream(path_) << "{}\n";
  EXPECT_TRUE(JsonLinesLog::Open(path_).ok());
  EXPECT_EQ(std::filesystem::file_size(path_), 3u);
  EXPECT_EQ(JsonLinesLog::Open("/nowhere/log").status().code(), StatusCode::kIoError);
  EXPECT_EQ(JsonLinesLog::Open(directory_).status().code(), StatusCode::kIoError);
}

TEST_F(JsonLinesLogTest, AppendsBehindAWholeLine) {
  std::ofstream(path_) << "{\"step\": 1}\n{\"st";  // a run was killed
  Begin(/*append=*/true)->OnStep(Example(2)).IgnoreError();
  EXPECT_EQ(Steps(path_), (Expected{1, -1, 2}));
  Begin()->OnStep(Example(9)).IgnoreError();
  EXPECT_EQ(Steps(path_), Expected{9});
}

TEST_F(JsonLinesLogTest, TwoRunsDoNotShareAFile) {
  const auto first = Begin();
  const auto second = JsonLinesLog::Open(path_);
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.status().code(), StatusCode::kFailedPrecondition);
}

TEST_F(JsonLinesLogTest, AFullDiskLosesLinesAndNothingElse) {
  path_ = "/dev/full";
  const auto log = Begin();
  EXPECT_TRUE(log->OnStep(Example(1)).ok());
  EXPECT_TRUE(log->OnStep(Example(2)).ok());
  EXPECT_NE(log->lost().message().find("/dev/full: No space left on device"), std::string::npos);
  EXPECT_EQ(told_, 1);
}

TEST_F(JsonLinesLogTest, ALineThatDoesNotFitLeavesNoPiece) {
  struct sigaction old_action {};
  struct sigaction ignore {};
  ignore.sa_handler = SIG_IGN;
  sigaction(SIGXFSZ, &ignore, &old_action);
  rlimit old_limit{};
  getrlimit(RLIMIT_FSIZE, &old_limit);
  {
    const auto log = Begin();
    log->OnStep(Example(1)).IgnoreError();
    const rlimit limit = {.rlim_cur = std::filesystem::file_size(path_) + 10,
                          .rlim_max = old_limit.rlim_max};
    setrlimit(RLIMIT_FSIZE, &limit);
    log->OnStep(Example(2)).IgnoreError();
    setrlimit(RLIMIT_FSIZE, &old_limit);
    log->OnStep(Example(3)).IgnoreError();  // there is room again
    EXPECT_EQ(told_, 1);
    EXPECT_FALSE(log->lost().ok());
  }
  sigaction(SIGXFSZ, &old_action, nullptr);
  EXPECT_EQ(Steps(path_), (Expected{1, 3}));
}

TEST_F(JsonLinesLogTest, FollowsItsNameWhenTheFolderIsReplaced) {
  const auto log = Begin();
  log->OnStep(Example(1)).IgnoreError();
  // As a save does where there are no hard links: the name leads to a copy.
  std::filesystem::copy_file(path_, path_ + ".copy");
  std::filesystem::rename(path_ + ".copy", path_);
  log->OnStep(Example(2)).IgnoreError();
  EXPECT_EQ(Steps(path_), (Expected{1, 2}));
  EXPECT_TRUE(log->lost().ok());
}

TEST_F(JsonLinesLogTest, APipeWhoseReaderLeaves) {
  struct sigaction old_action {};
  struct sigaction ignore {};
  ignore.sa_handler = SIG_IGN;
  sigaction(SIGPIPE, &ignore, &old_action);
  ASSERT_EQ(mkfifo(path_.c_str(), 0600), 0);
  const int reader = open(path_.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  {
    const auto log = Begin();
    log->OnStep(Example(1)).IgnoreError();
    EXPECT_TRUE(log->lost().ok());
    close(reader);
    EXPECT_TRUE(log->OnStep(Example(2)).ok());
    EXPECT_FALSE(log->lost().ok());
  }
  sigaction(SIGPIPE, &old_action, nullptr);
}

}  // namespace
}  // namespace te
