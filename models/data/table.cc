#include "models/data/table.h"

#include <algorithm>
#include <cctype>
#include <set>
#include <vector>

#include "fmt/format.h"
#include "fmt/ranges.h"
#include "models/json/utf8.h"

namespace te {
namespace {

constexpr size_t kMostRecords = 50;
constexpr size_t kMostColumns = 1000;

struct Field {
  std::string text;
  bool quoted = false;
};
using Record = std::vector<Field>;

// The records of `text` (RFC 4180: a quoted field may hold separators, quotes and line ends); blank
// lines are none. A last record that is cut off is left out.
std::vector<Record> ReadRecords(std::string_view text, char separator, bool whole) {
  std::vector<Record> records;
  Record record;
  Field field;
  bool in_quotes = false, at_begin = true;
  const auto end_field = [&] {
    record.push_back(std::move(field));
    field = {};
    at_begin = true;
  };
  const auto end_record = [&] {
    end_field();
    const bool blank = record.size() == 1 && record[0].text.empty() && !record[0].quoted;
    if (!blank) records.push_back(std::move(record));
    record.clear();
  };
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_quotes) {
      if (c != '"') {
        field.text += c;
      } else if (i + 1 < text.size() && text[i + 1] == '"') {
        field.text += text[++i];
      } else {
        in_quotes = false;
      }
    } else if (c == '"' && at_begin) {
      in_quotes = field.quoted = true;
      at_begin = false;
    } else if (c == separator) {
      end_field();
      if (record.size() > kMostColumns) return {};
    } else if (c == '\n') {
      end_record();
      if (records.size() >= kMostRecords) return records;
    } else if (c != '\r') {
      // Behind a closing quote there is a separator, or it was no quoted field.
      if (field.quoted) return {};
      field.text += c;
      at_begin = false;
    }
  }
  if (in_quotes && whole) return {};
  if (whole && (!record.empty() || !field.text.empty() || field.quoted)) end_record();
  return records;
}

bool IsNumber(std::string_view text) {
  return !text.empty() && text.find_first_not_of("0123456789.-+eE") == std::string_view::npos &&
         text.find_first_of("0123456789") != std::string_view::npos;
}

// A column's name: one to three short words, of which a sentence has more.
bool IsColumnName(std::string_view text) {
  if (text.empty() || text.size() > 40) return false;
  if (std::isspace(static_cast<unsigned char>(text.front())) != 0) return false;
  if (std::ranges::count(text, ' ') > 2) return false;
  return std::ranges::all_of(text, [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return byte >= 0x80 || std::isalnum(byte) != 0 ||
           std::string_view(" _-.#/():").find(c) != std::string_view::npos;
  });
}

bool IsHeader(const Record& record) {
  std::set<std::string_view> names;
  for (const Field& field : record) {
    if (!IsColumnName(field.text) || IsNumber(field.text) || field.text.back() == '.') return false;
    if (!names.insert(field.text).second) return false;
  }
  return true;
}

}  // namespace

std::string DescribeTable(std::string_view text, bool whole) {
  constexpr struct {
    char separator;
    const char* name;
  } kSeparators[] = {{',', "commas"}, {'\t', "tabs"}, {';', "semicolons"}, {'|', "bars"}};
  for (const auto& [separator, name] : kSeparators) {
    const std::vector<Record> records = ReadRecords(text, separator, whole);
    if (records.size() < 2) continue;
    const size_t columns = records[0].size();
    if (columns < 2 || std::ranges::any_of(records, [&](const Record& record) {
          return record.size() != columns;
        })) {
      continue;
    }
    if (IsHeader(records[0])) {
      std::vector<std::string> names;
      for (const Field& field : records[0]) names.push_back(field.text);
      constexpr size_t kMostShown = 6;
      const bool more = names.size() > kMostShown;
      if (more) names.resize(kMostShown);
      return fmt::format("a table with the columns {}{}, separated by {}",
                         Printable(fmt::format("{}", fmt::join(names, ", ")), 120),
                         more ? ", ..." : "", name);
    }
    // Without a header: something that prose has on no three lines, on each of them.
    if (records.size() < 3) continue;
    const auto in_each = [&](const auto& condition) {
      return std::ranges::all_of(
          records, [&](const Record& record) { return std::ranges::any_of(record, condition); });
    };
    const bool spaced = std::ranges::any_of(records, [](const Record& record) {
      return std::ranges::any_of(record,
                                 [](const Field& field) { return field.text.starts_with(' '); });
    });
    if (in_each([](const Field& field) { return field.quoted; }) ||
        (!spaced && in_each([](const Field& field) { return IsNumber(field.text); }))) {
      return fmt::format("a table of {} columns, separated by {}", columns, name);
    }
  }
  return "";
}

}  // namespace te
