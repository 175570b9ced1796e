#include "models/json/json_reader.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include "models/json/utf8.h"

namespace te {
namespace {

// Python refuses longer integers (sys.set_int_max_str_digits): their cost is quadratic.
constexpr size_t kMaxIntegerDigits = 4300;
constexpr size_t kMaxShownWord = 40;

bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsLetter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool IsOfWord(char c) {
  return IsDigit(c) || IsLetter(c) || c == '_' || c == '.' || c == '+' || c == '-';
}
bool IsHighSurrogate(uint32_t c) { return c >= 0xD800 && c <= 0xDBFF; }
bool IsLowSurrogate(uint32_t c) { return c >= 0xDC00 && c <= 0xDFFF; }

// A number's text, in parts that were checked.
struct NumberText {
  std::string_view all;
  std::string_view integer;   // digits before the point
  std::string_view fraction;  // behind it
  std::string_view exponent;  // with its sign
};

// Whether a number that double cannot hold is too large (else it is too small).
bool IsHuge(const NumberText& number) {
  int64_t exponent = 0;
  if (!number.exponent.empty()) {
    std::string_view digits = number.exponent;
    const bool negative = digits[0] == '-';
    if (digits[0] == '-' || digits[0] == '+') digits.remove_prefix(1);
    constexpr int64_t kFar = std::numeric_limits<int64_t>::max() / 4;
    int64_t value = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    if (error != std::errc() || value > kFar) value = kFar;
    exponent = negative ? -value : value;
  }
  if (number.integer != "0") return static_cast<int64_t>(number.integer.size()) + exponent > 0;
  const size_t first = std::min(number.fraction.find_first_not_of('0'), number.fraction.size());
  return exponent - static_cast<int64_t>(first) > 0;
}

}  // namespace

bool JsonReader::Fail(size_t offset, std::string reason) {
  failed_at_ = offset;
  reason_ = std::move(reason);
  return false;
}

bool JsonReader::FailWithWord(size_t offset, const std::string& expected) {
  return Fail(offset, "expected " + expected + Found(offset));
}

std::string_view JsonReader::WordAt(size_t offset) const {
  size_t end = offset;
  while (end < text_.size() && IsOfWord(text_[end])) ++end;
  if (end == offset && end < text_.size()) {
    ++end;
    while (end < text_.size() && (static_cast<unsigned char>(text_[end]) & 0xC0) == 0x80) ++end;
  }
  return text_.substr(offset, end - offset);
}

std::string JsonReader::Found(size_t offset) const {
  if (offset >= text_.size()) return ", found the end of the text (cut off?)";
  const std::string_view word = WordAt(offset);
  if (word == "\"") return ", found a string";
  return fmt::format(", found {}", Printable(word, kMaxShownWord));
}

void JsonReader::SkipSpace() {
  while (at_ < text_.size() &&
         (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\r' || text_[at_] == '\t')) {
    ++at_;
  }
}

bool JsonReader::Read(JsonValue* root) {
  const size_t invalid = FirstInvalidUtf8(text_);
  if (invalid < text_.size()) {
    return Fail(invalid, fmt::format("byte 0x{:02x}, which is not UTF-8",
                                     static_cast<unsigned char>(text_[invalid])));
  }
  if (text_.starts_with("\xef\xbb\xbf")) at_ = 3;
  SkipSpace();
  if (AtEnd()) return Fail(at_, "the text is empty; expected a JSON value");
  while (true) {
    JsonValue value;
    bool whole = true;
    if (!Begin(&value, &whole)) return false;
    while (whole) {  // a container may end with it, and another one with that
      if (open_.empty()) {
        SkipSpace();
        if (!AtEnd()) return FailWithWord(at_, "nothing after the value");
        *root = std::move(value);
        return true;
      }
      Add(std::move(value));
      SkipSpace();
      const Container& container = open_.back();
      if (At(container.end())) {
        ++at_;
        if (!Close(&value)) return false;
        continue;
      }
      if (!At(',')) return FailWithWord(at_, fmt::format("',' or '{}'", container.end()));
      const size_t comma = at_++;
      SkipSpace();
      if (At(container.end())) {
        return Fail(comma, fmt::format("a comma before '{}'; expected another {} after it",
                                       container.end(), container.is_object ? "member" : "value"));
      }
      if (container.is_object && !ReadKey()) return false;
      whole = false;
    }
  }
}

// A value that begins here: a scalar or an empty container is whole; else the first member is next.
bool JsonReader::Begin(JsonValue* value, bool* whole) {
  if (!At('{') && !At('[')) return ReadScalar(value);
  constexpr size_t kMost = kMaxJsonDepth;
  if (open_.size() >= kMost) return Fail(at_, fmt::format("nested deeper than {} levels", kMost));
  open_.emplace_back();
  open_.back().is_object = At('{');
  open_.back().begin = at_++;
  SkipSpace();
  if (At(open_.back().end())) {
    ++at_;
    return Close(value);
  }
  *whole = false;
  return !open_.back().is_object || ReadKey();
}

void JsonReader::Add(JsonValue value) {
  if (open_.back().is_object) {
    open_.back().members.back().value = std::move(value);
  } else {
    open_.back().values.push_back(std::move(value));
  }
}

bool JsonReader::Close(JsonValue* value) {
  Container container = std::move(open_.back());
  open_.pop_back();
  if (!container.is_object) {
    *value = JsonValue::MakeArray(std::move(container.values));
    return true;
  }
  // Of two equal keys Python takes the last, other readers the first: refused.
  std::vector<uint32_t> order(container.members.size());
  std::iota(order.begin(), order.end(), 0u);
  const auto key = [&](uint32_t i) -> const std::string& { return container.members[i].key; };
  std::sort(order.begin(), order.end(),
            [&](uint32_t a, uint32_t b) { return key(a) != key(b) ? key(a) < key(b) : a < b; });
  const auto twin = std::adjacent_find(order.begin(), order.end(),
                                       [&](uint32_t a, uint32_t b) { return key(a) == key(b); });
  if (twin != order.end()) {
    return Fail(container.key_offsets[*std::next(twin)],
                fmt::format("key \"{}\" stands twice in one object", Printable(key(*twin))));
  }
  *value = JsonValue::MakeObject(std::move(container.members));
  return true;
}

bool JsonReader::ReadKey() {
  if (!At('"')) return FailWithWord(at_, "a key in double quotes");
  const size_t begin = at_;
  std::string key;
  if (!ReadString(&key)) return false;
  SkipSpace();
  if (!At(':')) return FailWithWord(at_, fmt::format("':' after key \"{}\"", Printable(key, 60)));
  ++at_;
  SkipSpace();
  open_.back().members.push_back({std::move(key), JsonValue()});
  open_.back().key_offsets.push_back(begin);
  return true;
}

bool JsonReader::ReadScalar(JsonValue* value) {
  if (At('"')) {
    std::string text;
    if (!ReadString(&text)) return false;
    *value = JsonValue::String(std::move(text));
    return true;
  }
  if (!AtEnd() && (text_[at_] == '-' || IsDigit(text_[at_]))) return ReadNumber(value);
  return ReadWord(value);
}

bool JsonReader::ReadWord(JsonValue* value) {
  const std::string_view word = WordAt(at_);
  if (word == "null") {
    *value = JsonValue();
  } else if (word == "true" || word == "false") {
    *value = JsonValue::Bool(word == "true");
  } else if (word == "NaN") {
    *value = JsonValue::Double(std::numeric_limits<double>::quiet_NaN());
  } else if (word == "Infinity") {
    *value = JsonValue::Double(std::numeric_limits<double>::infinity());
  } else {
    std::string hint;
    if (word == "None") hint = " (in JSON it is null)";
    if (word == "True" || word == "False") hint = " (in JSON it has a small letter)";
    if (word == "'") hint = " (in JSON strings stand in double quotes)";
    if (word == "/" || word == "#") hint = " (JSON has no comments)";
    if (!word.empty() && (word[0] == 'n' || word[0] == 'N' || word[0] == 'i' || word[0] == 'I') &&
        word != "None") {
      hint = " (the words are null, true, false, NaN, Infinity and -Infinity)";
    }
    return Fail(at_, "expected a value" + Found(at_) + hint);
  }
  at_ += word.size();
  return true;
}

bool JsonReader::ReadNumber(JsonValue* value) {
  const size_t begin = at_;
  size_t end = at_;
  const auto digits = [&]() -> std::string_view {
    const size_t first = end;
    while (end < text_.size() && IsDigit(text_[end])) ++end;
    return text_.substr(first, end - first);
  };
  const std::string_view word = WordAt(begin);
  if (word == "-Infinity") {
    *value = JsonValue::Double(-std::numeric_limits<double>::infinity());
    at_ += word.size();
    return true;
  }
  NumberText number;
  if (text_[end] == '-') ++end;
  number.integer = digits();
  bool valid = !number.integer.empty() && (number.integer[0] != '0' || number.integer.size() == 1);
  const bool has_point = end < text_.size() && text_[end] == '.';
  if (has_point) {
    ++end;
    number.fraction = digits();
    valid = valid && !number.fraction.empty();
  }
  const bool has_exponent = end < text_.size() && (text_[end] == 'e' || text_[end] == 'E');
  if (has_exponent) {
    const size_t first = ++end;
    if (end < text_.size() && (text_[end] == '-' || text_[end] == '+')) ++end;
    valid = valid && !digits().empty();
    number.exponent = text_.substr(first, end - first);
  }
  number.all = text_.substr(begin, end - begin);
  if (!valid || number.all.size() != word.size()) {
    return Fail(begin, fmt::format("{} is not a number as JSON writes one",
                                   Printable(word, kMaxShownWord)));
  }
  at_ = end;
  if (!has_point && !has_exponent) {
    int64_t integer = 0;
    if (std::from_chars(number.all.data(), number.all.data() + number.all.size(), integer).ec ==
        std::errc()) {
      *value = JsonValue::Integer(integer);
      return true;
    }
    if (number.integer.size() > kMaxIntegerDigits) {
      return Fail(begin, fmt::format("an integer of {} digits; at most {} are taken",
                                     number.integer.size(), kMaxIntegerDigits));
    }
  }
  double real = 0;
  if (std::from_chars(number.all.data(), number.all.data() + number.all.size(), real).ec !=
      std::errc()) {
    real = IsHuge(number) ? std::numeric_limits<double>::infinity() : 0.0;
    if (number.all[0] == '-') real = -real;
  }
  *value = has_point || has_exponent ? JsonValue::Double(real)
                                     : JsonValue::BigInteger(std::string(number.all), real);
  return true;
}

bool JsonReader::ReadString(std::string* out) {
  const size_t begin = at_++;
  while (true) {
    const size_t run = at_;
    while (at_ < text_.size() && text_[at_] != '"' && text_[at_] != '\\' &&
           static_cast<unsigned char>(text_[at_]) >= 0x20) {
      ++at_;
    }
    out->append(text_.substr(run, at_ - run));
    if (AtEnd()) return Fail(begin, "a string without an end (cut off?)");
    if (At('"')) {
      ++at_;
      return true;
    }
    if (!At('\\')) {
      return Fail(at_, fmt::format("a control character ({}) in a string; expected an escape",
                                   Printable(text_.substr(at_, 1))));
    }
    if (!ReadEscape(out)) return false;
  }
}

bool JsonReader::ReadFourHex(size_t offset, uint32_t* out) const {
  if (text_.size() < 4 || offset > text_.size() - 4) return false;
  uint32_t value = 0;
  const char* end = text_.data() + offset + 4;
  const auto [stop, error] = std::from_chars(text_.data() + offset, end, value, 16);
  if (error != std::errc() || stop != end) return false;
  *out = value;
  return true;
}

bool JsonReader::ReadEscape(std::string* out) {
  const size_t begin = at_;
  const char kind = begin + 1 < text_.size() ? text_[begin + 1] : '\0';
  constexpr std::string_view kKinds = "\"\\/bfnrt";
  constexpr std::string_view kMeanings = "\"\\/\b\f\n\r\t";
  const size_t which = kKinds.find(kind);
  if (kind != '\0' && which != std::string_view::npos) {
    out->push_back(kMeanings[which]);
    at_ += 2;
    return true;
  }
  uint32_t code_point = 0;
  if (kind != 'u' || !ReadFourHex(begin + 2, &code_point)) {
    const std::string_view shown = text_.substr(begin, kind == 'u' ? 6 : 2);
    return Fail(begin, fmt::format("{} is no escape of JSON", Printable(shown)));
  }
  at_ += 6;
  uint32_t low = 0;
  if (IsHighSurrogate(code_point) && text_.substr(at_).starts_with("\\u") &&
      ReadFourHex(at_ + 2, &low) && IsLowSurrogate(low)) {
    code_point = 0x10000 + ((code_point - 0xD800) << 10) + (low - 0xDC00);
    at_ += 6;
  }
  AppendUtf8(code_point, out);
  return true;
}

}  // namespace te
