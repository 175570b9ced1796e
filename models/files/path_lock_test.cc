#include "models/files/path_lock.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <thread>
#include <vector>

namespace te {
namespace {

using std::chrono::milliseconds;

class PathLockTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "/lock_XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
    path_ = directory_ + "/out";
    file_ = directory_ + "/.out.te-lock";
  }
  void TearDown() override {
    std::filesystem::permissions(directory_, std::filesystem::perms::owner_all);
    std::filesystem::remove_all(directory_);
  }
  static PathLock Acquire(const std::string& path) {
    StatusOr<PathLock> lock = PathLock::Acquire(path, milliseconds(0));
    EXPECT_TRUE(lock.ok()) << lock.status().message();
    return lock.ok() ? std::move(lock).value() : PathLock();
  }

  std::string directory_, path_, file_;
};

TEST_F(PathLockTest, TheSecondIsToldWhoHasIt) {
  {
    const PathLock first = Acquire(path_);
    EXPECT_TRUE(first.held());
    const auto second = PathLock::Acquire(path_, milliseconds(0));
    ASSERT_FALSE(second.ok());
    EXPECT_EQ(second.status().code(), StatusCode::kFailedPrecondition);
    EXPECT_NE(second.status().message().find(path_ + ": another run of te writes there (process " +
                                             std::to_string(getpid()) + " on "),
              std::string::npos)
        << second.status().message();
    EXPECT_TRUE(Acquire(directory_ + "/other").held());
  }
  EXPECT_TRUE(std::filesystem::is_empty(directory_));  // nothing stays
  EXPECT_TRUE(Acquire(path_).held());
}

TEST_F(PathLockTest, WaitsForAShortHolder) {
  auto first = std::make_unique<PathLock>(Acquire(path_));
  std::thread holder([&first] {
    std::this_thread::sleep_for(milliseconds(100));
    first.reset();
  });
  const auto second = PathLock::Acquire(path_, std::chrono::minutes(1));
  holder.join();
  ASSERT_TRUE(second.ok()) << second.status().message();
  EXPECT_TRUE(second->held());
}

TEST_F(PathLockTest, OneAtATimeHoweverManyTry) {
  std::atomic<int> inside = 0, most = 0, done = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 25; ++i) {
        const auto lock = PathLock::Acquire(path_, std::chrono::minutes(5));
        ASSERT_TRUE(lock.ok() && lock->held());
        most = std::max<int>(most, ++inside);
        std::this_thread::yield();
        --inside;
        ++done;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(most, 1);
  EXPECT_EQ(done, 100);
}

TEST_F(PathLockTest, AKilledHolderLeavesNoLock) {
  const pid_t child = fork();
  if (child == 0) {
    const auto lock = PathLock::Acquire(path_, milliseconds(0));
    kill(getpid(), SIGKILL);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFSIGNALED(status));
  EXPECT_TRUE(std::filesystem::exists(file_));
  EXPECT_TRUE(Acquire(path_).held());
  EXPECT_FALSE(std::filesystem::exists(file_));
}

TEST_F(PathLockTest, WhatTheLockFileSaysIsNotTrusted) {
  for (const std::string& text : {"process 999999999 on " + std::string(256, 'x'),
                                  std::string("process -1 on \x1b[2J"), std::string("\0\0", 2)}) {
    std::ofstream(file_, std::ios::binary) << text;
    const int other = open(file_.c_str(), O_RDONLY | O_CLOEXEC);
    ASSERT_EQ(flock(other, LOCK_EX), 0);
    const auto lock = PathLock::Acquire(path_, milliseconds(0));
    ASSERT_FALSE(lock.ok());
    EXPECT_EQ(lock.status().message().find('\x1b'), std::string::npos);
    close(other);
  }
}

TEST_F(PathLockTest, ALinkInItsPlaceIsNotFollowed) {
  const std::string victim = directory_ + "/victim";
  std::ofstream(victim) << "mine";
  std::filesystem::create_symlink(victim, file_);
  EXPECT_FALSE(Acquire(path_).held());
  EXPECT_EQ(std::filesystem::file_size(victim), 4u);
}

TEST_F(PathLockTest, NoLockIsNoError) {
  EXPECT_FALSE(Acquire("/proc/out").held());
  EXPECT_FALSE(Acquire(directory_ + "/none/out").held());
}

}  // namespace
}  // namespace te
