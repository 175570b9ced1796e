#include "models/train/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "fmt/format.h"

namespace te {
namespace {

constexpr int kBarWidth = 24;
constexpr int kLeastBarWidth = 4;  // a shorter bar says nothing
constexpr int kUnknownColumns = 120;

}  // namespace

double TokensPerSecond(const StepReport& report) {
  return report.seconds > 0 ? static_cast<double>(report.tokens) / report.seconds : 0;
}

std::string FormatMilliseconds(double seconds) {
  const double milliseconds = seconds * 1e3;
  return milliseconds < 10 ? fmt::format("{:#.3g}", milliseconds)
                           : fmt::format("{:.0f}", milliseconds);
}

std::string FormatStep(const StepReport& report) {
  const std::string speed = fmt::format("{:.0f} tokens/s | {} ms", TokensPerSecond(report),
                                        FormatMilliseconds(report.seconds));
  if (report.counted_tokens == 0) {
    return fmt::format("no token counts, update skipped | lr {:.3g} | {}", report.learning_rate,
                       speed);
  }
  return fmt::format("loss {:.4f} | lr {:.3g} | grad norm {:.4g} | {}", report.loss,
                     report.learning_rate, report.grad_norm, speed);
}

ProgressDisplay ProgressDisplay::For(int descriptor, Write write) {
  winsize size{};
  const bool terminal = isatty(descriptor) == 1;
  const bool known = terminal && ioctl(descriptor, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
  return ProgressDisplay(std::move(write), terminal, known ? size.ws_col : kUnknownColumns);
}

Status ProgressDisplay::OnStep(const StepReport& report) {
  const int digits = static_cast<int>(std::to_string(report.steps).size());
  const std::string count = fmt::format("{:>{}}/{}", report.step, digits, report.steps);
  if (!terminal_) {
    write_(fmt::format("step {} | {}\n", count, FormatStep(report)));
  } else {
    std::string line = fmt::format("{} | {}", count, FormatStep(report));
    // A line that wraps could not be drawn over. Where columns are few, the bar gives way before
    // the numbers do.
    const int columns = std::max(0, columns_ - 1);
    const int width = std::min(kBarWidth, columns - static_cast<int>(line.size()) - 3);
    if (width >= kLeastBarWidth) {
      const int64_t filled = width * report.step / std::max<int64_t>(1, report.steps);
      line = fmt::format("[{:<{}}] {}", std::string(static_cast<size_t>(filled), '#'), width, line);
    }
    if (static_cast<int>(line.size()) > columns) line.resize(static_cast<size_t>(columns));
    write_(fmt::format("\r{}\x1b[K", line));
    open_ = true;
  }
  return OkStatus();
}

void ProgressDisplay::Finish() {
  if (open_) write_("\n");
  open_ = false;
}

}  // namespace te
