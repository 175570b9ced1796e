// Changes to a fuzz target's input that are the same in every run: what the ordinary tests try
// beside the corpus. libFuzzer does this better, where clang is at hand.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace te::fuzz {

// Input `number` that is made of `seed` and of the other inputs of the corpus: bytes are changed,
// taken out, doubled, set to numbers at the edges, or taken from another input. At most 64 bytes
// longer than the seed, or twice as long.
std::string Mutated(std::string_view seed, const std::vector<std::string>& corpus, uint64_t number);

}  // namespace te::fuzz
