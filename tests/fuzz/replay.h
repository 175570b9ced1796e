// Runs a fuzz target over its corpus and changed inputs, without a fuzzer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace te::fuzz {

using Target = int (*)(const uint8_t* data, size_t size);

struct ReplayOptions {
  std::vector<std::pair<std::string, std::string>> corpus;  // names and bytes
  int mutations = 100;                                      // of each input of the corpus
  int seconds_an_input = 20;                                // of the processor's time
  std::string keep_finding_in;  // a folder; empty: the input is not kept
};

// Runs the target in a process of its own, which ends with it: empty, or one line that says which
// input ended it and how.
std::string Replay(Target target, const ReplayOptions& options);

}  // namespace te::fuzz
