// The log of a run: a JSON line a step.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "models/files/input.h"
#include "models/train/trainer.h"

namespace te {

// One object a line: step, loss, learning_rate, grad_norm, tokens, tokens_per_second, milliseconds,
// timed. A number that is not finite is null. Each line is written as a whole before the next step
// begins: one that does not fit leaves no piece behind. A log that cannot be written ends no run.
class JsonLinesLog : public TrainingObserver {
 public:
  // Called once, with what went wrong, when the first line is lost.
  using OnLost = std::function<void(const Status&)>;

  // Opens or creates the file and takes it for this run alone, with what it holds as it is: for
  // checks before a long run. kIoError names the path; kFailedPrecondition: another run writes it.
  static StatusOr<std::unique_ptr<JsonLinesLog>> Open(const std::string& path);
  // A file that was created here and never begun goes again.
  ~JsonLinesLog() override;

  // Empties the file, or with `append` goes on at its end.
  Status Begin(bool append, OnLost on_lost);
  // Always ok: on a failure see OnLost and lost().
  Status OnStep(const StepReport& report) override;
  // Writes what the system still holds back.
  void Finish();

  // Why the first line that is missing could not be written; ok: none is missing.
  const Status& lost() const { return lost_; }

 private:
  JsonLinesLog() = default;
  Status Reopen();
  // A save replaces the directory that the log may stand in, and where the file system has no hard
  // links it copies the log: what is written must go where the name leads.
  Status FollowName();
  Status Append(const std::string& line);
  void Lose(const Status& status);

  std::string path_;
  FileDescriptor file_;
  bool regular_ = true;
  bool created_ = false;
  bool begun_ = false;
  bool torn_ = false;  // it ends within a line
  Status lost_;
  OnLost on_lost_;
};

}  // namespace te
