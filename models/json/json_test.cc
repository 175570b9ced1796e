#include "models/json/json.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <limits>

namespace te {
namespace {

std::string Error(std::string_view text) {
  const StatusOr<JsonValue> value = ParseJson(text, "file.json");
  EXPECT_FALSE(value.ok()) << text;
  if (value.ok()) return "";
  EXPECT_EQ(value.status().code(), StatusCode::kCorruptData);
  return value.status().message();
}

TEST(Json, KindsOrderAndLookup) {
  const auto root = ParseJson(
      R"( {"z": null, "a": true, "i": -9223372036854775808, "d": 1e-05, "s": "\u00e9\n", "v": [1, 2.0, {}], "": []} )",
      "file.json");
  ASSERT_TRUE(root.ok()) << root.status().message();
  ASSERT_EQ(root->members().size(), 7u);
  EXPECT_EQ(root->members()[0].key, "z");
  EXPECT_EQ(root->members()[6].key, "");
  EXPECT_TRUE(root->Find("z")->is_null());
  EXPECT_TRUE(root->Find("a")->boolean());
  EXPECT_EQ(root->Find("i")->integer(), std::numeric_limits<int64_t>::min());
  EXPECT_EQ(root->Find("d")->number(), 1e-5);
  EXPECT_EQ(root->Find("s")->string(), "\xc3\xa9\n");
  EXPECT_EQ(root->Find("v")->array().size(), 3u);
  EXPECT_TRUE(root->Find("v")->array()[0].is_integer());
  EXPECT_FALSE(root->Find("v")->array()[1].is_integer());
  EXPECT_TRUE(root->Find("v")->array()[2].members().empty());
  EXPECT_TRUE(root->Find("")->array().empty());
  EXPECT_EQ(root->Find("absent"), nullptr);
  EXPECT_EQ(root->Find("v")->Find("a"), nullptr);
}

TEST(Json, NumbersThatDoNotFitInt64AreDoubles) {
  const auto root =
      ParseJson("[9223372036854775807, 9223372036854775808, 1000000000000000019884624838656]", "x");
  ASSERT_TRUE(root.ok());
  EXPECT_EQ(root->array()[0].integer(), std::numeric_limits<int64_t>::max());
  EXPECT_FALSE(root->array()[1].is_integer());
  EXPECT_EQ(root->array()[1].number(), 0x1p63);
  EXPECT_EQ(root->array()[2].number(), 1000000000000000019884624838656.0);
}

TEST(Json, ErrorsNameFileAndByte) {
  EXPECT_EQ(Error("{\"a\": 1,}").substr(0, 19), "file.json: byte 8: ");
  EXPECT_NE(Error("").find("empty"), std::string::npos);
  const auto line = ParseJsonLine("{\"text\": }", "data.jsonl", 17);
  ASSERT_FALSE(line.ok());
  EXPECT_EQ(line.status().message().substr(0, 23), "data.jsonl:17: byte 9: ");
}

TEST(Json, HostileTextsAreRefused) {
  EXPECT_NE(Error(R"({"a": 1, "b": 2, "a": 3})").find("\"a\" stands twice"), std::string::npos);
  EXPECT_NE(Error(R"({"x": {"k": 1, "\u006b": 2}})").find("\"k\" stands twice"), std::string::npos);
  EXPECT_NE(Error(std::string(1000000, '[')).find("nested deeper than 64"), std::string::npos);
  std::string objects;
  for (int i = 0; i < 100000; ++i) objects += "{\"a\":";
  EXPECT_NE(Error(objects).find("nested deeper than 64"), std::string::npos);
  for (const char* text :
       {"{} x", "{}{}", "[1,2", "{\"a\"}", "{'a': 1}", "nul", "[01]", "[1.]", "[NaN]", "[Infinity]",
        "[1e999]", "\"\\x\"", "\"tab\there\"", "// c\n{}", "\xef\xbb\xbf{}", "[1 2]", "[,]"}) {
    EXPECT_NE(Error(text), "") << text;
  }
  EXPECT_NE(Error(std::string_view("{}\0junk", 7)).find("NUL"), std::string::npos);
  EXPECT_NE(Error(std::string_view("\"a\0b\"", 5)), "");
}

TEST(Json, InvalidUtf8IsRefused) {
  for (const char* bad :
       {"\"\xff\"", "\"\xc0\x80\"", "\"\xc1\xbf\"", "\"\xe0\x80\x80\"", "\"\xed\xa0\x80\"",
        "\"\xf4\x90\x80\x80\"", "\"\xf5\x80\x80\x80\"", "\"\x80\"", "\"\xc3\"", "\"\xe2\x82\"",
        "\"\\ud800\"", "\"\\udc00\"", "\"\\ud800\\u0041\"", "{\"\xff\": 1}", "{\"\\udc00\": 1}"}) {
    EXPECT_NE(Error(bad), "") << bad;
  }
  for (const char* good :
       {"\"\xc2\x80\"", "\"\xe0\xa0\x80\"", "\"\xed\x9f\xbf\"", "\"\xee\x80\x80\"",
        "\"\xf0\x90\x80\x80\"", "\"\xf4\x8f\xbf\xbf\"", "\"\\ud83d\\ude00\""}) {
    EXPECT_TRUE(ParseJson(good, "x").ok()) << good;
  }
}

TEST(Json, WritingPreservesOrderAndContent) {
  const std::string text =
      "{\n  \"z\": [\n    1,\n    2.5,\n    \"\xc3\xa9\\n\\u0001\"\n  ],\n  \"a\": {\n    \"k\": "
      "null,\n    \"t\": false\n  },\n"
      "  \"e\": {},\n  \"n\": 0.1\n}";
  const auto value = ParseJson(text, "x");
  ASSERT_TRUE(value.ok());
  EXPECT_EQ(*WriteJson(*value), text);
  EXPECT_EQ(
      *WriteJsonLine(*value),
      "{\"z\":[1,2.5,\"\xc3\xa9\\n\\u0001\"],\"a\":{\"k\":null,\"t\":false},\"e\":{},\"n\":0.1}");
}

TEST(Json, DoublesSurviveTheRoundTripExactly) {
  std::srand(7);
  for (int i = 0; i < 20000; ++i) {
    uint64_t bits = 0;
    for (int k = 0; k < 5; ++k) bits = bits << 15 ^ static_cast<uint64_t>(std::rand());
    double number;
    static_assert(sizeof(number) == sizeof(bits));
    std::memcpy(&number, &bits, sizeof(bits));
    if (!(number - number == 0)) continue;
    const auto text = WriteJsonLine(JsonValue::Double(number));
    ASSERT_TRUE(text.ok());
    const auto back = ParseJson(*text, "x");
    ASSERT_TRUE(back.ok()) << *text;
    ASSERT_EQ(back->number(), number) << *text;
  }
  EXPECT_FALSE(WriteJson(JsonValue::Double(std::numeric_limits<double>::infinity())).ok());
}

TEST(Json, WithReplacesInPlaceOrAppends) {
  const JsonValue value = *ParseJson(R"({"a":1,"b":2})", "x");
  EXPECT_EQ(*WriteJsonLine(value.With("a", JsonValue::String("x"))), R"({"a":"x","b":2})");
  EXPECT_EQ(*WriteJsonLine(value.With("c", JsonValue())), R"({"a":1,"b":2,"c":null})");
  EXPECT_EQ(*WriteJsonLine(value.Without("a")), R"({"b":2})");
  EXPECT_EQ(*WriteJsonLine(value), R"({"a":1,"b":2})");
}

TEST(Json, ToStringIsOneShortLine) {
  EXPECT_EQ(ParseJson("{\"a\": [1, null]}")->ToString(), "{\"a\":[1,null]}");
  EXPECT_EQ(JsonValue::String(std::string(1000, 'x')).ToString().size(), 203u);
  EXPECT_EQ(ParseJson("x").status().message().substr(0, 8), "byte 0: ");
}

TEST(Json, ReadsFilesWithinTheirBound) {
  const std::string path = testing::TempDir() + "/json_test.json";
  std::ofstream(path) << R"({"a": [1]})";
  const auto value = ReadJsonFile(path);
  ASSERT_TRUE(value.ok()) << value.status().message();
  EXPECT_EQ(value->Find("a")->array()[0].integer(), 1);
  EXPECT_NE(ReadJsonFile(path, 9).status().message().find("at most 9"), std::string::npos);
  EXPECT_EQ(ReadJsonFile(path + ".absent").status().code(), StatusCode::kNotFound);
  EXPECT_NE(ReadJsonFile(testing::TempDir()).status().message().find("not a regular file"),
            std::string::npos);
}

}  // namespace
}  // namespace te
