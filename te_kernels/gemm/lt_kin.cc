#include "te_kernels/gemm/lt_kin.h"

#include <charconv>
#include <cmath>
#include <cstdint>
#include <string>

namespace te {
namespace {

constexpr std::string_view kAccumulate = " accumulate";
constexpr std::string_view kLd = " ld ";

struct Parts {
  std::string_view transposes;
  int64_t sizes[3] = {};    // m, n, k
  int64_t leading[4] = {};  // of a, b, c, d
  std::string rest;         // without kAccumulate
};

// Numbers with `separator` between them, from the front of `text`.
template <int kCount>
bool TakeNumbers(std::string_view* text, char separator, int64_t (&numbers)[kCount]) {
  for (int i = 0; i < kCount; ++i) {
    if (i > 0) {
      if (!text->starts_with(separator)) return false;
      text->remove_prefix(1);
    }
    const auto [end, error] =
        std::from_chars(text->data(), text->data() + text->size(), numbers[i]);
    if (error != std::errc() || numbers[i] <= 0) return false;
    text->remove_prefix(static_cast<size_t>(end - text->data()));
  }
  return true;
}

// "TN 4096x2048x4096 ld 4096,4096,4096,4096 bf16->bf16 accumulate batch ...".
std::optional<Parts> Parse(std::string_view key) {
  Parts parts;
  const size_t space = key.find(' ');
  if (space == std::string_view::npos) return std::nullopt;
  parts.transposes = key.substr(0, space);
  key.remove_prefix(space + 1);
  if (!TakeNumbers(&key, 'x', parts.sizes) || !key.starts_with(kLd)) return std::nullopt;
  key.remove_prefix(kLd.size());
  if (!TakeNumbers(&key, ',', parts.leading)) return std::nullopt;
  parts.rest = key;
  if (const size_t at = parts.rest.find(kAccumulate); at != std::string::npos)
    parts.rest.erase(at, kAccumulate.size());
  return parts;
}

}  // namespace

std::optional<double> LtDistance(std::string_view key, std::string_view other, LtTokens tokens) {
  const std::optional<Parts> a = Parse(key), b = Parse(other);
  if (!a || !b || a->transposes != b->transposes || a->rest != b->rest) return std::nullopt;
  const int dimension = static_cast<int>(tokens);
  for (int i = 0; i < 3; ++i)
    if (i != dimension && a->sizes[i] != b->sizes[i]) return std::nullopt;
  const int64_t ours = a->sizes[dimension], theirs = b->sizes[dimension];
  for (int i = 0; i < 4; ++i) {
    // Rows may be as long as that dimension.
    const bool follows = a->leading[i] == ours && b->leading[i] == theirs;
    if (a->leading[i] != b->leading[i] && !follows) return std::nullopt;
  }
  const double distance =
      std::abs(std::log2(static_cast<double>(ours) / static_cast<double>(theirs)));
  return distance <= 1 ? std::optional<double>(distance) : std::nullopt;
}

}  // namespace te
