#include "models/json/json.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
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

TEST(Json, NumbersThatDoNotFitInt64HaveTheNearestDouble) {
  const auto root =
      ParseJson("[9223372036854775807, 9223372036854775808, 1000000000000000019884624838656]", "x");
  ASSERT_TRUE(root.ok());
  EXPECT_EQ(root->array()[0].integer(), std::numeric_limits<int64_t>::max());
  EXPECT_FALSE(root->array()[1].is_integer());
  EXPECT_TRUE(root->array()[1].is_number());
  EXPECT_EQ(root->array()[1].number(), 0x1p63);
  EXPECT_EQ(root->array()[2].number(), 1000000000000000019884624838656.0);
}

TEST(Json, ErrorsNameFileLineColumnAndWord) {
  const struct {
    const char* text;
    const char* message;
  } cases[] = {
      {"{\"a\": 1,}", "file.json: line 1, column 8: a comma before '}'; expected another member"},
      {"{\n  \"a\": nan\n}",
       "file.json: line 2, column 8: expected a value, found nan (the words are null, true, false, "
       "NaN, Infinity and -Infinity)"},
      {"", "file.json: line 1, column 1: the text is empty"},
      {" \n\n ", "file.json: line 3, column 2: the text is empty"},
      {"[\"\u00e9\u20ac\", x]", "file.json: line 1, column 8: expected a value, found x"},
      {"\xef\xbb\xbf{]", "file.json: line 1, column 2: expected a key in double quotes, found ]"},
      {"[1 2]", "column 4: expected ',' or ']', found 2"},
      {"{} trailing", "column 4: expected nothing after the value, found trailing"},
      {"{\"a\" 1}", "column 6: expected ':' after key \"a\", found 1"},
      {"{a: 1}", "column 2: expected a key in double quotes, found a"},
      {"{'a': 1}", "column 2: expected a key in double quotes, found '"},
      {"[None]", "found None (in JSON it is null)"},
      {"[True]", "found True (in JSON it has a small letter)"},
      {"{\"a\": 1 // c\n}", "column 9: expected ',' or '}', found /"},
      {"# c", "found # (JSON has no comments)"},
      {"[01]", "column 2: 01 is not a number as JSON writes one"},
      {"[-]", "column 2: - is not a number"},
      {"[1.]", "1. is not a number"},
      {"[1e]", "1e is not a number"},
      {"[.5]", "expected a value, found .5"},
      {"[0x10]", "0x10 is not a number"},
      {"[1_000]", "1_000 is not a number"},
      {"[-NaN]", "-NaN is not a number"},
      {"[-inf]", "-inf is not a number"},
      {"[Inf]", "expected a value, found Inf (the words are"},
      {"[+1]", "expected a value, found +1"},
      {"[1,2", "column 5: expected ',' or ']', found the end of the text (cut off?)"},
      {"{\"abc", "column 2: a string without an end (cut off?)"},
      {"[\"tab\there\"]", "column 6: a control character (\\t) in a string"},
      {"[\"\\x\"]", "column 3: \\x is no escape of JSON"},
      {"[\"\\u12g4\"]", "column 3: \\u12g4 is no escape of JSON"},
      {"[\x1b]", "expected a value, found \\u001b"},
      {"[\"\xff\"]", "column 3: byte 0xff, which is not UTF-8"},
      {"{\"a\": 1,\n \"b\": 2, \"a\": 3}",
       "line 2, column 10: key \"a\" stands twice in one object"},
  };
  for (const auto& test : cases) {
    EXPECT_NE(Error(test.text).find(test.message), std::string::npos)
        << test.text << "\n  " << Error(test.text) << "\n  " << test.message;
  }
  const auto line = ParseJsonLine("{\"text\": }", "data.jsonl", 17);
  ASSERT_FALSE(line.ok());
  EXPECT_EQ(line.status().message(), "data.jsonl: line 17, column 10: expected a value, found }");
  // What a file holds neither fills a screen nor moves its cursor.
  EXPECT_LT(Error("[" + std::string(100000, 'x') + "]").size(), 200u);
}

// Of the texts, those that Python 3's json.loads takes, and what it makes of them.
TEST(Json, TakesWhatPythonTakes) {
  const double inf = std::numeric_limits<double>::infinity();
  const struct {
    std::string text;
    double number;
  } cases[] = {{"Infinity", inf},
               {"-Infinity", -inf},
               {"1e999", inf},
               {"-1e999", -inf},
               {"1e99999999999999999999999", inf},
               {"1e-999", 0},
               {"0e99999999999999999999999", 0},
               {"0.00000000000000000000000000001e325", 1e296},
               {"123456789e-99999999999999999999", 0},
               {"1" + std::string(400, '0'), inf},
               {"-1" + std::string(400, '0'), -inf},
               {"0." + std::string(400, '0') + "1", 0},
               {"5e-324", 5e-324},
               {"1.7976931348623157e308", 1.7976931348623157e308},
               {"18446744073709551616", 0x1p64},
               {"-0", 0}};
  for (const auto& test : cases) {
    const auto value = ParseJson(test.text);
    ASSERT_TRUE(value.ok()) << test.text << ": " << value.status().message();
    ASSERT_TRUE(value->is_number());
    EXPECT_EQ(value->number(), test.number) << test.text;
  }
  EXPECT_TRUE(std::isnan(ParseJson("NaN")->number()));
  EXPECT_TRUE(std::signbit(ParseJson("-0.0")->number()));
  EXPECT_TRUE(std::signbit(ParseJson("-1e-999")->number()));
  EXPECT_NE(Error(std::string(5000, '7')).find("an integer of 5000 digits; at most 4300"),
            std::string::npos);
  EXPECT_EQ(ParseJson("\xef\xbb\xbf [true]")->array().size(), 1u);
  const std::string deep = std::string(kMaxJsonDepth, '[') + std::string(kMaxJsonDepth, ']');
  const auto nested = ParseJson(deep);
  ASSERT_TRUE(nested.ok()) << nested.status().message();
  EXPECT_EQ(*WriteJsonLine(*nested), deep);
}

TEST(Json, WritesBackWhatPythonHolds) {
  for (const std::string text :
       {R"([NaN,Infinity,-Infinity,1.5])", R"([18446744073709551616,-99999999999999999999999999])",
        R"({"\ud800":"a\udfffb\"\\\u0001"})", R"(["\ud83dx\udc00"])"}) {
    const auto value = ParseJson(text);
    ASSERT_TRUE(value.ok()) << value.status().message();
    EXPECT_EQ(*WriteJsonLine(*value), text);
  }
  // A whole pair is one character, written as such.
  EXPECT_EQ(*WriteJsonLine(*ParseJson(R"("\ud83d\ude00")")), "\"\xf0\x9f\x98\x80\"");
  EXPECT_EQ(ParseJson(R"("\ud83d\ude00")")->string(), "\xf0\x9f\x98\x80");
  EXPECT_FALSE(IsValidUtf8(ParseJson(R"("\ud83d")")->string()));
}

TEST(Json, HostileTextsAreRefused) {
  EXPECT_NE(Error(R"({"x": {"k": 1, "\u006b": 2}})").find("\"k\" stands twice"), std::string::npos);
  EXPECT_NE(Error(std::string(1000000, '[')).find("nested deeper than 1000"), std::string::npos);
  std::string objects;
  for (int i = 0; i < 100000; ++i) objects += "{\"a\":";
  EXPECT_NE(Error(objects).find("nested deeper than 1000"), std::string::npos);
  for (const char* text : {"{}{}", "{\"a\"}", "nul", "[,]", "[", "{", "\"", "\"\\", "\"\\u", "-",
                           "\xef\xbb\xbf", "\xef\xbb\xbf\xef\xbb\xbf{}", "]", "[}", "{\"a\":1]"}) {
    EXPECT_NE(Error(text), "") << text;
  }
  EXPECT_NE(Error(std::string_view("{}\0junk", 7)).find("found \\u0000"), std::string::npos);
  EXPECT_NE(Error(std::string_view("\"a\0b\"", 5)).find("control character"), std::string::npos);
}

TEST(Json, InvalidUtf8IsRefused) {
  for (const char* bad : {"\"\xff\"", "\"\xc0\x80\"", "\"\xc1\xbf\"", "\"\xe0\x80\x80\"",
                          "\"\xed\xa0\x80\"", "\"\xf4\x90\x80\x80\"", "\"\xf5\x80\x80\x80\"",
                          "\"\x80\"", "\"\xc3\"", "\"\xe2\x82\"", "{\"\xff\": 1}"}) {
    EXPECT_NE(Error(bad).find("which is not UTF-8"), std::string::npos) << bad;
  }
  for (const char* good :
       {"\"\xc2\x80\"", "\"\xe0\xa0\x80\"", "\"\xed\x9f\xbf\"", "\"\xee\x80\x80\"",
        "\"\xf0\x90\x80\x80\"", "\"\xf4\x8f\xbf\xbf\"", "\"\\ud83d\\ude00\""}) {
    EXPECT_TRUE(ParseJson(good, "x").ok()) << good;
  }
}

TEST(Json, PrintableIsOneHarmlessLine) {
  EXPECT_EQ(Printable("a\nb\r\t\x1b[2J\x7f\xc2\x9b\xff\u00e9"),
            "a\\nb\\r\\t\\u001b[2J\\u007f\\u009b\\xff\u00e9");
  EXPECT_EQ(Printable("\u20ac\u20ac\u20ac", 4), "\u20ac\u20ac...");
  EXPECT_EQ(Printable("abcd", 4), "abcd");
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
  EXPECT_EQ(ParseJson("x").status().message().substr(0, 18), "line 1, column 1: ");
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

TEST(Json, AFileThatIsNoJsonIsSaidToBeWhatItIs) {
  const std::string path = testing::TempDir() + "/json_test_kinds.json";
  const auto error = [&](std::string_view bytes) {
    std::ofstream(path, std::ios::binary) << bytes;
    return ReadJsonFile(path).status().message();
  };
  EXPECT_NE(error("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 581\n")
                .find(path + ": expected JSON; this is a git-lfs pointer"),
            std::string::npos);
  EXPECT_NE(error("<!DOCTYPE html><html><body>401</body></html>").find("this is an HTML page"),
            std::string::npos);
  EXPECT_NE(error("\x1f\x8b\x08").find("compressed with gzip"), std::string::npos);
  EXPECT_NE(error({"\xff\xfe{\0}\0", 6}).find("UTF-16"), std::string::npos);
  EXPECT_NE(error("").find("this is an empty file"), std::string::npos);
  EXPECT_NE(error(std::string_view("\0\0\0\0", 4)).find("zero bytes"), std::string::npos);
  EXPECT_NE(error("Entry not found").find("error message of a server"), std::string::npos);
  // JSON that breaks off, and another language, do have a line.
  EXPECT_NE(error("{\n\"a\": ").find("line 2, column 6: expected a value, found the end"),
            std::string::npos);
  EXPECT_NE(
      error("hidden_size: 64\n").find("line 1, column 1: expected a value, found hidden_size"),
      std::string::npos);
}

}  // namespace
}  // namespace te
