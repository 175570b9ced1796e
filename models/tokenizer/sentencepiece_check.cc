#include "models/tokenizer/sentencepiece_check.h"

#include <cstdint>
#include <cstring>
#include <vector>

#include "models/json/utf8.h"
#include "models/tokenizer/wire_format.h"

namespace te {
namespace {

// Darts-clone's units: https://github.com/s-yata/darts-clone, DoubleArrayUnit.
bool HasLeaf(uint32_t unit) { return (unit >> 8 & 1) != 0; }
uint32_t ValueOf(uint32_t unit) { return unit & 0x7fffffffu; }
uint32_t LabelOf(uint32_t unit) { return unit & (0x80000000u | 0xffu); }
uint32_t OffsetOf(uint32_t unit) { return (unit >> 10) << ((unit & 0x200u) >> 6); }

// Follows every path that some text may take; its next byte may be any.
Status CheckTrie(const std::vector<uint32_t>& units, size_t strings) {
  if (units.empty()) return CorruptData("a trie without a unit");
  std::vector<bool> seen(units.size());
  std::vector<uint32_t> left = {OffsetOf(units[0])};
  while (!left.empty()) {
    const uint32_t base = left.back();
    left.pop_back();
    // The 256 units that a byte leads to are those with the same upper bits.
    if ((base | 0xffu) >= units.size()) {
      return CorruptData("a step of its trie leads to unit {} of {}", base | 0xffu, units.size());
    }
    if (seen[base]) continue;
    seen[base] = true;
    for (uint32_t byte = 0; byte < 256; ++byte) {
      const uint32_t at = base ^ byte;
      if (LabelOf(units[at]) != byte) continue;
      const uint32_t next = at ^ OffsetOf(units[at]);
      if (HasLeaf(units[at])) {
        if (next >= units.size())
          return CorruptData("a value of its trie is unit {} of {}", next, units.size());
        if (ValueOf(units[next]) >= strings)
          return CorruptData("a value of its trie is string byte {} of {}", ValueOf(units[next]),
                             strings);
      }
      left.push_back(next);
    }
  }
  return OkStatus();
}

// The trie's size in bytes, the trie, and strings that end in NUL.
Status CheckCharsMap(std::string_view blob) {
  if (blob.empty()) return OkStatus();
  uint32_t trie_bytes = 0;
  if (blob.size() <= sizeof(trie_bytes)) return CorruptData("{} bytes", blob.size());
  std::memcpy(&trie_bytes, blob.data(), sizeof(trie_bytes));
  blob.remove_prefix(sizeof(trie_bytes));
  if (trie_bytes >= blob.size())
    return CorruptData("a trie of {} bytes, {} are left", trie_bytes, blob.size());
  const std::string_view strings = blob.substr(trie_bytes);
  if (strings.back() != '\0') return CorruptData("its last string does not end");
  if (!IsValidUtf8(strings)) return CorruptData("its strings are not UTF-8");
  std::vector<uint32_t> units(trie_bytes / sizeof(uint32_t));
  if (!units.empty()) std::memcpy(units.data(), blob.data(), units.size() * sizeof(uint32_t));
  return CheckTrie(units, strings.size());
}

// A NormalizerSpec.
Status CheckNormalizer(std::string_view message) {
  constexpr uint64_t kPrecompiledCharsMap = 2;
  WireReader fields(message);
  WireField field;
  while (true) {
    TE_ASSIGN_OR_RETURN(const bool more, fields.Next(&field));
    if (!more) return OkStatus();
    if (field.number == kPrecompiledCharsMap)
      TE_RETURN_IF_ERROR(CheckCharsMap(field.bytes).WithContext("precompiled_charsmap"));
  }
}

}  // namespace

Status CheckSentencePieceModel(std::string_view model) {
  constexpr uint64_t kNormalizer = 3, kDenormalizer = 5;  // of ModelProto
  WireReader fields(model);
  WireField field;
  while (true) {
    TE_ASSIGN_OR_RETURN(const bool more, fields.Next(&field));
    if (!more) return OkStatus();
    if (field.number == kNormalizer || field.number == kDenormalizer)
      TE_RETURN_IF_ERROR(CheckNormalizer(field.bytes));
  }
}

}  // namespace te
