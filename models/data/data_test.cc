#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <numeric>

#include "models/checkpoint/safetensors.h"
#include "models/data/dataset.h"
#include "models/data/sampler.h"

namespace te {
namespace {

using Ids = std::vector<int32_t>;
using Mask = std::vector<uint8_t>;

class DataTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "/data_XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
    StatusOr<std::unique_ptr<Tokenizer>> tokenizer = LoadTokenizer("models/demo/checkpoint");
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status().message();
    tokenizer_ = std::move(tokenizer).value();
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  std::string Write(const std::string& name, const std::string& bytes) {
    std::ofstream(directory_ + "/" + name, std::ios::binary) << bytes;
    return directory_ + "/" + name;
  }
  DatasetOptions Options() {
    return {
        .max_sequence_length = 256, .vocab_size = 640, .tokenizer = tokenizer_.get(), .pad_id = 2};
  }
  StatusOr<std::unique_ptr<Dataset>> Open(const std::string& path) { return Open(path, Options()); }
  StatusOr<std::unique_ptr<Dataset>> Open(const std::string& path, const DatasetOptions& options) {
    StatusOr<DataInput> input = DataInput::Open(path);
    EXPECT_TRUE(input.ok()) << input.status().message();
    const StatusOr<DataFormat> format = DetectDataFormat(&input.value());
    EXPECT_TRUE(format.ok()) << format.status().message();
    return OpenDataset(std::move(input).value(), format.value(), options);
  }
  std::string Error(const std::string& path) { return Error(path, Options()); }
  std::string Error(const std::string& path, const DatasetOptions& options) {
    const auto dataset = Open(path, options);
    EXPECT_FALSE(dataset.ok());
    return dataset.ok() ? "" : dataset.status().message();
  }
  // Safetensors of int64 tensors.
  struct Named {
    std::string name;
    Shape shape;
    std::vector<int64_t> values;
  };
  std::string WriteTensors(const std::vector<Named>& tensors) {
    std::vector<SafetensorsItem> items;
    for (const Named& tensor : tensors) {
      items.push_back(
          HostItem(tensor.name, ConstTensorView(tensor.values.data(), DType::kInt64, tensor.shape))
              .value());
    }
    const std::string path = directory_ + "/ids.safetensors";
    const Status status = WriteSafetensors(path, items, {}, /*replace=*/true);
    EXPECT_TRUE(status.ok()) << status.message();
    return path;
  }

  std::string directory_;
  std::unique_ptr<Tokenizer> tokenizer_;
};

// Expected: transformers 5.23, DataCollatorForLanguageModeling(tokenizer, mlm=False,
// pad_to_multiple_of=16) over tokenizer(text, truncation=True, max_length=12), padding_side right,
// pad_token = eos_token; and with pad_token <unk>.
TEST_F(DataTest, BatchesAreThoseOfHuggingFacesCollator) {
  const std::string path = Write("data.jsonl", R"({"text": "Once there was a fox."}
{"text": "Mia"}
{"other": 1, "text": "The old brave bear ate honey and mice and flies."}
)");
  for (int32_t pad : {2, 0}) {
    DatasetOptions options = Options();
    options.max_sequence_length = 12;
    options.pad_id = pad;
    const auto dataset = Open(path, options);
    ASSERT_TRUE(dataset.ok()) << dataset.status().message();
    ASSERT_EQ((*dataset)->size(), 3);
    std::vector<Sample> samples;
    for (int64_t i = 0; i < 3; ++i) samples.push_back((*dataset)->At(i).value());
    EXPECT_EQ((*dataset)->truncated(), 1);
    const Batch batch = Collate(samples, {.pad_id = pad});
    EXPECT_EQ(batch.batch, 3);
    EXPECT_EQ(batch.sequence, 16);
    const int32_t p = pad, x = kIgnoredLabel, e = pad == 2 ? x : 2;
    EXPECT_EQ(batch.input_ids,
              (Ids{1, 324, 294, 274, 261, 529, 605, 2,   p,   p,   p,   p, p, p, p, p,  //
                   1, 362, 2,   p,   p,   p,   p,   p,   p,   p,   p,   p, p, p, p, p,  //
                   1, 314, 426, 449, 332, 507, 488, 593, 526, 271, 520, 2, p, p, p, p}));
    EXPECT_EQ(batch.labels,
              (Ids{1, 324, 294, 274, 261, 529, 605, e,   x,   x,   x,   x, x, x, x, x,  //
                   1, 362, e,   x,   x,   x,   x,   x,   x,   x,   x,   x, x, x, x, x,  //
                   1, 314, 426, 449, 332, 507, 488, 593, 526, 271, 520, e, x, x, x, x}));
    EXPECT_EQ(batch.attention_mask, (Mask{1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0,  //
                                          1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,  //
                                          1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0}));
    EXPECT_EQ(batch.AttendedTokens(), 23);
  }
}

TEST_F(DataTest, PaddingIsToTheNextMultiple) {
  for (size_t length : {1, 15, 16, 17, 32}) {
    const Sample sample{Ids(length, 5), Ids(length, 5), Mask(length, 1)};
    EXPECT_EQ(Collate(std::vector<Sample>{sample}, {}).sequence,
              static_cast<int64_t>((length + 15) / 16 * 16));
    EXPECT_EQ(Collate(std::vector<Sample>{sample}, {.pad_to_multiple_of = 1}).sequence,
              static_cast<int64_t>(length));
  }
}

TEST_F(DataTest, PlainTextIsASampleALine) {
  const auto dataset = Open(Write("data.txt", "\xef\xbb\xbfOnce there was a fox.\r\n\r\n   \nMia"));
  ASSERT_TRUE(dataset.ok());
  ASSERT_EQ((*dataset)->size(), 2);
  EXPECT_EQ((*dataset)->At(0)->input_ids, (Ids{1, 324, 294, 274, 261, 529, 605, 2}));
  EXPECT_EQ((*dataset)->At(1)->input_ids, (Ids{1, 362, 2}));
}

TEST_F(DataTest, TextErrorsNameFileAndLine) {
  EXPECT_NE(
      Error(Write("a.jsonl", "{\"text\": \"a\"}\n{\"body\": \"b\", \"id\": 1}\n"))
          .find("a.jsonl:2: no field \"text\"; the line has: body, id; choose with --text-field"),
      std::string::npos);
  EXPECT_NE(
      Error(Write("a.jsonl", "\n{\"text\": 3}\n")).find("a.jsonl:2: field \"text\" is integer"),
      std::string::npos);
  EXPECT_NE(Error(Write("a.jsonl", "{\"text\": \"a\"}\n{\"text\": "))
                .find("a.jsonl: line 2, column 10: expected a value"),
            std::string::npos);
  EXPECT_NE(Error(Write("a.jsonl", "{\"text\": \"a\"}\n7"))
                .find("a.jsonl:2: integer; expected an object"),
            std::string::npos);
  EXPECT_NE(Error(Write("a.jsonl", "{\"text\": \"a\\ud83d\"}"))
                .find("a.jsonl:1: field \"text\" has half"),
            std::string::npos);
  EXPECT_NE(Error(Write("a.txt", "fine\nbad \xff\n")).find("a.txt:2: not valid UTF-8"),
            std::string::npos);
  EXPECT_NE(Error(Write("a.txt", " \n\n")).find("no samples"), std::string::npos);
  DatasetOptions options = Options();
  options.vocab_size = 500;
  const auto dataset = Open(Write("a.txt", "Mia\nOnce there was a fox."), options);
  EXPECT_TRUE((*dataset)->Prepare(std::vector<int64_t>{0}).ok());
  const Status status = (*dataset)->Prepare(std::vector<int64_t>{1});
  EXPECT_NE(
      status.message().find("a.txt:2: the tokenizer gives id 529, the model has ids below 500"),
      std::string::npos);
}

TEST_F(DataTest, CountsWhatAUserShouldHearOf) {
  const auto dataset = Open(Write("a.txt", "Mia\nMia </s>a<s></s>\nOnce there was a fox.\n"));
  ASSERT_TRUE(dataset.ok());
  EXPECT_TRUE((*dataset)->special_texts().empty());
  EXPECT_EQ((*dataset)->longest(), 0);
  ASSERT_TRUE((*dataset)->Prepare(std::vector<int64_t>{2}).ok());
  EXPECT_EQ((*dataset)->longest(), 8);
  EXPECT_EQ((*dataset)->pad_labels(), 1);  // the eos, which is the pad token of these options
  EXPECT_TRUE((*dataset)->special_texts().empty());
  ASSERT_TRUE((*dataset)->Prepare(std::vector<int64_t>{0, 1, 1}).ok());
  const std::vector<SpecialText> special = (*dataset)->special_texts();
  ASSERT_EQ(special.size(), 2u);
  EXPECT_EQ(special[0].text, "<s>");
  EXPECT_EQ(special[0].count, 1);
  EXPECT_EQ(special[1].text, "</s>");
  EXPECT_EQ(special[1].count, 2);
  EXPECT_EQ(special[1].line, 2);
  EXPECT_EQ((*dataset)->pad_labels(), 3);
  DatasetOptions options = Options();
  options.pad_id = 0;
  const auto other = Open(Write("b.txt", "Mia\n"), options);
  ASSERT_TRUE((*other)->Prepare(std::vector<int64_t>{0}).ok());
  EXPECT_EQ((*other)->pad_labels(), 0);
  // Padding at the end of given ids is not of a sample's length.
  const auto ids = Open(WriteTensors({{"input_ids", {2, 4}, {8, 9, 2, 2, 8, 9, 9, 2}},
                                      {"attention_mask", {2, 4}, {1, 1, 0, 0, 1, 0, 1, 0}}}));
  ASSERT_TRUE((*ids)->Prepare(std::vector<int64_t>{0}).ok());
  EXPECT_EQ((*ids)->longest(), 2);
  ASSERT_TRUE((*ids)->Prepare(std::vector<int64_t>{0, 1}).ok());
  EXPECT_EQ((*ids)->longest(), 3);
}

TEST_F(DataTest, AnotherTextField) {
  DatasetOptions options = Options();
  options.text_field = "body";
  const auto dataset = Open(Write("a.jsonl", R"({"text": 1, "body": "Mia"})"), options);
  ASSERT_TRUE(dataset.ok());
  EXPECT_EQ((*dataset)->At(0)->input_ids, (Ids{1, 362, 2}));
}

TEST_F(DataTest, TokenIdsAreTakenAsTheyAre) {
  const std::string path = WriteTensors({{"input_ids", {2, 3}, {5, 6, 7, 8, 9, 2}},
                                         {"labels", {2, 3}, {-100, 6, 7, 8, -100, -100}},
                                         {"attention_mask", {2, 3}, {1, 1, 1, 1, 0, 0}},
                                         {"logits", {1}, {0}}});
  const auto dataset = Open(path);
  ASSERT_TRUE(dataset.ok()) << dataset.status().message();
  const Sample second = (*dataset)->At(1).value();
  EXPECT_EQ(second.input_ids, (Ids{8, 9, 2}));
  EXPECT_EQ(second.labels, (Ids{8, -100, -100}));
  EXPECT_EQ(second.attention_mask, (Mask{1, 0, 0}));
  DatasetOptions options = Options();
  options.max_sequence_length = 2;
  const auto cut = Open(path, options);
  EXPECT_EQ((*cut)->At(0)->labels, (Ids{-100, 6}));
  EXPECT_EQ((*cut)->truncated(), 2);
  // Without labels: the ids, where the mask keeps them.
  const auto unlabelled =
      Open(WriteTensors({{"input_ids", {1, 3}, {8, 9, 2}}, {"attention_mask", {1, 3}, {1, 1, 0}}}));
  EXPECT_EQ((*unlabelled)->At(0)->labels, (Ids{8, 9, -100}));
}

TEST_F(DataTest, TokenErrorsNameTheElement) {
  EXPECT_NE(Error(WriteTensors({{"ids", {1, 1}, {1}}})).find("no tensor input_ids"),
            std::string::npos);
  EXPECT_NE(Error(WriteTensors({{"input_ids", {3}, {1, 2, 3}}}))
                .find("input_ids is I64 [3]; expected [N, S]"),
            std::string::npos);
  EXPECT_NE(Error(WriteTensors({{"input_ids", {1, 0}, {}}})).find("expected [N, S] with N, S >= 1"),
            std::string::npos);
  EXPECT_NE(Error(WriteTensors({{"input_ids", {1, 2}, {1, 640}}}))
                .find("input_ids[0, 1] is 640; the model has ids 0 to 639"),
            std::string::npos);
  EXPECT_NE(Error(WriteTensors({{"input_ids", {1, 2}, {1, -1}}})).find("input_ids[0, 1] is -1"),
            std::string::npos);
  EXPECT_NE(Error(WriteTensors({{"input_ids", {1, 2}, {1, int64_t{1} << 40}}})).find("input_ids"),
            std::string::npos);
  EXPECT_NE(Error(WriteTensors({{"input_ids", {1, 2}, {1, 2}}, {"labels", {1, 2}, {1, -7}}}))
                .find("labels[0, 1] is -7"),
            std::string::npos);
  EXPECT_NE(Error(WriteTensors({{"input_ids", {1, 2}, {1, 2}}, {"labels", {2, 1}, {1, 1}}}))
                .find("labels is I64 [2, 1]; expected the shape of input_ids, [1, 2]"),
            std::string::npos);
  EXPECT_NE(Error(WriteTensors({{"input_ids", {1, 2}, {1, 2}}, {"attention_mask", {1, 2}, {1, 2}}}))
                .find("attention_mask[0, 1] is 2"),
            std::string::npos);
  const float values[] = {1, 2};
  const std::string path = directory_ + "/float.safetensors";
  const std::vector<SafetensorsItem> items = {
      HostItem("input_ids", ConstTensorView(values, DType::kFloat32, {1, 2})).value()};
  ASSERT_TRUE(WriteSafetensors(path, items, {}, true).ok());
  EXPECT_NE(Error(path).find("input_ids is F32 [1, 2]; expected I32 or I64"), std::string::npos);
}

TEST(BatchSampler, DropLastLeavesTheRestOfAnEpochOut) {
  BatchSampler sampler = BatchSampler::Create({.samples = 7, .batch_size = 3}).value();
  EXPECT_EQ(sampler.Batch(0), (std::vector<int64_t>{0, 1, 2}));
  EXPECT_EQ(sampler.Batch(1), (std::vector<int64_t>{3, 4, 5}));
  EXPECT_EQ(sampler.Batch(2), (std::vector<int64_t>{0, 1, 2}));
}

TEST(BatchSampler, WithoutDropLastEpochsFollowWithoutASeam) {
  BatchSampler sampler =
      BatchSampler::Create({.samples = 2, .batch_size = 3, .drop_last = false}).value();
  EXPECT_EQ(sampler.Batch(0), (std::vector<int64_t>{0, 1, 0}));
  EXPECT_EQ(sampler.Batch(1), (std::vector<int64_t>{1, 0, 1}));
}

TEST(BatchSampler, ShuffleIsAPermutationByEpochAndSeed) {
  const SamplerOptions options{.samples = 50, .batch_size = 10, .shuffle = true, .seed = 3};
  BatchSampler sampler = BatchSampler::Create(options).value();
  std::vector<int64_t> epochs[3];
  for (int64_t batch = 0; batch < 15; ++batch) {
    const auto part = sampler.Batch(batch);
    epochs[batch / 5].insert(epochs[batch / 5].end(), part.begin(), part.end());
  }
  std::vector<int64_t> all(50);
  std::iota(all.begin(), all.end(), 0);
  for (const auto& epoch : epochs) {
    EXPECT_NE(epoch, all);
    auto sorted = epoch;
    std::sort(sorted.begin(), sorted.end());
    EXPECT_EQ(sorted, all);
  }
  EXPECT_NE(epochs[0], epochs[1]);
  // A batch is a function of its number: no matter what was asked before.
  BatchSampler again = BatchSampler::Create(options).value();
  EXPECT_EQ(again.Batch(14), sampler.Batch(14));
  EXPECT_EQ(again.Batch(0), sampler.Batch(0));
  SamplerOptions other = options;
  other.seed = 4;
  EXPECT_NE(BatchSampler::Create(other)->Batch(0), again.Batch(0));
}

TEST(BatchSampler, ImpossibleOptionsAreRefused) {
  EXPECT_NE(BatchSampler::Create({.samples = 3, .batch_size = 8})
                .status()
                .message()
                .find("--batch-size 3 or less"),
            std::string::npos);
  EXPECT_FALSE(BatchSampler::Create({.samples = 0, .batch_size = 1}).ok());
  EXPECT_FALSE(BatchSampler::Create({.samples = 1, .batch_size = 0}).ok());
}

}  // namespace
}  // namespace te
