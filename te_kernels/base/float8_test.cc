// The conversions against tables that another implementation made (float8_tables.h says which):
// every code, every bfloat16, and float32 at and beside every tie, subnormals included.
#include "te_kernels/base/float8.h"

#include <cmath>
#include <iterator>
#include <vector>

#include "gtest/gtest.h"
#include "te_kernels/base/dtype.h"
#include "te_kernels/base/float8_tables.h"

namespace te {
namespace {

using float8_tables::Pair;

struct Format {
  const char* name;
  uint8_t (*encode)(float);
  float (*decode)(uint8_t);
  std::vector<uint32_t> values;  // float32 bits
  std::vector<Pair> runs;        // of bfloat16 bits, in their order
  uint32_t runs_end;
  std::vector<Pair> ties;  // of float32 bits
};

template <typename T, size_t kCount>
std::vector<T> Copy(const T (&array)[kCount]) {
  return {std::begin(array), std::end(array)};
}

std::vector<Format> Formats() {
  using namespace float8_tables;
  return {
      {"E4M3", FloatToFloat8E4M3Bits, Float8E4M3BitsToFloat, Copy(kE4M3Values), Copy(kE4M3Runs),
       65536, Copy(kE4M3Ties)},
      {"E5M2", FloatToFloat8E5M2Bits, Float8E5M2BitsToFloat, Copy(kE5M2Values), Copy(kE5M2Runs),
       65536, Copy(kE5M2Ties)},
      {"E2M1", FloatToFloat4E2M1Bits, Float4E2M1BitsToFloat, Copy(kE2M1Values), Copy(kE2M1Runs),
       65536, Copy(kE2M1Ties)},
      {"E8M0", FloatToE8M0Bits, E8M0BitsToFloat, Copy(kE8M0Values), Copy(kE8M0Runs), 32768,
       Copy(kE8M0Ties)},
  };
}

// How many numbers differ from the tables; a NaN's bits do not matter.
int64_t Differences(const Format& format) {
  int64_t differences = 0;
  for (size_t code = 0; code < format.values.size(); ++code) {
    const float want = std::bit_cast<float>(format.values[code]);
    const float got = format.decode(static_cast<uint8_t>(code));
    const bool same =
        std::isnan(want) ? std::isnan(got) : std::bit_cast<uint32_t>(got) == format.values[code];
    differences += same ? 0 : 1;
  }
  for (size_t i = 0; i < format.runs.size(); ++i) {
    const uint32_t end = i + 1 < format.runs.size() ? format.runs[i + 1].input : format.runs_end;
    for (uint32_t bits = format.runs[i].input; bits < end; ++bits) {
      const float value = BFloat16BitsToFloat(static_cast<uint16_t>(bits));
      differences += format.encode(value) == format.runs[i].code ? 0 : 1;
    }
  }
  for (const Pair& tie : format.ties) {
    differences += format.encode(std::bit_cast<float>(tie.input)) == tie.code ? 0 : 1;
  }
  return differences;
}

TEST(Float8Test, EqualsTheTables) {
  for (const Format& format : Formats()) {
    EXPECT_EQ(format.runs[0].input, 0u);
    EXPECT_EQ(Differences(format), 0) << format.name;
  }
}

TEST(Float8Test, ADisturbedTableShows) {
  for (const Format& format : Formats()) {
    for (const size_t at : {size_t{1}, format.values.size() / 3}) {
      Format other = format;
      other.values[at] ^= 1;
      EXPECT_EQ(Differences(other), 1) << format.name << " value " << at;
    }
    for (const size_t at : {size_t{0}, format.runs.size() / 2}) {
      Format other = format;
      other.runs[at].code ^= 1;
      EXPECT_GT(Differences(other), 0) << format.name << " run " << at;
      other = format;
      other.runs[at + 1].input += 1;
      EXPECT_GT(Differences(other), 0) << format.name << " end of run " << at;
    }
    Format other = format;
    other.ties[format.ties.size() / 2].code ^= 1;
    EXPECT_EQ(Differences(other), 1) << format.name;
  }
}

TEST(Float8Test, LookUpTablesHoldTheValues) {
  for (int i = 0; i < 256; ++i) {
    const auto code = static_cast<uint8_t>(i);
    const auto same = [](float a, float b) { return a == b || (std::isnan(a) && std::isnan(b)); };
    EXPECT_TRUE(same(kFloat8E4M3Values[i], Float8E4M3BitsToFloat(code))) << i;
    EXPECT_TRUE(same(kFloat8E5M2Values[i], Float8E5M2BitsToFloat(code))) << i;
    if (i < 16) {
      EXPECT_TRUE(same(kFloat4E2M1Values[i], Float4E2M1BitsToFloat(code))) << i;
    }
  }
}

TEST(Float8Test, StochasticRoundingGoesUpAsOftenAsTheDistanceSays) {
  constexpr int kDraws = 4096;
  const float values[] = {0.0f, 0.125f, 0.5f, 0.625f, 1.25f, 2.75f, 4.5f, 5.5f, 6.0f, 100.0f};
  for (const float value : values) {
    for (const float sign : {1.0f, -1.0f}) {
      double sum = 0;
      for (int i = 0; i < kDraws; ++i) {
        const float uniform = static_cast<float>(i) / kDraws;
        sum += Float4E2M1BitsToFloat(FloatToFloat4E2M1Bits(sign * value, uniform));
      }
      // The draws are equally spaced and the distances multiples of 1 / 4: no tolerance.
      EXPECT_EQ(sum / kDraws, sign * std::fmin(value, 6.0f)) << value;
    }
  }
  EXPECT_EQ(FloatToFloat4E2M1Bits(std::nanf(""), 0.5f), 0x7);
  EXPECT_EQ(FloatToFloat4E2M1Bits(-INFINITY, 0.5f), 0xf);
}

static_assert(FloatToFloat8E4M3Bits(448.0f) == 0x7e && FloatToFloat8E4M3Bits(1e9f) == 0x7e);
static_assert(FloatToFloat8E5M2Bits(-57344.0f) == 0xfb && FloatToFloat8E5M2Bits(-1e9f) == 0xfb);

}  // namespace
}  // namespace te
