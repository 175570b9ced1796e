#include "models/file_kind/file_kind.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "fmt/format.h"

namespace te {
namespace {

using namespace std::string_view_literals;

struct Row {
  FileKind kind;
  const char* what;
  const char* advice;
};

constexpr Row kRows[] = {
    {FileKind::kEmpty, "an empty file", "fetch or write it again"},
    {FileKind::kZeros, "nothing but zero bytes (a download that stopped?)", "fetch it again"},
    {FileKind::kGitLfsPointer, "a git-lfs pointer, which stands in the place of the file",
     "fetch the file itself with: git lfs pull"},
    {FileKind::kHtml, "an HTML page, not the file that was asked for",
     "download it again (a page that asks to log in or to accept a license looks like this)"},
    {FileKind::kXml, "an XML document (an error message of a file server?)", "download it again"},
    {FileKind::kServerError, "an error message of a server, not the file that was asked for",
     "download it again (with the rights that it needs)"},
    {FileKind::kGzip, "a file compressed with gzip", "unpack it first: gunzip"},
    {FileKind::kBzip2, "a file compressed with bzip2", "unpack it first: bunzip2"},
    {FileKind::kXz, "a file compressed with xz", "unpack it first: unxz"},
    {FileKind::kZstd, "a file compressed with zstd", "unpack it first: unzstd"},
    {FileKind::kLz4, "a file compressed with lz4", "unpack it first: unlz4"},
    {FileKind::kZip, "a zip archive", "unpack it first: unzip"},
    {FileKind::kSevenZip, "a 7-Zip archive", "unpack it first: 7z x"},
    {FileKind::kRar, "a RAR archive", "unpack it first: unrar x"},
    {FileKind::kTar, "a tar archive", "unpack it first: tar xf"},
    {FileKind::kSafetensors, "a safetensors file", ""},
    {FileKind::kGguf, "a GGUF file (llama.cpp's format)",
     "use the directory in Hugging Face's format that it was made from"},
    {FileKind::kTorchZip, "a file of torch.save", ""},
    {FileKind::kTorchLegacy, "a file of torch.save before PyTorch 1.6", ""},
    {FileKind::kPickle, "a Python pickle", ""},
    {FileKind::kNumpy, "a NumPy array (.npy)", ""},
    {FileKind::kNumpyZip, "an archive of NumPy arrays (.npz)", ""},
    {FileKind::kHdf5, "an HDF5 file (Keras, TensorFlow)", ""},
    {FileKind::kParquet, "a Parquet file",
     "write it as JSON lines: python3 -c \"import sys, pandas; "
     "pandas.read_parquet(sys.argv[1]).to_json(sys.argv[2], orient='records', lines=True, "
     "force_ascii=False)\""},
    {FileKind::kArrow, "an Arrow file (Hugging Face datasets' save_to_disk)",
     "write it as JSON lines with Dataset.to_json"},
    {FileKind::kSqlite, "an SQLite database", ""},
    {FileKind::kPdf, "a PDF document", ""},
    {FileKind::kImage, "an image", ""},
    {FileKind::kExecutable, "a program or shared library", ""},
    {FileKind::kUtf16, "text in UTF-16", "convert it: iconv -f UTF-16 -t UTF-8"},
    {FileKind::kUtf32, "text in UTF-32", "convert it: iconv -f UTF-32 -t UTF-8"},
    {FileKind::kJson, "JSON", ""},
    {FileKind::kText, "text", ""},
    {FileKind::kBinary, "binary data of no kind that is known here", ""},
};

struct Magic {
  std::string_view bytes;
  FileKind kind;
};

constexpr Magic kMagic[] = {
    {"version https://git-lfs"sv, FileKind::kGitLfsPointer},
    {"version https://hawser"sv, FileKind::kGitLfsPointer},  // its first name
    {"\x1f\x8b"sv, FileKind::kGzip},
    {"BZh"sv, FileKind::kBzip2},
    {"\xfd"
     "7zXZ\0"sv,
     FileKind::kXz},
    {"\x28\xb5\x2f\xfd"sv, FileKind::kZstd},
    {"\x04\x22\x4d\x18"sv, FileKind::kLz4},
    {"7z\xbc\xaf\x27\x1c"sv, FileKind::kSevenZip},
    {"Rar!\x1a\x07"sv, FileKind::kRar},
    {"GGUF"sv, FileKind::kGguf},
    {"FUGG"sv, FileKind::kGguf},  // big endian
    {"lmgg"sv, FileKind::kGguf},  // its forerunners
    {"tjgg"sv, FileKind::kGguf},
    {"fmgg"sv, FileKind::kGguf},
    {"\x93NUMPY"sv, FileKind::kNumpy},
    {"\x89HDF\r\n\x1a\n"sv, FileKind::kHdf5},
    {"PAR1"sv, FileKind::kParquet},
    {"ARROW1"sv, FileKind::kArrow},
    {"SQLite format 3\0"sv, FileKind::kSqlite},
    {"%PDF-"sv, FileKind::kPdf},
    {"\x89PNG\r\n"sv, FileKind::kImage},
    {"\xff\xd8\xff"sv, FileKind::kImage},
    {"GIF8"sv, FileKind::kImage},
    {"\x7f"
     "ELF"sv,
     FileKind::kExecutable},
    {"\xff\xfe\0\0"sv, FileKind::kUtf32},
    {"\0\0\xfe\xff"sv, FileKind::kUtf32},
    {"\xff\xfe"sv, FileKind::kUtf16},
    {"\xfe\xff"sv, FileKind::kUtf16},
};

// What Hugging Face's hub, git servers and proxies send in place of a file.
constexpr std::string_view kServerErrors[] = {
    "entry not found",
    "repository not found",
    "revision not found",
    "invalid username or password",
    "invalid credentials",
    "invalid token",
    "access to model ",
    "access to this resource",
    "access denied",
    "access is restricted",
    "unauthorized",
    "forbidden",
    "not found",
    "404: not found",
    "404 not found",
    "401 unauthorized",
    "403 forbidden",
    "bad gateway",
    "502 bad gateway",
    "503 service",
    "service unavailable",
    "internal server error",
    "too many requests",
    "429 too many requests",
    "we had to rate limit",
};

std::string Lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return out;
}

std::string_view WithoutSpace(std::string_view text) {
  if (text.starts_with("\xef\xbb\xbf")) text.remove_prefix(3);
  const size_t at = text.find_first_not_of(" \t\r\n");
  return at == std::string_view::npos ? std::string_view() : text.substr(at);
}

uint64_t LittleEndian64(std::string_view bytes) {
  uint64_t value = 0;
  for (int i = 7; i >= 0; --i) value = value << 8 | static_cast<unsigned char>(bytes[i]);
  return value;
}

// Eight bytes of a header's length, and the header. Asked first: the length's bytes are any, those
// of gzip, bzip2, UTF-16 and a pickle among them, and none of these has so many zeros there.
bool IsSafetensors(std::string_view head) {
  return head.size() >= 9 && (head[8] == '{' || head[8] == ' ' || head[8] == '\n') &&
         LittleEndian64(head) >= 2 && LittleEndian64(head) <= 100'000'000;
}

// Whether no byte stands there that text never has. Bytes above 127 may be any encoding's; 255 is
// none's.
bool LooksLikeText(std::string_view head) {
  return std::ranges::all_of(head, [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return byte >= 0x20 ? byte != 0x7f && byte != 0xff
                        : (byte >= '\t' && byte <= '\r') || byte == 0x1b || byte == '\b';
  });
}

// Letters with a zero byte between each two: UTF-16 without a mark at its beginning.
bool LooksLikeUtf16(std::string_view head) {
  if (head.size() < 8) return false;
  size_t zeros[2] = {0, 0}, letters[2] = {0, 0};
  const size_t even = head.size() / 2 * 2;
  for (size_t i = 0; i < even; ++i) {
    zeros[i % 2] += head[i] == 0;
    letters[i % 2] += (head[i] >= ' ' && head[i] < 0x7f) || head[i] == '\n' || head[i] == '\r';
  }
  const size_t most = even / 2 - even / 16;
  return (zeros[1] >= most && letters[0] >= most) || (zeros[0] >= most && letters[1] >= most);
}

// The names of the first entries stand readable in an archive's head.
FileKind KindOfZip(std::string_view head) {
  // The first entry's name; that of torch.save's archives is FOLDER/data.pkl.
  if (head.size() >= 30) {
    const size_t length = static_cast<unsigned char>(head[26]) |
                          static_cast<size_t>(static_cast<unsigned char>(head[27])) << 8;
    const std::string_view name = head.substr(30, length);
    if (name.ends_with("/data.pkl") || name.ends_with("/.format_version") ||
        name.ends_with("/byteorder")) {
      return FileKind::kTorchZip;
    }
    if (name.ends_with(".npy")) return FileKind::kNumpyZip;
  }
  return FileKind::kZip;
}

FileKind KindOfPickle(std::string_view head) {
  // torch.save's old magic number 0x1950a86a20f9469cfc6c, as a pickled long of ten bytes.
  constexpr std::string_view kTorch = "\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"sv;
  return head.substr(2).starts_with(kTorch) ? FileKind::kTorchLegacy : FileKind::kPickle;
}

FileKind KindOfText(std::string_view head) {
  const std::string_view text = WithoutSpace(head);
  const std::string lower = Lower(text.substr(0, 64));
  for (std::string_view tag : {"<!doctype html", "<html", "<head", "<body", "<!-- html"}) {
    if (lower.starts_with(tag)) return FileKind::kHtml;
  }
  if (lower.starts_with("<?xml")) {
    return Lower(text).find("<html") != std::string::npos ? FileKind::kHtml : FileKind::kXml;
  }
  if (text.starts_with('<') && Lower(text).find("</") != std::string::npos) return FileKind::kXml;
  if (text.starts_with('{')) {
    const std::string_view inside = WithoutSpace(text.substr(1));
    if (inside.starts_with("\"error\"")) return FileKind::kServerError;
    return FileKind::kJson;
  }
  if (text.starts_with('[')) return FileKind::kJson;
  // A short text only: somebody's first sentence may begin with these words.
  if (head.size() < 400) {
    for (std::string_view error : kServerErrors) {
      if (lower.starts_with(error)) return FileKind::kServerError;
    }
  }
  return FileKind::kText;
}

FileKind KindOf(std::string_view head, uint64_t size) {
  if (size == 0 || head.empty()) return FileKind::kEmpty;
  if (std::ranges::all_of(head, [](char c) { return c == 0; })) return FileKind::kZeros;
  if (IsSafetensors(head)) return FileKind::kSafetensors;
  for (const Magic& magic : kMagic) {
    if (head.starts_with(magic.bytes)) return magic.kind;
  }
  if (head.starts_with("PK\x03\x04"sv) || head.starts_with("PK\x05\x06"sv)) return KindOfZip(head);
  if (head.size() >= 263 && head.substr(257).starts_with("ustar")) return FileKind::kTar;
  if (head.size() >= 2 && head[0] == '\x80' && head[1] >= 2 && head[1] <= 5) {
    return KindOfPickle(head);
  }
  if (LooksLikeUtf16(head)) return FileKind::kUtf16;
  return LooksLikeText(head) ? KindOfText(head) : FileKind::kBinary;
}

}  // namespace

bool FileContent::foreign() const {
  switch (kind) {
    case FileKind::kSafetensors:
    case FileKind::kTorchZip:
    case FileKind::kServerError:
    case FileKind::kJson:
    case FileKind::kText:
    case FileKind::kBinary:
      return false;
    default:
      return true;
  }
}

FileContent DescribeContent(std::string_view head, uint64_t size) {
  const FileKind kind = KindOf(head.substr(0, kFileHeadBytes), size);
  for (const Row& row : kRows) {
    if (row.kind == kind) return {kind, row.what, row.advice};
  }
  return {};
}

StatusOr<FileContent> DescribeFile(const std::string& path) {
  // O_NONBLOCK: a FIFO in a file's place must not hang the open.
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) {
    if (errno == ENOENT || errno == ENOTDIR) return NotFound("{}: no such file", path);
    return IoError("{}: {}", path, std::strerror(errno));
  }
  struct stat info;
  std::string head(kFileHeadBytes, '\0');
  Status status;
  size_t done = 0;
  if (fstat(fd, &info) != 0) {
    status = IoError("{}: {}", path, std::strerror(errno));
  } else if (!S_ISREG(info.st_mode)) {
    status = IoError("{}: not a regular file", path);
  }
  while (status.ok() && done < head.size()) {
    const ssize_t n = pread(fd, head.data() + done, head.size() - done, static_cast<off_t>(done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) status = IoError("{}: {}", path, std::strerror(errno));
    if (n <= 0) break;
    done += static_cast<size_t>(n);
  }
  close(fd);
  TE_RETURN_IF_ERROR(status);
  return DescribeContent(std::string_view(head).substr(0, done),
                         static_cast<uint64_t>(info.st_size));
}

}  // namespace te
