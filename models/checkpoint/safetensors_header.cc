#include "models/checkpoint/safetensors_header.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <map>
#include <unordered_map>

#include "models/json/utf8.h"
#include "rapidjson/error/en.h"
#include "rapidjson/memorystream.h"
#include "rapidjson/reader.h"

namespace te {
namespace {

constexpr size_t kMostDepth = 127;
constexpr std::string_view kMetadata = "__metadata__";

using Item = SafetensorsHeader::Item;

// RapidJSON's events. Numbers come as their text: they are integers of 64 bits without a sign.
class Handler : public rapidjson::BaseReaderHandler<rapidjson::UTF8<>, Handler> {
 public:
  explicit Handler(SafetensorsHeader* header) : header_(header) {}

  bool Null() { return Scalar(Kind::kNull, {}); }
  bool Bool(bool) { return Scalar(Kind::kBool, {}); }
  bool RawNumber(const char* text, rapidjson::SizeType length, bool) {
    return Scalar(Kind::kNumber, {text, length});
  }
  bool String(const char* text, rapidjson::SizeType length, bool) {
    // The reader's own check passes a lone \udc00, which becomes no UTF-8.
    if (!IsValidUtf8({text, length})) return Fail("a string that is not valid UTF-8");
    return Scalar(Kind::kString, {text, length});
  }
  bool Key(const char* text, rapidjson::SizeType length, bool) {
    if (!IsValidUtf8({text, length})) return Fail("a key that is not valid UTF-8");
    key_.assign(text, length);
    switch (open_.back()) {
      case Place::kRoot:
        name_ = key_;
        return true;
      case Place::kEntry:
        return BeginField(key_ == "dtype"          ? Field::kDType
                          : key_ == "shape"        ? Field::kShape
                          : key_ == "data_offsets" ? Field::kOffsets
                                                   : Field::kOther);
      default:
        return true;
    }
  }
  bool StartObject() { return Open(Kind::kObject); }
  bool StartArray() { return Open(Kind::kArray); }
  bool EndObject(rapidjson::SizeType) { return Close(); }
  bool EndArray(rapidjson::SizeType) { return Close(); }

  const std::string& error() const { return error_; }

 private:
  enum class Kind { kNull, kBool, kNumber, kString, kObject, kArray };
  enum class Place { kRoot, kMetadata, kEntry, kTuple, kDType, kShape, kOffsets, kOther };
  enum class Field { kDType, kShape, kOffsets, kOther };

  static const char* NameOf(Kind kind) {
    switch (kind) {
      case Kind::kNull:
        return "null";
      case Kind::kBool:
        return "boolean";
      case Kind::kNumber:
        return "number";
      case Kind::kString:
        return "string";
      case Kind::kObject:
        return "object";
      case Kind::kArray:
        return "array";
    }
    return "unknown";
  }

  bool Fail(std::string error) {
    if (error_.empty()) error_ = std::move(error);
    return false;
  }
  bool FailTensor(const std::string& why) { return Fail(fmt::format("tensor {}: {}", name_, why)); }

  bool Push(Place place) {
    if (open_.size() >= kMostDepth)
      return Fail(fmt::format("nested deeper than {} levels", kMostDepth));
    open_.push_back(place);
    return true;
  }

  bool BeginField(Field field) {
    field_ = field;
    if (field == Field::kOther) return true;
    bool& seen = seen_[static_cast<int>(field)];
    if (seen) return FailTensor(fmt::format("\"{}\" stands twice in its header entry", key_));
    seen = true;
    return true;
  }

  // Of an entry that is an array, the place says which field a value is.
  bool BeginPosition() {
    constexpr Field kOrder[] = {Field::kDType, Field::kShape, Field::kOffsets};
    if (position_ >= 3)
      return FailTensor("its header entry is an array of more than dtype, shape, data_offsets");
    key_ = position_ == 0 ? "dtype" : position_ == 1 ? "shape" : "data_offsets";
    return BeginField(kOrder[position_++]);
  }

  bool BeginEntry(Place place) {
    item_ = Item();
    std::fill(std::begin(seen_), std::end(seen_), false);
    position_ = 0;
    offsets_ = 0;
    return Push(place);
  }

  bool EndEntry() {
    constexpr const char* kNames[] = {"dtype", "shape", "data_offsets"};
    for (int i = 0; i < 3; ++i) {
      if (!seen_[i]) return FailTensor(fmt::format("its header entry has no {}", kNames[i]));
    }
    item_.entry.name = name_;
    const auto [it, inserted] = number_of_.try_emplace(name_, header_->items.size());
    if (inserted) {
      header_->items.push_back(std::move(item_));
    } else {
      header_->items[it->second] = std::move(item_);
    }
    return true;
  }

  bool SetDType(std::string_view name) {
    if (FindStoredType(name, &item_.entry.type)) return true;
    return FailTensor(fmt::format("unknown dtype \"{}\"", name));
  }

  // An integer from 0 to 2^64 - 1, in digits alone.
  static bool ParseInteger(std::string_view text, uint64_t* value) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *value);
    return error == std::errc() && end == text.data() + text.size();
  }

  bool AddDim(Kind kind, std::string_view text) {
    uint64_t dim = 0;
    if (kind != Kind::kNumber || !ParseInteger(text, &dim)) {
      return FailTensor(fmt::format(
          "its shape has {}; expected integers from 0 on",
          kind == Kind::kNumber ? std::string(text) : std::string("a ") + NameOf(kind)));
    }
    // A tensor without elements may have any dimensions; no tensor that is wanted has such.
    constexpr uint64_t kMost = std::numeric_limits<int64_t>::max();
    item_.entry.shape.push_back(static_cast<int64_t>(std::min(dim, kMost)));
    // Every prefix of the product must fit, also when a later dimension is 0.
    overflow_ = overflow_ || __builtin_mul_overflow(elements_, dim, &elements_);
    return true;
  }

  bool AddOffset(Kind kind, std::string_view text) {
    uint64_t value = 0;
    if (offsets_ >= 2) return FailTensor("its data_offsets are more than two");
    if (kind != Kind::kNumber || !ParseInteger(text, &value)) {
      return FailTensor(fmt::format(
          "its data_offsets have {}; expected two integers 0 <= begin <= end",
          kind == Kind::kNumber ? std::string(text) : std::string("a ") + NameOf(kind)));
    }
    (offsets_++ == 0 ? item_.begin : item_.end) = value;
    return true;
  }

  bool FieldScalar(Kind kind, std::string_view text) {
    switch (field_) {
      case Field::kDType:
        return kind == Kind::kString
                   ? SetDType(text)
                   : FailTensor(fmt::format("its dtype is a {}; expected a string", NameOf(kind)));
      case Field::kShape:
        return FailTensor(fmt::format("its shape is a {}; expected an array", NameOf(kind)));
      case Field::kOffsets:
        return FailTensor(fmt::format("its data_offsets are a {}; expected a pair", NameOf(kind)));
      case Field::kOther:
        return OtherScalar(kind, text);
    }
    return false;
  }

  bool OtherScalar(Kind kind, std::string_view text) {
    if (kind != Kind::kNumber || std::isfinite(std::strtod(std::string(text).c_str(), nullptr)))
      return true;
    return Fail(fmt::format("the number {} is out of range", text.substr(0, 40)));
  }

  bool Scalar(Kind kind, std::string_view text) {
    if (open_.empty())
      return Fail(fmt::format("the header is a {}; expected an object", NameOf(kind)));
    switch (open_.back()) {
      case Place::kRoot:
        if (name_ == kMetadata) {
          if (kind == Kind::kNull) return BeginMetadata();
          return Fail(
              fmt::format("__metadata__ is a {}; expected an object of strings", NameOf(kind)));
        }
        return FailTensor(
            fmt::format("its header entry is a {}; expected an object", NameOf(kind)));
      case Place::kMetadata: {
        if (kind != Kind::kString) return FailMetadata(kind);
        const auto [it, inserted] = metadata_of_.try_emplace(key_, header_->metadata.size());
        if (inserted) {
          header_->metadata.emplace_back(key_, text);
        } else {
          header_->metadata[it->second].second = text;
        }
        return true;
      }
      case Place::kEntry:
        return FieldScalar(kind, text);
      case Place::kTuple:
        return BeginPosition() && FieldScalar(kind, text);
      case Place::kDType:
        if (kind != Kind::kNull)
          return FailTensor(fmt::format("its dtype holds a {}; expected null", NameOf(kind)));
        return SetVariant();
      case Place::kShape:
        return AddDim(kind, text);
      case Place::kOffsets:
        return AddOffset(kind, text);
      case Place::kOther:
        return OtherScalar(kind, text);
    }
    return false;
  }

  bool FailMetadata(Kind kind) {
    return Fail(fmt::format("__metadata__ \"{}\" is a {}; expected a string", key_, NameOf(kind)));
  }

  bool BeginMetadata() {
    if (metadata_seen_) return Fail("\"__metadata__\" stands twice");
    metadata_seen_ = true;
    return true;
  }

  // serde's other form of a dtype: {"F32": null}.
  bool SetVariant() {
    if (variants_++ > 0) return FailTensor("its dtype is an object of several");
    return SetDType(key_);
  }

  bool OpenField(Kind kind) {
    const bool array = kind == Kind::kArray;
    switch (field_) {
      case Field::kDType:
        variants_ = 0;
        return array ? FailTensor("its dtype is an array; expected a string") : Push(Place::kDType);
      case Field::kShape:
        elements_ = 1;
        overflow_ = false;
        return array ? Push(Place::kShape)
                     : FailTensor("its shape is an object; expected an array");
      case Field::kOffsets:
        offsets_ = 0;
        return array ? Push(Place::kOffsets)
                     : FailTensor("its data_offsets are an object; expected a pair");
      case Field::kOther:
        return Push(Place::kOther);
    }
    return false;
  }

  bool Open(Kind kind) {
    if (open_.empty()) {
      if (kind == Kind::kArray) return Fail("the header is an array; expected an object");
      return Push(Place::kRoot);
    }
    switch (open_.back()) {
      case Place::kRoot:
        if (name_ == kMetadata) {
          if (kind == Kind::kArray)
            return Fail("__metadata__ is an array; expected an object of strings");
          return BeginMetadata() && Push(Place::kMetadata);
        }
        return BeginEntry(kind == Kind::kArray ? Place::kTuple : Place::kEntry);
      case Place::kMetadata:
        return FailMetadata(kind);
      case Place::kEntry:
        return OpenField(kind);
      case Place::kTuple:
        return BeginPosition() && OpenField(kind);
      case Place::kDType:
        return FailTensor(fmt::format("its dtype holds an {}; expected null", NameOf(kind)));
      case Place::kShape:
        return AddDim(kind, {});
      case Place::kOffsets:
        return AddOffset(kind, {});
      case Place::kOther:
        return Push(Place::kOther);
    }
    return false;
  }

  bool Close() {
    const Place place = open_.back();
    open_.pop_back();
    switch (place) {
      case Place::kEntry:
      case Place::kTuple:
        return EndEntry();
      case Place::kDType:
        return variants_ == 1 || FailTensor("its dtype is an empty object");
      case Place::kShape:
        item_.entry.elements = -1;
        if (!overflow_ && elements_ <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
          item_.entry.elements = static_cast<int64_t>(elements_);
        return true;
      case Place::kOffsets:
        return offsets_ == 2 || FailTensor("its data_offsets are less than two");
      default:
        return true;
    }
  }

  SafetensorsHeader* header_;
  std::string error_;
  std::vector<Place> open_;
  std::string key_;                                      // the last one
  std::string name_;                                     // the last one of the root: a tensor's
  std::unordered_map<std::string, size_t> number_of_;    // into header_->items
  std::unordered_map<std::string, size_t> metadata_of_;  // into header_->metadata
  bool metadata_seen_ = false;
  // Of the entry that is being read.
  Item item_;
  Field field_ = Field::kOther;
  bool seen_[3] = {};
  int position_ = 0;
  int offsets_ = 0;
  int variants_ = 0;
  uint64_t elements_ = 1;
  bool overflow_ = false;
};

std::string LineAndColumn(std::string_view text, size_t at) {
  at = std::min(at, text.size());
  size_t line = 1, column = 1;
  for (char c : text.substr(0, at)) {
    if (c == '\n') {
      ++line;
      column = 1;
    } else if ((static_cast<unsigned char>(c) & 0xc0) != 0x80) {
      ++column;
    }
  }
  return fmt::format("line {}, column {}", line, column);
}

// Sizes and places, which the reference checks after the JSON.
Status CheckItem(const Item& item) {
  const TensorEntry& entry = item.entry;
  uint64_t bits = 0;
  if (entry.elements < 0) {
    return CorruptData("tensor {}: the number of elements of shape {} overflows", entry.name,
                       ShapeToString(entry.shape));
  }
  if (__builtin_mul_overflow(static_cast<uint64_t>(entry.elements),
                             static_cast<uint64_t>(BitsOf(entry.type)), &bits)) {
    return CorruptData("tensor {}: the size of {} overflows", entry.name, entry.ToString());
  }
  if (bits % 8 != 0)
    return CorruptData("tensor {}: {} does not fill whole bytes", entry.name, entry.ToString());
  if (item.end < item.begin) {
    return CorruptData("tensor {}: data_offsets are [{}, {}]; expected 0 <= begin <= end",
                       entry.name, item.begin, item.end);
  }
  if (item.end - item.begin != bits / 8) {
    return CorruptData("tensor {}: data_offsets [{}, {}] span {} bytes, but {} has {}", entry.name,
                       item.begin, item.end, item.end - item.begin, entry.ToString(), bits / 8);
  }
  return OkStatus();
}

}  // namespace

StatusOr<SafetensorsHeader> ParseSafetensorsHeader(std::string_view text, uint64_t data_bytes) {
  SafetensorsHeader header;
  if (!IsValidUtf8(text)) return CorruptData("the header is not valid UTF-8");
  {
    Handler handler(&header);
    rapidjson::MemoryStream stream(text.data(), text.size());
    rapidjson::Reader reader;
    constexpr unsigned kFlags =
        rapidjson::kParseIterativeFlag | rapidjson::kParseNumbersAsStringsFlag;
    const rapidjson::ParseResult result = reader.Parse<kFlags>(stream, handler);
    if (result.IsError()) {
      std::string why = handler.error();
      if (result.Code() == rapidjson::kParseErrorDocumentRootNotSingular)
        why = "something follows its object";
      if (why.empty()) why = rapidjson::GetParseError_En(result.Code());
      return CorruptData("the header: {} ({})", why, LineAndColumn(text, result.Offset()));
    }
    // A zero byte is the reader's mark of the end.
    if (stream.Tell() != text.size()) {
      return CorruptData("the header: something follows its object ({})",
                         LineAndColumn(text, stream.Tell()));
    }
  }
  std::stable_sort(header.items.begin(), header.items.end(), [](const Item& a, const Item& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  uint64_t at = 0;
  for (const Item& item : header.items) {
    TE_RETURN_IF_ERROR(CheckItem(item));
    if (item.begin != at) {
      return CorruptData(
          "tensor {} begins at data byte {}, but the data before it ends at {}: the tensors {}",
          item.entry.name, item.begin, at, item.begin < at ? "overlap" : "leave a hole");
    }
    at = item.end;
  }
  if (at != data_bytes) {
    return CorruptData("the tensors end at data byte {}, but the file has {} bytes of data: {}", at,
                       data_bytes, at > data_bytes ? "truncated?" : "something follows them");
  }
  return header;
}

}  // namespace te
