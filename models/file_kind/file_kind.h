// What a file seems to be, judged by its first bytes: for the messages of readers that were handed
// something else than they read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "te_kernels/base/status.h"

namespace te {

enum class FileKind : uint8_t {
  kEmpty,
  kZeros,          // nothing but zero bytes: a download that reserved its space and stopped
  kGitLfsPointer,  // what a clone without git-lfs leaves in the place of a large file
  kHtml,
  kXml,
  kServerError,  // an answer of a server: {"error": ...}, "Entry not found"
  kGzip,
  kBzip2,
  kXz,
  kZstd,
  kLz4,
  kZip,
  kSevenZip,
  kRar,
  kTar,
  kSafetensors,
  kGguf,
  kTorchZip,     // torch.save since PyTorch 1.6
  kTorchLegacy,  // torch.save before
  kPickle,
  kNumpy,
  kNumpyZip,
  kHdf5,
  kParquet,
  kArrow,
  kSqlite,
  kPdf,
  kImage,
  kExecutable,
  kUtf16,
  kUtf32,
  kJson,  // begins as a JSON object or array does
  kText,
  kBinary,  // none of the above, and no text
};

// How many of a file's first bytes DescribeContent looks at; fewer where the file is shorter.
inline constexpr size_t kFileHeadBytes = 1024;

struct FileContent {
  FileKind kind = FileKind::kBinary;
  std::string what;    // "a git-lfs pointer": follows "seems to be"
  std::string advice;  // "fetch the file itself with: git lfs pull"; empty where there is none

  // "a git-lfs pointer; fetch the file itself with: git lfs pull".
  std::string ToString() const { return advice.empty() ? what : what + "; " + advice; }
  // True for what no reader of text, JSON or tensors reads as it stands: a pointer, a web page, an
  // archive, another program's format.
  bool foreign() const;
  // True for what can be the beginning of UTF-8 text (JSON, JSON lines and CSV are such). A
  // server's error message is one, too: somebody's text may read like it, so it is for the message
  // of a reader that found it wanting.
  bool text() const {
    return kind == FileKind::kJson || kind == FileKind::kText || kind == FileKind::kServerError;
  }
};

// `head` is the beginning of a file of `size` bytes; of more than kFileHeadBytes the rest is not
// looked at.
FileContent DescribeContent(std::string_view head, uint64_t size);
// The same for a file on disk, which must be a regular one: kNotFound, kIoError.
StatusOr<FileContent> DescribeFile(const std::string& path);

}  // namespace te
