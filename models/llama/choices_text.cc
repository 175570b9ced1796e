#include "models/llama/choices_text.h"

#include <algorithm>

namespace te {
namespace {

constexpr std::string_view kSeparator = " : ";
constexpr std::string_view kTitle = "te ";
// A line has some 150 bytes.
constexpr size_t kMostOfALine = 2000;

}  // namespace

ChoicesText::Part& ChoicesText::PartOf(const std::string& header) {
  const auto found = std::find_if(parts_.begin(), parts_.end(),
                                  [&header](const Part& part) { return part.first == header; });
  if (found != parts_.end()) return *found;
  return parts_.emplace_back(header, std::map<std::string, std::string>());
}

bool ChoicesText::Parse(std::string_view text) {
  ChoicesText read;
  Part* part = nullptr;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    if (end == std::string_view::npos || end > kMostOfALine) return false;  // cut off, or no text
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(end + 1);
    if (line.find('\0') != std::string_view::npos) return false;
    const size_t at = line.rfind(kSeparator);
    if (at == std::string_view::npos) {
      if (!line.starts_with(kTitle)) return false;
      part = &read.PartOf(std::string(line));
    } else if (part == nullptr) {
      return false;
    } else {
      part->second.try_emplace(std::string(line.substr(0, at)),
                               line.substr(at + kSeparator.size()));
    }
  }
  if (read.parts_.empty()) return false;
  *this = std::move(read);
  return true;
}

void ChoicesText::Add(const ChoicesText& other) {
  for (const auto& [header, choices] : other.parts_) {
    Part& part = PartOf(header);
    part.second.insert(choices.begin(), choices.end());
  }
}

std::string ChoicesText::ToString() const {
  std::string text;
  for (const auto& [header, choices] : parts_) {
    text += header + '\n';
    for (const auto& [problem, choice] : choices) {
      text += problem;
      text += kSeparator;
      text += choice + '\n';
    }
  }
  return text;
}

size_t ChoicesText::count() const {
  size_t count = 0;
  for (const Part& part : parts_) count += part.second.size();
  return count;
}

}  // namespace te
