#include "te_core/layers/rotary_position_embedding.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "te_core/layers/testdata/rotary_expected.h"
#include "te_kernels/testing/host_tensor.h"
#include "te_kernels/testing/near.h"

namespace te {
namespace {

using test::Disturbed;
using test::FailsWith;
using test::Near;
using test::ToDoubles;

class RotaryPositionEmbeddingTest : public testing::Test {
 protected:
  void SetUp() override {
    auto context = Context::Create({.num_threads = 1});
    ASSERT_TRUE(context.ok()) << context.status().message();
    context_ = std::move(context).value();
  }
  std::unique_ptr<RotaryPositionEmbedding> Make(const RotaryOptions& options) {
    auto rotary = RotaryPositionEmbedding::Create(context_.get(), options);
    EXPECT_TRUE(rotary.ok()) << rotary.status().message();
    return std::move(rotary).value();
  }

  std::unique_ptr<Context> context_;
};

std::vector<double> Doubles(const std::vector<float>& values) {
  return {values.begin(), values.end()};
}

TEST_F(RotaryPositionEmbeddingTest, FrequenciesAndTablesEqualHuggingFace) {
  for (const RotaryExpected& e : kRotaryExpected) {
    SCOPED_TRACE(e.name);
    auto rotary = Make(e.options);
    const auto frequencies = rotary->FrequenciesFor(e.length);
    EXPECT_FLOAT_EQ(frequencies.attention_factor, e.attention_factor);
    const int64_t columns = rotary->rotary_dim() / 2;
    // Each side rounds about eight times (pow, reciprocal, interpolation); llama3's and yarn's
    // differences of near numbers keep that relative to the larger term.
    std::vector<double> tolerance;
    for (float f : e.inverse_frequencies) tolerance.push_back(8 * 0x1p-24 * f);
    const std::vector<double> want = Doubles(e.inverse_frequencies);
    EXPECT_TRUE(Near(Doubles(frequencies.inverse), want, tolerance));
    EXPECT_FALSE(Near(Doubles(frequencies.inverse),
                      Disturbed(want, columns - 1, 4 * tolerance[columns - 1]), tolerance));

    auto table = rotary->Table(e.length);
    ASSERT_TRUE(table.ok()) << table.status().message();
    EXPECT_EQ(table->cos.shape(), (Shape{e.length, columns}));
    EXPECT_EQ(table->sin.shape(), (Shape{e.length, columns}));
    std::vector<double> cos, sin, table_tolerance;
    for (const int64_t row : e.rows) {
      for (int64_t r = 0; r < columns; ++r) {
        cos.push_back(table->cos.as<float>()[row * columns + r]);
        sin.push_back(table->sin.as<float>()[row * columns + r]);
        // The header's bound: the angle's error moves the function by as much.
        const double angle = static_cast<double>(row) * e.inverse_frequencies[r];
        table_tolerance.push_back(0x1p-21 * (1 + angle) * e.attention_factor);
      }
    }
    EXPECT_TRUE(Near(cos, Doubles(e.cos), table_tolerance));
    EXPECT_TRUE(Near(sin, Doubles(e.sin), table_tolerance));
    const auto last = static_cast<int64_t>(cos.size()) - 1;
    EXPECT_FALSE(
        Near(cos, Disturbed(Doubles(e.cos), last, 3 * table_tolerance[last]), table_tolerance));
    EXPECT_FALSE(
        Near(sin, Disturbed(Doubles(e.sin), last, 3 * table_tolerance[last]), table_tolerance));
  }
}

// Each field moves the frequencies or the attention factor of the types that use it.
TEST_F(RotaryPositionEmbeddingTest, NoFieldIsIgnoredByTheTypeThatHasIt) {
  const auto result = [&](const RotaryOptions& options) {
    const auto frequencies = Make(options)->FrequenciesFor(2000);
    std::vector<double> out = Doubles(frequencies.inverse);
    out.push_back(frequencies.attention_factor);
    return out;
  };
  RotaryOptions base = {.dim = 32, .max_position_embeddings = 1024};
  base.scaling = {.factor = 4, .original_max_position_embeddings = 512};
  const auto differs = [&](RopeType type, const auto& change) {
    RotaryOptions before = base;
    before.scaling.type = type;
    RotaryOptions after = before;
    change(after);
    return result(before) != result(after);
  };
  using Options = RotaryOptions&;
  for (const RopeType type :
       {RopeType::kLinear, RopeType::kDynamic, RopeType::kLlama3, RopeType::kYarn}) {
    EXPECT_TRUE(differs(type, [](Options o) { o.scaling.factor = 3; }));
    EXPECT_TRUE(differs(type, [](Options o) { o.rotary_base = 5000; }));
    EXPECT_TRUE(differs(type, [](Options o) { o.rotary_percent = 0.5; }));
    EXPECT_TRUE(differs(type, [](Options o) { o.scaling.type = RopeType::kDefault; }));
  }
  EXPECT_TRUE(differs(RopeType::kDynamic, [](Options o) { o.max_position_embeddings = 512; }));
  for (const RopeType type : {RopeType::kLlama3, RopeType::kYarn}) {
    EXPECT_TRUE(
        differs(type, [](Options o) { o.scaling.original_max_position_embeddings = 2048; }));
    // Absent, it is max_position_embeddings.
    EXPECT_TRUE(differs(type, [](Options o) { o.scaling.original_max_position_embeddings = 0; }));
    EXPECT_FALSE(differs(type, [](Options o) {
      o.scaling.original_max_position_embeddings = 0;
      o.max_position_embeddings = 512;
    }));
  }
  EXPECT_TRUE(differs(RopeType::kLlama3, [](Options o) { o.scaling.low_freq_factor = 2; }));
  EXPECT_TRUE(differs(RopeType::kLlama3, [](Options o) { o.scaling.high_freq_factor = 8; }));
  EXPECT_TRUE(differs(RopeType::kYarn, [](Options o) { o.scaling.beta_fast = 4; }));
  EXPECT_TRUE(differs(RopeType::kYarn, [](Options o) { o.scaling.beta_slow = 0.1; }));
  EXPECT_TRUE(differs(RopeType::kYarn, [](Options o) { o.scaling.attention_factor = 2; }));
  EXPECT_TRUE(differs(RopeType::kYarn, [](Options o) { o.scaling.truncate = false; }));
  EXPECT_TRUE(differs(RopeType::kYarn, [](Options o) {
    o.scaling.mscale = 1;
    o.scaling.mscale_all_dim = 2;
  }));
  EXPECT_FALSE(differs(RopeType::kYarn, [](Options o) { o.scaling.mscale = 2; }))
      << "alone it is unused";
}

TEST_F(RotaryPositionEmbeddingTest, PartialRotationAndInterleavingAreReported) {
  auto rotary = Make({.dim = 20, .rotary_percent = 0.4, .interleaved = true});
  EXPECT_EQ(rotary->rotary_dim(), 8);
  auto table = rotary->Table(5);
  ASSERT_TRUE(table.ok());
  EXPECT_TRUE(table->interleaved);
  EXPECT_EQ(table->cos.shape(), (Shape{5, 4}));
}

TEST_F(RotaryPositionEmbeddingTest, TablesAreCachedAndGrowWithoutMovingOldOnes) {
  auto rotary = Make({.dim = 16});
  const RotaryTable first = *rotary->Table(10);
  const std::vector<double> before = ToDoubles(first.cos);
  const auto allocations = [&] { return context_->memory_statistics().allocations; };
  const int64_t held = allocations();
  EXPECT_EQ(rotary->Table(7)->cos.data(), first.cos.data());
  EXPECT_EQ(rotary->Table(7)->cos.dim(0), 7);
  EXPECT_EQ(allocations(), held);
  const RotaryTable grown = *rotary->Table(1000);
  EXPECT_GT(allocations(), held);
  EXPECT_EQ(ToDoubles(first.cos), before) << "a view given out stays valid";
  EXPECT_EQ(ToDoubles(grown.cos.Slice(0, 0, 10)), before);
  const int64_t grown_allocations = allocations();
  EXPECT_EQ(rotary->Table(10)->cos.data(), grown.cos.data());
  EXPECT_EQ(allocations(), grown_allocations);
  EXPECT_EQ(rotary->Table(0)->cos.dim(0), 0);
}

TEST_F(RotaryPositionEmbeddingTest, AGrownTableHasEachRowOfTheLengthThatItCameWith) {
  for (const RopeType type : {RopeType::kDynamic, RopeType::kLinear}) {
    auto rotary =
        Make({.dim = 16, .max_position_embeddings = 8, .scaling = {.type = type, .factor = 2}});
    const auto row = [](const RotaryTable& table, int64_t p) {
      const float* cos = table.cos.as<float>() + p * 8;
      const float* sin = table.sin.as<float>() + p * 8;
      std::vector<float> values(cos, cos + 8);
      values.insert(values.end(), sin, sin + 8);
      return values;
    };
    // Within the maximum, across it, and beyond it from the first token on; then another sequence.
    for (const int64_t first : {3, 8, 11, 5}) {
      for (const int64_t length : {first, first + 1, first + 6, first + 9}) {
        const RotaryTable grown = rotary->GrownTable(first, length).value();
        ASSERT_EQ(grown.cos.shape()[0], length);
        for (int64_t p = 0; p < length; ++p) {
          const std::vector<float> actual = row(grown, p);
          EXPECT_EQ(actual, row(rotary->Table(std::max(first, p + 1)).value(), p))
              << first << " " << length << " " << p;
        }
      }
    }
    EXPECT_FALSE(rotary->GrownTable(5, 4).ok());
  }
}

TEST_F(RotaryPositionEmbeddingTest, DynamicTablesDependOnTheLengthBeyondTheMaximum) {
  auto rotary = Make({.dim = 16,
                      .max_position_embeddings = 64,
                      .scaling = {.type = RopeType::kDynamic, .factor = 2}});
  auto plain = Make({.dim = 16});
  EXPECT_EQ(ToDoubles(rotary->Table(64)->cos), ToDoubles(plain->Table(64)->cos));
  const RotaryTable at_100 = *rotary->Table(100);
  const std::vector<double> values = ToDoubles(at_100.cos);
  EXPECT_NE(values, ToDoubles(plain->Table(100)->cos));
  EXPECT_NE(ToDoubles(rotary->Table(200)->cos.Slice(0, 0, 100)), values);
  EXPECT_EQ(rotary->Table(100)->cos.data(), at_100.cos.data()) << "cached";
  // The short table is as it was, however long the sequences before it.
  EXPECT_EQ(ToDoubles(rotary->Table(64)->cos), ToDoubles(plain->Table(64)->cos));
  // A bounded cache: generation asks for each length once.
  const size_t bytes = context_->memory_statistics().bytes;
  for (int64_t length = 300; length < 400; ++length) ASSERT_TRUE(rotary->Table(length).ok());
  const size_t largest = 2 * (400 * 8 * sizeof(float) + 256);
  EXPECT_LE(context_->memory_statistics().bytes,
            bytes + RotaryPositionEmbedding::kMaxTables * largest);
  EXPECT_EQ(ToDoubles(rotary->Table(100)->cos), values);
}

TEST_F(RotaryPositionEmbeddingTest, RefusesWhatTheContractDoesNotTake) {
  const auto check = [&](const RotaryOptions& options, const char* part) {
    EXPECT_TRUE(FailsWith(RotaryPositionEmbedding::Create(context_.get(), options).status(),
                          StatusCode::kInvalidArgument, part));
  };
  check({.dim = 0}, "dim is 0");
  check({.dim = 7}, "7 rotated elements");
  check({.dim = 16, .rotary_percent = 0}, "rotary_percent is 0");
  check({.dim = 16, .rotary_percent = 1.5}, "rotary_percent is 1.5");
  check({.dim = 16, .rotary_base = 0}, "rotary_base is 0");
  check({.dim = 16, .rotary_base = std::nan("")}, "rotary_base is nan");
  check({.dim = 16, .scaling = {.type = RopeType::kLinear, .factor = 0}}, "factor is 0");
  check({.dim = 16, .scaling = {.type = RopeType::kDynamic}}, "max_position_embeddings is 0");
  check({.dim = 2, .max_position_embeddings = 8, .scaling = {.type = RopeType::kDynamic}},
        "more than 2");
  check({.dim = 16, .scaling = {.type = RopeType::kLlama3}},
        "original_max_position_embeddings is 0");
  check({.dim = 16,
         .scaling = {.type = RopeType::kLlama3,
                     .low_freq_factor = 4,
                     .original_max_position_embeddings = 8}},
        "high_freq_factor is 4");
  check({.dim = 16, .scaling = {.type = RopeType::kYarn}}, "original_max_position_embeddings is 0");
  check({.dim = 16,
         .max_position_embeddings = 8,
         .scaling = {.type = RopeType::kYarn, .beta_fast = 0}},
        "beta_fast is 0");
  check({.dim = 16,
         .max_position_embeddings = 8,
         .scaling = {.type = RopeType::kYarn, .attention_factor = -1}},
        "attention_factor is -1");
  check(
      {.dim = 16, .max_position_embeddings = 8, .scaling = {.type = RopeType::kYarn, .mscale = -1}},
      "mscale is -1");
  check({.dim = 16,
         .rotary_base = 1,
         .max_position_embeddings = 8,
         .scaling = {.type = RopeType::kYarn}},
        "rotary_base is 1");
  check({.dim = 16, .scaling = {.type = static_cast<RopeType>(9)}}, "rope type is 9");
  auto rotary = Make({.dim = 16});
  EXPECT_TRUE(FailsWith(rotary->Table(-1).status(), StatusCode::kInvalidArgument, "length is -1"));
  EXPECT_TRUE(FailsWith(rotary->Table((int64_t{1} << 24) + 1).status(),
                        StatusCode::kInvalidArgument, "length is 16777217"));
}

}  // namespace
}  // namespace te
