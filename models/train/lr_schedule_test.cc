// Expected rates: transformers 5.23 schedulers over torch.optim.AdamW(lr=2e-3), 12 steps.
#include "models/train/lr_schedule.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace te {
namespace {

using Table = std::vector<double>;

Table Rates(LrScheduleKind kind, int64_t warmup, int64_t steps) {
  const LrSchedule schedule{
      .kind = kind, .learning_rate = 2e-3, .warmup_steps = warmup, .steps = steps};
  Table out;
  for (int64_t k = 0; k < 12; ++k) out.push_back(schedule.At(k));
  return out;
}

// One multiplication may be rounded in another order than there: a few units in the last place of
// the peak.
void ExpectRates(const Table& actual, const Table& expected) {
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t k = 0; k < actual.size(); ++k)
    EXPECT_NEAR(actual[k], expected[k], 4 * 2.2e-16 * 2e-3) << "update " << k;
}

const Table kWarmupLinear = {0,      0.0005,  0.001, 0.0015,  0.002,  0.00175,
                             0.0015, 0.00125, 0.001, 0.00075, 0.0005, 0.00025};

TEST(LrSchedule, LinearEqualsTransformers) {
  ExpectRates(Rates(LrScheduleKind::kLinear, 4, 12), kWarmupLinear);
  ExpectRates(Rates(LrScheduleKind::kLinear, 0, 12),
              {0.002, 0.0018333333333333333, 0.0016666666666666668, 0.0015, 0.0013333333333333333,
               0.0011666666666666668, 0.001, 0.00083333333333333339, 0.00066666666666666664, 0.0005,
               0.00033333333333333332, 0.00016666666666666666});
}

TEST(LrSchedule, CosineEqualsTransformers) {
  ExpectRates(Rates(LrScheduleKind::kCosine, 4, 12),
              {0, 0.0005, 0.001, 0.0015, 0.002, 0.0019238795325112869, 0.0017071067811865474,
               0.0013826834323650899, 0.001, 0.00061731656763491024, 0.00029289321881345256,
               7.6120467488713264e-05});
}

TEST(LrSchedule, ConstantEqualsTransformers) {
  ExpectRates(Rates(LrScheduleKind::kConstant, 4, 12),
              {0, 0.0005, 0.001, 0.0015, 0.002, 0.002, 0.002, 0.002, 0.002, 0.002, 0.002, 0.002});
}

TEST(LrSchedule, AWarmupLongerThanTheRunOnlyRises) {
  for (LrScheduleKind kind :
       {LrScheduleKind::kLinear, LrScheduleKind::kCosine, LrScheduleKind::kConstant}) {
    const Table rates = Rates(kind, 100, 15);
    for (int k = 0; k < 12; ++k) EXPECT_DOUBLE_EQ(rates[k], 2e-3 * k / 100);
  }
}

TEST(LrSchedule, TheTablesDiffer) {  // the comparisons above could fail
  EXPECT_NE(Rates(LrScheduleKind::kCosine, 4, 12), kWarmupLinear);
  EXPECT_NE(Rates(LrScheduleKind::kLinear, 5, 12), kWarmupLinear);
}

TEST(LrSchedule, PeakIsTheLargestRateOfTheRun) {
  for (LrScheduleKind kind :
       {LrScheduleKind::kLinear, LrScheduleKind::kCosine, LrScheduleKind::kConstant}) {
    for (int64_t warmup : {0, 1, 4, 11, 12, 100}) {
      for (int64_t steps : {1, 2, 12}) {
        const LrSchedule schedule{
            .kind = kind, .learning_rate = 2e-3, .warmup_steps = warmup, .steps = steps};
        double largest = 0;
        for (int64_t k = 0; k < steps; ++k) largest = std::max(largest, schedule.At(k));
        EXPECT_EQ(schedule.Peak(), largest) << Name(kind) << " " << warmup << " of " << steps;
      }
    }
  }
  EXPECT_EQ((LrSchedule{.steps = 0}).Peak(), 0);
  EXPECT_DOUBLE_EQ(LrSchedule{}.Peak(), 1.41e-5 * 14 / 100);  // the tutorial's
}

TEST(LrSchedule, NamesParse) {
  EXPECT_EQ(ParseLrScheduleKind("cosine").value(), LrScheduleKind::kCosine);
  EXPECT_NE(ParseLrScheduleKind("step").status().message().find("linear, cosine or constant"),
            std::string::npos);
}

}  // namespace
}  // namespace te
