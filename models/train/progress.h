// What a run shows while it trains: a bar on a terminal, a line a step elsewhere.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <utility>

#include "models/train/trainer.h"

namespace te {

// 0 for a step that took no time.
double TokensPerSecond(const StepReport& report);

// The number of milliseconds: whole ones from 10 on, below with three digits that count.
std::string FormatMilliseconds(double seconds);

// "loss 2.1234 | lr 1.41e-05 | grad norm 3.210 | 1234 tokens/s | 56 ms".
std::string FormatStep(const StepReport& report);

class ProgressDisplay : public TrainingObserver {
 public:
  // `terminal`: one bar that is drawn over; else a line a step. `columns`: the terminal's width.
  // `write` shows a text at once, and has no say in whether the run goes on.
  using Write = std::function<void(std::string_view text)>;
  ProgressDisplay(Write write, bool terminal, int columns)
      : write_(std::move(write)), terminal_(terminal), columns_(columns) {}
  Status OnStep(const StepReport& report) override;
  // Ends the bar's line, if one is open: before anything else is printed.
  void Finish();

  // How the descriptor that `write` writes to wants it: whether it is a terminal, and how wide.
  static ProgressDisplay For(int descriptor, Write write);

 private:
  Write write_;
  bool terminal_;
  int columns_;
  bool open_ = false;
};

}  // namespace te
