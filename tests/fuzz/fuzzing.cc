#include "tests/fuzz/fuzzing.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "tests/fuzz/allocations.h"

namespace te::fuzz {
namespace {

constexpr size_t kMaxMessage = 8192;

bool IsPrintableUtf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const auto first = static_cast<unsigned char>(text[i]);
    if (first < 0x20 || first == 0x7f) return false;
    const size_t length = first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    if ((first >= 0x80 && first < 0xc2) || first > 0xf4 || length > text.size() - i) return false;
    for (size_t k = 1; k < length; ++k) {
      if ((static_cast<unsigned char>(text[i + k]) & 0xc0) != 0x80) return false;
    }
    i += length;
  }
  return true;
}

void WriteAll(int fd, std::string_view bytes) {
  for (size_t done = 0; done < bytes.size();) {
    const ssize_t n =
        pwrite(fd, bytes.data() + done, bytes.size() - done, static_cast<off_t>(done));
    TE_FUZZ_CHECK(n > 0, "a file in memory could not be written");
    done += static_cast<size_t>(n);
  }
}

bool IsFileName(std::string_view name) {
  if (name.empty() || name.size() > 64 || name == "." || name == "..") return false;
  for (const char c : name) {
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (!letter && !(c >= '0' && c <= '9') && c != '.' && c != '_' && c != '-') return false;
  }
  return true;
}

}  // namespace

void Fail(const char* file, int line, const char* condition, const std::string& reason) {
  std::fprintf(stderr, "%s:%d: %s does not hold: %s\n", file, line, condition, reason.c_str());
  std::abort();
}

void CheckRefusal(const Status& status) {
  if (status.ok()) return;
  const std::string& message = status.message();
  TE_FUZZ_CHECK(status.code() != StatusCode::kInternal, "an internal error: {}", message);
  TE_FUZZ_CHECK(!message.empty(), "a refusal without a message");
  TE_FUZZ_CHECK(message.size() <= kMaxMessage, "a message of {} bytes: {:.200}", message.size(),
                message);
  TE_FUZZ_CHECK(IsPrintableUtf8(message), "a message that is not one printable line: {}", message);
}

MemoryBound::MemoryBound(size_t input_bytes, MemoryLimit limit)
    : input_bytes_(input_bytes), most_(limit.base + limit.factor * input_bytes) {
  StartCountingAllocations();
}

MemoryBound::~MemoryBound() {
  const size_t peak = StopCountingAllocations();
  TE_FUZZ_CHECK(peak <= most_, "{} bytes were held for an input of {}; at most {} are taken", peak,
                input_bytes_, most_);
}

MemoryFile::MemoryFile() : fd_(memfd_create("te_fuzz", MFD_CLOEXEC)) {
  TE_FUZZ_CHECK(fd_ >= 0, "no file in memory");
  path_ = fmt::format("/proc/self/fd/{}", fd_);
}

MemoryFile::~MemoryFile() { close(fd_); }

void MemoryFile::Set(std::string_view bytes) {
  TE_FUZZ_CHECK(ftruncate(fd_, static_cast<off_t>(bytes.size())) == 0, "no room for a file");
  WriteAll(fd_, bytes);
}

MemoryFolder::MemoryFolder() {
  const char* parent = std::getenv("TE_FUZZ_TMP");
  path_ = std::string(parent != nullptr ? parent : "/dev/shm") + "/te_fuzz_XXXXXX";
  TE_FUZZ_CHECK(mkdtemp(path_.data()) != nullptr, "no folder {}", path_);
}

MemoryFolder::~MemoryFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

void MemoryFolder::Set(const std::string& name, std::string_view bytes) const {
  const std::string path = path_ + "/" + name;
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  TE_FUZZ_CHECK(fd >= 0, "{} could not be made", path);
  WriteAll(fd, bytes);
  close(fd);
}

void MemoryFolder::Clear() const {
  for (const auto& item : std::filesystem::directory_iterator(path_)) {
    std::filesystem::remove_all(item.path());
  }
}

void UnpackFiles(std::string_view input, const MemoryFolder& folder) {
  constexpr std::string_view kMark = "=== ";
  constexpr int kMostFiles = 8;
  size_t at = input.starts_with(kMark) ? 0 : input.find("\n=== ");
  if (at == std::string_view::npos) return;
  if (input[at] == '\n') ++at;
  for (int i = 0; i < kMostFiles && at < input.size(); ++i) {
    const size_t line_end = input.find('\n', at);
    if (line_end == std::string_view::npos) return;
    const std::string_view name = input.substr(at + kMark.size(), line_end - at - kMark.size());
    if (!IsFileName(name)) return;
    const size_t next = input.find("\n=== ", line_end);
    const size_t begin = line_end + 1;
    const size_t end = next == std::string_view::npos ? input.size() : next;
    folder.Set(std::string(name), end > begin ? input.substr(begin, end - begin) : "");
    at = next == std::string_view::npos ? input.size() : next + 1;
  }
}

}  // namespace te::fuzz
