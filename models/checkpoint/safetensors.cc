#include "models/checkpoint/safetensors.h"

#include <algorithm>
#include <new>
#include <numeric>

#include "models/checkpoint/safetensors_header.h"

namespace te {
namespace {

uint64_t LittleEndian64(const unsigned char* bytes) {
  uint64_t value = 0;
  for (int i = 7; i >= 0; --i) value = value << 8 | bytes[i];
  return value;
}

class RangeStream : public TensorStream {
 public:
  RangeStream(const InputFile* file, uint64_t begin, uint64_t end)
      : file_(file), at_(begin), end_(end) {}
  Status Read(void* to, size_t bytes) override {
    if (bytes > end_ - at_)
      return Internal("{} bytes wanted of the tensor's last {}", bytes, end_ - at_);
    TE_RETURN_IF_ERROR(file_->ReadAt(at_, to, bytes));
    at_ += bytes;
    return OkStatus();
  }

 private:
  const InputFile* file_;
  uint64_t at_;
  uint64_t end_;
};

}  // namespace

StatusOr<std::unique_ptr<SafetensorsFile>> SafetensorsFile::Open(const std::string& path) {
  TE_ASSIGN_OR_RETURN(InputFile input, InputFile::Open(path));
  return Open(std::move(input));
}

StatusOr<std::unique_ptr<SafetensorsFile>> SafetensorsFile::Open(InputFile input) {
  auto file = std::make_unique<SafetensorsFile>();
  file->file_ = std::move(input);
  const std::string& path = file->path();
  const uint64_t size = file->file_.size();
  if (size < 8)
    return CorruptData("{}: {} bytes; a safetensors file starts with 8 bytes of header length",
                       path, size);
  unsigned char prefix[8];
  TE_RETURN_IF_ERROR(file->file_.ReadAt(0, prefix, sizeof(prefix)));
  const uint64_t length = LittleEndian64(prefix);
  if (length > kMaxSafetensorsHeader) {
    return CorruptData("{}: header length {}; the format allows at most {}", path, length,
                       kMaxSafetensorsHeader);
  }
  if (length > size - 8) {
    return CorruptData("{}: header length {}, but the file has only {} bytes after it: truncated?",
                       path, length, size - 8);
  }
  try {
    std::string header(length, '\0');
    TE_RETURN_IF_ERROR(file->file_.ReadAt(8, header.data(), header.size()));
    TE_RETURN_IF_ERROR(file->ParseHeader(header, size - 8 - length));
  } catch (const std::bad_alloc&) {
    return OutOfMemory("{}: no memory for a header of {} bytes", path, length);
  }
  for (uint64_t& offset : file->offsets_) offset += 8 + length;
  return file;
}

Status SafetensorsFile::ParseHeader(const std::string& header, uint64_t data_bytes) {
  StatusOr<SafetensorsHeader> parsed = ParseSafetensorsHeader(header, data_bytes);
  if (!parsed.ok()) return parsed.status().WithContext(path());
  metadata_ = std::move(parsed->metadata);
  entries_.reserve(parsed->items.size());
  offsets_.reserve(parsed->items.size());
  for (SafetensorsHeader::Item& item : parsed->items) {
    entries_.push_back(std::move(item.entry));
    offsets_.push_back(item.begin);
  }
  return OkStatus();
}

StatusOr<std::unique_ptr<TensorStream>> SafetensorsFile::OpenStream(size_t index) const {
  const uint64_t begin = offsets_[index];
  return std::unique_ptr<TensorStream>(
      std::make_unique<RangeStream>(&file_, begin, begin + entries_[index].bytes()));
}

}  // namespace te
