#include "models/data/data_format.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>

namespace te {
namespace {

using namespace std::string_view_literals;

class DataFormatTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "/format_XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  StatusOr<DataFormat> Detect(const std::string& name, std::string_view bytes) {
    const std::string path = directory_ + "/" + name;
    std::ofstream(path, std::ios::binary) << bytes;
    StatusOr<DataInput> input = DataInput::Open(path);
    EXPECT_TRUE(input.ok()) << input.status().message();
    const StatusOr<DataFormat> format = DetectDataFormat(&input.value());
    // What was looked at stays to be read.
    EXPECT_EQ(input->ReadAll().value(), bytes);
    return format;
  }
  void ExpectFormat(DataFormat format, const std::string& name, std::string_view bytes) {
    const StatusOr<DataFormat> actual = Detect(name, bytes);
    ASSERT_TRUE(actual.ok()) << actual.status().message();
    EXPECT_EQ(Name(*actual), std::string(Name(format))) << name << ": " << bytes.substr(0, 200);
  }
  void ExpectRefused(const std::string& what, const std::string& name, std::string_view bytes) {
    const StatusOr<DataFormat> actual = Detect(name, bytes);
    ASSERT_FALSE(actual.ok()) << name << " " << bytes.substr(0, 200) << " is " << Name(*actual);
    EXPECT_EQ(actual.status().code(), StatusCode::kInvalidArgument);
    const std::string& message = actual.status().message();
    EXPECT_NE(message.find(what), std::string::npos) << message;
    EXPECT_TRUE(message.starts_with(directory_ + "/" + name + ": this is ")) << message;
    EXPECT_NE(message.find("--data reads JSON lines"), std::string::npos) << message;
    EXPECT_EQ(message.find('\n'), std::string::npos);
  }

  std::string directory_;
};

TEST_F(DataFormatTest, ContentDecidesWhateverTheName) {
  for (const char* name : {"a", "a.txt", "a.jsonl", "a.json", "a.data", "a.JSONL"}) {
    ExpectFormat(DataFormat::kJsonLines, name, "{\"text\": \"a\"}\n{\"text\": \"b\"}\n");
    ExpectFormat(DataFormat::kJsonLines, name, "\xef\xbb\xbf\n {\"text\": \"a\", \"n\": NaN}\n");
    ExpectFormat(DataFormat::kJsonLines, name, "{}");
    // A line longer than what is looked at.
    ExpectFormat(DataFormat::kJsonLines, name,
                 "{\"text\": \"" + std::string(200000, 'x') + "\"}\n");
    // A line that is wrong: its reader says where.
    ExpectFormat(DataFormat::kJsonLines, name, "{\"text\": nope}\n{\"text\": \"b\"}\n");
    ExpectFormat(DataFormat::kJsonLines, name, "{\"error\": 1, \"text\": \"a\"}\n");
  }
  for (const char* name : {"a", "a.txt", "a.md", "a.train"}) {
    ExpectFormat(DataFormat::kText, name, "Once there was a fox.\nMia\n");
    ExpectFormat(DataFormat::kText, name, "");
    ExpectFormat(DataFormat::kText, name, "\n \n");
    ExpectFormat(DataFormat::kText, name, "one line");
    ExpectFormat(DataFormat::kText, name, "\xef\xbb\xbfZ\u00fcrich\r\nGen\u00e8ve\r\n");
  }
  ExpectFormat(DataFormat::kSafetensors, "a.safetensors", "");
  ExpectFormat(DataFormat::kSafetensors, "a.safetensors", "no such thing");
  ExpectFormat(DataFormat::kSafetensors, "a.bin", "\x02\0\0\0\0\0\0\0{}"sv);
  ExpectFormat(DataFormat::kJsonLines, "a.jsonl", "text: a\n");
  ExpectFormat(DataFormat::kJsonLines, "a.jsonl", "");
}

TEST_F(DataFormatTest, TextMayLookLikeOtherThings) {
  for (const char* text : {
           "Roses are red, violets are blue,\nsugar is sweet, and so are you,\nthe end, my "
           "friend.\n",
           "Mia, Tom\nTom saw a fox, and Mia saw a bear.\nThey ran, and ran, and ran.\n",
           "[INST] Where does the fox live? [/INST] In the wood.\n[INST] Who? [/INST] Mia.\n",
           "[1] The first note.\n[2] The second note.\n",
           "[2024]\n[2025]\n",
           "{name} lives in {place}.\n{name} is old.\n",
           "{{user}} asks\n{{bot}} answers\n",
           "<s>Hello</s>\n<s>World</s>\n",
           "<user>Hi</user>\n<bot>Hello</bot>\n",
           "# Title\n\n- one\n- two\n\n| a | b |\n",
           "He said: \"Yes\", and went.\n\"No\", she said.\n\"Yes\", said he.\n",
           "12, 13 and 14 are numbers.\n15, 16 and 17 are, too.\n18, 19 and 20 as well.\n",
           "a;b\n",
           "Question\tAnswer of the fox.\nMore words\n",
           "key: value\nother: thing\n",
           "1\n2\n3\n",
           "Yes.\nNo.\nYes.\n",
           "int main() { return 0; }\n",
           "Dear Mia,\nI am here, at last.\nYours, Tom\n",
       }) {
    ExpectFormat(DataFormat::kText, "a.txt", text);
    ExpectFormat(DataFormat::kText, "a", text);
  }
}

TEST_F(DataFormatTest, TablesAreRefused) {
  for (const char* name : {"a.csv", "a.txt", "a", "a.tsv", "a.dat"}) {
    ExpectRefused("a table with the columns id, text, separated by commas", name,
                  "id,text\n1,\"animal 1 lives in the wood\"\n2,\"animal 2\"\n");
    ExpectRefused("separated by commas", name,
                  "text,label\nThe fox is here,1\nThe bear is not,0\n");
    ExpectRefused("separated by tabs", name, "question\tanswer\nWhere?\tIn the wood\n");
    ExpectRefused("separated by semicolons", name, "id;text\r\n1;one\r\n2;two\r\n");
    ExpectRefused("separated by bars", name, "id|text\n1|one\n2|two\n");
    // Without a header; a quoted field with a line end, a comma and quotes.
    ExpectRefused("a table of 2 columns, separated by commas", name,
                  "1,\"a, \"\"b\"\"\nc\"\n2,\"d\"\n3,\"e\"\n");
    ExpectRefused("a table of 2 columns", name, "1,cat\n2,dog\n3,fox\n");
    ExpectRefused("separated by commas", name, "\xef\xbb\xbfid,text\n1,one\n2,two\n");
  }
  // More than what is looked at, cut off within a field.
  std::string large = "id,text\n";
  while (large.size() < 200000) large += "7,\"a story of a fox, and a bear\"\n";
  ExpectRefused("a table", "a", large);
  // By the name alone.
  ExpectRefused("a table by its name (.csv)", "a.csv", "text\nOnce there was a fox.\n");
  ExpectRefused("a table by its name (.tsv)", "a.TSV", "Once there was a fox.\n");
}

TEST_F(DataFormatTest, JsonDocumentsAreRefused) {
  for (const char* name : {"a.json", "a.jsonl", "a.txt", "a"}) {
    ExpectRefused("one JSON array; --data", name, "[{\"text\": \"a\"}, {\"text\": \"b\"}]");
    ExpectRefused("one JSON array", name, "[\n  {\n    \"text\": \"a\"\n  }\n]\n");
    ExpectRefused("one JSON array", name, "[\"a\", \"b\"]\n");
    ExpectRefused("one JSON document over several lines", name,
                  "{\n  \"data\": [\n    {\"text\": \"a\"}\n  ]\n}\n");
    ExpectRefused("one JSON document over several lines", name,
                  "{\"version\": \"1\", \"data\": [\n{\"text\": \"a\"}]}\n");
  }
}

TEST_F(DataFormatTest, OtherProgramsFilesAreRefused) {
  for (const char* name : {"a.txt", "a", "a.jsonl"}) {
    ExpectRefused("compressed with gzip", name, "\x1f\x8b\x08\0\0\0\0\0\0\x03"sv);
    ExpectRefused("compressed with xz", name,
                  "\xfd"
                  "7zXZ\0\0\x04"sv);
    ExpectRefused("compressed with zstd", name, "\x28\xb5\x2f\xfd\x04"sv);
    ExpectRefused("compressed with bzip2", name, "BZh91AY&SY");
    ExpectRefused("a zip archive", name, "PK\x03\x04\x14\0\0\0\x08\0abcdefghijklmnopqrstuvwxyz"sv);
    ExpectRefused("a Parquet file", name, "PAR1\x15\x04\x15");
    ExpectRefused("an Arrow file", name, "ARROW1\0\0\x10"sv);
    ExpectRefused("a Python pickle", name, "\x80\x04\x95\x10\0\0\0\0\0\0\0]\x94."sv);
    ExpectRefused("an SQLite database", name, "SQLite format 3\0\x10\0"sv);
    ExpectRefused("a PDF document", name, "%PDF-1.7\n%\xe2\xe3\xcf\xd3\n");
    ExpectRefused("a NumPy array", name, "\x93NUMPY\x01\0v\0{'descr'"sv);
    ExpectRefused("an HTML page", name, "<!DOCTYPE html>\n<html><body>401</body></html>");
    ExpectRefused("an XML document", name, "<?xml version=\"1.0\"?>\n<a>b</a>\n");
    ExpectRefused("text in UTF-16", name, "\xff\xfeO\0n\0c\0e\0\n\0"sv);
    ExpectRefused("text in UTF-16", name, "O\0n\0c\0e\0 \0a\0 \0f\0o\0x\0\n\0"sv);
    ExpectRefused("a git-lfs pointer", name,
                  "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n");
    ExpectRefused("binary data", name, "\x01\x02\x03\x04 abc \x05"sv);
    ExpectRefused("binary data", name, "text, then zeros\0\0\0"sv);
    ExpectRefused("binary data", name, std::string(3000, 'a') + std::string("\0", 1) + "b");
  }
  for (const char* name : {"a.txt", "a"}) {
    ExpectRefused("an error message of a server", name, "Entry not found");
    ExpectRefused("RTF", name, "{\\rtf1\\ansi Once}");
  }
  ExpectRefused("a yaml file by its name", "a.yaml", "- text: a\n- text: b\n");
}

TEST(ParseDataFormatTest, KnowsTheNames) {
  EXPECT_EQ(ParseDataFormat("text").value(), DataFormat::kText);
  EXPECT_EQ(ParseDataFormat("jsonl").value(), DataFormat::kJsonLines);
  EXPECT_EQ(ParseDataFormat("safetensors").value(), DataFormat::kSafetensors);
  EXPECT_NE(ParseDataFormat("csv").status().message().find("expected text, jsonl or safetensors"),
            std::string::npos);
}

}  // namespace
}  // namespace te
