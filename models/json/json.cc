#include "models/json/json.h"

#include <errno.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <new>
#include <numeric>

#include "models/file_kind/file_kind.h"
#include "models/json/json_reader.h"
#include "rapidjson/prettywriter.h"
#include "rapidjson/stringbuffer.h"
#include "rapidjson/writer.h"

namespace te {

JsonValue JsonValue::String(std::string value) {
  return JsonValue(Data(std::make_shared<const std::string>(std::move(value))));
}

JsonValue JsonValue::BigInteger(std::string digits, double nearest) {
  return JsonValue(
      Data(std::make_shared<const LongInteger>(LongInteger{std::move(digits), nearest})));
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
    case Kind::kBigInteger:
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
  if (is_integer()) return static_cast<double>(integer());
  if (const auto* big = std::get_if<std::shared_ptr<const LongInteger>>(&data_)) {
    return (*big)->nearest;
  }
  return std::get<double>(data_);
}

const std::string& JsonValue::digits() const {
  return std::get<std::shared_ptr<const LongInteger>>(data_)->digits;
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

// Line and column of a byte, both from 1; columns are characters. A byte order mark is none.
struct Position {
  int64_t line = 1;
  int64_t column = 1;
};

Position PositionOf(std::string_view text, size_t offset) {
  Position position;
  for (size_t i = text.starts_with("\xef\xbb\xbf") ? 3 : 0; i < offset; ++i) {
    if (text[i] == '\n') {
      ++position.line;
      position.column = 1;
    } else if ((static_cast<unsigned char>(text[i]) & 0xC0) != 0x80) {
      ++position.column;
    }
  }
  return position;
}

// `first_line`: the number of the text's first line.
StatusOr<JsonValue> Parse(std::string_view text, int64_t first_line) {
  try {
    JsonReader reader(text);
    JsonValue root;
    if (reader.Read(&root)) return root;
    const Position position = PositionOf(text, reader.offset());
    return CorruptData("line {}, column {}: {}", first_line + position.line - 1, position.column,
                       reader.reason());
  } catch (const std::bad_alloc&) {
    return OutOfMemory("no memory for the JSON value of {} bytes of text", text.size());
  }
}

// A string that is not UTF-8, in quotes: the halves of surrogate pairs that JSON's escapes can hold
// go back into escapes. Other bytes come from no JSON.
std::string Escaped(std::string_view text) {
  std::string out = "\"";
  while (!text.empty()) {
    const size_t valid = FirstInvalidUtf8(text);
    for (const char c : text.substr(0, valid)) {
      if (c == '"' || c == '\\') {
        out += '\\';
        out += c;
      } else if (static_cast<unsigned char>(c) < 0x20) {
        out += fmt::format("\\u{:04x}", static_cast<unsigned char>(c));
      } else {
        out += c;
      }
    }
    text.remove_prefix(valid);
    if (text.empty()) break;
    const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
    if (text.size() >= 3 && byte(0) == 0xED && byte(1) >= 0xA0 && byte(1) <= 0xBF &&
        (byte(2) & 0xC0) == 0x80) {
      out += fmt::format("\\u{:04x}", 0xD000 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F));
      text.remove_prefix(3);
    } else {
      out += "\\ufffd";
      text.remove_prefix(1);
    }
  }
  return out + '"';
}

template <typename Writer>
bool EmitString(const std::string& text, bool is_key, Writer* writer) {
  const auto size = static_cast<rapidjson::SizeType>(text.size());
  if (!IsValidUtf8(text)) {
    const std::string escaped = Escaped(text);
    return writer->RawValue(escaped.data(), escaped.size(), rapidjson::kStringType);
  }
  return is_key ? writer->Key(text.data(), size) : writer->String(text.data(), size);
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
    case JsonValue::Kind::kDouble: {
      const double number = value.number();
      if (std::isfinite(number)) return writer->Double(number);
      const std::string_view word = std::isnan(number) ? "NaN"
                                    : number > 0       ? "Infinity"
                                                       : "-Infinity";
      return writer->RawValue(word.data(), word.size(), rapidjson::kNumberType);
    }
    case JsonValue::Kind::kBigInteger:
      return writer->RawValue(value.digits().data(), value.digits().size(), rapidjson::kNumberType);
    case JsonValue::Kind::kString:
      return EmitString(value.string(), /*is_key=*/false, writer);
    case JsonValue::Kind::kArray:
      if (!writer->StartArray()) return false;
      for (const JsonValue& element : value.array()) {
        if (!Emit(element, writer)) return false;
      }
      return writer->EndArray();
    case JsonValue::Kind::kObject:
      if (!writer->StartObject()) return false;
      for (const JsonMember& member : value.members()) {
        if (!EmitString(member.key, /*is_key=*/true, writer) || !Emit(member.value, writer)) {
          return false;
        }
      }
      return writer->EndObject();
  }
  return false;
}

template <typename Writer>
StatusOr<std::string> Write(const JsonValue& value, const rapidjson::StringBuffer& buffer,
                            Writer* writer) {
  try {
    if (!Emit(value, writer)) return Internal("RapidJSON does not write a {}", value.kind_name());
    return std::string(buffer.GetString(), buffer.GetSize());
  } catch (const std::bad_alloc&) {
    return OutOfMemory("no memory for the text of a JSON value");
  }
}

}  // namespace

StatusOr<JsonValue> ParseJson(std::string_view text, std::string_view name) {
  StatusOr<JsonValue> value = Parse(text, 1);
  if (!value.ok() && !name.empty()) return value.status().WithContext(std::string(name));
  return value;
}

StatusOr<JsonValue> ParseJsonLine(std::string_view text, std::string_view name, int64_t line) {
  StatusOr<JsonValue> value = Parse(text, line);
  if (!value.ok()) return value.status().WithContext(std::string(name));
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
  StatusOr<JsonValue> value = ParseJson(text, path);
  if (value.ok() || value.status().code() != StatusCode::kCorruptData) return value;
  // What is no JSON at all has no line that is wrong.
  const FileContent content = DescribeContent(text, text.size());
  if (content.kind == FileKind::kJson || content.kind == FileKind::kText) return value;
  return CorruptData("{}: expected JSON; this is {}", path, content.ToString());
}

std::string JsonValue::ToString() const {
  const StatusOr<std::string> text = WriteJsonLine(*this);
  return text.ok() ? Printable(*text) : kind_name();
}

StatusOr<std::string> WriteJson(const JsonValue& value) {
  rapidjson::StringBuffer buffer;
  rapidjson::PrettyWriter<rapidjson::StringBuffer> writer(buffer);
  writer.SetIndent(' ', 2);
  return Write(value, buffer, &writer);
}

StatusOr<std::string> WriteJsonLine(const JsonValue& value) {
  rapidjson::StringBuffer buffer;
  rapidjson::Writer<rapidjson::StringBuffer> writer(buffer);
  return Write(value, buffer, &writer);
}

}  // namespace te
