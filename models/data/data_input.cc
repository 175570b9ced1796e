#include "models/data/data_input.h"

#include <errno.h>
#include <unistd.h>

#include <cstring>
#include <new>
#include <utility>

namespace te {
namespace {

constexpr size_t kChunkBytes = size_t{1} << 20;

}  // namespace

StatusOr<DataInput> DataInput::Open(const std::string& path) {
  struct stat info;
  if (stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode)) {
    return InvalidArgument("{}: is a directory; expected a file or a pipe", path);
  }
  DataInput data;
  data.path_ = path;
  StatusOr<OpenedInput> input = OpenInput(path, InputUse::kOnceInOrder);
  if (input.status().code() == StatusCode::kNotFound && path == "-")
    return NotFound("-: no such file; standard input is /dev/stdin");
  if (!input.ok()) return input.status();
  data.input_ = std::move(input).value();
  return data;
}

Status DataInput::Fill() {
  if (ended_) return OkStatus();
  try {
    // What was handed out is dropped only where that moves little.
    if (begin_ > 0 && buffer_.size() - begin_ <= begin_) buffer_.erase(0, std::exchange(begin_, 0));
    const size_t before = buffer_.size();
    buffer_.resize(before + kChunkBytes);
    ssize_t count;
    do {
      count = read(input_.descriptor.get(), buffer_.data() + before, kChunkBytes);
    } while (count < 0 && errno == EINTR);
    const int error = errno;
    buffer_.resize(before + static_cast<size_t>(count > 0 ? count : 0));
    if (count < 0) return IoError("{}: byte {}: {}", path_, read_, std::strerror(error));
    read_ += static_cast<uint64_t>(count);
    ended_ = count == 0;
  } catch (const std::bad_alloc&) {
    return OutOfMemory("{}: no memory for a piece of {} bytes", path_, buffer_.size());
  }
  return ended_ ? CheckUnchanged() : OkStatus();
}

Status DataInput::CheckUnchanged() const {
  if (!is_regular_file()) return OkStatus();
  struct stat now;
  if (fstat(input_.descriptor.get(), &now) != 0)
    return IoError("{}: {}", path_, std::strerror(errno));
  const struct stat& before = input_.info;
  // Files of /proc and of some file systems in user space say that they have no bytes.
  const bool known = before.st_size > 0;
  if ((known && read_ != static_cast<uint64_t>(before.st_size)) || now.st_size != before.st_size ||
      now.st_mtim.tv_sec != before.st_mtim.tv_sec ||
      now.st_mtim.tv_nsec != before.st_mtim.tv_nsec) {
    return IoError(
        "{}: was written while it was read ({} bytes when it was opened, then {}); expected a file "
        "that is complete",
        path_, before.st_size, now.st_size);
  }
  return OkStatus();
}

StatusOr<std::string_view> DataInput::Peek(size_t count) {
  while (buffer_.size() - begin_ < count && !ended_) TE_RETURN_IF_ERROR(Fill());
  return std::string_view(buffer_).substr(begin_, count);
}

StatusOr<bool> DataInput::ReadLine(std::string* line) {
  for (size_t searched = 0;;) {
    const size_t end = buffer_.find('\n', begin_ + searched);
    if (end == std::string::npos && !ended_) {
      searched = buffer_.size() - begin_;
      TE_RETURN_IF_ERROR(Fill());
      continue;
    }
    const size_t left = buffer_.size() - begin_;
    if (end == std::string::npos && left == 0) return false;
    const size_t length = end == std::string::npos ? left : end - begin_;
    line->assign(buffer_, begin_, length);
    const size_t taken = length + (end == std::string::npos ? 0 : 1);
    begin_ += taken;
    bytes_read_ += taken;
    return true;
  }
}

StatusOr<std::string> DataInput::ReadAll() {
  while (!ended_) TE_RETURN_IF_ERROR(Fill());
  buffer_.erase(0, std::exchange(begin_, 0));
  bytes_read_ += buffer_.size();
  return std::exchange(buffer_, {});
}

StatusOr<InputFile> DataInput::IntoFile() {
  return InputFile::FromOpened(path_, std::move(input_));
}

}  // namespace te
