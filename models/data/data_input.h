// Training data as bytes: opened once and read once, so that a pipe gives every sample.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "models/checkpoint/input_file.h"
#include "models/files/input.h"
#include "te_kernels/base/status.h"

namespace te {

// Move-only; thread-compatible. Its first bytes can be looked at before anything is read; then it
// is read line by line, as a whole, or (a regular file alone) by position.
class DataInput {
 public:
  // A regular file, a pipe or a socket: FILE, <(command), /dev/stdin. kNotFound, kIoError, and
  // kInvalidArgument for a directory; the message names the path. A named pipe waits for its
  // writer.
  static StatusOr<DataInput> Open(const std::string& path);

  const std::string& path() const { return path_; }
  bool is_regular_file() const { return input_.is_regular_file(); }

  // The next `count` bytes, fewer where the input ends before; they stay to be read. Valid until
  // the next call of this object. From a pipe it waits for them.
  StatusOr<std::string_view> Peek(size_t count);
  // The next line without its '\n' (the last one need not have any); false: the input has ended.
  StatusOr<bool> ReadLine(std::string* line);
  // All that is left.
  StatusOr<std::string> ReadAll();
  // Bytes handed out by ReadLine and ReadAll: after the last one, the input's size.
  uint64_t bytes_read() const { return bytes_read_; }

  // kIoError with the kind when it is no regular file.
  Status CheckReadByPosition() const { return te::CheckReadByPosition(path_, input_); }
  // For formats that are read by position: the same open file from its first byte on, whatever was
  // peeked at. kIoError when it is no regular file. This object is of no use afterwards.
  StatusOr<InputFile> IntoFile();

 private:
  // Reads more into buffer_; at the input's end sets ended_.
  Status Fill();
  // A file that another program writes meanwhile would be training data that nobody has seen whole.
  Status CheckUnchanged() const;

  std::string path_;
  OpenedInput input_;
  std::string buffer_;  // from begin_ on not yet handed out
  size_t begin_ = 0;
  uint64_t read_ = 0;  // from the descriptor
  uint64_t bytes_read_ = 0;
  bool ended_ = false;
};

}  // namespace te
