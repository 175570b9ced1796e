#include "tests/cli/run_te.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

namespace te {
namespace {

constexpr char kTe[] = "models/cli/te";

std::string MakeFolder() {
  std::string pattern = ::testing::TempDir() + "/te_XXXXXX";
  EXPECT_NE(mkdtemp(pattern.data()), nullptr);
  return pattern;
}

}  // namespace

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file.good()) << path;
  std::ostringstream bytes;
  bytes << file.rdbuf();
  return bytes.str();
}

void WriteFile(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

std::string LastLine(const std::string& text) {
  const size_t end = text.find_last_not_of('\n');
  if (end == std::string::npos) return "";
  const size_t before = text.rfind('\n', end);
  const size_t begin = before == std::string::npos ? 0 : before + 1;
  return text.substr(begin, end + 1 - begin);
}

int Lines(const std::string& text) {
  return static_cast<int>(std::count(text.begin(), text.end(), '\n'));
}

TemporaryFolder::TemporaryFolder() : path_(MakeFolder()) {}
TemporaryFolder::~TemporaryFolder() {
  std::error_code error;
  std::filesystem::remove_all(path_, error);
}

TeProcess::TeProcess(const std::vector<std::string>& arguments) : folder_(MakeFolder()) {
  std::vector<const char*> argv = {kTe};
  for (const std::string& argument : arguments) argv.push_back(argument.c_str());
  argv.push_back(nullptr);
  const std::string out = folder_ + "/out", err = folder_ + "/err";
  // Here, not in the child: a kill may come before the child has run at all.
  for (const std::string& path : {out, err}) WriteFile(path, "");
  pid_ = fork();
  if (pid_ == 0) {
    dup2(open(out.c_str(), O_WRONLY), STDOUT_FILENO);
    dup2(open(err.c_str(), O_WRONLY), STDERR_FILENO);
    // Threads that spin at barriers would wait for each other's time slices on a machine that is
    // busy with other tests.
    setenv("OMP_WAIT_POLICY", "passive", 1);
    execv(kTe, const_cast<char**>(argv.data()));
    _exit(127);
  }
}

TeProcess::~TeProcess() {
  if (!ended_) {
    Signal(SIGKILL);
    Wait();
  }
  std::error_code error;
  std::filesystem::remove_all(folder_, error);
}

void TeProcess::Signal(int number) {
  if (!ended_) kill(pid_, number);
}

bool TeProcess::Poll(bool block) {
  if (ended_) return true;
  int status = 0;
  if (waitpid(pid_, &status, block ? 0 : WNOHANG) != pid_) return false;
  ended_ = true;
  result_.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  result_.out = ReadFile(folder_ + "/out");
  result_.err = ReadFile(folder_ + "/err");
  return true;
}

bool TeProcess::WaitForOutput(const std::string& text) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::minutes(1);
  while (std::chrono::steady_clock::now() < end) {
    const bool ended = Poll(/*block=*/false);
    std::error_code error;
    if (std::filesystem::exists(folder_ + "/out", error) &&
        ReadFile(folder_ + "/out").find(text) != std::string::npos) {
      return true;
    }
    if (ended) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return false;
}

TeResult TeProcess::Wait() {
  Poll(/*block=*/true);
  return result_;
}

TeResult RunTe(const std::vector<std::string>& arguments) { return TeProcess(arguments).Wait(); }

}  // namespace te
