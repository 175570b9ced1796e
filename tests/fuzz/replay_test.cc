// The replay must see what ends a target, or no fuzz target's test could fail.
#include "tests/fuzz/replay.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "tests/fuzz/fuzzing.h"
#include "tests/fuzz/mutate.h"

namespace te::fuzz {
namespace {

std::string_view Text(const uint8_t* data, size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

ReplayOptions Corpus(std::vector<std::string> inputs, int mutations = 0) {
  ReplayOptions options;
  for (size_t i = 0; i < inputs.size(); ++i)
    options.corpus.emplace_back(fmt::format("input{}", i), std::move(inputs[i]));
  options.mutations = mutations;
  options.seconds_an_input = 1;
  options.keep_finding_in = testing::TempDir();
  return options;
}

std::string Kept() {
  std::ifstream file(testing::TempDir() + "/finding", std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

TEST(Replay, RunsEveryInput) {
  EXPECT_EQ(Replay([](const uint8_t*, size_t) { return 0; }, Corpus({"a", "", "b"}, 50)), "");
}

TEST(Replay, NamesAndKeepsTheInputThatEndsTheTarget) {
  const Target target = [](const uint8_t* data, size_t size) {
    if (Text(data, size) == "bad") std::abort();
    return 0;
  };
  const std::string finding = Replay(target, Corpus({"good", "bad"}));
  EXPECT_TRUE(finding.starts_with("input1: ended by signal 6")) << finding;
  EXPECT_EQ(Kept(), "bad");
}

TEST(Replay, FindsByMutation) {
  const Target target = [](const uint8_t* data, size_t size) {
    if (Text(data, size).find('#') != std::string_view::npos) std::abort();
    return 0;
  };
  const std::string finding = Replay(target, Corpus({"aaaa"}, 20000));
  EXPECT_NE(finding.find("input0, mutation "), std::string::npos) << finding;
  EXPECT_NE(Kept().find('#'), std::string::npos);
}

TEST(Replay, EndsATargetThatDoesNotEnd) {
  const Target target = [](const uint8_t*, size_t size) {
    for (volatile bool on = true; on && size == 1;) {
    }
    return 0;
  };
  const std::string finding = Replay(target, Corpus({"aa", "a"}));
  EXPECT_TRUE(finding.starts_with("input1: took more than 1 s")) << finding;
}

TEST(Replay, SeesCodesAndReadsBeyondNothing) {
  const Target exits = [](const uint8_t*, size_t) -> int { std::_Exit(3); };
  const std::string finding = Replay(exits, Corpus({"a"}));
  EXPECT_TRUE(finding.starts_with("input0: ended with code 3")) << finding;
}

TEST(MemoryBound, GrowsWithTheInputAlone) {
  const Target target = [](const uint8_t* data, size_t size) {
    const MemoryBound bound(size, {.base = 100'000, .factor = 2});
    const std::vector<char> held(std::stoul(std::string(Text(data, size))));
    // Memory that was given back does not count.
    for (int i = 0; i < 10; ++i) std::make_unique<char[]>(50'000)[i] = 1;
    return 0;
  };
  EXPECT_EQ(Replay(target, Corpus({"40000"})), "");
  const std::string finding = Replay(target, Corpus({"40000", "140000"}));
  EXPECT_TRUE(finding.starts_with("input1: ended by signal 6")) << finding;
}

TEST(CheckRefusal, WantsOnePrintableLine) {
  CheckRefusal(OkStatus());
  CheckRefusal(CorruptData("line 1: \xc3\xa4"));
  EXPECT_DEATH(CheckRefusal(Internal("a bug")), "an internal error");
  EXPECT_DEATH(CheckRefusal(Status(StatusCode::kCorruptData, "")), "without a message");
}

TEST(Mutated, IsTheSameInEveryRunAndBounded) {
  const std::vector<std::string> corpus = {"first input", "second"};
  std::vector<std::string> all;
  for (uint64_t i = 0; i < 200; ++i) {
    all.push_back(Mutated(corpus[0], corpus, i));
    EXPECT_EQ(all.back(), Mutated(corpus[0], corpus, i));
    EXPECT_LE(all.back().size(), corpus[0].size() + 64);
  }
  std::sort(all.begin(), all.end());
  all.erase(std::unique(all.begin(), all.end()), all.end());
  EXPECT_GT(all.size(), 150u);
}

TEST(Files, ArePartsOfAnInput) {
  const MemoryFolder folder;
  UnpackFiles("left out\n=== a.json\n{}\n\n=== b\n\n=== c/d\nnot written", folder);
  const auto read = [&](const std::string& name) {
    std::ifstream file(folder.path() + "/" + name, std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(file), {});
  };
  EXPECT_EQ(read("a.json"), "{}\n");
  EXPECT_EQ(read("b"), "");
  EXPECT_FALSE(std::ifstream(folder.path() + "/c").is_open());
  MemoryFile file;
  file.Set("longer text");
  file.Set("text");
  std::ifstream in(file.path(), std::ios::binary);
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(in), {}), "text");
}

}  // namespace
}  // namespace te::fuzz
