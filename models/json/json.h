// JSON as te reads and writes it: config.json, checkpoint indexes, rules, data lines.
// What Python's json module writes is read and written back: NaN, Infinity and -Infinity, integers
// of any length, numbers beyond a double, halves of surrogate pairs; a byte order mark is skipped.
// Errors are a duplicate key (readers differ in which of the two they take), text that is not
// UTF-8, nesting deeper than Python takes it and anything after the value.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "models/files/input.h"
#include "models/json/utf8.h"
#include "te_kernels/base/status.h"

namespace te {

struct JsonMember;

// An immutable value. Copies share what they hold: cheap, and safe from any thread.
class JsonValue {
 public:
  enum class Kind { kNull, kBool, kInteger, kDouble, kString, kArray, kObject, kBigInteger };
  using Array = std::vector<JsonValue>;
  using Members = std::vector<JsonMember>;  // in the order of the text

  JsonValue() = default;  // null
  static JsonValue Bool(bool value) { return JsonValue(Data(value)); }
  static JsonValue Integer(int64_t value) { return JsonValue(Data(value)); }
  static JsonValue Double(double value) { return JsonValue(Data(value)); }
  // An integer beyond int64: its digits, which are written back as they are, and the nearest
  // double.
  static JsonValue BigInteger(std::string digits, double nearest);
  static JsonValue String(std::string value);
  static JsonValue MakeArray(Array values);
  // Keys must differ: of equal ones, Find sees one and the text shows both.
  static JsonValue MakeObject(Members members);

  Kind kind() const { return static_cast<Kind>(data_.index()); }
  bool is_null() const { return kind() == Kind::kNull; }
  bool is_bool() const { return kind() == Kind::kBool; }
  // A number without fraction and exponent that fits int64.
  bool is_integer() const { return kind() == Kind::kInteger; }
  // Any number, NaN and the infinities among them.
  bool is_number() const {
    return is_integer() || kind() == Kind::kDouble || kind() == Kind::kBigInteger;
  }
  bool is_string() const { return kind() == Kind::kString; }
  bool is_array() const { return kind() == Kind::kArray; }
  bool is_object() const { return kind() == Kind::kObject; }
  const char* kind_name() const;  // "object", "integer", ...: for messages
  std::string ToString() const;   // on one line, cut after 200 bytes: for messages

  // The value, which must be of this kind (std::get's exception otherwise: ask first).
  bool boolean() const { return std::get<bool>(data_); }
  int64_t integer() const { return std::get<int64_t>(data_); }
  double number() const;              // of any number; infinite for what double does not hold
  const std::string& digits() const;  // of a kBigInteger
  const std::string& string() const;
  const Array& array() const;
  const Members& members() const;

  // The member of this name; null when there is none, or when this is no object. O(log n).
  const JsonValue* Find(std::string_view key) const;
  // This object with member `key` set: in its place if there is one, else at the end.
  JsonValue With(std::string_view key, JsonValue value) const;
  // This object without member `key`.
  JsonValue Without(std::string_view key) const;

 private:
  struct Object {
    Members members;
    std::vector<uint32_t> by_key;  // indices into members, sorted by key
  };
  struct LongInteger {
    std::string digits;
    double nearest = 0;
  };
  using Data = std::variant<std::monostate, bool, int64_t, double,
                            std::shared_ptr<const std::string>, std::shared_ptr<const Array>,
                            std::shared_ptr<const Object>, std::shared_ptr<const LongInteger>>;
  explicit JsonValue(Data data) : data_(std::move(data)) {}
  static std::shared_ptr<const Object> IndexedObject(Members members);

  Data data_;
};

struct JsonMember {
  std::string key;
  JsonValue value;
};

// Python's recursion limit: what it reads is read.
inline constexpr int kMaxJsonDepth = 1000;

// The one value that `text` consists of (white space around it is fine). Errors are kCorruptData:
// "NAME: line L, column C: what is wrong" (without "NAME: " when there is none), counted from 1 in
// lines and characters, with the word that is wrong.
StatusOr<JsonValue> ParseJson(std::string_view text, std::string_view name = {});
// The same for one line of a JSON-lines file; `line` counts from 1 and stands in the error.
StatusOr<JsonValue> ParseJsonLine(std::string_view text, std::string_view name, int64_t line);
// A file's contents, of at most `max_bytes`. `use`: whether a pipe will do, which nobody can read
// again. Errors as ReadJsonFile's.
StatusOr<std::string> ReadTextFile(const std::string& path, size_t max_bytes,
                                   InputUse use = InputUse::kByPosition);
// Reads and parses a file of at most `max_bytes`. kNotFound, kIoError, kCorruptData; each names the
// path.
StatusOr<JsonValue> ReadJsonFile(const std::string& path, size_t max_bytes = size_t{256} << 20,
                                 InputUse use = InputUse::kByPosition);

// Text that ParseJson reads back to an equal value (members in the same order, numbers exact).
// Indented as Python's json.dump(indent=2) does. A double that is not finite is written as Python
// writes it (NaN, Infinity, -Infinity). kOutOfMemory.
StatusOr<std::string> WriteJson(const JsonValue& value);
// On one line, without the line's end.
StatusOr<std::string> WriteJsonLine(const JsonValue& value);

}  // namespace te
