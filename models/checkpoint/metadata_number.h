// Numbers in a safetensors header's metadata, which holds text alone.
#pragma once

#include <charconv>
#include <limits>
#include <string>
#include <type_traits>

#include "te_kernels/base/status.h"

namespace te {

// Counts, which go on counting, end far from where their type ends; seeds and the like (unsigned)
// may be anything.
template <typename T>
constexpr T kLargestMetadataNumber = std::is_signed_v<T> ? std::numeric_limits<T>::max() / 2
                                                         : std::numeric_limits<T>::max();

// Decimal digits and nothing else. kCorruptData quotes `text`; *out is then as it was.
template <typename T>
Status ParseMetadataNumber(const std::string& text, T* out) {
  const char* end = text.data() + text.size();
  T value = 0;
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || stop != end || value < 0 || value > kLargestMetadataNumber<T>) {
    return CorruptData("is \"{}\"; expected a whole number from 0 to {}", text,
                       kLargestMetadataNumber<T>);
  }
  *out = value;
  return OkStatus();
}

}  // namespace te
