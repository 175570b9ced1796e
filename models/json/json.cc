#include "models/json/json.h"

#include <errno.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <new>
#include <numeric>

#include "rapidjson/error/en.h"
#include "rapidjson/memorystream.h"
#include "rapidjson/prettywriter.h"
#include "rapidjson/reader.h"
#include "rapidjson/stringbuffer.h"
#include "rapidjson/writer.h"

namespace te {

JsonValue JsonValue::String(std::string value) {
  return JsonValue(Data(std::make_shared<const std::string>(std::move(value))));
}

// Empty containers stay null pointers: a hostile text of millions of "[]" costs no allocation each.
JsonValue JsonValue::MakeArray(Array values) {
  std::shared_ptr<const Array> shared;
  if (!values.empty()) {
    values.shrink_to_fit();
    shared = std::make_shared<const Array>(std::move(values));
  }
  return JsonValue(Data(std::move(shared)));
}

std::shared_ptr<const JsonValue::Object> JsonValue::IndexedObject(Members members) {
  if (members.empty()) return nullptr;
  members.shrink_to_fit();
  auto object = std::make_shared<Object>();
  object->members = std::move(members);
  object->by_key.resize(object->members.size());
  std::iota(object->by_key.begin(), object->by_key.end(), 0u);
  std::sort(object->by_key.begin(), object->by_key.end(), [&](uint32_t a, uint32_t b) {
    return object->members[a].key < object->members[b].key;
  });
  return object;
}

JsonValue JsonValue::MakeObject(Members members) {
  return JsonValue(Data(IndexedObject(std::move(members))));
}

const char* JsonValue::kind_name() const {
  switch (kind()) {
    case Kind::kNull:
      return "null";
    case Kind::kBool:
      return "boolean";
    case Kind::kInteger:
      return "integer";
    case Kind::kDouble:
      return "number";
    case Kind::kString:
      return "string";
    case Kind::kArray:
      return "array";
    case Kind::kObject:
      return "object";
  }
  return "unknown";
}

double JsonValue::number() const {
  return is_integer() ? static_cast<double>(integer()) : std::get<double>(data_);
}

const std::string& JsonValue::string() const {
  return *std::get<std::shared_ptr<const std::string>>(data_);
}

const JsonValue::Array& JsonValue::array() const {
  static const Array kEmpty;
  const auto& array = std::get<std::shared_ptr<const Array>>(data_);
  return array == nullptr ? kEmpty : *array;
}

const JsonValue::Members& JsonValue::members() const {
  static const Members kEmpty;
  const auto& object = std::get<std::shared_ptr<const Object>>(data_);
  return object == nullptr ? kEmpty : object->members;
}

const JsonValue* JsonValue::Find(std::string_view key) const {
  if (!is_object()) return nullptr;
  const auto& object = std::get<std::shared_ptr<const Object>>(data_);
  if (object == nullptr) return nullptr;
  const auto it = std::lower_bound(
      object->by_key.begin(), object->by_key.end(), key,
      [&](uint32_t i, std::string_view wanted) { return object->members[i].key < wanted; });
  if (it == object->by_key.end() || object->members[*it].key != key) return nullptr;
  return &object->members[*it].value;
}

JsonValue JsonValue::With(std::string_view key, JsonValue value) const {
  Members members = this->members();
  for (JsonMember& member : members) {
    if (member.key != key) continue;
    member.value = std::move(value);
    return MakeObject(std::move(members));
  }
  members.push_back({std::string(key), std::move(value)});
  return MakeObject(std::move(members));
}

JsonValue JsonValue::Without(std::string_view key) const {
  Members members = this->members();
  std::erase_if(members, [&](const JsonMember& member) { return member.key == key; });
  return MakeObject(std::move(members));
}

namespace {

// RapidJSON's SAX events, built into values on a stack of our own: its DOM would take duplicate
// keys, and its recursive parser would overflow the stack.
class Builder : public rapidjson::BaseReaderHandler<rapidjson::UTF8<>, Builder> {
 public:
  bool Null() { return Add(JsonValue()); }
  bool Bool(bool value) { return Add(JsonValue::Bool(value)); }
  bool Int(int value) { return Add(JsonValue::Integer(value)); }
  bool Uint(unsigned value) { return Add(JsonValue::Integer(value)); }
  bool Int64(int64_t value) { return Add(JsonValue::Integer(value)); }
  bool Uint64(uint64_t value) {
    if (value > static_cast<uint64_t>(INT64_MAX)) return Double(static_cast<double>(value));
    return Add(JsonValue::Integer(static_cast<int64_t>(value)));
  }
  bool Double(double value) { return Add(JsonValue::Double(value)); }
  bool String(const char* text, rapidjson::SizeType length, bool) {
    // The reader's own check passes a lone \udc00, which becomes no UTF-8.
    if (!IsValidUtf8({text, length})) return Fail("a string that is not valid UTF-8");
    return Add(JsonValue::String(std::string(text, length)));
  }
  bool Key(const char* text, rapidjson::SizeType length, bool) {
    if (!IsValidUtf8({text, length})) return Fail("a key that is not valid UTF-8");
    open_.back().members.push_back({std::string(text, length), JsonValue()});
    return true;
  }
  bool StartObject() { return Open(true); }
  bool StartArray() { return Open(false); }
  bool EndArray(rapidjson::SizeType) {
    JsonValue value = JsonValue::MakeArray(std::move(open_.back().values));
    open_.pop_back();
    return Add(std::move(value));
  }
  bool EndObject(rapidjson::SizeType) {
    JsonValue::Members& members = open_.back().members;
    std::vector<const std::string*> keys;
    keys.reserve(members.size());
    for (const JsonMember& member : members) keys.push_back(&member.key);
    std::sort(keys.begin(), keys.end(), [](const auto* a, const auto* b) { return *a < *b; });
    const auto twin = std::adjacent_find(keys.begin(), keys.end(),
                                         [](const auto* a, const auto* b) { return *a == *b; });
    if (twin != keys.end())
      return Fail(fmt::format("key \"{}\" stands twice in one object", **twin));
    JsonValue value = JsonValue::MakeObject(std::move(members));
    open_.pop_back();
    return Add(std::move(value));
  }

  const std::string& failure() const { return failure_; }
  JsonValue TakeRoot() { return std::move(root_); }

 private:
  struct OpenContainer {
    bool is_object = false;
    JsonValue::Array values;
    JsonValue::Members members;
  };

  bool Fail(std::string reason) {
    failure_ = std::move(reason);
    return false;
  }
  bool Open(bool is_object) {
    if (open_.size() >= static_cast<size_t>(kMaxJsonDepth)) {
      return Fail(fmt::format("nested deeper than {} levels", kMaxJsonDepth));
    }
    open_.emplace_back();
    open_.back().is_object = is_object;
    return true;
  }
  bool Add(JsonValue value) {
    if (open_.empty()) {
      root_ = std::move(value);
    } else if (open_.back().is_object) {
      open_.back().members.back().value = std::move(value);
    } else {
      open_.back().values.push_back(std::move(value));
    }
    return true;
  }

  std::vector<OpenContainer> open_;
  JsonValue root_;
  std::string failure_;
};

// What went wrong and where, without the file's name.
StatusOr<JsonValue> Parse(std::string_view text) {
  try {
    rapidjson::MemoryStream stream(text.data(), text.size());
    rapidjson::Reader reader;
    Builder builder;
    constexpr unsigned kFlags = rapidjson::kParseIterativeFlag |
                                rapidjson::kParseValidateEncodingFlag |
                                rapidjson::kParseFullPrecisionFlag;
    const rapidjson::ParseResult result = reader.Parse<kFlags>(stream, builder);
    if (!result) {
      const std::string& reason = builder.failure();
      return CorruptData(
          "byte {}: {}", result.Offset(),
          reason.empty() ? rapidjson::GetParseError_En(result.Code()) : reason.c_str());
    }
    // The reader takes a NUL for the end.
    if (stream.Tell() != text.size()) {
      return CorruptData("byte {}: a NUL byte after the value", stream.Tell());
    }
    return builder.TakeRoot();
  } catch (const std::bad_alloc&) {
    return OutOfMemory("no memory for the JSON value of {} bytes of text", text.size());
  }
}

template <typename Writer>
bool Emit(const JsonValue& value, Writer* writer) {
  switch (value.kind()) {
    case JsonValue::Kind::kNull:
      return writer->Null();
    case JsonValue::Kind::kBool:
      return writer->Bool(value.boolean());
    case JsonValue::Kind::kInteger:
      return writer->Int64(value.integer());
    case JsonValue::Kind::kDouble:
      return writer->Double(value.number());
    case JsonValue::Kind::kString: {
      const std::string& text = value.string();
      return writer->String(text.data(), static_cast<rapidjson::SizeType>(text.size()));
    }
    case JsonValue::Kind::kArray:
      if (!writer->StartArray()) return false;
      for (const JsonValue& element : value.array()) {
        if (!Emit(element, writer)) return false;
      }
      return writer->EndArray();
    case JsonValue::Kind::kObject:
      if (!writer->StartObject()) return false;
      for (const JsonMember& member : value.members()) {
        if (!writer->Key(member.key.data(), static_cast<rapidjson::SizeType>(member.key.size())) ||
            !Emit(member.value, writer)) {
          return false;
        }
      }
      return writer->EndObject();
  }
  return false;
}

template <typename Writer>
StatusOr<std::string> Write(const JsonValue& value, rapidjson::StringBuffer* buffer,
                            Writer* writer) {
  if (!Emit(value, writer)) {
    return InvalidArgument("JSON has no form for an infinite number or a NaN");
  }
  return std::string(buffer->GetString(), buffer->GetSize());
}

}  // namespace

StatusOr<JsonValue> ParseJson(std::string_view text, std::string_view name) {
  StatusOr<JsonValue> value = Parse(text);
  if (!value.ok() && !name.empty()) return value.status().WithContext(std::string(name));
  return value;
}

StatusOr<JsonValue> ParseJsonLine(std::string_view text, std::string_view name, int64_t line) {
  StatusOr<JsonValue> value = Parse(text);
  if (!value.ok()) return value.status().WithContext(fmt::format("{}:{}", name, line));
  return value;
}

StatusOr<std::string> ReadTextFile(const std::string& path, size_t max_bytes, InputUse use) {
  TE_ASSIGN_OR_RETURN(const OpenedInput input, OpenInput(path, use));
  const auto too_large = [&](uint64_t bytes) {
    return CorruptData("{}: {} bytes of text; at most {} are taken", path, bytes, max_bytes);
  };
  const auto size = static_cast<uint64_t>(input.is_regular_file() ? input.info.st_size : 0);
  if (size > max_bytes) return too_large(size);
  try {
    // One byte more than a file says that it has: so its end is seen.
    std::string text(static_cast<size_t>(size) + 1, '\0');
    size_t done = 0;
    while (true) {
      const ssize_t n = read(input.descriptor.get(), text.data() + done, text.size() - done);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return IoError("{}: {}", path, std::strerror(errno));
      if (n == 0) break;
      done += static_cast<size_t>(n);
      if (done > max_bytes) return too_large(done);
      if (done == text.size()) text.resize(std::max<size_t>(2 * text.size(), size_t{1} << 16));
    }
    if (done < size)
      return IoError("{}: the file shrank to {} bytes while it was read", path, done);
    text.resize(done);
    return text;
  } catch (const std::bad_alloc&) {
    return OutOfMemory("{}: no memory for {} bytes of text", path, size);
  }
}

StatusOr<JsonValue> ReadJsonFile(const std::string& path, size_t max_bytes, InputUse use) {
  TE_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(path, max_bytes, use));
  return ParseJson(text, path);
}

std::string JsonValue::ToString() const {
  constexpr size_t kMost = 200;
  const StatusOr<std::string> text = WriteJsonLine(*this);
  if (!text.ok()) return kind_name();
  return text->size() <= kMost ? *text : text->substr(0, kMost) + "...";
}

StatusOr<std::string> WriteJson(const JsonValue& value) {
  rapidjson::StringBuffer buffer;
  rapidjson::PrettyWriter<rapidjson::StringBuffer> writer(buffer);
  writer.SetIndent(' ', 2);
  return Write(value, &buffer, &writer);
}

StatusOr<std::string> WriteJsonLine(const JsonValue& value) {
  rapidjson::StringBuffer buffer;
  rapidjson::Writer<rapidjson::StringBuffer> writer(buffer);
  return Write(value, &buffer, &writer);
}

bool IsValidUtf8(std::string_view text) {
  // Unicode 15, table 3-7: the second byte's range depends on the first, the others are 80..BF.
  for (size_t i = 0; i < text.size();) {
    const auto byte = [&](size_t k) { return static_cast<unsigned char>(text[i + k]); };
    const unsigned char first = byte(0);
    if (first < 0x80) {
      ++i;
      continue;
    }
    size_t length = 0;
    unsigned char low = 0x80, high = 0xBF;
    if (first >= 0xC2 && first <= 0xDF) {
      length = 2;
    } else if (first >= 0xE0 && first <= 0xEF) {
      length = 3;
      if (first == 0xE0) low = 0xA0;
      if (first == 0xED) high = 0x9F;
    } else if (first >= 0xF0 && first <= 0xF4) {
      length = 4;
      if (first == 0xF0) low = 0x90;
      if (first == 0xF4) high = 0x8F;
    } else {
      return false;
    }
    if (text.size() - i < length || byte(1) < low || byte(1) > high) return false;
    for (size_t k = 2; k < length; ++k) {
      if ((byte(k) & 0xC0) != 0x80) return false;
    }
    i += length;
  }
  return true;
}

}  // namespace te
