// The main function of a fuzz target in the ordinary build: replays the files named in its
// arguments.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>

#include "tests/fuzz/replay.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

int main(int argc, char** argv) {
  te::fuzz::ReplayOptions options;
  for (int i = 1; i < argc; ++i) {
    std::ifstream file(argv[i], std::ios::binary);
    if (!file) {
      std::fprintf(stderr, "%s: could not be read\n", argv[i]);
      return 2;
    }
    options.corpus.emplace_back(argv[i], std::string(std::istreambuf_iterator<char>(file), {}));
  }
  if (options.corpus.empty()) {
    std::fprintf(stderr, "usage: %s FILE...\n", argv[0]);
    return 2;
  }
  for (const char* variable : {"TEST_UNDECLARED_OUTPUTS_DIR", "TEST_TMPDIR"}) {
    const char* folder = std::getenv(variable);
    if (folder != nullptr && options.keep_finding_in.empty()) options.keep_finding_in = folder;
  }
  const std::string finding = te::fuzz::Replay(LLVMFuzzerTestOneInput, options);
  if (!finding.empty()) std::fprintf(stderr, "FOUND: %s\n", finding.c_str());
  std::printf("%zu inputs of the corpus, %d changed ones of each\n", options.corpus.size(),
              options.mutations);
  return finding.empty() ? 0 : 1;
}
