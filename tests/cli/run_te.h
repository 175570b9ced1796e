// Running the built `te` as a user does, for tests.
#pragma once

#include <chrono>
#include <string>
#include <vector>

namespace te {

struct TeResult {
  int exit_code = -1;  // 128 + the signal's number when one ended it
  std::string out;
  std::string err;
};

// Runs `te ARGUMENTS...` to its end.
TeResult RunTe(const std::vector<std::string>& arguments);

// The same in the background.
class TeProcess {
 public:
  explicit TeProcess(const std::vector<std::string>& arguments);
  ~TeProcess();
  TeProcess(const TeProcess&) = delete;
  TeProcess& operator=(const TeProcess&) = delete;

  void Signal(int number);
  // True as soon as stdout holds `text`; false at the process's end or after a minute.
  bool WaitForOutput(const std::string& text);
  TeResult Wait();

 private:
  bool Poll(bool block);

  std::string folder_;  // of out and err
  int pid_ = -1;
  bool ended_ = false;
  TeResult result_;
};

// A fresh folder that is removed at the end.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

std::string ReadFile(const std::string& path);
void WriteFile(const std::string& path, const std::string& bytes);
// The last line of `text` that is not empty.
std::string LastLine(const std::string& text);
// Number of line ends.
int Lines(const std::string& text);

}  // namespace te
