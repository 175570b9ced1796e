#include "models/checkpoint/safetensors.h"

#include <algorithm>
#include <new>
#include <numeric>

#include "models/json/json.h"

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

struct ParsedEntry {
  TensorEntry entry;
  uint64_t begin = 0;
  uint64_t end = 0;
};

// Reasons come without the tensor's name; the caller adds it.
Status ParseEntry(const JsonValue& value, ParsedEntry* out) {
  if (!value.is_object())
    return CorruptData("its header entry is a JSON {}; expected an object", value.kind_name());
  for (const JsonMember& member : value.members()) {
    if (member.key != "dtype" && member.key != "shape" && member.key != "data_offsets") {
      return CorruptData(
          "its header entry has the key \"{}\"; the format knows dtype, shape and data_offsets",
          member.key);
    }
  }
  const JsonValue* dtype = value.Find("dtype");
  const JsonValue* shape = value.Find("shape");
  const JsonValue* offsets = value.Find("data_offsets");
  if (dtype == nullptr || !dtype->is_string())
    return CorruptData("its header entry has no dtype string");
  if (!FindStoredType(dtype->string(), &out->entry.type)) {
    return CorruptData("unknown dtype \"{}\"", dtype->ToString());
  }
  if (shape == nullptr || !shape->is_array())
    return CorruptData("its header entry has no shape array");
  if (offsets == nullptr || !offsets->is_array() || offsets->array().size() != 2) {
    return CorruptData("its header entry has no data_offsets pair");
  }
  out->entry.shape.reserve(shape->array().size());
  // Every prefix of the product must fit, also when a later dimension is 0: as in the reference
  // implementation.
  int64_t elements = 1;
  for (const JsonValue& dim : shape->array()) {
    if (!dim.is_integer() || dim.integer() < 0) {
      return CorruptData("shape {} has a dimension that is no integer from 0 on",
                         shape->ToString());
    }
    if (__builtin_mul_overflow(elements, dim.integer(), &elements)) {
      return CorruptData("the number of elements of shape {} overflows", shape->ToString());
    }
    out->entry.shape.push_back(dim.integer());
  }
  out->entry.elements = elements;
  int64_t bits;
  if (__builtin_mul_overflow(elements, int64_t{BitsOf(out->entry.type)}, &bits)) {
    return CorruptData("the size of {} overflows", out->entry.ToString());
  }
  if (bits % 8 != 0) return CorruptData("{} does not fill whole bytes", out->entry.ToString());
  const JsonValue& begin = offsets->array()[0];
  const JsonValue& end = offsets->array()[1];
  if (!begin.is_integer() || !end.is_integer() || begin.integer() < 0 ||
      end.integer() < begin.integer()) {
    return CorruptData("data_offsets are {}; expected two integers 0 <= begin <= end",
                       offsets->ToString());
  }
  if (end.integer() - begin.integer() != bits / 8) {
    return CorruptData("data_offsets {} span {} bytes, but {} has {}", offsets->ToString(),
                       end.integer() - begin.integer(), out->entry.ToString(), bits / 8);
  }
  out->begin = static_cast<uint64_t>(begin.integer());
  out->end = static_cast<uint64_t>(end.integer());
  return OkStatus();
}

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
  const std::string& path = file_.path();
  if (header.empty() || header[0] != '{')
    return CorruptData("{}: the header does not begin with '{{'", path);
  if (!IsValidUtf8(header)) return CorruptData("{}: the header is not valid UTF-8", path);
  const size_t last = header.find_last_not_of(' ');
  if (header[last] != '}')
    return CorruptData("{}: the header does not end with '}}' and spaces", path);
  TE_ASSIGN_OR_RETURN(const JsonValue root, ParseJson(header, path + ": header", JsonDialect::kStrict));

  std::vector<ParsedEntry> parsed;
  parsed.reserve(root.members().size());
  for (const JsonMember& member : root.members()) {
    if (member.key == "__metadata__") {
      if (!member.value.is_object()) {
        return CorruptData("{}: __metadata__ is a JSON {}; expected an object of strings", path,
                           member.value.kind_name());
      }
      for (const JsonMember& item : member.value.members()) {
        if (!item.value.is_string()) {
          return CorruptData("{}: __metadata__ \"{}\" is a JSON {}; expected a string", path,
                             item.key, item.value.kind_name());
        }
        metadata_.emplace_back(item.key, item.value.string());
      }
      continue;
    }
    ParsedEntry& entry = parsed.emplace_back();
    entry.entry.name = member.key;
    TE_RETURN_IF_ERROR(ParseEntry(member.value, &entry)
                           .WithContext(fmt::format("{}: tensor {}", path, member.key)));
  }
  std::stable_sort(parsed.begin(), parsed.end(), [](const ParsedEntry& a, const ParsedEntry& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  uint64_t at = 0;
  for (const ParsedEntry& entry : parsed) {
    if (entry.begin != at) {
      return CorruptData(
          "{}: tensor {} begins at data byte {}, but the data before it ends at {}: the tensors {}",
          path, entry.entry.name, entry.begin, at, entry.begin < at ? "overlap" : "leave a hole");
    }
    at = entry.end;
  }
  if (at != data_bytes) {
    return CorruptData("{}: the tensors end at data byte {}, but the file has {} bytes of data: {}",
                       path, at, data_bytes,
                       at > data_bytes ? "truncated?" : "something follows them");
  }
  entries_.reserve(parsed.size());
  offsets_.reserve(parsed.size());
  for (ParsedEntry& entry : parsed) {
    entries_.push_back(std::move(entry.entry));
    offsets_.push_back(entry.begin);
  }
  return OkStatus();
}

StatusOr<std::unique_ptr<TensorStream>> SafetensorsFile::OpenStream(size_t index) const {
  const uint64_t begin = offsets_[index];
  return std::unique_ptr<TensorStream>(
      std::make_unique<RangeStream>(&file_, begin, begin + entries_[index].bytes()));
}

}  // namespace te
