#include "models/train/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <filesystem>
#include <system_error>

#include "models/json/json.h"

namespace te {
namespace {

constexpr int kBarWidth = 24;
constexpr int kLeastBarWidth = 4;  // a shorter bar says nothing
constexpr int kUnknownColumns = 120;

double TokensPerSecond(const StepReport& report) {
  return report.seconds > 0 ? static_cast<double>(report.tokens) / report.seconds : 0;
}

JsonValue FiniteOrNull(double value) {
  return std::isfinite(value) ? JsonValue::Double(value) : JsonValue();
}

}  // namespace

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

ProgressDisplay ProgressDisplay::For(std::FILE* out) {
  winsize size{};
  const bool terminal = isatty(fileno(out)) == 1;
  const bool known = terminal && ioctl(fileno(out), TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
  return ProgressDisplay(out, terminal, known ? size.ws_col : kUnknownColumns);
}

Status ProgressDisplay::OnStep(const StepReport& report) {
  const int digits = static_cast<int>(std::to_string(report.steps).size());
  const std::string count = fmt::format("{:>{}}/{}", report.step, digits, report.steps);
  if (!terminal_) {
    fmt::print(out_, "step {} | {}\n", count, FormatStep(report));
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
    fmt::print(out_, "\r{}\x1b[K", line);
    open_ = true;
  }
  // A closed pipe (`te finetune | head`) must not end the training.
  std::fflush(out_);
  return OkStatus();
}

void ProgressDisplay::Finish() {
  if (open_) {
    std::fputc('\n', out_);
    std::fflush(out_);
  }
  open_ = false;
}

Status JsonLinesLog::CheckWritable(const std::string& path) {
  std::error_code ignored;
  const bool existed = std::filesystem::exists(path, ignored);
  std::FILE* file = std::fopen(path.c_str(), "ae");
  if (file == nullptr) return IoError("{}: {}", path, std::generic_category().message(errno));
  std::fclose(file);
  if (!existed) std::filesystem::remove(path, ignored);
  return OkStatus();
}

StatusOr<std::unique_ptr<JsonLinesLog>> JsonLinesLog::Create(const std::string& path, bool append) {
  auto log = std::make_unique<JsonLinesLog>();
  log->path_ = path;
  log->file_.reset(std::fopen(path.c_str(), append ? "ae" : "we"));
  if (log->file_ == nullptr) return IoError("{}: {}", path, std::generic_category().message(errno));
  return log;
}

Status JsonLinesLog::OnStep(const StepReport& report) {
  const bool counted = report.counted_tokens > 0;
  const JsonValue line = JsonValue::MakeObject({
      {"step", JsonValue::Integer(report.step)},
      {"loss", counted ? FiniteOrNull(report.loss) : JsonValue()},
      {"learning_rate", FiniteOrNull(report.learning_rate)},
      {"grad_norm", counted ? FiniteOrNull(report.grad_norm) : JsonValue()},
      {"tokens", JsonValue::Integer(report.tokens)},
      {"tokens_per_second", FiniteOrNull(TokensPerSecond(report))},
      {"milliseconds", FiniteOrNull(report.seconds * 1e3)},
      {"timed", JsonValue::Bool(report.timed)},
  });
  TE_ASSIGN_OR_RETURN(const std::string text, WriteJsonLine(line));
  if (std::fprintf(file_.get(), "%s\n", text.c_str()) < 0 || std::fflush(file_.get()) != 0) {
    return IoError("{}: {}", path_, std::generic_category().message(errno));
  }
  return OkStatus();
}

}  // namespace te
