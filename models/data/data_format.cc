#include "models/data/data_format.h"

#include <algorithm>
#include <cctype>
#include <filesystem>

#include "models/data/table.h"
#include "models/file_kind/file_kind.h"
#include "models/json/json.h"

namespace te {
namespace {

constexpr size_t kBlockBytes = 65536;

constexpr struct {
  const char* name;
  DataFormat format;
} kNames[] = {{"text", DataFormat::kText},
              {"jsonl", DataFormat::kJsonLines},
              {"safetensors", DataFormat::kSafetensors}};

std::string SuffixOf(const std::string& path) {
  std::string suffix = std::filesystem::path(path).extension().string();
  for (char& c : suffix) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return suffix;
}

bool IsOneOf(std::string_view suffix, std::initializer_list<std::string_view> list) {
  return std::ranges::find(list, suffix) != list.end();
}

std::string_view WithoutSpace(std::string_view text) {
  const size_t first = text.find_first_not_of(" \t\r\n");
  return first == std::string_view::npos ? std::string_view() : text.substr(first);
}

Status Refuse(const std::string& path, const std::string& what, const std::string& advice = "") {
  return InvalidArgument(
      "{}: this is {}; --data reads JSON lines (an object a line), plain text (a sample a line) "
      "and "
      "token ids (safetensors){}{}",
      path, what, advice.empty() ? "" : "; ", advice);
}

constexpr char kAsText[] = "--data-format text takes each line as a sample";

// `text` begins with a brace or a bracket.
struct JsonShape {
  bool first_line_whole = false;  // it is a JSON value
  bool first_line_ends = false;   // within the block
  bool looks_like_json = false;   // a quoted key, or values as an array has them
};

JsonShape ShapeOf(std::string_view text, bool whole) {
  JsonShape shape;
  const size_t end = text.find('\n');
  shape.first_line_ends = whole || end != std::string_view::npos;
  const std::string_view line = text.substr(0, end);
  shape.first_line_whole = shape.first_line_ends && ParseJson(line).ok();
  const std::string_view inside = WithoutSpace(text.substr(1));
  if (text[0] == '{') {
    // A key and its colon. An empty object is one, too.
    const size_t quote = inside.find('"', 1);
    shape.looks_like_json =
        inside.starts_with('}') || (inside.starts_with('"') && quote != std::string_view::npos &&
                                    WithoutSpace(inside.substr(quote + 1)).starts_with(':'));
  } else {
    shape.looks_like_json =
        inside.starts_with('{') && WithoutSpace(inside.substr(1)).starts_with('"');
  }
  return shape;
}

// Of text that begins with '{' or '['.
StatusOr<DataFormat> DetectJson(const std::string& path, std::string_view text, bool whole,
                                bool json_suffix) {
  const JsonShape shape = ShapeOf(text, whole);
  if (text[0] == '[') {
    if (!json_suffix && !shape.looks_like_json && !(shape.first_line_whole && text[1] == '"')) {
      return DataFormat::kText;  // "[INST] ...", "[1] A footnote"
    }
    return Refuse(path, "one JSON array", "`jq -c '.[]' FILE` writes its values as lines");
  }
  if (shape.first_line_whole || (shape.looks_like_json && !shape.first_line_ends)) {
    return DataFormat::kJsonLines;
  }
  if (!shape.looks_like_json) return json_suffix ? DataFormat::kJsonLines : DataFormat::kText;
  // An object over several lines, or a line that is wrong, which its reader says.
  const std::string_view line = text.substr(0, text.find('\n'));
  const Status status = ParseJson(line).status();
  if (status.message().find("the end of the text") == std::string::npos ||
      line.size() == text.size()) {
    return DataFormat::kJsonLines;
  }
  return Refuse(path, "one JSON document over several lines",
                "`jq -c . FILE` writes an object a line");
}

}  // namespace

const char* Name(DataFormat format) {
  switch (format) {
    case DataFormat::kJsonLines:
      return "JSON lines";
    case DataFormat::kText:
      return "plain text, a sample a line";
    case DataFormat::kSafetensors:
      return "token ids";
  }
  return "unknown";
}

StatusOr<DataFormat> ParseDataFormat(std::string_view name) {
  for (const auto& known : kNames) {
    if (name == known.name) return known.format;
  }
  return InvalidArgument("\"{}\"; expected text, jsonl or safetensors", name);
}

namespace {

// Control characters that no text has. (Bytes that are no UTF-8 alone may be text in another
// encoding: its reader names the line.)
bool HoldsControls(std::string_view block) {
  constexpr std::string_view kOfText = "\t\n\v\f\r\b\x1b";
  return std::any_of(block.begin(), block.end(), [&](char c) {
    return static_cast<unsigned char>(c) < 0x20 && kOfText.find(c) == std::string_view::npos;
  });
}

}  // namespace

StatusOr<DataFormat> DetectDataFormat(DataInput* input) {
  const std::string& path = input->path();
  const std::string suffix = SuffixOf(path);
  TE_ASSIGN_OR_RETURN(const std::string_view block, input->Peek(kBlockBytes));
  const bool whole = block.size() < kBlockBytes;
  const FileContent content = DescribeContent(block, block.size());
  // Its reader says what is wrong with a file of this name.
  if (content.kind == FileKind::kSafetensors || suffix == ".safetensors")
    return DataFormat::kSafetensors;
  const bool json_suffix = IsOneOf(suffix, {".jsonl", ".ndjson", ".json", ".jsonlines"});
  if (content.kind == FileKind::kEmpty)  // "no samples", of either
    return json_suffix ? DataFormat::kJsonLines : DataFormat::kText;

  // "<s>Hello</s>" looks like XML and is text; so is what begins with another tag.
  const bool tagged = content.kind == FileKind::kXml && !WithoutSpace(block).starts_with("<?xml");
  if (content.foreign() && !tagged) return Refuse(path, content.what, content.advice);
  if ((content.kind == FileKind::kBinary && HoldsControls(block)) ||
      block.find('\0') != std::string_view::npos || content.kind == FileKind::kTorchZip) {
    return Refuse(path,
                  content.kind == FileKind::kTorchZip ? content.what : "binary data, not text",
                  content.advice);
  }
  std::string_view text = block;
  if (text.starts_with("\xef\xbb\xbf")) text.remove_prefix(3);
  text = WithoutSpace(text);
  if (content.kind == FileKind::kServerError && !text.starts_with('{') && !json_suffix) {
    return Refuse(path, content.what, content.advice + "; " + kAsText);
  }
  if (text.starts_with("{\\rtf")) return Refuse(path, "a document in RTF", kAsText);
  if (text.starts_with('{') || text.starts_with('['))
    return DetectJson(path, text, whole, json_suffix);
  if (json_suffix) return DataFormat::kJsonLines;
  if (IsOneOf(suffix, {".yaml", ".yml", ".toml", ".xml", ".html", ".htm", ".rtf"})) {
    return Refuse(path, fmt::format("a {} file by its name", suffix.substr(1)), kAsText);
  }
  std::string table = DescribeTable(text, whole);
  if (table.empty() && IsOneOf(suffix, {".csv", ".tsv", ".tab", ".psv"}))
    table = fmt::format("a table by its name ({})", suffix);
  if (!table.empty()) {
    return Refuse(
        path, table,
        fmt::format("write its text as JSON lines, {{\"text\": \"...\"}} each; {}", kAsText));
  }
  return DataFormat::kText;
}

}  // namespace te
