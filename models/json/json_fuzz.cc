// JSON text: what parses is written in both forms and parses again to the same value, and each
// member is found by its key.
#include <cmath>

#include "models/json/json.h"
#include "tests/fuzz/fuzzing.h"

namespace te {
namespace {

bool SameNumber(double a, double b) {
  if (std::isnan(a) || std::isnan(b)) return std::isnan(a) && std::isnan(b);
  return a == b && std::signbit(a) == std::signbit(b);
}

bool Equal(const JsonValue& a, const JsonValue& b) {
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case JsonValue::Kind::kNull:
      return true;
    case JsonValue::Kind::kBool:
      return a.boolean() == b.boolean();
    case JsonValue::Kind::kInteger:
      return a.integer() == b.integer();
    case JsonValue::Kind::kDouble:
      return SameNumber(a.number(), b.number());
    case JsonValue::Kind::kBigInteger:
      return a.digits() == b.digits() && SameNumber(a.number(), b.number());
    case JsonValue::Kind::kString:
      return a.string() == b.string();
    case JsonValue::Kind::kArray: {
      if (a.array().size() != b.array().size()) return false;
      for (size_t i = 0; i < a.array().size(); ++i)
        if (!Equal(a.array()[i], b.array()[i])) return false;
      return true;
    }
    case JsonValue::Kind::kObject: {
      if (a.members().size() != b.members().size()) return false;
      for (size_t i = 0; i < a.members().size(); ++i) {
        const JsonMember &x = a.members()[i], &y = b.members()[i];
        if (x.key != y.key || !Equal(x.value, y.value)) return false;
      }
      return true;
    }
  }
  return false;
}

void CheckMembers(const JsonValue& value) {
  if (value.is_array()) {
    for (const JsonValue& element : value.array()) CheckMembers(element);
  }
  if (!value.is_object()) return;
  for (const JsonMember& member : value.members()) {
    TE_FUZZ_CHECK(value.Find(member.key) == &member.value, "key {} is not found", member.key);
    CheckMembers(member.value);
  }
}

void CheckSame(const JsonValue& value, const StatusOr<std::string>& text) {
  TE_FUZZ_CHECK(text.ok(), "not written: {}", text.status().message());
  const StatusOr<JsonValue> again = ParseJson(*text);
  TE_FUZZ_CHECK(again.ok(), "{} of {}", again.status().message(), *text);
  TE_FUZZ_CHECK(Equal(value, *again), "it became {}", *text);
}

TE_FUZZ_TARGET(input) {
  const fuzz::MemoryBound bound(input.size(), {.base = size_t{1} << 20, .factor = 192});
  const StatusOr<JsonValue> value = ParseJson(input, "file.json");
  const StatusOr<JsonValue> line = ParseJsonLine(input, "file.jsonl", 7);
  TE_FUZZ_CHECK(value.ok() == line.ok(), "a line is read otherwise than a file");
  if (!value.ok()) {
    fuzz::CheckRefusal(value.status());
    return fuzz::CheckRefusal(line.status());
  }
  TE_FUZZ_CHECK(value->ToString().size() <= 210, "{}", value->ToString());
  fuzz::CheckRefusal(CorruptData("{}", value->ToString()));
  CheckMembers(*value);
  CheckSame(*value, WriteJson(*value));
  CheckSame(*value, WriteJsonLine(*value));
  if (!value->is_object()) return;
  const JsonValue with = value->With("a", JsonValue::Integer(1));
  TE_FUZZ_CHECK(with.Find("a") != nullptr && with.Find("a")->is_integer(), "With lost its member");
  TE_FUZZ_CHECK(with.Without("a").Find("a") == nullptr, "Without left its member");
}

}  // namespace
}  // namespace te
