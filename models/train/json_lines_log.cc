#include "models/train/json_lines_log.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmath>
#include <system_error>
#include <utility>

#include "models/json/json.h"
#include "models/train/progress.h"

namespace te {
namespace {

JsonValue FiniteOrNull(double value) {
  return std::isfinite(value) ? JsonValue::Double(value) : JsonValue();
}

JsonValue ToJson(const StepReport& report) {
  const bool counted = report.counted_tokens > 0;
  return JsonValue::MakeObject({
      {"step", JsonValue::Integer(report.step)},
      {"loss", counted ? FiniteOrNull(report.loss) : JsonValue()},
      {"learning_rate", FiniteOrNull(report.learning_rate)},
      {"grad_norm", counted ? FiniteOrNull(report.grad_norm) : JsonValue()},
      {"tokens", JsonValue::Integer(report.tokens)},
      {"tokens_per_second", FiniteOrNull(TokensPerSecond(report))},
      {"milliseconds", FiniteOrNull(report.seconds * 1e3)},
      {"timed", JsonValue::Bool(report.timed)},
  });
}

Status Failed(const std::string& path) {
  return IoError("{}: {}", path, std::generic_category().message(errno));
}

}  // namespace

StatusOr<std::unique_ptr<JsonLinesLog>> JsonLinesLog::Open(const std::string& path) {
  std::unique_ptr<JsonLinesLog> log(new JsonLinesLog());
  log->path_ = path;
  struct stat info;
  log->created_ = lstat(path.c_str(), &info) != 0;
  TE_RETURN_IF_ERROR(log->Reopen());
  return log;
}

JsonLinesLog::~JsonLinesLog() {
  if (created_ && !begun_ && regular_ && file_.open()) unlink(path_.c_str());
}

Status JsonLinesLog::Reopen() {
  constexpr int kFlags = O_APPEND | O_CLOEXEC | O_NOCTTY;
  struct stat info;
  const bool stream = stat(path_.c_str(), &info) == 0 && !S_ISREG(info.st_mode);
  // A file is read, too: whether an old log ends within a line. A pipe waits for its reader.
  FileDescriptor file(
      open(path_.c_str(), stream ? O_WRONLY | kFlags : O_RDWR | O_CREAT | kFlags, 0666));
  if (!file.open() && errno == EACCES)
    file = FileDescriptor(open(path_.c_str(), O_WRONLY | kFlags));
  if (!file.open() || fstat(file.get(), &info) != 0) return Failed(path_);
  regular_ = S_ISREG(info.st_mode);
  // A file system without locks is no reason to do without a log.
  if (regular_ && flock(file.get(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
    return FailedPrecondition("{}: another run of te writes it; choose another name", path_);
  file_ = std::move(file);
  return OkStatus();
}

Status JsonLinesLog::Begin(bool append, OnLost on_lost) {
  begun_ = true;
  on_lost_ = std::move(on_lost);
  if (!regular_) return OkStatus();
  if (!append) {
    if (ftruncate(file_.get(), 0) != 0) return Failed(path_);
    return OkStatus();
  }
  const off_t size = lseek(file_.get(), 0, SEEK_END);
  char last = '\n';
  torn_ = size > 0 && pread(file_.get(), &last, 1, size - 1) == 1 && last != '\n';
  return OkStatus();
}

Status JsonLinesLog::FollowName() {
  if (!regular_) return OkStatus();
  struct stat by_name, opened;
  if (fstat(file_.get(), &opened) == 0 && stat(path_.c_str(), &by_name) == 0 &&
      by_name.st_dev == opened.st_dev && by_name.st_ino == opened.st_ino) {
    return OkStatus();
  }
  return Reopen();
}

Status JsonLinesLog::Append(const std::string& line) {
  TE_RETURN_IF_ERROR(FollowName());
  const off_t end = regular_ ? lseek(file_.get(), 0, SEEK_END) : 0;
  const std::string text = (torn_ ? "\n" : "") + line + "\n";
  size_t done = 0;
  while (done < text.size()) {
    const ssize_t count = write(file_.get(), text.data() + done, text.size() - done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) {
      const Status status = Failed(path_);
      if (done > 0 && (!regular_ || ftruncate(file_.get(), end) != 0)) torn_ = true;
      return status;
    }
    done += static_cast<size_t>(count);
  }
  torn_ = false;
  return OkStatus();
}

void JsonLinesLog::Lose(const Status& status) {
  if (!lost_.ok()) return;
  lost_ = status;
  if (on_lost_ != nullptr) on_lost_(status);
}

Status JsonLinesLog::OnStep(const StepReport& report) {
  const StatusOr<std::string> line = WriteJsonLine(ToJson(report));
  const Status written = line.ok() ? Append(*line) : line.status();
  if (!written.ok()) Lose(written);
  return OkStatus();
}

void JsonLinesLog::Finish() {
  // Where bytes are only kept for later (a network file system), this is where they fail to fit.
  if (regular_ && fsync(file_.get()) != 0 && errno != EINVAL && errno != EROFS) Lose(Failed(path_));
}

}  // namespace te
