#include "tests/fuzz/mutate.h"

#include <algorithm>
#include <cstring>

namespace te::fuzz {
namespace {

// SplitMix64: its equation is public domain (Sebastiano Vigna).
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t Next() {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  size_t Below(size_t end) { return end == 0 ? 0 : static_cast<size_t>(Next() % end); }

 private:
  uint64_t state_;
};

constexpr const char* kWords[] = {"0",
                                  "-1",
                                  "1e999",
                                  "9223372036854775807",
                                  "18446744073709551616",
                                  "4294967296",
                                  "NaN",
                                  "null",
                                  "true",
                                  "[]",
                                  "{}",
                                  "\"\"",
                                  "[[[[[[[[",
                                  "\xef\xbb\xbf",
                                  "\xff",
                                  "\\ud800",
                                  "\n",
                                  ",",
                                  "../"};

// A number of 1, 2, 4 or 8 bytes at the edge of its range.
std::string Edge(Random* random) {
  constexpr uint64_t kEdges[] = {0,
                                 1,
                                 0x7f,
                                 0x80,
                                 0xff,
                                 0x7fff,
                                 0xffff,
                                 0x7fffffff,
                                 0xffffffff,
                                 0x7fffffffffffffff,
                                 0x8000000000000000,
                                 0xffffffffffffffff};
  const uint64_t value = kEdges[random->Below(std::size(kEdges))];
  std::string bytes(sizeof(value), '\0');
  std::memcpy(bytes.data(), &value, sizeof(value));
  bytes.resize(size_t{1} << random->Below(4));
  return bytes;
}

void ChangeOnce(std::string* text, const std::vector<std::string>& corpus, Random* random) {
  const size_t at = random->Below(text->size() + 1);
  const size_t left = text->size() - at;
  const size_t count = std::min(left, size_t{1} << random->Below(6));
  switch (random->Below(8)) {
    case 0:
      if (left > 0) (*text)[at] = static_cast<char>((*text)[at] ^ (1 << random->Below(8)));
      break;
    case 1:
      if (left > 0) (*text)[at] = static_cast<char>(random->Below(256));
      break;
    case 2:
      text->erase(at, count);
      break;
    case 3:
      text->insert(at, text->substr(at, count));
      break;
    case 4:
      text->insert(at, kWords[random->Below(std::size(kWords))]);
      break;
    case 5: {
      const std::string edge = Edge(random);
      text->replace(at, std::min(left, edge.size()), edge);
      break;
    }
    case 6: {
      const std::string& other = corpus[random->Below(corpus.size())];
      const size_t from = random->Below(other.size() + 1);
      text->replace(at, count, other.substr(from, size_t{1} << random->Below(6)));
      break;
    }
    default:
      if (random->Below(8) == 0) text->resize(at);
      break;
  }
}

}  // namespace

std::string Mutated(std::string_view seed, const std::vector<std::string>& corpus,
                    uint64_t number) {
  Random random(number * 1000003 + seed.size());
  std::string text(seed);
  const size_t changes = 1 + random.Below(4);
  for (size_t i = 0; i < changes; ++i) ChangeOnce(&text, corpus, &random);
  text.resize(std::min(text.size(), std::max(2 * seed.size(), seed.size() + 64)));
  return text;
}

}  // namespace te::fuzz
