// What a run shows while it trains: a bar on a terminal, a line a step elsewhere, and a log of JSON
// lines.
#pragma once

#include <cstdio>
#include <memory>
#include <string>

#include "models/train/trainer.h"

namespace te {

// The number of milliseconds: whole ones from 10 on, below with three digits that count.
std::string FormatMilliseconds(double seconds);

// "loss 2.1234 | lr 1.41e-05 | grad norm 3.210 | 1234 tokens/s | 56 ms".
std::string FormatStep(const StepReport& report);

class ProgressDisplay : public TrainingObserver {
 public:
  // `terminal`: one bar that is drawn over; else a line a step. `columns`: the terminal's width.
  // Does not own `out`.
  ProgressDisplay(std::FILE* out, bool terminal, int columns)
      : out_(out), terminal_(terminal), columns_(columns) {}
  Status OnStep(const StepReport& report) override;
  // Ends the bar's line, if one is open: before anything else is printed.
  void Finish();

  // How `out` wants it: whether it is a terminal, and how wide.
  static ProgressDisplay For(std::FILE* out);

 private:
  std::FILE* out_;
  bool terminal_;
  int columns_;
  bool open_ = false;
};

// One object a line: step, loss, learning_rate, grad_norm, tokens, tokens_per_second, milliseconds,
// timed. A number that is not finite is null. Each line is on disk before the next step begins.
class JsonLinesLog : public TrainingObserver {
 public:
  // Whether Create will succeed, for checks before a long run: leaves things as they are. kIoError
  // names the path.
  static Status CheckWritable(const std::string& path);
  // Replaces the file, or with `append` goes on at its end. kIoError names the path.
  static StatusOr<std::unique_ptr<JsonLinesLog>> Create(const std::string& path,
                                                        bool append = false);
  Status OnStep(const StepReport& report) override;

 private:
  struct Closer {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  std::string path_;
  std::unique_ptr<std::FILE, Closer> file_;
};

}  // namespace te
