#include "te_kernels/cuda/choices_header.h"

#include <charconv>
#include <optional>

#include "fmt/format.h"

namespace te::cuda {
namespace {

// Shipped choices were made on an H200.
constexpr int kMultiprocessors = 132;
constexpr std::string_view kCards[] = {"NVIDIA H100", "NVIDIA H200", "NVIDIA GH200"};
constexpr std::string_view kSeparator = " | ";

struct Fields {
  std::string_view title;  // with the format's number
  std::string_view card;
  std::string_view library;
  size_t version = 0;
};

std::optional<Fields> FieldsOf(std::string_view line) {
  std::string_view part[4];
  for (int i = 0; i < 4; ++i) {
    const size_t end = i == 3 ? line.size() : line.find(kSeparator);
    if (end == std::string_view::npos) return std::nullopt;
    part[i] = line.substr(0, end);
    line.remove_prefix(i == 3 ? end : end + kSeparator.size());
  }
  const size_t space = part[3].rfind(' ');
  if (space == std::string_view::npos || !part[2].starts_with("driver ")) return std::nullopt;
  Fields fields{.title = part[0], .card = part[1], .library = part[3].substr(0, space)};
  const std::string_view number = part[3].substr(space + 1);
  const auto [end, error] =
      std::from_chars(number.data(), number.data() + number.size(), fields.version);
  if (error != std::errc() || end != number.data() + number.size()) return std::nullopt;
  return fields;
}

bool HasTheChip(std::string_view card) {
  for (const std::string_view name : kCards)
    if (card == name || (card.starts_with(name) && card[name.size()] == ' ')) return true;
  return false;
}

}  // namespace

std::string ChoicesHeader(std::string_view title, std::string_view card_and_driver,
                          std::string_view library, size_t version) {
  return fmt::format("{} 2 | {} | {} {}", title, card_and_driver, library, version);
}

bool ChoicesHold(std::string_view theirs, std::string_view ours, int num_sms, PinAs as) {
  if (theirs == ours) return true;
  if (as != PinAs::kShipped) return false;
  const std::optional<Fields> a = FieldsOf(theirs), b = FieldsOf(ours);
  if (!a || !b || a->title != b->title || a->library != b->library) return false;
  if (a->version / 100 != b->version / 100)
    return false;  // 13 01 00, 9 19 00: the last is the patch
  if (a->card == b->card) return true;
  return num_sms == kMultiprocessors && HasTheChip(a->card) && HasTheChip(b->card);
}

}  // namespace te::cuda
