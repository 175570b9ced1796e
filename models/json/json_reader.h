// The parser behind ParseJson. No library that Debian has reads what Python's json module reads:
// RapidJSON takes neither a number beyond a double nor half of a surrogate pair, takes "Inf" for
// Infinity, and says neither line nor word of an error.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "models/json/json.h"

namespace te {

// Reads one text, once. Its stack is on the heap: deep nesting overflows nothing.
class JsonReader {
 public:
  explicit JsonReader(std::string_view text) : text_(text) {}

  // False: offset() and reason() say what is wrong. May throw std::bad_alloc.
  bool Read(JsonValue* root);
  size_t offset() const { return failed_at_; }
  const std::string& reason() const { return reason_; }

 private:
  struct Container {
    bool is_object = false;
    size_t begin = 0;
    JsonValue::Array values;
    JsonValue::Members members;
    std::vector<size_t> key_offsets;  // of the members

    char end() const { return is_object ? '}' : ']'; }
  };

  bool Fail(size_t offset, std::string reason);
  bool FailWithWord(size_t offset, const std::string& expected);
  bool AtEnd() const { return at_ == text_.size(); }
  bool At(char c) const { return at_ < text_.size() && text_[at_] == c; }
  void SkipSpace();
  // The word at `offset`, or the one character there.
  std::string_view WordAt(size_t offset) const;
  // ", found ..." or ": the text ends": what stands at `offset`.
  std::string Found(size_t offset) const;

  bool Begin(JsonValue* value, bool* whole);
  bool Close(JsonValue* value);
  void Add(JsonValue value);
  bool ReadKey();
  bool ReadScalar(JsonValue* value);
  bool ReadWord(JsonValue* value);
  bool ReadNumber(JsonValue* value);
  bool ReadString(std::string* out);
  bool ReadEscape(std::string* out);
  bool ReadFourHex(size_t offset, uint32_t* out) const;

  std::string_view text_;
  size_t at_ = 0;
  std::vector<Container> open_;
  size_t failed_at_ = 0;
  std::string reason_;
};

}  // namespace te
