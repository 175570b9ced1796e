// What fuzz targets share: checks, the bound on memory, and files made of an input's bytes.
//
// A target is a function from bytes, defined with TE_FUZZ_TARGET(input) in a file of its own and
// declared with fuzz_test (bazel/fuzz_test.bzl). It reads `input` as the file that its reader reads
// and checks more than that nothing crashes: what was read is written and read back equal, the
// message of a refusal is one line, and memory stays within a bound that grows with the input
// alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "fmt/format.h"
#include "te_kernels/base/status.h"

// Defines the function that libFuzzer and the replay call.
#define TE_FUZZ_TARGET(input)                                                   \
  static void RunFuzzTarget(std::string_view input);                            \
  extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {     \
    RunFuzzTarget(std::string_view(reinterpret_cast<const char*>(data), size)); \
    return 0;                                                                   \
  }                                                                             \
  static void RunFuzzTarget([[maybe_unused]] std::string_view input)

// Ends the process with the reason, which both runners report as a finding.
#define TE_FUZZ_CHECK(condition, ...)                                             \
  do {                                                                            \
    if (!(condition)) {                                                           \
      ::te::fuzz::Fail(__FILE__, __LINE__, #condition, fmt::format(__VA_ARGS__)); \
    }                                                                             \
  } while (0)

namespace te::fuzz {

[[noreturn]] void Fail(const char* file, int line, const char* condition,
                       const std::string& reason);

// Ends the process unless the status is ok or a refusal that a person can read: a code other than
// kInternal, and one line of bounded length, without control characters, of valid UTF-8.
void CheckRefusal(const Status& status);

// What a piece of code may hold in memory at a time: `base` bytes and `factor` for each byte of
// input.
struct MemoryLimit {
  size_t base = size_t{1} << 17;
  size_t factor = 64;
};

// Ends the process at its own end if the live memory has grown further meanwhile than an input of
// this size may make it grow. One at a time; allocations of all threads count.
class MemoryBound {
 public:
  explicit MemoryBound(size_t input_bytes, MemoryLimit limit = {});
  ~MemoryBound();
  MemoryBound(const MemoryBound&) = delete;
  MemoryBound& operator=(const MemoryBound&) = delete;

 private:
  size_t input_bytes_;
  size_t most_;
};

// A regular file in memory that has a path.
class MemoryFile {
 public:
  MemoryFile();
  ~MemoryFile();
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;

  void Set(std::string_view bytes);
  const std::string& path() const { return path_; }

 private:
  int fd_ = -1;
  std::string path_;
};

// A folder in TE_FUZZ_TMP, which whoever runs the targets removes when they have ended in whatever
// way; without it in /dev/shm, removed at the end.
class MemoryFolder {
 public:
  MemoryFolder();
  ~MemoryFolder();
  MemoryFolder(const MemoryFolder&) = delete;
  MemoryFolder& operator=(const MemoryFolder&) = delete;

  // Writes one file; the name has no '/'.
  void Set(const std::string& name, std::string_view bytes) const;
  void Clear() const;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// Several files in one input: each begins with a line "=== NAME", whose line end the file before it
// does not have. Puts the first eight into `folder`; a name of other characters than letters,
// digits, '.', '_' and '-', or of more than 64, ends the reading. What stands before the first such
// line is left out.
void UnpackFiles(std::string_view input, const MemoryFolder& folder);

}  // namespace te::fuzz
